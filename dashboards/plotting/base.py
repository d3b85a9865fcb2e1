"""Parts that all charts have: their frame, colours that can be seen in the dark, tooltips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.charts.grammar import ChartAxis

Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one, ready for JSON."""
INK, GREY = "currentColor", "#7F7F7F"
"""Colours that can be seen in light and in dark: that of the page's text, and what a canvas has
in its place, which does not know it."""
_NEARLY_BLACK = ("#000000", "#222222")
# The page's own.
_FONT = '"Source Sans", system-ui, sans-serif'
_CONFIG: Spec = {
    "axis": {
        "domain": False,
        "ticks": False,
        "labelFontSize": 12,
        "labelPadding": 8,
        # Of texts that would touch every other one is left out, at any width of the page.
        "labelOverlap": "parity",
        "labelSeparation": 8,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 10,
    },
    # Room for the texts that looking closer makes longer, as the frame stays.
    "axisY": {"minExtent": 32},
    "axisX": {"grid": False, "labelFlush": False, "labelBound": 12},
    "legend": {
        "labelFontSize": 12,
        "labelOffset": 7,
        "columnPadding": 18,
        "symbolStrokeWidth": 0,
        "symbolOpacity": 1,
    },
    "view": {"stroke": None},
    "mark": {"tooltip": None},
    "font": _FONT,
    "title": {"fontSize": 14, "anchor": "start", "offset": 8},
}
# Of many marks SVG would make an element each, and name each to screen readers.
_SVG, _CANVAS = {"renderer": "svg"}, {"renderer": "canvas"}


def framed(content: Mapping[str, Any], height: int, *, many: bool = False) -> Spec:
    """Put a chart's content into the common frame, as wide as its place on the page.

    Args:
        content: layers or a mark, with their encodings.
        height: of all of it, in pixels.
        many: whether it has too many marks for SVG.
    """
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"left": 4, "right": 12, "top": 4, "bottom": 4},
        # The page shows through: it is dark or light.
        "background": "transparent",
        "config": _CONFIG | ({"aria": False} if many else {}),
        "usermeta": {"embedOptions": _CANVAS if many else _SVG},
        **content,
    }


def visible(colour: str) -> str:
    """Replace what is nearly black: the page may be dark."""
    return GREY if colour in _NEARLY_BLACK else colour


def rows(values: Sequence[Mapping[str, Any]]) -> Spec:
    """Hold the rows of a layer."""
    return {"values": list(values)}


def said(axis: ChartAxis) -> str:
    """Name an axis in a tooltip: without the arrow that says which way is better."""
    return axis.label.strip(" ↓↑")


def of(field: str) -> Spec:
    """Take a property of each mark from a field of its row, as it is.

    An encoding of the field would be a second one of its channel, which keeps Vega-Lite from
    joining the legends of colours and of shapes. As a tooltip a field is a table of names and
    values below its `title`.
    """
    return {"expr": f"datum.{field}"}


SERIES: Spec = {"field": "s"}
"""Keeps the points of each series apart, by its number: two may have one name."""
