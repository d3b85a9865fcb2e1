"""`python -m analysis`: the table and the figures of a sweep. Heavy imports wait for a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.stores import DEFAULT_URI, RequestError

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What a sweep showed: read from the tracking store, never from folders or logs.",
)

Sweep = Annotated[str, typer.Argument(help="Name of the sweep, or its YAML file.")]
Uri = Annotated[str, typer.Option(help="sqlite:///PATH or the address of a tracking server.")]
Scale = Annotated[str | None, typer.Option(help="Only launches at this scale.")]
Plan = Annotated[
    str | None, typer.Option(help="A plan key, or 'all'. Default: the newest launch.")
]


class TableFormat(StrEnum):
    """How `table` prints."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    rich = "rich"


class ImageFormat(StrEnum):
    """What `figures` writes besides the data and the provenance."""

    pdf = "pdf"
    png = "png"


@app.command()
def table(
    sweep: Sweep,
    tracking_uri: Uri = DEFAULT_URI,
    scale: Scale = None,
    plan: Plan = None,
    format: Annotated[
        TableFormat | None, typer.Option(help="Default: rich on a terminal, else markdown.")
    ] = None,
) -> None:
    """Print the result table of a sweep, its protocols, and what the seeds allow to say."""
    with _requests_exit_2():
        from analysis.findings import comparisons
        from analysis.render import TEXT_FORMATS
        from analysis.tables import result_table

        runs = _load(sweep, tracking_uri, scale, plan)
        made = result_table(runs)
        sentences = [comparison.sentence for comparison in comparisons(runs)]
        default = TableFormat.rich if sys.stdout.isatty() else TableFormat.markdown
        chosen = format or default
        if chosen is TableFormat.rich:
            _print_rich(made, sentences)
            return
        typer.echo(TEXT_FORMATS[chosen](made), nl=False)
        if chosen is TableFormat.markdown and sentences:
            typer.echo("\n" + "\n".join(f"* {sentence}" for sentence in sentences))


@app.command()
def figures(
    sweep: Sweep,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("figures"),
    tracking_uri: Uri = DEFAULT_URI,
    scale: Scale = None,
    plan: Plan = None,
    format: Annotated[
        list[ImageFormat] | None, typer.Option(help="May be repeated. Default: both.")
    ] = None,
) -> None:
    """Draw the figure of a sweep; with its data (CSV) and the origin of each point (JSON)."""
    with _requests_exit_2():
        runs = _load(sweep, tracking_uri, scale, plan)
        from analysis.export import export_figure
        from analysis.figures import figure_info

        wanted = [image.value for image in format or ImageFormat]
        for path in export_figure(figure_info(runs), runs, out, wanted):
            typer.echo(str(path))


def _load(sweep: str, uri: str, scale: str | None, plan: str | None) -> pl.DataFrame:
    """The trials of a sweep, of which at least one has a result."""
    from analysis.runs import load_runs, measured

    name = Path(sweep).stem if sweep.endswith((".yaml", ".yml")) else sweep
    runs = load_runs(name, uri, plan=plan, scale=scale)
    if measured(runs):
        return runs
    states = ", ".join(f"{n} {state}" for state, n in sorted(runs["state"].value_counts().rows()))
    errors = runs["error"].drop_nulls().unique(maintain_order=True).to_list()
    because = f" ({'; '.join(errors)})" if errors else ""
    raise RequestError(
        f"no finished trial in {name!r}: {states}{because}; "
        f"see `python -m orchestration status {name}`"
    )


def _print_rich(made: object, sentences: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from analysis.render import rich_table
    from analysis.tables import ResultTable

    assert isinstance(made, ResultTable)
    console = Console()
    console.print(rich_table(made, console.width))
    for note in made.notes:
        console.print(f"[dim]{escape(note)}[/dim]")
    for sentence in sentences:
        console.print(f"• {escape(sentence)}")


@contextmanager
def _requests_exit_2() -> Iterator[None]:
    """Print what was wrong with the request, without a traceback."""
    try:
        yield
    except RequestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app(prog_name="python -m analysis")
