"""Trials as series: settings that differ in size alone are joined, from the smallest size on.

Trials that differ only in their seed are one mark at their mean; every mark names its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from analysis.store.runs import origin
from analysis.tables.results import protocol_marks
from gigatok.names import METRICS, PARAMETERS, TRAIN_PREFIX, quantity

# Two points are always joined by a straight line, whatever is true between them.
MIN_SIZES_FOR_LINE = 3
"""Fewer sizes, or sizes of one seed each, would draw a trend out of chance."""
UNNAMED = "runs"
"""Name of a series of which nothing but the size is known."""


def settings_chart(found: Sequence[Group], title: str, x: str, y: str) -> Chart | None:
    """Make one chart of y over x; None where no setting has both coordinates."""
    series, ticks = settings_series(found, x, y)
    if not series:
        return None
    # Up and to the right is better in a plane of two scores, as in paper Figure 7.
    better_up = x in METRICS and METRICS[x].better is not None
    across = replace(axis(x), ticks=ticks)
    return Chart(title, across, axis(y.removeprefix(TRAIN_PREFIX)), tuple(series), better_up)


def settings_series(found: Sequence[Group], x: str, y: str) -> tuple[list[Series], Ticks]:
    """Make a series for each setting but x and, where x is a metric, the tokenizer.

    What was measured in another way is a series of its own, marked as in the notes. A mark of two
    metrics is the mean of both over the seeds that have both.

    Args:
        found: settings of one table.
        x: metric or config key.
        y: metric.
    """
    # A config key without numbers becomes an axis of names at 0, 1, ...
    names = _names(found, x)
    interval = choose_interval(found)
    ways = {m: protocol_marks(found, m) for m in (x, y) if m in METRICS}
    members: dict[str, list[tuple[Group, Mark]]] = {}
    for group in found:
        mark = _mark(group, x, y, interval, names)
        if mark is not None:
            name = _series_name(group, x) + _ways_of(group, ways)
            members.setdefault(name, []).append((group, mark))
    # The way of measuring is part of the name, so that no line joins two protocols.
    series = [_series(name, pairs, x, is_named=bool(names)) for name, pairs in members.items()]
    return series, tuple((float(i), name) for name, i in names.items())


def omitted(found: Sequence[Group], x: str, y: str) -> list[str]:
    """Name the settings that a chart cannot show, each with the reason."""
    names = _names(found, x)
    return [
        f"{group.label} ({_why_not(group, x, y)})"
        for group in found
        if _mark(group, x, y, "half_range", names) is None
    ]


def bars_of(charts: Sequence[Chart]) -> str:
    """Say what the intervals of runs are, in words for a caption."""
    marks = [mark for chart in charts for mark in chart.marks if mark.seeds]
    kinds = {mark.y_bar.kind if mark.y_bar else "none" for mark in marks}
    kinds |= {mark.x_bar.kind for mark in marks if mark.x_bar}
    return "; ".join(words for kind, words in sorted(INTERVALS.items()) if kind in kinds)


def _series(name: str, pairs: Sequence[tuple[Group, Mark]], x: str, *, is_named: bool) -> Series:
    """Order the marks by size, never by x: in a plane a larger model may lie on either side."""
    # Ties keep the order of the table.
    sized = sorted(((_size(group, mark, x), mark) for group, mark in pairs), key=lambda p: p[0])
    marks = tuple(mark for _, mark in sized)
    enough = len({size for size, _ in sized}) >= MIN_SIZES_FOR_LINE
    # Names have no order that a line could follow.
    joined = enough and not is_named and any(len(mark.seeds) > 1 for mark in marks)
    # Arrows only where x does not say the order itself: over sizes a line runs to the right
    # anyway.
    is_plane = x in METRICS and quantity(x).unit != PARAMETERS
    return Series(name, marks, _look(pairs[0][0], x), joined, arrows=joined and is_plane)


def _size(group: Group, mark: Mark, x: str) -> float:
    """Rank a mark along its series: the axis itself where that is a size or a setting."""
    # A group without a known size has no rank: its place on x is the best there is.
    if x not in METRICS or METRICS[x].unit == PARAMETERS or group.size is None:
        return mark.x
    return group.size


def _look(group: Group, x: str) -> Look:
    # Over a setting each tokenizer is a series of its own, with its own colour; over its size all
    # are one.
    if x not in METRICS or x == "params_generator":
        return style.of_tokenizer(group.tokenizer, regularised=group.regularised)
    for key, value in group.setting:
        if (look := style.of_setting(key, value)) is not None:
            return look
    return style.WITH if group.regularised else style.WITHOUT


def _names(found: Sequence[Group], x: str) -> dict[str, int]:
    """Map the values of a config key to places on an axis of names; empty if they are numbers."""
    if x in METRICS:
        return {}
    values = dict.fromkeys(group.rows[0].get(x) for group in found)
    # `bool` is a kind of `int` in Python, but yes and no are names on an axis.
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {}
    return {show(value): i for i, value in enumerate(values)}


def _series_name(group: Group, x: str) -> str:
    over_generators = x == "params_generator"
    # The size of the generator is what the axis shows, in parameters.
    beside = ("generator.size",) if over_generators else (x,)
    words = [_word(group, k, v) for k, v in group.setting if not k.startswith(beside)]
    named = [] if x in METRICS and not over_generators else [group.tokenizer]
    if named or words:
        return " ".join([*named, *words])
    # Nothing varies but the size.
    weight = group.rows[0].get(SEMANTIC_WEIGHT)
    return UNNAMED if weight is None else _regularised(weight)


def _regularised(weight: object) -> str:
    return f"{'with' if weight else 'without'} semantic regularisation"


def _word(group: Group, key: str, value: object) -> str:
    """Name one setting for a legend, the regularisation as the paper's figures do."""
    if key == SEMANTIC_WEIGHT and not group.several_weights:
        return _regularised(value)
    return f"{short(key)}={show(value)}"


def _ways_of(group: Group, ways: Mapping[str, Mapping[str, str]]) -> str:
    """Mark how a group's metrics were measured, where there are several ways: ` [b]`."""
    used = {marks[p] for name, marks in ways.items() for p in group.protocols(name)[:1]}
    return "".join(f" [{mark}]" for mark in sorted(used - {""}))


def _mark(
    group: Group, x: str, y: str, interval: Interval, names: Mapping[str, int]
) -> Mark | None:
    if y not in METRICS:
        return None
    # Both coordinates from the same seeds: means over different ones would not belong together.
    shared = group.with_all(*(key for key in (x, y) if key in METRICS))
    # None also where two protocols would mix in one mean.
    up = shared.estimate(y, interval)
    across = shared.estimate(x, interval) if x in METRICS else _place(group, x, names)
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
        group.tokenizer if x in METRICS and x != "params_generator" else "",
        # Seeds of a setting build networks of one size: an interval of width 0 is noise in the
        # picture.
        None if x in METRICS and METRICS[x].unit == PARAMETERS else bar_of(across, scale_x),
        bar_of(up, scale_y),
        tuple(seeds),
    )


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
