"""Check files against the published models: `python -m gigatok.published verify S-B FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gigatok.files.foreign_weights import listed
from gigatok.files.stored_weights import read_weights
from gigatok.published.catalogue import PUBLISHED, codebook_norms, find, inspect, layouts_of
from gigatok.published.fitting import LoadReport


def report_table(report: LoadReport, norms: tuple[float, float, float] | None) -> Table:
    """Build a table of a load report, one fact a row."""
    published, misfits = PUBLISHED[report.name], report.misfits
    flaws = (f"{name} {flaw}" for name, flaw in misfits.unusable.items())
    head = "" if report.has_head or report.name.startswith("GPT") else ", no semantic head"
    rows = {
        "published as": f"{published.origin}, {published.parameters:,} parameters",
        "layout": report.layout,
        "parameters": f"{report.parameters:,} found{head}",
        "types": ", ".join(f"{count} {dtype}" for dtype, count in report.dtypes.items()),
        "steps": "not stored" if report.steps is None else f"{report.steps:,}",
        "args": "not stored" if report.args is None else str(dict(report.args)),
        "missing": listed(misfits.missing) or "nothing",
        "other shape": listed(misfits.mismatched) or "nothing",
        "unexpected": listed(misfits.unexpected) or "nothing",
        "unusable": ", ".join(flaws) or "nothing",
        "ignored": listed(misfits.ignored) or "nothing",
    }
    if norms is not None:
        low, middle, high = norms
        rows["codebook norms"] = f"{low:.3g} to {high:.3g}, median {middle:.3g}"
    table = Table("", report.name)
    for label, text in rows.items():
        # As plain text: names in a file may look like Rich's markup.
        table.add_row(label, Text(text))
    return table


app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Check published models and their checkpoints."""


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(PUBLISHED)}.")],
    file: Annotated[Path, typer.Argument(help="A .pt, .pth or .safetensors file.")],
) -> None:
    """Say whether a file holds the weights of a published model. Exit code 1: it does not."""
    try:
        stored = read_weights(file, layouts_of(find(name).architecture))
    except ValueError as error:
        # No markup: the path of a file may hold square brackets.
        Console(stderr=True).print(str(error), style="red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from error
    report = inspect(name, stored)
    Console().print(report_table(report, codebook_norms(stored.tensors)))
    # After the table, which shows in what it differs.
    if not report.complete:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
