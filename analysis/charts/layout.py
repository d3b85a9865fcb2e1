"""Places of the charts, pictures and words of a figure on its page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.charts.grammar import FigureData
from analysis.charts.style import Venue
from analysis.store.requests import RequestError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_GREY = "#444444"
_TITLE_SCALE, _CAPTION_SCALE = 1.1, 0.72
_BOLD = 1.12
"""Width of bold letters over that of others."""
# Words are broken before anything is drawn, when no renderer can measure them yet: widths are
# estimates. `fit_words` measures later, where it must.
_CHARACTER = 0.53
"""Mean width of a character, in font sizes."""
_HANDLE = 5
"""Width of a line and its spaces in a legend, in font sizes."""
_BIG = 3
"""Columns at which a big chart takes four cells; also the most there are."""
_NARROWEST = 2.1
"""Inches of a chart with its labels."""
_LOWEST = 1.05
"""Inches below which a chart has no room for its ticks and words."""
_PAIRS = (4, 6.0)
"""Columns of pairs of charts, the paper's and that of runs, from a page of so many inches on."""
_GAP = 2.0
"""Pixels at least between the texts of two ticks."""

Cell = tuple[slice, slice]
"""Rows and columns of the page's grid, below the strip of the legend."""


@dataclass(frozen=True)
class PagePlan:
    """Places of the charts, then of the grids of pictures.

    Attributes:
        heights: inches of each row.
    """

    cells: tuple[Cell, ...]
    heights: tuple[float, ...]
    columns: int


def plan(
    data: FigureData, inches: float, shapes: Sequence[float], most: float | None = None
) -> PagePlan:
    """Choose the places of everything on a page.

    Args:
        data: the figure.
        inches: width of the page.
        shapes: width over height of each grid of pictures.
        most: inches that all of it may take; rows get lower where it would be more.

    Raises:
        RequestError: it fits into no page, however low its charts are.
    """
    cells, rows, columns = _cells(data, inches)
    heights = _heights(data, inches, rows, columns)
    for shape in shapes:
        cells.append((slice(rows + 1, rows + 2), slice(0, columns)))
        heights.append(inches / shape + 0.5)  # half an inch for title and heads
        rows += 1
    share = 1.0 if most is None else min(1.0, most / max(sum(heights), 1e-9))
    if share * min(heights, default=_LOWEST) < _LOWEST and share < 1:
        raise RequestError(
            f"{data.name}: {len(data.charts)} charts and {len(shapes)} rows of pictures do not "
            f"fit into {most:.1f} in of a page; choose fewer (--y rfid), or --width text"
        )
    return PagePlan(tuple(cells), tuple(height * share for height in heights), columns)


def _heights(data: FigureData, inches: float, rows: int, columns: int) -> list[float]:
    """Choose the height of each row of charts, in inches."""
    across = inches / columns
    # Charts a little wider than tall, but never too low for their ticks.
    row = min(2.2, max(1.6 if across < _NARROWEST else 1.75, 0.86 * across))
    heights = [row] * rows
    if data.charts and data.charts[0].big and columns < _BIG:
        heights[0] *= 1.5
    return heights


def write_words(figure: Figure, data: FigureData, venue: Venue) -> float:
    """Write title and caption; return the inches that they take."""
    inches = figure.get_figwidth()
    large, small = venue.size * _TITLE_SCALE, venue.size * _CAPTION_SCALE
    title = _wrapped([data.title], inches, large * _BOLD)
    below = _wrapped(caption(data), inches, small)
    figure.suptitle("\n".join(title), x=0.01, ha="left", size=large, weight="bold")
    figure.supxlabel("\n".join(below), x=0.01, ha="left", size=small, color=_GREY)
    # Inches: a line of print takes 1.25 font sizes; .15 are for the gaps around the words.
    return 1.25 * (len(title) * large + len(below) * small) / 72 + 0.15


