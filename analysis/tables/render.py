"""A result table as text: Markdown, CSV, LaTeX, or a rich table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import polars as pl

from analysis.charts.records import table_of
from analysis.tables.results import ResultTable
from gigatok.text.latex import escaped

if TYPE_CHECKING:
    from rich.table import Table


def markdown(table: ResultTable) -> str:
    """Print a GitHub table with its title above and its notes below."""
    dashes = ["---:" if numeric else "---" for numeric in table.numeric]
    # A bar would end the cell.
    lines = [[c.replace("|", r"\|") for c in line] for line in (table.head, dashes, *table.rows)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "\n".join(f"* {note}" for note in table.notes)
    return f"**{table.title}**\n\n{body}\n\n{notes}\n"


def csv(table: ResultTable) -> str:
    """Print the numbers, unrounded, with intervals, units and protocols; of words the cells."""
    # Tables of words, such as the list of confounds, have no numbers behind their cells.
    if table.records:
        return table_of(table.records).write_csv()
    return pl.DataFrame(table.rows, table.head, orient="row").write_csv()


def latex(table: ResultTable) -> str:
    r"""Print a booktabs `table`; it needs `\usepackage{booktabs}`."""
    align = "".join("r" if numeric else "l" for numeric in table.numeric)
    lines = [_latex_line(table.head), r"\midrule", *map(_latex_line, table.rows)]
    notes = " ".join(table.notes)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(table.title)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\par\smallskip\footnotesize {escaped(notes)}",
            r"\end{table}",
            "",
        ]
    )


def rich_table(table: ResultTable, width: int) -> Table:
    """Make a table for `rich.print`; the notes are for the caller to print below.

    Where the settings as rows do not fit into `width` characters, they become columns.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    lines: Sequence[tuple[str, ...]] = (table.head, *table.rows)
    numeric: Sequence[bool] = table.numeric
    if _natural_width(lines) > width:
        # Turned over: settings become columns, which need less width than metrics do.
        lines = list(zip(*lines, strict=True))
        numeric = [False, *(True for _ in table.rows)]
    # Escaped, as rich takes [b] for markup, and that is how tables mark a protocol.
    made = Table(title=escape(table.title), box=SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    for head, is_number in zip(lines[0], numeric, strict=True):
        justify: Literal["left", "right"] = "right" if is_number else "left"
        # Folded, not cut off: a number without its last digits would read as another number.
        made.add_column(escape(head), justify=justify, overflow="fold")
    for line in lines[1:]:
        made.add_row(*(escape(cell) for cell in line))
    return made


def _natural_width(lines: Sequence[tuple[str, ...]]) -> int:
    """Count the characters of a table of unbroken cells; two of padding to each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return sum(widths) + 2 * len(widths) + 2


TEXT_FORMATS: dict[str, Callable[[ResultTable], str]]
TEXT_FORMATS = {"markdown": markdown, "csv": csv, "latex": latex}


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"
