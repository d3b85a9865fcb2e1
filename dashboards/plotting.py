"""Charts of `analysis` as interactive Plotly figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.charts.grammar import HOLLOW, Bar, Chart, ChartAxis, Mark, Origin, Series, sideways
from analysis.studies.study import WatchedStudy, stage_counts
from dashboards.words import in_words
from gigatok.names import quantity

# In the order in which the bars stack: what is done from the left, what failed to the right.
STATE_COLOURS = {
    "COMPLETE": "#2E8B57",
    "RUNNING": "#0072B2",
    "WAITING": "#BDBDBD",
    "FAILED": "#C62828",
    "UPSTREAM_FAILED": "#E69F00",
    "PRUNED": "#9C8AA5",
}
MANY = 400
"""Marks above which WebGL draws them, without names beside them."""
FEW_NAMES = 40
_TICKS_APART = 0.11
"""Part of an axis between two of its texts: on a phone so much is as wide as one."""
_POINT = 0.003
"""Part of the axis that a point of print is, for intervals that stand beside each other."""
WIDE = 10.0
"""Ratio of a key's values from which parallel coordinates show it logarithmically."""
_GREY_TO_BEST = [[0.0, "#9E9E9E"], [1.0, "#D55E00"]]
"""Colours of the worst and the best, which can be seen on white and on black."""
_NEARLY_BLACK = ("#000000", "#222222")
_SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"},
    **{"P": "cross", "x": "x", "+": "cross", "*": "star"},
}
_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
_MARGIN = {"l": 10, "r": 10, "t": 40, "b": 10}


def chart_figure(chart: Chart, height: int = 520) -> go.Figure:
    """Draw a chart; hovering shows the trial. `run_at` tells of which run a point is."""
    drawn = _drawn(chart)
    # Those of seeds and bands come last: `run_at` counts traces.
    places = _places(chart)
    seeds = [_seeds(series, chart, places) for series in drawn if _has_seeds(series)]
    bands = [_band(series) for series in drawn if series.banded]
    figure = go.Figure([*(_trace(series, chart, places) for series in drawn), *seeds, *bands])
    figure.update_layout(template="plotly_white", height=height, margin=_MARGIN, legend=_LEGEND)
    # `uirevision` keeps zoom and selection while the data of the same axes change.
    shown = f"{chart.x.key} {chart.y.key}"
    figure.update_layout(hovermode="closest", clickmode="event+select", uirevision=shown)
    figure.update_xaxes(title=chart.x_label, **_scale(chart, chart.x, log=chart.log_x))
    scale = _scale(chart, chart.y, log=chart.log_y)
    figure.update_yaxes(title=chart.y_label, automargin=True, **scale)
    if ticks := chart.x.ticks or chart.size_ticks:
        at, names = zip(*ticks, strict=True)
        texts = names if chart.x.ticks else _spaced(at, names, log=chart.log_x)
        figure.update_xaxes(tickvals=at, ticktext=texts)
    return figure


def _scale(chart: Chart, axis: ChartAxis, *, log: bool) -> dict[str, Any]:
    # Plotly turns an axis by its range; on a logarithmic one too.
    found: dict[str, Any] = {"autorange": "reversed" if chart.turns(axis) else True}
    values = [mark.x if axis is chart.x else mark.y for mark in chart.marks]
    if log:
        ticks = axis.powers(values) or _log_ticks(values)
    else:
        ticks = axis.settings(values) if axis is chart.x else []
    shown = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]} if ticks else {}
    return {"type": "log" if log else "linear", **found, **shown}


def _spaced(places: Sequence[float], texts: Sequence[str], *, log: bool) -> list[str]:
    """Leave out the texts of ticks that would touch the one before on a page of any width."""
    ends = [math.log(place) if log else place for place in places]
    room = _TICKS_APART * (ends[-1] - ends[0])
    shown: list[str] = []
    before = -math.inf
    for end, text in zip(ends, texts, strict=True):
        shown.append(text if end >= before + room else "")
        before = end if shown[-1] else before
    return shown


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Choose whole numbers: Plotly's own ticks between decades are single digits, and touch.

    Returns:
        Nothing where too few are between the values: there Plotly's own are evenly spaced.
    """
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        if sum(low <= tick <= high for tick in ticks) >= 3:
            return ticks
    return [low] if low == high else []


def run_at(chart: Chart, curve: int, point: int) -> str:
    """Find the id of the run that a point of a chart's figure leads to; empty for others."""
    # Plotly counts the traces that it was given: series without marks have none.
    drawn = _drawn(chart)
    origins: Sequence[Origin]
    if curve < len(drawn):
        origins = drawn[curve].marks[point].origins[:1]
    else:
        of_seeds = [series for series in drawn if _has_seeds(series)][curve - len(drawn)]
        origins = [o for mark in _repeated(of_seeds) for o in mark.origins][point : point + 1]
    return str(origins[0].get("run_id", "")) if origins else ""


