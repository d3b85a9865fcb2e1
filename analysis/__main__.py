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
from analysis.commands import Plan, Scale, Sweep
from analysis.store.requests import RequestError, store_uri, sweep_name
from gigatok.names import FigureChoice
from gigatok.text.options import RunsDir, TrackingUri
from gigatok.text.places import DEFAULT_RUNS, as_seen, beside

if TYPE_CHECKING:
    from analysis.charts.grammar import Source
    from analysis.figures.parts.registry import StoreTrials
    from analysis.produce import StoredStudies, Written

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
Out = Annotated[
    Path | None,
    typer.Option(help="Folder to write to; default: beside the runs, named like the command."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(help="Metrics and config keys, by comma; default: the metrics of any study."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Only trials with the value, or with one of V,V."),
]
Listing = Annotated[bool, typer.Option("--list", help="Names, and what could not be found.")]


@app.command()
def table(
    sweep: Sweep,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    scale: Scale = None,
    plan: Plan = None,
    columns: Columns = None,
    where: Where = None,
    format: Annotated[
        TableFormat | None, typer.Option(help="Default: rich on a terminal, else markdown.")
    ] = None,
    protocols: Annotated[
        bool, typer.Option("--protocols", help="Whole protocols on a terminal, not their start.")
    ] = False,
) -> None:
    """Print the result table of a sweep, its protocols, and what the seeds allow to say."""
    with commands.requests_exit_2():
        from analysis.store.selecting import matching
        from analysis.studies.summary import markdown_summary, print_summary, summarise
        from analysis.tables.render import TEXT_FORMATS
        from analysis.tables.results import result_table

        uri = store_uri(runs_dir, tracking_uri)
        runs = matching(commands.load_measured(sweep, uri, scale, plan), where or ())
        # Made before anything is printed: a request that fails leaves no half of a table on the
        # screen.
        chosen = format or (TableFormat.rich if sys.stdout.isatty() else TableFormat.markdown)
        if chosen in (TableFormat.csv, TableFormat.latex):
            # They are read by programs, for which sentences would be rows.
            made = result_table(runs, _split(columns))
            typer.echo(TEXT_FORMATS[chosen](made), nl=False)
            return
        found = summarise(runs, uri, _split(columns))
        if chosen is TableFormat.rich:
            name = str(runs["sweep"][0])
            print_summary(found, protocols=protocols)
            # Not for a launch, which prints this among the other places to look at.
            if sys.stdout.isatty():
                more = commands.in_store("findings", name, runs_dir, tracking_uri)
                typer.echo(f"all comparisons, interactions and trends: {more}")
        else:
            typer.echo(markdown_summary(found), nl=False)


def _split(given: list[str] | None) -> tuple[str, ...] | None:
    """Read names from options that may hold several each, by comma; None: none is given."""
    if not given:
        return None
    return tuple(name.strip() for one in given for name in one.split(",") if name.strip())


@app.command()
def figures(
    name: Annotated[
        str | None, typer.Argument(help="A figure (see --list), or a sweep or its YAML file.")
    ] = None,
    everything: Everything = False,
    source: From = None,
    out: Out = None,
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
    where: Where = None,
    sweep: Annotated[
        str, typer.Option(help="Runs of a named figure; default: of the sweeps it is made for.")
    ] = "",
    check: Check = False,
    list_names: Listing = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
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
        choice = FigureChoice(x, ys, by, panel, tuple(where or ()))
        uri = store_uri(runs_dir, tracking_uri)
        look = produce.look(format, venue, choice, column=width is Width.column)
        if not wanted:
            runs = commands.load_measured(str(name), uri, scale, plan)
            return _report(
                lambda folder: produce.write_sweep(runs, uri, folder, look),
                out or beside(runs_dir, "figures"),
                check=check,
            )
        sources, store = _sources(source, uri, scale, sweep and sweep_name(sweep))
        _report(
            lambda folder: produce.make_figures(wanted, sources, store, folder, look),
            out or beside(runs_dir, "figures"),
            check=check,
        )


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="A published table; see --list.")] = None,
    everything: Everything = False,
    source: From = None,
    out: Out = None,
    format: Annotated[
        list[str] | None, typer.Option(help="Of markdown, csv, latex; by comma. Default: all.")
    ] = None,
    columns: Columns = None,
    check: Check = False,
    list_names: Listing = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    scale: Scale = None,
) -> None:
    """Write the paper's tables and those of the store, with the source of every number."""
    with commands.requests_exit_2():
        from analysis import produce

        if list_names:
            return produce.print_tables()
        names = produce.table_names(name, everything=everything)
        formats = produce.formats_of(format, tuple(produce.SUFFIXES))
        chosen = _split(columns)
        # A name is a published table's; tables of runs are made for all studies at once.
        wanted = SourceName.published if name and source is None else source
        studies = _studies(wanted, store_uri(runs_dir, tracking_uri), scale)
        # Tables of both are not merged: they have no rows in common.
        published = () if wanted is SourceName.runs else names
        _report(
            lambda folder: produce.make_tables(published, studies, folder, formats, chosen),
            out or beside(runs_dir, "tables"),
            check=check,
        )


def _studies(wanted: SourceName | None, uri: str, scale: str | None) -> StoredStudies | None:
    """Read the studies of the store; None where they are not asked for, or there is no store."""
    from analysis.produce import stored_studies

    if wanted is SourceName.published:
        return None
    try:
        return stored_studies(uri, scale)
    except RequestError as error:
        # Without a wish a missing store is no error: the published tables can still be written.
        if wanted is not None:
            raise
        typer.echo(f"published numbers only: {error}", err=True)
        return None


def _sources(
    wanted: SourceName | None, uri: str, scale: str | None, sweep: str
) -> tuple[list[Source], StoreTrials | None]:
    """Choose the sources to draw from; without a wish, published and what the store has."""
    from analysis.figures.gallery import open_trials

    if wanted is SourceName.published:
        return ["published"], None
    # Without a wish a missing store is no error: the published figures can still be drawn.
    try:
        store = open_trials(uri, scale, sweep)
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
    for line in differing if check else map(as_seen, outcome.paths):
        typer.echo(line)
    for reason in outcome.skipped:
        typer.echo(f"not made: {reason}", err=True)
    if check:
        # To stderr, so that stdout holds the differences alone.
        typer.echo(f"{len(differing)} changes in {len(outcome.paths)} files", err=True)
        raise typer.Exit(1 if differing else 0)


if __name__ == "__main__":
    app(prog_name="python -m analysis")
