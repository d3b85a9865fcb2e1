"""Draw figures and print tables of runs and of the published numbers: `python -m analysis`.

Heavy imports wait for a command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis import commands
from analysis.commands import Plan, Scale, Sweep, Uri
from analysis.store.requests import DEFAULT_URI, RequestError
from gigatok.names import FigureChoice

if TYPE_CHECKING:
    from analysis.charts.grammar import Source
    from analysis.figures.registry import StoreTrials
    from analysis.produce import Written
    from analysis.tables.results import ResultTable

# Typer's own tracebacks may print local variables, such as a tracking URI with its password.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Results of sweeps: read from the tracking store, never from folders or logs.",
)
app.add_typer(commands.app)


class TableFormat(StrEnum):
    """Formats in which `table` prints."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    rich = "rich"


class SourceName(StrEnum):
    """Sources of the numbers."""

    published = "published"
    runs = "runs"
    both = "both"


class Width(StrEnum):
    """Widths of a venue."""

    column = "column"
    text = "text"


Everything = Annotated[bool, typer.Option("--all", help="All that the sources have data for.")]
From = Annotated[
    SourceName | None,
    typer.Option(help="Default: published and, where there is a store, runs, apart."),
]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing: make again, say what differs; exit 1.")
]
Listing = Annotated[bool, typer.Option("--list", help="Names, and what could not be found.")]


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
    with commands.requests_exit_2():
        from analysis.claims.exploration import explore
        from analysis.claims.judged import judge
        from analysis.tables.render import TEXT_FORMATS
        from analysis.tables.results import result_table
        from gigatok.claims.words import legend

        runs = commands.load_measured(sweep, tracking_uri, scale, plan)
        # Made before anything is printed: a request that fails leaves no half of a table on the
        # screen.
        made = result_table(runs)
        claims = judge(runs, tracking_uri)
        sentences = [claim.sentence for claim in claims] + ([legend(claims)] if claims else [])
        sentences += explore(runs).sentences
        chosen = format or (TableFormat.rich if sys.stdout.isatty() else TableFormat.markdown)
        if chosen is TableFormat.rich:
            _print_rich(made, sentences)
            return
        # The formats end with a newline of their own.
        typer.echo(TEXT_FORMATS[chosen](made), nl=False)
        # CSV and LaTeX are read by programs, for which sentences would be rows.
        if chosen is TableFormat.markdown and sentences:
            typer.echo("\n" + "\n".join(f"* {sentence}" for sentence in sentences))


@app.command()
def figures(
    name: Annotated[
        str | None, typer.Argument(help="A figure (see --list), or a sweep or its YAML file.")
    ] = None,
    everything: Everything = False,
    source: From = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("figures"),
    format: Annotated[
        list[str] | None, typer.Option(help="Of pdf, png, svg; by comma. Default: pdf,png.")
    ] = None,
    venue: Annotated[str, typer.Option(help="neurips, iclr, icml, cvpr, ...")] = "plain",
    width: Annotated[Width, typer.Option(help="Which width of the venue.")] = Width.text,
    x: Annotated[str, typer.Option(help="A metric, a config key, or step.")] = "",
    y: Annotated[
        list[str] | None,
        typer.Option(help="Metrics, by comma; over step logged names, `generator:NAME` too."),
    ] = None,
    by: Annotated[str, typer.Option(help="Config key that colour and shape tell.")] = "",
    panel: Annotated[str, typer.Option(help="Config key with a panel for each value.")] = "",
    check: Check = False,
    list_names: Listing = False,
    tracking_uri: Uri = DEFAULT_URI,
    scale: Scale = None,
    plan: Plan = None,
) -> None:
    """Draw figures; with their data (CSV) and the origin of each point (JSON)."""
    with commands.requests_exit_2():
        from analysis import produce

        if list_names:
            return produce.print_figures()
        # A name that is no figure's may be a sweep's: the store decides, with an error of its own.
        wanted = produce.figure_names(name, everything=everything)
        ys = tuple(key for one in y or () for key in one.split(","))
        choice = FigureChoice(x, ys, by, panel)
        look = produce.look(format, venue, choice, column=width is Width.column)
        if not wanted:
            runs = commands.load_measured(str(name), tracking_uri, scale, plan)
            return _report(
                lambda folder: produce.write_sweep(runs, tracking_uri, folder, look),
                out,
                check=check,
            )
        sources, store = _sources(source, tracking_uri, scale)
        _report(
            lambda folder: produce.make_figures(wanted, sources, store, folder, look),
            out,
            check=check,
        )


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="A published table; see --list.")] = None,
    everything: Everything = False,
    source: From = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("tables"),
    format: Annotated[
        list[str] | None, typer.Option(help="Of markdown, csv, latex; by comma. Default: all.")
    ] = None,
    check: Check = False,
    list_names: Listing = False,
    tracking_uri: Uri = DEFAULT_URI,
    scale: Scale = None,
) -> None:
    """Write the paper's tables and those of the store, with the source of every number."""
    with commands.requests_exit_2():
        from analysis import produce

        if list_names:
            return produce.print_tables()
        names = produce.table_names(name, everything=everything)
        formats = produce.formats_of(format, tuple(produce.SUFFIXES))
        # Names are those of published tables; tables of runs are made for all sweeps at once.
        chosen = SourceName.published if name and source is None else source
        sources, store = _sources(chosen, tracking_uri, scale)
        # Tables of both are not merged: they have no rows in common.
        sources = ["published", "runs"] if "both" in sources else sources
        _report(
            lambda folder: produce.make_tables(names, sources, store, folder, formats),
            out,
            check=check,
        )


def _sources(
    wanted: SourceName | None, uri: str, scale: str | None
) -> tuple[list[Source], StoreTrials | None]:
    """Choose the sources to draw from; without a wish, published and what the store has."""
    from analysis.figures.gallery import open_trials

    if wanted is SourceName.published:
        return ["published"], None
    # Without a wish a missing store is no error: the published figures can still be drawn.
    try:
        store = open_trials(uri, scale)
    except RequestError as error:
        if wanted is not None:
            raise
        typer.echo(f"published numbers only: {error}", err=True)
        return ["published"], None
    if wanted is None:
        return ["published", "runs"], store
    return ["both" if wanted is SourceName.both else "runs"], store


def _report(make: Callable[[Path], Written], out: Path, *, check: bool) -> None:
    """Write and list, or check; say what cannot be made, and fail where nothing can."""
    from analysis.produce import checked

    outcome, differing = checked(make, out) if check else (make(out), [])
    if not outcome.paths:
        # Nothing written and no reason would end with exit code 0 and no word.
        assert outcome.skipped, "what was asked for is written, or there is a reason"
        raise RequestError("; ".join(outcome.skipped))
    for line in differing if check else map(str, outcome.paths):
        typer.echo(line)
    for reason in outcome.skipped:
        typer.echo(f"not made: {reason}", err=True)
    if check:
        # To stderr, so that stdout holds the differences alone.
        typer.echo(f"{len(differing)} changes in {len(outcome.paths)} files", err=True)
        raise typer.Exit(1 if differing else 0)


def _print_rich(made: ResultTable, sentences: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from analysis.tables.render import rich_table

    console = Console()
    # Titles and notes hold user text: square brackets in it are no markup.
    console.print(rich_table(made, console.width))
    for note in made.notes:
        console.print(f"[dim]{escape(note)}[/dim]")
    for sentence in sentences:
        console.print(f"• {escape(sentence)}")


if __name__ == "__main__":
    app(prog_name="python -m analysis")
