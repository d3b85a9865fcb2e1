"""Trials as series: each axis of a study is x, the order of a line, colour and shape, or panels.

Trials that differ only in their seed are one mark at their mean; every mark names its runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from analysis.charts import style
from analysis.charts.grammar import Chart, Mark, Series, Ticks, axis, bar_of
from analysis.charts.style import Look
from analysis.statistics.estimates import INTERVALS, Interval, SeedEstimate
from analysis.statistics.groups import (
    SEMANTIC_WEIGHT,
    Group,
    choose_interval,
    seed_of,
    short,
    show,
)
from analysis.statistics.usual import prevailing, usual_note
from analysis.store.runs import origin
from analysis.tables.notes import protocol_marks
from gigatok.names import (
    GUIDANCE_PREFIX,
    METRICS,
    PARAM_TOKENIZER,
    PARAMETERS,
    TRAIN_PREFIX,
    FigureChoice,
    quantity,
)

# Two points are always joined by a straight line, whatever is true between them.
MIN_SIZES_FOR_LINE = 3
"""Fewer sizes, or sizes of one seed each, would draw a trend out of chance."""
UNNAMED = "runs"
"""Name of a series of which nothing but the size is known."""
MOST_PANELS = 6
"""Values of a third axis up to which each has a panel of its own."""
STEP = "step"
"""Key of an x axis of training steps."""
SCALE = GUIDANCE_PREFIX + "cfg_scale"
"""Key of an x axis of the scales of a guidance search."""
ENCODER, DECODER = "tokenizer.encoder", "tokenizer.decoder"
SIZE_OF = {
    DECODER: "params_decoder",
    ENCODER: "params_encoder",
    PARAM_TOKENIZER: "params_tokenizer",
    "generator.size": "params_generator",
}
"""Axes of sizes, and the parameters that they stand for; lines follow the first of them."""


@dataclass(frozen=True)
class Encoding:
    """Parts of a chart that show the axes of a study.

    Attributes:
        x: metric or config key.
        along: axis whose order lines follow; "" where nothing varies.
        by: axis that colour and shape tell apart; "" for none. Further axes are in the names.
        panel: axis with a panel for each of its values; "" for none.
        order: values of `along`, the smallest first.
        kinds: values of `by`, in the order of their colours.
        decided: axes that another one decides: they say nothing more, and nothing shows them.
        names: values of x at 0, 1, ... where they are no numbers.
        interval: of all means.
        usual: values, as shown, of axes that nothing shows: a series is named where it has others.
    """

    x: str
    along: str
    by: str
    panel: str
    decided: frozenset[str]
    order: Mapping[Any, int]
    kinds: Mapping[Any, int]
    names: Mapping[str, int]
    interval: Interval
    usual: Mapping[str, str]

    @property
    def is_plane(self) -> bool:
        """Tell whether x is a result, so that it says nothing about the order of the marks."""
        return self.x in METRICS and quantity(self.x).unit != PARAMETERS


def encoding(
    found: Sequence[Group],
    x: str,
    wanted: FigureChoice | None = None,
    *,
    panels: bool = True,
) -> Encoding:
    """Decide what shows each axis of a study: the first x or a line, the next colours, panels.

    Args:
        found: settings of one table.
        x: metric or config key.
        wanted: axes that are chosen already.
        panels: whether a third axis may have panels.
    """
    chosen = wanted or FigureChoice()
    varied = varied_columns(found)
    decided = _decided(found, varied, x)
    shown = [key for key in varied if key not in decided]
    free = [key for key in shown if key not in (chosen.by, chosen.panel)]
    # Over steps every setting is a line of its own: no axis orders marks.
    is_curve = x in (STEP, SCALE)
    along = "" if is_curve else _along(found, x, free)
    rest = [key for key in free if key not in (along, x)]
    # Two values of a switch have their own colours everywhere; many curves need all of them.
    first = [key for key in (SIZE_OF if is_curve else style.SWITCHES) if key in rest]
    by = chosen.by or next(iter([*first, *rest]), "")
    rest = [key for key in rest if key != by]
    counted = sorted((len(ranks(found, key)), i) for i, key in enumerate(rest))
    few = [rest[i] for count, i in counted if count <= MOST_PANELS]
    panel = chosen.panel or (few[0] if few and panels else "")
    names = {} if x in METRICS else _names(found, x)
    order, kinds = (ranks(found, key) if key else {} for key in (along, by))
    said = {x, along, by, panel, *decided}
    usual = {key: value for key, value in prevailing(found).items() if key not in said}
    interval = choose_interval(found)
    return Encoding(x, along, by, panel, decided, order, kinds, names, interval, usual)


def left_unsaid(hows: Iterable[Encoding]) -> list[str]:
    """Say what the names of series leave out because most settings have it."""
    return list(dict.fromkeys(usual_note(how.usual, "a series") for how in hows if how.usual))


def _decided(found: Sequence[Group], keys: Sequence[str], x: str) -> frozenset[str]:
    """Find the settings whose value follows from that of x or another one, as in a `zip`.

    Of two that decide each other the first stays. Parts of the tokenizer stay too: sizes are
    what series are ordered by.
    """
    stay = {x, *SIZE_OF}
    left: list[str] = []
    for key in sorted(keys, key=lambda one: (one not in stay, -len(ranks(found, one)))):
        pairs = [{(value_of(g, other), value_of(g, key)) for g in found} for other in left]
        follows = any(len(pair) == len({value for value, _ in pair}) for pair in pairs)
        if not follows or key in stay:
            left.append(key)
    return frozenset(keys) - frozenset(left)


def varied_columns(found: Sequence[Group]) -> list[str]:
    """List the keys that vary; encoder and decoder apart where neither decides the other."""
    varied = [k for k in found[0].identity if len({g.identity[k] for g in found}) > 1]
    parts = [[value_of(group, key) for group in found] for key in (DECODER, ENCODER)]
    pairs = set(zip(*parts, strict=True))
    is_grid = len(pairs) > max(len(set(part)) for part in parts)
    if PARAM_TOKENIZER in varied and is_grid and not any(None in part for part in parts):
        return [DECODER, ENCODER, *(k for k in varied if k != PARAM_TOKENIZER)]
    return varied


def value_of(group: Group, key: str) -> Any:
    """Look up the value of a setting on an axis."""
    return group.identity.get(key, group.rows[0].get(key))


def ranks(found: Sequence[Group], key: str) -> dict[Any, int]:
    """Rank the values of an axis: numbers and sizes from the smallest, names as in the table."""
    values = list(dict.fromkeys(value_of(group, key) for group in found))
    if _are_numbers(values):
        ordered = sorted(values, key=lambda v: (v is not None, v or 0))  # null: off
        return {value: rank for rank, value in enumerate(ordered)}
    sizes = {value: _parameters(found, key, value) for value in values}
    known = {value: size for value, size in sizes.items() if size is not None}
    # The table is sorted by size of encoder and decoder, which says it for trials that failed.
    ordered = sorted(values, key=known.__getitem__) if len(known) == len(values) else values
    return {value: rank for rank, value in enumerate(ordered)}


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def split(found: Sequence[Group], key: str) -> list[tuple[Any, list[Group]]]:
    """Part the settings by their value on an axis; all of them together without one."""
    if not key:
        return [(None, list(found))]
    return [(v, [g for g in found if value_of(g, key) == v]) for v in ranks(found, key)]


def settings_chart(
    found: Sequence[Group], title: str, x: str, y: str, how: Encoding | None = None
) -> Chart | None:
    """Make one chart of y over x; None where no setting has both coordinates.

    What was measured in another way is a series of its own, marked as in the notes. A mark of two
    metrics is the mean of both over the seeds that have both.

    Args:
        found: settings of one panel.
        title: of the chart.
        x: metric or config key.
        y: metric.
        how: parts of the chart that show the axes, decided over all panels.
    """
    how = how or encoding(found, x, panels=False)
    ways = {m: protocol_marks(found, m) for m in (x, y) if m in METRICS}
    members: dict[str, list[tuple[Group, Mark]]] = {}
    for group in found:
        mark = _mark(group, y, how)
        if mark is not None:
            name = series_name(group, how) + _ways_of(group, ways)
            members.setdefault(name, []).append((group, mark))
    if not members:
        return None
    # The way of measuring is part of the name, so that no line joins two protocols.
    series = [_series(name, pairs, how) for name, pairs in members.items()]
    # The order of the legend is that of the axis; names of two protocols stay beside each other.
    kinds = {one.name: _kind(members[one.name][0][0], how) for one in series}
    series.sort(key=lambda one: kinds[one.name])
    ticks: Ticks = tuple((float(i), name) for name, i in how.names.items())
    # Up and to the right is better in a plane of two scores, as in paper Figure 7.
    better_up = x in METRICS and METRICS[x].better is not None
    across = replace(axis(x), ticks=ticks)
    return Chart(title, across, axis(y.removeprefix(TRAIN_PREFIX)), tuple(series), better_up)


def omitted(found: Sequence[Group], x: str, y: str) -> list[str]:
    """Name the settings that a chart cannot show, each with the reason."""
    how = encoding(found, x)
    return [
        f"{group.label} ({_why_not(group, x, y)})"
        for group in found
        if _mark(group, y, how) is None
    ]


def bars_of(charts: Sequence[Chart]) -> str:
    """Say what the intervals of runs are, in words for a caption."""
    marks = [mark for chart in charts for mark in chart.marks if mark.seeds]
    kinds = {mark.y_bar.kind if mark.y_bar else "none" for mark in marks}
    kinds |= {mark.x_bar.kind for mark in marks if mark.x_bar}
    return "; ".join(words for kind, words in sorted(INTERVALS.items()) if kind in kinds)


def _along(found: Sequence[Group], x: str, free: Sequence[str]) -> str:
    """Choose the axis that lines follow: x, the one whose size x is, else sizes, then numbers."""
    if x in free:
        return x
    # Each value of it has one x: parameters of the decoder follow from the decoder alone.
    measured = [key for key in free if x in METRICS and _decides(found, key, x)]
    sizes = [key for key in SIZE_OF if key in free]
    first = [key for key in sizes if SIZE_OF[key] == x]
    numeric = [
        key for key in free if _are_numbers(ranks(found, key)) and _repeats(found, key, free)
    ]
    return next(iter([*first, *measured, *sizes, *numeric, *free]), "")


def _repeats(found: Sequence[Group], key: str, free: Sequence[str]) -> bool:
    """Tell whether lines along an axis would have two marks or more, not one for each name."""
    others = {tuple(value_of(group, one) for one in free if one != key) for group in found}
    return len(found) >= 2 * len(others)


def _decides(found: Sequence[Group], key: str, metric: str) -> bool:
    """Tell whether a metric is the same for all settings with one value of an axis."""
    values: dict[Any, set[float]] = {}
    for group in found:
        values.setdefault(value_of(group, key), set()).update(group.values(metric).values())
    # A value for each setting would decide everything: that is no repetition.
    return len(values) < len(found) and all(len(one) == 1 for one in values.values())


def _parameters(found: Sequence[Group], key: str, value: Any) -> float | None:
    """Average the parameters that a size stands for; None where no trial got that far."""
    metric = SIZE_OF.get(key, "")
    counts = [
        count
        for group in found
        if metric in group.rows[0] and value_of(group, key) == value
        for count in group.values(metric).values()
    ]
    return fmean(counts) if counts else None


def _series(name: str, pairs: Sequence[tuple[Group, Mark]], how: Encoding) -> Series:
    """Order the marks along their axis, never by a result: a line may turn back on x."""
    # Ties keep the order of the table.
    placed = sorted(((_place_along(*pair, how), pair[1]) for pair in pairs), key=lambda p: p[0])
    marks = tuple(mark for _, mark in placed)
    enough = len({place for place, _ in placed}) >= MIN_SIZES_FOR_LINE
    # Names have no order that a line could follow, unless they are sizes.
    has_order = how.along in SIZE_OF or _are_numbers(how.order)
    joined = enough and has_order and any(len(mark.seeds) > 1 for mark in marks)
    # Arrows only where x does not say the order itself: over sizes a line runs to the right
    # anyway.
    return Series(name, marks, look_of(pairs[0][0], how), joined, arrows=joined and how.is_plane)


def _place_along(group: Group, mark: Mark, how: Encoding) -> float:
    """Rank a mark along its series: by x where that is a size or a setting."""
    return float(how.order[value_of(group, how.along)]) if how.is_plane and how.along else mark.x


def _kind(group: Group, how: Encoding) -> int:
    return how.kinds[value_of(group, how.by)] if how.by else 0


def look_of(group: Group, how: Encoding) -> Look:
    """Choose colour and shape of a setting."""
    if not how.by:
        # Over a setting one tokenizer has its own colour; over its size all are one.
        if how.x not in METRICS or how.x == "params_generator":
            return style.of_tokenizer(group.tokenizer, regularised=group.regularised)
        return style.WITH if group.regularised else style.WITHOUT
    value = value_of(group, how.by)
    own = style.of_setting(how.by, value)
    if own is not None:
        return own
    is_ordered = _are_numbers(how.kinds)
    look = style.of_rank(how.kinds[value], len(how.kinds), is_ordered=is_ordered)
    if how.by != PARAM_TOKENIZER:
        return look
    # Tokenizers keep their colour in all figures; the shape tells those of one decoder apart.
    return look._replace(colour=style.of_tokenizer(group.tokenizer, regularised=False).colour)


def _names(found: Sequence[Group], x: str) -> dict[str, int]:
    """Map the values of a config key to places on an axis of names; empty if they are numbers."""
    values = ranks(found, x)
    # `bool` is a kind of `int` in Python, but yes and no are names on an axis.
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {}
    return {show(value): i for i, value in enumerate(values)}


def series_name(group: Group, how: Encoding) -> str:
    """Name what tells a series from the others of its chart."""
    shown = (how.along, how.panel, *how.decided)
    # The tokenizer's parts replace its name where they are axes of their own.
    apart = [how.by] if how.by in (ENCODER, DECODER) else []
    settings = [(key, value_of(group, key)) for key in apart]
    settings += [
        (key, value)
        for key, value in group.setting
        if key not in shown and not key.startswith(how.x) and show(value) != how.usual.get(key)
    ]
    words = [_word(group, key, value) for key, value in settings]
    over_generators = how.x == "params_generator"
    is_said = how.along in (PARAM_TOKENIZER, ENCODER, DECODER) or how.panel == PARAM_TOKENIZER
    needs_name = how.by == PARAM_TOKENIZER or how.x not in METRICS or over_generators
    named = [group.tokenizer] if needs_name and not is_said else []
    if named or words:
        return " ".join([*named, *words])
    # Nothing varies but the size.
    weight = group.rows[0].get(SEMANTIC_WEIGHT)
    return UNNAMED if weight is None else _regularised(weight)


def _regularised(weight: object) -> str:
    return f"{'with' if weight else 'without'} semantic regularisation"


def panel_title(title: str, group: Group, key: str) -> str:
    """Add the value of a panel to the title of its chart."""
    return f"{title}, {_word(group, key, value_of(group, key))}" if key else title


def _word(group: Group, key: str, value: object) -> str:
    """Name one setting for a legend, the regularisation as the paper's figures do."""
    if key == PARAM_TOKENIZER:
        return str(value)
    if key == SEMANTIC_WEIGHT and not group.several_weights:
        return _regularised(value)
    return f"{short(key)}={show(value)}"