def _broken(text: str) -> str:
    if " (" in text:
        return text.replace(" (", "\n(", 1)
    words = text.split(" ")
    half = -(-len(words) // 2)
    return "\n".join(filter(None, (" ".join(words[:half]), " ".join(words[half:]))))


def slant_names(axes: Axes, renderer: RendererBase) -> Axes:
    """Slant the names on an axis where they would touch each other."""
    if _crowded(axes.get_xticklabels(), renderer, across=True):
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    return axes


def thin_ticks(axes: Axes, renderer: RendererBase) -> Axes:
    """Hide the texts of ticks that would touch the one before; their ticks stay."""
    for labels, across in ((axes.get_xticklabels(), True), (axes.get_yticklabels(), False)):
        for label in _crowded(labels, renderer, across=across):
            label.set_visible(False)
    return axes


def _crowded(labels: Sequence[Text], renderer: RendererBase, *, across: bool) -> list[Text]:
    """Find the texts that touch the last one that stays, from the first on."""
    found: list[Text] = []
    taken: list[tuple[float, float]] = []
    for label in labels:
        if not label.get_text():
            continue
        box = label.get_window_extent(renderer)
        ends = (box.x0, box.x1) if across else (box.y0, box.y1)
        if label.get_rotation():
            # Slanted texts are apart where their ends are, by the height of a line.
            scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
            ends = (box.x1 - float(label.get_fontsize()) * scale, box.x1)
        if any(ends[0] < high + _GAP and low - _GAP < ends[1] for low, high in taken):
            found.append(label)
        else:
            taken.append(ends)
    return found


def fit_words(axes: Axes, renderer: RendererBase) -> Axes:
    """Break a title that is wider than its axes, and labels that are longer, at their unit."""
    frame = axes.get_window_extent(renderer)
    # A label such as "AR val loss (nats/token)" breaks before its unit, else before a word.
    if axes.yaxis.label.get_window_extent(renderer).height > frame.height:
        axes.set_ylabel(_broken(axes.get_ylabel()))
    if axes.xaxis.label.get_window_extent(renderer).width > frame.width:
        axes.set_xlabel(_broken(axes.get_xlabel()))
    text = axes.get_title(loc="left")
    if not text:
        return axes
    title = axes.set_title(text, loc="left")
    share = axes.get_window_extent(renderer).width / title.get_window_extent(renderer).width
    if share < 1:
        # A bracket at the end, such as "(Table 6)", is no place to break.
        whole = re.sub(r" (?=[^()]*\)$)", "\xa0", text)
        axes.set_title("\n".join(textwrap.wrap(whole, int(len(text) * share))), loc="left")
    return axes


def _cells(data: FigureData, inches: float) -> tuple[list[Cell], int, int]:
    """Place each chart in the first free cells; count rows and columns."""
    count = len(data.charts)
    if data.source == "both":
        return _pairs(count, inches)
    columns = max(1, min(count, _BIG, int(inches / _NARROWEST))) if count else 1
    is_narrow = columns == 1 and count > _BIG  # one below the other would be longer than a page
    # Two or four charts make whole rows of two.
    if is_narrow or count in (2, 4):
        columns = 2 if is_narrow else min(columns, 2)
    cells: list[Cell] = []
    taken: set[tuple[int, int]] = set()
    large = (2, 2) if columns == _BIG else (1, 2) if is_narrow else (1, 1)
    for tall, wide in [large if chart.big else (1, 1) for chart in data.charts]:
        # First fit, row by row from the top left: later charts fill the gaps beside a big one.
        row, column = next(
            (r, c)
            for r in range(count + 2)
            for c in range(columns - wide + 1)
            if not {(r + i, c + j) for i in range(tall) for j in range(wide)} & taken
        )
        taken |= {(row + i, column + j) for i in range(tall) for j in range(wide)}
        cells.append((slice(row + 1, row + tall + 1), slice(column, column + wide)))
    rows = max((cell[0].stop - 1 for cell in cells), default=0)
    return cells, rows, columns


def _pairs(count: int, inches: float) -> tuple[list[Cell], int, int]:
    """Place charts row by row, so that the two of a pair stand side by side."""
    columns = _PAIRS[0] if inches >= _PAIRS[1] and count > 2 else 2
    places = [divmod(index, columns) for index in range(count)]
    cells = [(slice(row + 1, row + 2), slice(at, at + 1)) for row, at in places]
    return cells, -(-count // columns), columns


def legend_columns(labels: Sequence[str], inches: float, size: float) -> int:
    """Count how many handles fit beside each other."""
    longest = max(map(len, labels), default=0)
    each = (longest * _CHARACTER + _HANDLE) * size / 72
    return max(1, int(inches / each))


def caption(data: FigureData) -> list[str]:
    """Collect the notes, and how the numbers were obtained."""
    readings = {
        "digitised": "Hollow marks and values of figures: read off the authors' figures by pixel.",
        "secondary": "Hollow, secondary: from a copy or a note, not from the work itself.",
    }
    how = [text for reading, text in readings.items() if reading in data.readings]
    absent = [f"Not shown: {'; '.join(data.missing)}."] if data.missing else []
    return [*data.notes, *how, *absent]


def _wrapped(texts: Sequence[str], inches: float, size: float) -> list[str]:
    width = int(inches * 72 / (size * _CHARACTER))
    return [line for text in texts for line in textwrap.wrap(text, width)]