def _drawn(chart: Chart) -> list[Series]:
    return [series for series in chart.series if series.marks]


def _repeated(series: Series) -> list[Mark]:
    """Select the marks that are means over several seeds."""
    return [mark for mark in series.marks if len(mark.seeds) > 1]


def _has_seeds(series: Series) -> bool:
    return bool(_repeated(series)) and not series.banded


def _places(chart: Chart) -> dict[int, float]:
    """Find the x of each mark by its identity: intervals that would cover each other stand apart.

    Hovering says the true values.
    """
    marks = chart.marks
    if len(marks) > MANY or not marks:
        return {}
    low, high = min(mark.x for mark in marks), max(mark.x for mark in marks)
    moves = [
        0.0 if series.banded else _POINT * shift
        for series, shifts in zip(chart.series, sideways(chart), strict=True)
        for shift in shifts
    ]
    # Part of the axis: on a logarithmic one a factor.
    return {
        id(mark): mark.x * (high / low) ** move if chart.log_x else mark.x + move * (high - low)
        for mark, move in zip(marks, moves, strict=True)
    }


def _seeds(series: Series, chart: Chart, places: Mapping[int, float]) -> go.Scatter:
    """Draw the trials behind the means of a series, small and open."""
    marks = _repeated(series)
    named = [
        f"trial {origin.get('trial', '')}<br>{_said(chart.x, x)}<br>{_said(chart.y, y)}"
        for mark in marks
        for origin, (x, y) in zip(mark.origins, mark.seeds, strict=False)
    ]
    return go.Scatter(
        # A seed has its own x where x is a result; it moves with its mean.
        x=[x + places.get(id(mark), mark.x) - mark.x for mark in marks for x, _ in mark.seeds],
        y=[y for mark in marks for _, y in mark.seeds],
        mode="markers",
        marker={"symbol": "circle-open", "size": 6, "color": _visible(series.look.colour)},
        hovertext=named,
        hoverinfo="text",
        legendgroup=series.name,
        showlegend=False,
    )


def _band(series: Series) -> go.Scatter:
    """Draw the intervals of a line as one closed outline, which hovering does not meet."""
    marks = series.marks
    ends = [(m.y, m.y) if m.y_bar is None else (m.y_bar.low, m.y_bar.high) for m in marks]
    x = [mark.x for mark in marks]
    return go.Scatter(
        # There and back again.
        x=x + x[::-1],
        y=[high for _, high in ends] + [low for low, _ in reversed(ends)],
        fill="toself",
        fillcolor=_pale(series.look.colour),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=series.name,
    )


def _trace(series: Series, chart: Chart, places: Mapping[int, float]) -> go.Scatter | go.Scattergl:
    marks, look, count = series.marks, series.look, len(chart.marks)
    naming = {id(same[0]) for same in chart.namesakes} if 0 < count <= FEW_NAMES else set()
    names = any(id(mark) in naming for mark in marks)
    many = count > MANY
    # A mode such as "lines+markers+text"; a list times False is empty.
    shown = ["lines"] * series.joined + ["markers"] * bool(look.marker) + ["text"] * names
    symbol = _SYMBOLS.get(look.marker, "circle")
    hollow = [symbol + "-open" * (mark.reading in HOLLOW) for mark in marks]
    # WebGL draws thousands of marks at once, SVG makes an element of each.
    kind = go.Scattergl if len(marks) > MANY else go.Scatter
    # All marks of a series are runs, or none is.
    is_run = marks[0].reading == "run"
    texts = [_trial_of(mark) if many else _hover(mark, series, chart) for mark in marks]
    return kind(
        # Arrays are sent as bytes, and not looked at one by one.
        x=np.array([places.get(id(mark), mark.x) for mark in marks]),
        y=np.array([mark.y for mark in marks]),
        name=series.name,
        legendgroup=series.name,
        mode="+".join(shown) or "lines",
        # Published marks lie close together: hovering names them.
        text=[mark.label if mark.reading == "run" and id(mark) in naming else "" for mark in marks]
        if names
        else None,
        # Above the interval of x, which would strike the name through; inside at the right edge.
        textposition=[_beside(place, series, chart) for place in range(len(marks))]
        if names
        else None,
        hovertext=np.array(texts, dtype=object),
        hoverinfo=("text+x+y" if many else "text") if look.marker or series.joined else "skip",
        marker={
            "size": 6 if many else 10,
            # One symbol for all is sent once, not once a mark.
            "symbol": symbol if set(hollow) == {symbol} else hollow,
            "color": _visible(look.colour),
            # Runs have a black rim, as on paper; of very many it would hide the colour.
            "line": {"color": "black", "width": float(is_run and not many)},
        },
        line={
            "color": _visible(look.colour),
            "dash": "dash" if series.dashed else "solid",
            "width": 2,
        },
        error_x=_bars([(mark.x, mark.x_bar) for mark in marks]),
        error_y=None if series.banded else _bars([(mark.y, mark.y_bar) for mark in marks]),
    )