def _ways_of(group: Group, ways: Mapping[str, Mapping[str, str]]) -> str:
    """Mark how a group's metrics were measured, where there are several ways: ` [b]`."""
    used = {marks[p] for name, marks in ways.items() for p in group.protocols(name)[:1]}
    return "".join(f" [{mark}]" for mark in sorted(used - {""}))


def _mark(group: Group, y: str, how: Encoding) -> Mark | None:
    if y not in METRICS:
        return None
    x, interval = how.x, how.interval
    # Both coordinates from the same seeds: means over different ones would not belong together.
    shared = group.with_all(*(key for key in (x, y) if key in METRICS))
    # None also where two protocols would mix in one mean.
    up = shared.estimate(y, interval)
    across = shared.estimate(x, interval) if x in METRICS else _place(group, x, how.names)
    if up is None or across is None:
        return None
    ups = shared.values(y)
    acrosses = shared.values(x) if x in METRICS else dict.fromkeys(ups, across.mean)
    scale_x, scale_y = quantity(x).factor, quantity(y).factor
    rows = [row for row in shared.rows if seed_of(row) in ups]
    seeds = [(acrosses[seed_of(r)] * scale_x, ups[seed_of(r)] * scale_y) for r in rows]
    return Mark(
        across.mean * scale_x,
        up.mean * scale_y,
        tuple(origin(row, [x, y]) for row in rows),
        "run",
        _label(group, how),
        # Seeds of a setting build networks of one size: an interval of width 0 is noise in the
        # picture.
        None if x in METRICS and METRICS[x].unit == PARAMETERS else bar_of(across, scale_x),
        bar_of(up, scale_y),
        tuple(seeds),
    )


