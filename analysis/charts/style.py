"""Looks of figures: one for the same setting everywhere, venues, rc parameters.

Published numbers and runs of one setting look the same but for the rim of the marks. Colours are
Okabe and Ito's, which people with any common colour blindness tell apart; the marker and the label
say the same again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from analysis.store.requests import RequestError

TEXT_WIDTH = 6.9
"""Inches; the text width of a two-column page."""
DPI = 200
"""Dots per inch of a PNG."""


@dataclass(frozen=True)
class Venue:
    """The page of a conference or journal: widths in inches, size in points.

    Attributes:
        column: width of one column; that of the text where there is one only.
        width: of a figure: that of the whole text, unless it is to fit into one column.
        height: of the page's text, of which a figure takes `MOST_OF_PAGE`; None: no page.
        size: of the letters in figures, a little below the text's own.
        spacing: of lines, in heights of the font; STIX is tall.
        is_column: a figure takes one column of several.
    """

    column: float
    width: float
    height: float | None
    size: float = 8.0
    family: str = "STIXGeneral"
    spacing: float = 1.05
    is_column: bool = False

    @property
    def captioned(self) -> bool:
        """Tell whether title and notes are the caption of a paper, and not in the picture."""
        return self.height is not None


PLAIN = Venue(3.4, TEXT_WIDTH, None, 8.5, "DejaVu Sans", 1.2)
"""Without a venue. STIX, elsewhere, is the Times that comes with matplotlib."""
MOST_OF_PAGE = 0.7
"""Height of the tallest figure over that of the page; the rest is for its caption and text."""
VENUES = {
    "plain": PLAIN,
    "neurips": Venue(5.5, 5.5, 9.0),
    "iclr": Venue(5.5, 5.5, 9.0),
    "tmlr": Venue(6.5, 6.5, 9.0),
    "jmlr": Venue(6.0, 6.0, 8.5),
    "icml": Venue(3.25, 6.75, 9.0),
    "aaai": Venue(3.3, 6.975, 9.0),
    "cvpr": Venue(3.25, 6.875, 8.875),
    "iccv": Venue(3.25, 6.875, 8.875),
    "eccv": Venue(4.8, 4.8, 7.6, 7.5),
    "ieee": Venue(3.5, 7.16, 9.5),
}
"""Sizes of the style files; a figure at either width needs no scaling in LaTeX."""

# Okabe and Ito, Color Universal Design (2008); purple, sky and black below are theirs as well.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#666666"


class Look(NamedTuple):
    """Colour and marker of a series."""

    colour: str
    marker: str


WITHOUT, WITH = Look(VERMILION, "o"), Look(BLUE, "s")
"""Without and with what a study adds, such as semantic regularisation."""
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK)
"""For series without a look of their own."""
MARKERS = "osD^vP<>"
"""Shapes beside them."""
_GRADIENT = ((68, 1, 84), (49, 104, 142), (53, 183, 121), (200, 190, 20))
"""Red, green and blue from the first value to the last: viridis, dark enough for white paper."""
OTHER = GREY
"""Peers, and what stands beside the question."""
FRONT = Look(GREY, "")

SWITCHES = ("tokenizer.semantic_weight", "tokenizer.entropy_weight")
"""Settings that are off at 0: what matters for the look is whether they are on."""
OF_VARIANT = {"1d": Look(BLUE, "s"), "2d": Look(ORANGE, "D")}
# A pair has the colour of its decoder, but for B-L, B-B and L-L: their decoders are those of other
# pairs, which may stand in the same figure.
_OF_TOKENIZER = {
    "S-S": BLUE,
    "S-B": ORANGE,
    "S-L": VERMILION,
    "B-L": PURPLE,
    "B-B": SKY,
    "L-L": GREEN,
    "XL-XXL": BLACK,
}
_OF_DECODER = {"S": BLUE, "B": ORANGE, "L": VERMILION, "XL": GREEN, "XXL": BLACK}


def of_setting(key: str, value: object) -> Look | None:
    """Look up how a setting is drawn wherever it tells series apart; None: it has no own look."""
    if key in SWITCHES:
        return WITH if value else WITHOUT
    return OF_VARIANT.get(str(value)) if key == "tokenizer.variant" else None


def of_rank(rank: int, count: int, *, is_ordered: bool) -> Look:
    """Choose the look of a value by its place among others, from 0.

    Colour and shape both tell values apart. Many values that have an order take their colours
    from a gradient, in which neighbours are alike.
    """
    marker = MARKERS[rank % len(MARKERS)]
    if not is_ordered or count <= len(CYCLE):
        return Look(CYCLE[rank % len(CYCLE)], marker)
    place = rank / (count - 1) * (len(_GRADIENT) - 1)
    first = min(int(place), len(_GRADIENT) - 2)
    ends = zip(_GRADIENT[first], _GRADIENT[first + 1], strict=True)
    mixed = (round(a + (b - a) * (place - first)) for a, b in ends)
    return Look("#" + "".join(f"{part:02X}" for part in mixed), marker)


def of_tokenizer(tokenizer: str, *, regularised: bool) -> Look:
    """Look up how the trials of one tokenizer are drawn: colour by size, marker by regularisation.

    Unlisted pairs take the colour of their decoder, as `B` alone does; unnamed sizes are grey.
    """
    # Text without a dash is its own last part: `B` alone is a decoder.
    decoder = tokenizer.rpartition("-")[2]
    colour = _OF_TOKENIZER.get(tokenizer, _OF_DECODER.get(decoder, GREY))
    return Look(colour, (WITH if regularised else WITHOUT).marker)


def page(name: str, *, column: bool = False) -> Venue:
    """Look up the page of a venue, as wide as its text or as one column.

    Raises:
        RequestError: an unknown one.
    """
    if name not in VENUES:
        raise RequestError(f"unknown venue {name!r}; known: {', '.join(VENUES)}")
    found = VENUES[name]
    is_column = column and found.column < found.width
    return replace(found, width=found.column, is_column=True) if is_column else found


@contextmanager
def applied(page: Venue | None = None) -> Iterator[None]:
    """Draw and save on matplotlib's defaults with our parameters, none of the user's.

    A matplotlibrc that asks for LaTeX or other colours is meant for the user's own figures; ours
    must come out the same on every machine.
    """
    import matplotlib.style

    # Later ones win: the venue's sizes replace the common ones.
    parameters: Any = _COMMON | (_of_venue(page) if page else {})
    with matplotlib.style.context(parameters, after_reset=True):
        yield


def _of_venue(venue: Venue) -> dict[str, object]:
    sizes = ("font.size", "axes.titlesize", "axes.labelsize")
    small = ("xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    return {
        "font.family": venue.family,
        "mathtext.fontset": "stix" if venue.family.startswith("STIX") else "dejavusans",
        **dict.fromkeys(sizes, venue.size),
        **dict.fromkeys(small, venue.size - 1),
        # Matplotlib names clip paths at random otherwise, and equal figures would differ.
        "svg.hashsalt": "gigatok",
    }


_COMMON: dict[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlepad": 8.0,  # marks of a share stand on the upper end of their axis
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    # Ticks are what they say: "+9.999e1" above an axis would have to be added to each.
    "axes.formatter.useoffset": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.0,
    # Hinted letters are as wide as the pixels of a picture say: what was measured at one
    # resolution would not fit at another, nor in a PDF.
    "text.hinting": "none",
    # TrueType: many conferences refuse the Type 3 fonts that are Matplotlib's default.
    "pdf.fonttype": 42,
}
