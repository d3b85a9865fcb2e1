"""Tables for terminals of any width: whole columns go before a number or a heading is broken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

GAP = 2
"""Characters between two columns."""
LEAST_WORDS = 20
"""Characters that a column of words has at least, if it has so many: narrower is hard to read."""
LONGEST_WORD = 32
"""Words that are longer, such as paths, may be broken where a table is narrow."""


@dataclass
class FittingTable:
    """Table without lines whose columns are whole or absent, and which says what is absent.

    Attributes:
        heads: of the columns.
        right: heads of columns that are aligned to the right, as numbers are.
        wraps: heads of columns of words, which may be broken between words.
        drops: heads of columns that may be left out, in the order in which they go.
        names: head -> what users call the column, where that is something else.
        more: says how to see what is left out; empty: nothing is said of it.
        show_header: whether the heads are printed.
        rows: cells of each row, and its style; filled by `add_row`.
    """

    heads: Sequence[str]
    right: Collection[str] = ()
    wraps: Collection[str] = ()
    drops: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    more: str = "a wider terminal or --json shows them"
    show_header: bool = True
    rows: list[tuple[tuple[RenderableType, ...], str]] = field(default_factory=list)

    def add_row(self, *cells: RenderableType, style: str = "") -> None:
        """Add a row; cells that are missing at its end stay empty."""
        self.rows.append(((*cells, *[""] * (len(self.heads) - len(cells))), style))

    @property
    def row_count(self) -> int:
        """Count the rows."""
        return len(self.rows)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Lay the table out in the width that there is."""
        sizes = [self._size(console, options, index) for index in range(len(self.heads))]
        shown = self._shown(sizes, options.max_width)
        widths = self._widths({index: sizes[index] for index in shown}, options.max_width)
        table = Table(box=None, pad_edge=False, show_header=self.show_header)
        for index, width in widths.items():
            head = self.heads[index]
            justify: Literal["left", "right"] = "right" if head in self.right else "left"
            table.add_column(Text(head), justify=justify, width=width, overflow="fold")
        for cells, style in self.rows:
            table.add_row(*(cells[index] for index in shown), style=style)
        yield table
        absent = [
            self.names.get(head, head) for i, head in enumerate(self.heads) if i not in shown
        ]
        if absent and self.rows and self.more:
            text = f"left out at {options.max_width} columns: {', '.join(absent)}; {self.more}"
            yield Text(text, style="dim")

    def _size(self, console: Console, options: ConsoleOptions, index: int) -> Measurement:
        """Measure a column: the least width that breaks nothing, and that of unbroken words."""
        head = self.heads[index] if self.show_header else ""
        cells = [Measurement.get(console, options, cells[index]) for cells, _ in self.rows]
        least = max(map(len, head.split()), default=0)
        most = max([len(head), *(cell.maximum for cell in cells)])
        if head in self.wraps:
            words = max([least, *(cell.minimum for cell in cells)])
            return Measurement(min(max(words, LEAST_WORDS), LONGEST_WORD, most), most)
        # The head may be broken between words, the cells may not.
        return Measurement(max([least, *(cell.maximum for cell in cells)]), most)

    def _shown(self, sizes: Sequence[Measurement], width: int) -> list[int]:
        """Leave columns out, in the order of `drops`, until the others fit."""
        shown = list(range(len(self.heads)))
        for head in self.drops:
            if sum(sizes[index].minimum + GAP for index in shown) - GAP <= width:
                break
            shown = [index for index in shown if self.heads[index] != head]
        return shown

    def _widths(self, sizes: Mapping[int, Measurement], width: int) -> dict[int, int]:
        """Give each column what it needs at least, and what is left to words, then to heads."""
        widths = {index: size.minimum for index, size in sizes.items()}
        left = max(0, width - sum(least + GAP for least in widths.values()) + GAP)
        # Columns that want little first, so that what they leave goes to the others.
        wanting = sorted(sizes, key=lambda index: sizes[index].span)
        for words in (True, False):
            turn = [index for index in wanting if (self.heads[index] in self.wraps) is words]
            for number, index in enumerate(turn):
                more = min(sizes[index].span, left // (len(turn) - number))
                widths[index] += more
                left -= more
        return widths
