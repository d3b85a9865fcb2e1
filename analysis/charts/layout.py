"""Places of the charts, pictures and words of a figure on its page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, permutations
from typing import TYPE_CHECKING

import numpy as np

from analysis.charts import style
from analysis.charts.grammar import Chart, FigureData
from analysis.charts.style import Venue
from analysis.store.requests import RequestError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec
    from matplotlib.text import Text

_GREY = "#444444"
_TITLE_SCALE, _CAPTION_SCALE = 1.1, 0.72
_BIG = 3
"""Columns at which a big chart takes four cells; also the most there are."""
_NARROWEST = 1.8
"""Inches of a chart with its labels."""
_FLATNESS = 0.58
"""Height of a frame over the width of its column, which the words at its left share."""
_TALLEST, _STACKED, _LOW = 1.6, 1.25, 0.95
"""Inches of the frame of a chart: at most, at most of several below each other, at least."""
_MANY_ROWS = 3
"""Rows above which frames are flatter, so that a figure fits on a screen or a page."""
_LOWEST = 0.55
"""Inches below which a frame cannot be read; a page that leaves less is refused."""
_PAIRS = (4, 6.0)
"""Columns of pairs of charts, the paper's and that of runs, from a page of so many inches on."""

Cell = tuple[slice, slice]
"""Rows and columns of the page's grid, below the strip of the legend."""


@dataclass(frozen=True)
class PagePlan:
    """Places of the charts, then of the grids of pictures.

    Attributes:
        heights: inches of the frames in each row, without their words.
    """

    cells: tuple[Cell, ...]
    heights: tuple[float, ...]
    columns: int


def plan(data: FigureData, inches: float, shapes: Sequence[float]) -> PagePlan:
    """Choose the places of everything on a page.

    Args:
        data: the figure.
        inches: width of the page.
        shapes: width over height of each grid of pictures.
    """
    cells, rows, columns = _cells(data, inches)
    heights = _heights(data, inches, rows, columns)
    for shape in shapes:
        cells.append((slice(rows + 1, rows + 2), slice(0, columns)))
        heights.append(inches / shape)
        rows += 1
    return PagePlan(tuple(cells), tuple(heights), columns)


def _heights(data: FigureData, inches: float, rows: int, columns: int) -> list[float]:
    """Choose the height of each row of frames, in inches."""
    # Charts a little wider than tall; one below the other they may be flatter, as each is wide.
    is_tall = (columns == 1 and rows > 1) or rows > _MANY_ROWS
    most = _STACKED if is_tall else _TALLEST
    heights = [min(most, max(_LOW, _FLATNESS * inches / columns))] * rows
    if data.charts and data.charts[0].big and columns < _BIG:
        heights[0] *= 1.5
    return heights


def shared(charts: Sequence[Chart], cells: Sequence[Cell]) -> list[tuple[int, int]]:
    """Pair each chart with the one right below it that has the same x, from the lowest pair up."""
    pairs = []
    for upper, lower in permutations(range(len(charts)), 2):
        (above, across), (below, beside) = cells[upper], cells[lower]
        one, other = charts[upper], charts[lower]
        alike = (one.x, one.log_x) == (other.x, other.log_x)
        if alike and across == beside and above.stop == below.start:
            pairs.append((upper, lower))
    return sorted(pairs, key=lambda pair: -cells[pair[0]][0].start)


def fit_height(
    figure: Figure, grid: GridSpec, made: PagePlan, data: FigureData, venue: Venue
) -> Figure:
    """Give a figure that was laid out the height at which its frames are as tall as planned.

    Raises:
        RequestError: it fits into no page, however low its charts are.
    """
    if not made.heights:
        return figure
    ratios = np.asarray(grid.get_height_ratios(), dtype=float).tolist()
    total, planned, strip = figure.get_figheight(), made.heights, ratios[0]
    # Constrained layout makes frames as tall as their ratios say, and gives words what they take.
    frame = min(figure.axes[1:], key=lambda axes: len(_rows(axes)))
    inches = frame.get_position(original=True).height * total
    words = total - inches / sum(ratios[row] for row in _rows(frame)) * sum(ratios)
    share = 1.0
    if venue.height is not None:
        room = venue.height * style.MOST_OF_PAGE - words - strip
        share = min(1.0, room / sum(planned))
    if share < 1 and share * min(planned) < _LOWEST:
        # Where the text has one column, it is as wide as can be.
        wider = ", or --width text" if venue.is_column else ""
        shown = [f"{n} {what}" for n, what in _counted(data) if n]
        raise RequestError(
            f"{data.name}: {' and '.join(shown)} do not fit into {room + words + strip:.1f} in, "
            f"{style.MOST_OF_PAGE:.0%} of a page; choose fewer (--y rfid){wider}"
        )
    heights = [strip, *(height * share for height in planned)]
    grid.set_height_ratios(heights)
    figure.set_figheight(words + sum(heights))
    return figure