def _beside(place: int, series: Series, chart: Chart) -> str:
    """Choose the corner of a mark for its name: inside the frame, off the line that leaves there.

    Returns:
        Plotly's words, such as `top right`.
    """
    marks = series.marks
    # In the directions of the page: an axis may run backwards.
    across, up = (-1 if chart.turns(axis) else 1 for axis in (chart.x, chart.y))
    mark, last = marks[place], max(across * other.x for other in chart.marks)
    side = 1 if across * mark.x < last else -1
    near = [*marks[max(place - 1, 0) : place], *marks[place + 1 : place + 2]]
    rises = [
        up * (other.y - mark.y)
        for other in near
        if series.joined and side * across * (other.x - mark.x) > 0
    ]
    # Above the interval of x where no line leaves on that side.
    vertical = "bottom" if rises and max(rises) > 0 else "top"
    return f"{vertical} {'right' if side > 0 else 'left'}"


def _bars(values: Sequence[tuple[float, Bar | None]]) -> dict[str, object] | None:
    """Describe intervals as Plotly wants them: lengths above and below each value."""
    if all(bar is None for _, bar in values):
        return None
    # A mark without an interval gets one of length 0, as Plotly wants one for every mark.
    up = [0.0 if bar is None else bar.high - value for value, bar in values]
    down = [0.0 if bar is None else value - bar.low for value, bar in values]
    return {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 4}


def _trial_of(mark: Mark) -> str:
    """Name the trial of one mark among very many."""
    return str(mark.origins[0].get("trial", "")) if mark.origins else ""


def _hover(mark: Mark, series: Series, chart: Chart) -> str:
    lines = [f"<b>{mark.label or series.name}</b>", series.name if mark.label else ""]
    trials = [str(o["trial"]) for o in mark.origins if "trial" in o]
    if trials:
        lines.append(f"trial {', '.join(trials[:4])}" + (" …" if len(trials) > 4 else ""))
    for axis, value, bar in ((chart.x, mark.x, mark.x_bar), (chart.y, mark.y, mark.y_bar)):
        interval = f" [{bar.low:.5g} to {bar.high:.5g}]" if bar else ""
        lines.append(f"{_said(axis, value)}{interval}")
    cited = [f"{o['citation']}, {o['place']}" for o in mark.origins if "citation" in o]
    if cited:
        lines.append(f"{mark.reading}: {cited[-1]}")
    return "<br>".join(filter(None, lines))


def _said(axis: ChartAxis, value: float) -> str:
    return f"{axis.label.strip(' ↓↑')}: {value:.5g}"


def overlay_figure(chart: Chart, *, log_x: bool, log_y: bool) -> go.Figure:
    """Draw curves over steps with a band for the interval of each."""
    figure = go.Figure()
    for series in _drawn(chart):
        if series.banded:
            figure.add_trace(_band(series))
        figure.add_scatter(
            x=[mark.x for mark in series.marks],
            y=[mark.y for mark in series.marks],
            name=series.name,
            mode="lines",
            legendgroup=series.name,
            line={"color": _visible(series.look.colour), "width": 2},
        )
    figure.update_layout(template="plotly_white", height=520, margin=_MARGIN, legend=_LEGEND)
    figure.update_layout(hovermode="x unified", uirevision=f"{chart.title} {chart.y.key}")
    figure.update_xaxes(title=chart.x_label, type="log" if log_x else "linear")
    figure.update_yaxes(title=chart.y_label, type="log" if log_y else "linear", automargin=True)
    return figure


