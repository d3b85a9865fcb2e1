"""A result table as text: Markdown, CSV, LaTeX, or a table that fits a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import polars as pl
from rich.text import Text

from analysis.charts.records import table_of
from analysis.tables.results import ResultTable
from gigatok.text.fitting import FittingTable
from gigatok.text.latex import escaped


def markdown(table: ResultTable) -> str:
    """Print a GitHub table with its title above and its notes below."""
    dashes = ["---:" if numeric else "---" for numeric in table.numeric]
    # A bar would end the cell.
    rows = _marked(table, lambda cell: f"**{cell}**")
    lines = [[c.replace("|", r"\|") for c in line] for line in (table.head, dashes, *rows)]
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
    cells = [tuple(map(escaped, row)) for row in table.rows]
    rows = _marked(replace(table, rows=tuple(cells)), lambda cell: rf"\textbf{{{cell}}}")
    lines = [_latex_line(map(escaped, table.head)), r"\midrule", *map(_latex_line, rows)]
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


def fitting_table(table: ResultTable) -> FittingTable:
    """Make a table for a terminal: columns that do not fit are left out, and named.

    Title and notes are for the caller to print.
    """
    heads = table.head
    made = FittingTable(
        heads,
        right=[head for head, numeric in zip(heads, table.numeric, strict=True) if numeric],
        wraps=[head for head, numeric in zip(heads, table.numeric, strict=True) if not numeric],
        drops=[heads[column] for column in table.drops],
        names=dict(zip(heads, table.names, strict=True)),
        more="--columns NAME,… shows others, a wider terminal or --format markdown all",
    )
    for row, cells in enumerate(table.rows):
        # As text, not markup: [b] marks a protocol.
        made.add_row(*(_cell(table, row, column) for column in range(len(cells))))
    return made


def _cell(table: ResultTable, row: int, column: int) -> Text:
    cell = table.rows[row][column]
    # A star as well, for terminals and files without bold.
    return Text(f"*{cell}", "bold green") if (row, column) in table.best else Text(cell)


def _marked(table: ResultTable, mark: Callable[[str], str]) -> list[tuple[str, ...]]:
    """Mark the best cells of a table."""
    return [
        tuple(mark(c) if (row, column) in table.best else c for column, c in enumerate(cells))
        for row, cells in enumerate(table.rows)
    ]


TEXT_FORMATS: dict[str, Callable[[ResultTable], str]]
TEXT_FORMATS = {"markdown": markdown, "csv": csv, "latex": latex}


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