def _counted(data: FigureData) -> list[tuple[int, str]]:
    return [(len(data.charts), "charts"), (len(data.grids), "rows of pictures")]


def _rows(axes: Axes) -> range:
    spec = axes.get_subplotspec()
    assert spec is not None, "every chart has a cell of the page"
    return spec.rowspan


def write_words(figure: Figure, data: FigureData, venue: Venue, renderer: RendererBase) -> None:
    """Write title and caption, in lines as wide as the page."""
    large, small = venue.size * _TITLE_SCALE, venue.size * _CAPTION_SCALE
    title = figure.suptitle("", x=0.01, ha="left", size=large, weight="bold")
    below = figure.supxlabel("", x=0.01, ha="left", size=small, color=_GREY)
    for text, words in ((title, [data.title]), (below, caption(data))):
        wrap(text, words, 0.98 * figure.bbox.width, renderer)


def inches_of_words(figure: Figure) -> float:
    """Measure title and caption, in inches of height."""
    return sum(float(text.get_window_extent().height) for text in figure.texts) / figure.dpi


def wrap(text: Text, paragraphs: Sequence[str], pixels: float, renderer: RendererBase) -> Text:
    """Break paragraphs into lines that are no wider than so many pixels."""
    text.set_text(max(paragraphs, key=len, default=""))
    whole = text.get_window_extent(renderer).width
    # Letters differ in width: the widest line decides, and a try or two find it.
    letters = int(len(text.get_text()) * pixels / max(whole, 1.0)) + 8
    while letters > 1:
        lines = [line for words in paragraphs for line in textwrap.wrap(words, letters)]
        text.set_text("\n".join(lines))
        if text.get_window_extent(renderer).width <= pixels:
            break
        letters -= 2
    return text


def fit_words(axes: Axes, renderer: RendererBase) -> bool:
    """Break a title and labels that are longer than their axes; tell whether any was broken."""
    frame = axes.get_window_extent(renderer)
    up, across = axes.yaxis.label, axes.xaxis.label
    # Set again, as only the title that `set_title` returns is where it will be drawn.
    title = axes.set_title(axes.get_title(loc="left"), loc="left")
    broken = False
    for text, room in ((up, frame.height), (across, frame.width), (title, frame.width)):
        box = text.get_window_extent(renderer)
        length, words = (box.height if text is up else box.width), text.get_text()
        if length > room and "\n" not in words:
            text.set_text(_broken(words, int(len(words) * room / length)))
            broken = broken or "\n" in text.get_text()
    return broken


def _broken(text: str, letters: int) -> str:
    """Break words into lines; neither a unit or another bracket nor the arrow behind it breaks."""
    whole = re.sub(r" (?=[^()]*\))|(?<=[,)]) (?=better|[↑↓])| (?=[→↑↓])", "\xa0", text)
    # The bracket itself may begin a line.
    whole = re.sub(r"\xa0(?=\()", " ", whole)
    lines = textwrap.wrap(whole, max(letters, 1), break_long_words=False)
    return "\n".join(lines).replace("\xa0", " ")


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
    # Panels of one result stand side by side, where a row has room for them.
    panels = _panels(data.charts)
    columns -= columns % panels if panels <= columns else 0
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


def _panels(charts: Sequence[Chart]) -> int:
    """Count the charts in a row that show one result; 1 where results have several numbers."""
    found = {len(list(same)) for _, same in groupby(charts, key=lambda chart: chart.y.key)}
    return found.pop() if len(found) == 1 else 1


def _pairs(count: int, inches: float) -> tuple[list[Cell], int, int]:
    """Place charts row by row, so that the two of a pair stand side by side."""
    columns = _PAIRS[0] if inches >= _PAIRS[1] and count > 2 else 2
    places = [divmod(index, columns) for index in range(count)]
    cells = [(slice(row + 1, row + 2), slice(at, at + 1)) for row, at in places]
    return cells, -(-count // columns), columns


def caption(data: FigureData) -> list[str]:
    """Collect the notes, and how the numbers were obtained."""
    readings = {
        "digitised": "Hollow marks and values of figures: read off the authors' figures by pixel.",
        "secondary": "Hollow, secondary: from a copy or a note, not from the work itself.",
    }
    how = [text for reading, text in readings.items() if reading in data.readings]
    absent = [f"Not shown: {'; '.join(data.missing)}."] if data.missing else []
    return [*data.notes, *how, *absent]