def search_figure(study: Mapping[str, Any], objective: str) -> go.Figure | None:
    """Draw the complete trials of a search as lines over its keys; None with fewer than two.

    Args:
        study: of `search.json`.
        objective: the last axis, and the colour.
    """
    trials = [trial for trial in study["trials"] if trial["values"] is not None]
    # A key of a branch that a trial did not take has no value there; those are no axes.
    keys = (
        [k for k in trials[0]["params"] if all(k in t["params"] for t in trials)] if trials else []
    )
    if len(trials) < 2 or not keys:
        return None
    metric = quantity(objective)
    reached = [metric.factor * trial["values"][objective] for trial in trials]
    axes = [_parallel(key, [trial["params"][key] for trial in trials]) for key in keys]
    axes.append({"label": metric.heading, "values": reached})
    line = {
        "color": reached,
        "colorscale": _GREY_TO_BEST,
        "showscale": True,
        "reversescale": study["objectives"][objective] == "minimize",
    }
    figure = go.Figure(go.Parcoords(dimensions=axes, line=line))
    figure.update_layout(template="plotly_white", height=420, margin={**_MARGIN, "l": 80, "t": 70})
    return figure


def _parallel(key: str, values: Sequence[Any]) -> dict[str, Any]:
    """Make one axis of parallel coordinates: numbers, logarithms of wide ranges, or words."""
    if not all(isinstance(value, int | float) for value in values):
        words = list(dict.fromkeys(map(str, values)))
        places = [words.index(str(value)) for value in values]
        return {
            "label": key,
            "values": places,
            "tickvals": list(range(len(words))),
            "ticktext": words,
        }
    low, high = min(values), max(values)
    if low <= 0 or high < WIDE * low:
        return {"label": key, "values": list(values)}
    ticks = [low * (high / low) ** (part / 4) for part in range(5)]
    return {
        "label": key,
        "values": [math.log10(value) for value in values],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:.2g}" for tick in ticks],
    }


def _pale(colour: str) -> str:
    red, green, blue = (int(_visible(colour)[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},.18)"


def _visible(colour: str) -> str:
    """Replace what is nearly black: the page may be dark."""
    return "#7F7F7F" if colour in _NEARLY_BLACK else colour


def states_figure(study: WatchedStudy) -> go.Figure:
    """Draw a bar for each stage: how many of it are in which state."""
    figure = go.Figure()
    counts = stage_counts(study)
    for state, colour in STATE_COLOURS.items():
        rows = [(stage, count) for stage, of, count in counts.iter_rows() if of == state]
        if rows:
            figure.add_bar(
                y=[in_words(stage) for stage, _ in rows],
                x=[count for _, count in rows],
                name=in_words(state),
                orientation="h",
                marker_color=colour,
                text=[str(count) for _, count in rows],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                hovertemplate="%{y}: %{x} " + in_words(state) + "<extra></extra>",
            )
    # Reversed below: Plotly counts categories from the bottom, and stages read from the top.
    order = [in_words(stage) for stage in study.stages]
    height, legend = 90 + 30 * len(order), {**_LEGEND, "traceorder": "normal"}
    figure.update_layout(template="plotly_white", height=height, margin=_MARGIN, legend=legend)
    figure.update_layout(barmode="stack", showlegend=True)
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], automargin=True)
    longest = max(study.work["stage"].value_counts()["count"].to_list(), default=1)
    # Counts: Plotly would write halves on the axis of a small study.
    whole = {"dtick": 1} if longest <= 10 else {"tickformat": ",d"}
    figure.update_xaxes(title="distinct stages", rangemode="tozero", **whole)
    return figure


def curve_figure(chart: Chart, title: str) -> go.Figure:
    """Draw one training curve, small."""
    figure = chart_figure(chart, height=220)
    heading = {"text": title.replace("_", " "), "font": {"size": 14}, "x": 0.02}
    figure.update_layout(margin={"l": 10, "r": 10, "t": 34, "b": 10}, title=heading)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title={"standoff": 4}, automargin=True)
    figure.update_yaxes(title=None)  # it is the title above
    return figure


def uses_figure(uses: Sequence[str], codes: Sequence[int]) -> go.Figure:
    """Draw the histogram of codebook usage."""
    figure = go.Figure(go.Bar(x=list(uses), y=list(codes), marker_color="#009E73"))
    figure.update_layout(template="plotly_white", height=260, margin=_MARGIN, bargap=0.08)
    figure.update_xaxes(title="times used on the validation images", type="category")
    figure.update_yaxes(title="codes")
    return figure
