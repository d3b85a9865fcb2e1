"""Every trial of a search as a line over its keys: parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.plotting.base import GREY, INK, Spec, framed, of, rows
from gigatok.names import quantity

WIDE = 10.0
"""Ratio of a key's values from which its axis is logarithmic."""
MANY = 2000
"""Places that lines pass above which they are drawn on a canvas."""
_GREY_TO_BEST = ("#9E9E9E", "#D55E00")
"""Colours of the worst and the best, which can be seen on white and on black."""
_PARTS = 4
"""Parts into which the ticks of an axis divide it."""
Ticks = list[tuple[float, str]]


def search_figure(study: Mapping[str, Any], objective: str) -> Spec | None:
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
    columns = {key: [trial["params"][key] for trial in trials] for key in keys}
    columns[metric.heading] = reached
    axes = {name: coordinates(values) for name, values in columns.items()}
    said = [
        {"title": f"trial {trial['number']}"}
        | {name: _text(of[i]) for name, of in columns.items()}
        for i, trial in enumerate(trials)
    ]
    found = [
        {"t": i, "k": name, "v": places[i], "c": reached[i], "said": said[i]}
        for name, (places, _) in axes.items()
        for i in range(len(trials))
    ]
    is_less = study["objectives"][objective] == "minimize"
    colours, many = _GREY_TO_BEST[:: -1 if is_less else 1], len(found) > MANY
    layers = [_lines(found, metric.heading, colours), _brushed(found)]
    content = _drawn(layers, axes, GREY if many else INK)
    return framed(content, 420, many=many)


def coordinates(values: Sequence[Any]) -> tuple[list[float], Ticks]:
    """Place the values of a key between 0 and 1, with the ticks of its axis.

    Numbers stand by size, those of a wide range by their logarithm; words side by side.
    """
    if not all(isinstance(value, int | float) for value in values):
        words = list(dict.fromkeys(map(str, values)))
        at = {word: _part(i, 0, len(words) - 1) for i, word in enumerate(words)}
        return [at[str(value)] for value in values], [(at[word], word) for word in words]
    low, high = min(values), max(values)
    parts = [part / _PARTS for part in range(_PARTS + 1)] if high > low else [0.5]
    if low > 0 and high >= WIDE * low:
        ends = math.log(low), math.log(high)
        texts = [f"{low * (high / low) ** part:.2g}" for part in parts]
        places = [_part(math.log(value), *ends) for value in values]
    else:
        texts = [f"{low + (high - low) * part:.4g}" for part in parts]
        places = [_part(value, low, high) for value in values]
    return places, list(zip(parts, texts, strict=True))


def _part(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _drawn(
    trials: Sequence[Spec], axes: Mapping[str, tuple[list[float], Ticks]], ink: str
) -> Spec:
    """Put the layers of the trials between an upright for each key and its ticks."""
    ticks = [
        {"k": name, "v": at, "text": text} for name, (_, own) in axes.items() for at, text in own
    ]
    uprights = {
        "data": rows([{"k": name, "v": 0, "v2": 1} for name in axes]),
        "mark": {"type": "rule", "color": ink, "opacity": 0.4},
        "encoding": {"y2": {"field": "v2"}},
    }
    texts = {
        "data": rows(ticks),
        "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 12, "color": ink},
        "encoding": {"text": {"field": "text"}},
    }
    return {
        "encoding": {
            "x": {
                "field": "k",
                "type": "nominal",
                "sort": list(axes),
                "title": None,
                "scale": {"type": "point", "padding": 0.3},
                "axis": {"orient": "top", "labelAngle": 0, "labelLimit": 160},
            },
            # Beyond its ends an axis has room to begin to drag.
            "y": {
                "field": "v",
                "type": "quantitative",
                "axis": None,
                "scale": {"domain": [-0.07, 1.07], "nice": False},
            },
        },
        "layer": [uprights, *trials, texts],
    }


def _lines(found: Sequence[Spec], title: str, colours: Sequence[str]) -> Spec:
    colour = {
        "field": "c",
        "type": "quantitative",
        "title": title,
        "scale": {"range": list(colours), "zero": False, "nice": False},
        "legend": {"orient": "bottom", "gradientLength": 200},
    }
    # Of a trial, any point within the brush keeps the whole line.
    inside = [
        {"calculate": "vlSelectionTest('brush_store', datum) ? 1 : 0", "as": "inside"},
        {"joinaggregate": [{"op": "sum", "field": "inside", "as": "kept"}], "groupby": ["t"]},
    ]
    kept = {"test": "datum.kept > 0 || !length(data('brush_store'))", "value": 0.9}
    return {
        "data": rows(found),
        "transform": inside,
        "mark": {"type": "line", "order": False, "strokeWidth": 2, "tooltip": of("said")},
        "encoding": {
            "stroke": colour,
            "detail": {"field": "t"},
            "opacity": {"condition": kept, "value": 0.08},
        },
    }


def _brushed(found: Sequence[Spec]) -> Spec:
    """Make the marks that dragging over an axis selects."""
    return {
        "data": rows(found),
        "params": [{"name": "brush", "select": {"type": "interval", "encodings": ["x", "y"]}}],
        "mark": {
            "type": "point",
            "filled": True,
            "color": GREY,
            "size": 16,
            "tooltip": of("said"),
        },
    }