def _label(group: Group, how: Encoding) -> str:
    """Name a mark by its value on the axis that its place does not tell; the tokenizer by size."""
    if how.x not in METRICS or how.x == "params_generator":
        return ""
    if how.by in (ENCODER, DECODER) and not how.is_plane:
        return ""  # place and colour say both parts
    if not how.along or how.along in (PARAM_TOKENIZER, ENCODER, DECODER):
        return group.tokenizer
    value = value_of(group, how.along)
    return f"{value:.3g}" if isinstance(value, float) else show(value)


def _place(group: Group, key: str, names: Mapping[str, int]) -> SeedEstimate | None:
    """Put a config key's value on its axis: a number, or the place of a name."""
    value = group.rows[0].get(key)
    # On an axis of names null is one of them ("none"); on one of numbers it has no place.
    if value is None and not names:
        return None
    place = float(names[show(value)]) if names else float(value or 0)
    return SeedEstimate(place, place, place, len(group.rows), "none")


def _why_not(group: Group, x: str, y: str) -> str:
    names = [key for key in (x, y) if key in METRICS]
    absent = [METRICS[name].label for name in names if not group.values(name)]
    if absent:
        return "no " + ", ".join(absent)
    mixed = [METRICS[name].label for name in names if len(group.protocols(name)) > 1]
    return f"{', '.join(mixed)} measured in two ways" if mixed else "no seed has both"
