"""How figures look: colour per tokenizer, marker per regularisation, rc parameters. Plain data.

A tokenizer has the same colour in every figure. Colours are Okabe and Ito's, which people with
any common colour blindness tell apart; the marker and the label say the same again.
"""

from __future__ import annotations

TEXT_WIDTH = 6.9
"""Inches; the text width of a two-column page."""
PANEL_HEIGHT = 2.75
DPI = 200
"""Of the PNG."""

_BLUE, _ORANGE, _GREEN, _VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PURPLE, _SKY, _BLACK, _GREY = "#CC79A7", "#56B4E9", "#000000", "#666666"

_OF_TOKENIZER = {
    "S-S": _BLUE,
    "S-B": _ORANGE,
    "S-L": _VERMILION,
    "B-L": _PURPLE,
    "B-B": _SKY,
    "L-L": _GREEN,
    "XL-XXL": _BLACK,
}
_OF_DECODER = {"S": _BLUE, "B": _ORANGE, "L": _VERMILION, "XL": _GREEN, "XXL": _BLACK}
_OF_REGULARISATION = {False: "o", True: "s"}
MARKER_KEY = "Circles: no semantic regularisation; squares: with it."
ALL_REGULARISED = "All with semantic regularisation (squares)."


def colour(tokenizer: str) -> str:
    """Colour of a tokenizer; unlisted pairs take their decoder's, unnamed sizes are grey."""
    decoder = tokenizer.rpartition("-")[2]
    return _OF_TOKENIZER.get(tokenizer, _OF_DECODER.get(decoder, _GREY))


def marker(regularised: bool) -> str:
    """Circle without, square with semantic regularisation."""
    return _OF_REGULARISATION[regularised]


def rc() -> dict[str, object]:
    """Matplotlib parameters of every figure, for `rc_context`."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "axes.titlesize": 9.0,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.labelsize": 9.0,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.linewidth": 0.8,
        "lines.linewidth": 1.0,
        "pdf.fonttype": 42,
    }
