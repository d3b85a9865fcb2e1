"""Charts of `analysis` as interactive Plotly figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analysis.charts.grammar import Chart, Mark, Series
from analysis.studies.study import Study, stage_counts

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
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}
_HOLLOW = ("digitised", "secondary")
_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
_MARGIN = {"l": 10, "r": 10, "t": 40, "b": 10}


def state_word(state: str) -> str:
    """Such as `upstream failed`."""
    return state.lower().replace("_", " ")


def chart_figure(chart: Chart, height: int = 520) -> go.Figure:
    """A chart; hovering shows the trial. `run_at` says of which run a point is."""
    count = sum(len(series.marks) for series in chart.series)
    figure = go.Figure([_trace(series, chart, count) for series in _drawn(chart)])
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin=_MARGIN,
        legend=_LEGEND,
        hovermode="closest",
        clickmode="event+select",
        uirevision=f"{chart.x.key} {chart.y.key}",
    )
    ticks = chart.ticks
    figure.update_xaxes(title=chart.x.label, type="log" if chart.log_x else "linear")
    scale = "log" if chart.log_y else "linear"
    figure.update_yaxes(title=chart.y.label, type=scale, automargin=True)
    if ticks:
        figure.update_xaxes(tickvals=[x for x, _ in ticks], ticktext=[name for _, name in ticks])
    return figure


def run_at(chart: Chart, curve: int, point: int) -> str:
    """Id of the run that a point of a chart's figure leads to; empty for what is no run."""
    mark = _drawn(chart)[curve].marks[point]
    first = mark.origins[0] if mark.origins else {}
    return str(first.get("run_id", ""))


def _drawn(chart: Chart) -> list[Series]:
    return [series for series in chart.series if series.marks]


def _trace(series: Series, chart: Chart, count: int) -> go.Scatter | go.Scattergl:
    marks = series.marks
    names = 0 < count <= FEW_NAMES and any(mark.label for mark in marks)
    joined = series.joined or series.dashed
    shown = ["lines"] * joined + ["markers"] * bool(series.marker) + ["text"] * names
    symbol = _SYMBOLS.get(series.marker, "circle")
    hollow = [symbol + "-open" * (mark.reading in _HOLLOW) for mark in marks]
    symbols = hollow if any(mark.reading in _HOLLOW for mark in marks) else symbol
    many = count > MANY
    kind = go.Scattergl if len(marks) > MANY else go.Scatter
    hover = _short if many else _hover
    texts = [hover(mark, series, chart) for mark in marks]
    return kind(
        # Arrays are sent as bytes, and not looked at one by one.
        x=np.array([mark.x for mark in marks]),
        y=np.array([mark.y for mark in marks]),
        name=series.name,
        mode="+".join(shown) or "lines",
        # Published marks lie close together: hovering names them.
        text=[mark.label if mark.reading == "run" else "" for mark in marks] if names else None,
        textposition="middle right",
        hovertext=np.array(texts, dtype=object),
        hoverinfo=("text+x+y" if many else "text") if series.marker else "skip",
        marker={"size": 6 if many else 10, "symbol": symbols, "color": series.colour},
        line={"color": series.colour, "dash": "dash" if series.dashed else "solid", "width": 2},
        error_y=_bars(marks),
    )


def _bars(marks: Sequence[Mark]) -> dict[str, object] | None:
    if all(mark.low is None for mark in marks):
        return None
    up = [0.0 if m.high is None else m.high - m.y for m in marks]
    down = [0.0 if m.low is None else m.y - m.low for m in marks]
    return {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 4}


def _short(mark: Mark, series: Series, chart: Chart) -> str:
    """What is said of one mark among very many, beside where it is."""
    return str(mark.origins[0].get("trial", "")) if mark.origins else ""


def _hover(mark: Mark, series: Series, chart: Chart) -> str:
    lines = [f"<b>{mark.label or series.name}</b>", series.name if mark.label else ""]
    trials = [str(o["trial"]) for o in mark.origins if "trial" in o]
    if trials:
        lines.append(f"trial {', '.join(trials[:4])}" + (" …" if len(trials) > 4 else ""))
    for label, value in ((chart.x.label, mark.x), (chart.y.label, mark.y)):
        lines.append(f"{label.strip(' ↓↑')}: {value:.5g}")
    if mark.low is not None and mark.high is not None:
        lines.append(f"interval {mark.low:.5g} to {mark.high:.5g}")
    cited = [f"{o['citation']}, {o['place']}" for o in mark.origins if "citation" in o]
    if cited:
        lines.append(f"{mark.reading}: {cited[-1]}")
    return "<br>".join(filter(None, lines))


def states_figure(study: Study) -> go.Figure:
    """A bar for each stage: how many of it are in which state."""
    figure = go.Figure()
    counts = stage_counts(study)
    for state, colour in STATE_COLOURS.items():
        rows = [(stage, count) for stage, of, count in counts.iter_rows() if of == state]
        if rows:
            figure.add_trace(
                go.Bar(
                    y=[stage.replace("_", " ") for stage, _ in rows],
                    x=[count for _, count in rows],
                    name=state_word(state),
                    orientation="h",
                    marker_color=colour,
                    text=[str(count) for _, count in rows],
                    textposition="inside",
                    insidetextanchor="middle",
                    textangle=0,
                    hovertemplate="%{y}: %{x} " + state_word(state) + "<extra></extra>",
                )
            )
    order = [stage.replace("_", " ") for stage in study.stages]
    figure.update_layout(
        template="plotly_white",
        barmode="stack",
        height=90 + 30 * len(order),
        margin=_MARGIN,
        legend={**_LEGEND, "traceorder": "normal"},
        showlegend=True,
    )
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], automargin=True)
    longest = max(study.work["stage"].value_counts()["count"].to_list(), default=1)
    whole = {"dtick": 1} if longest <= 10 else {"tickformat": ",d"}
    figure.update_xaxes(title="distinct stages", rangemode="tozero", **whole)
    return figure


def curve_figure(name: str, steps: Sequence[float], values: Sequence[float]) -> go.Figure:
    """One training curve."""
    kind = go.Scattergl if len(steps) > 10 * MANY else go.Scatter
    mode = "lines" if len(steps) > 40 else "lines+markers"
    line = {"color": "#0072B2", "width": 2}
    figure = go.Figure(kind(x=list(steps), y=list(values), mode=mode, line=line, name=name))
    title = {"text": name.replace("_", " "), "font": {"size": 14}, "x": 0.02}
    margin = {"l": 10, "r": 10, "t": 34, "b": 10}
    figure.update_layout(template="plotly_white", height=220, margin=margin, title=title)
    figure.update_xaxes(title={"text": "step", "standoff": 4}, automargin=True)
    return figure


def uses_figure(uses: Sequence[str], codes: Sequence[int]) -> go.Figure:
    """The histogram of codebook usage."""
    bars = go.Bar(x=list(uses), y=list(codes), marker_color="#009E73")
    figure = go.Figure(bars)
    figure.update_layout(template="plotly_white", height=260, margin=_MARGIN, bargap=0.08)
    figure.update_xaxes(title="times used on the validation images", type="category")
    figure.update_yaxes(title="codes")
    return figure
