"""The commands `export`, `findings`, `pareto` and `report` of `python -m analysis`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.api import load
from analysis.store.requests import RequestError, store_uri, sweep_name
from gigatok.text.command_lines import command
from gigatok.text.credentials import shown
from gigatok.text.options import RunsDir, TrackingUri
from gigatok.text.places import DEFAULT_RUNS, as_seen, beside

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer()


class TextFormat(StrEnum):
    """Formats of a table as text."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"


Sweep = Annotated[str, typer.Argument(help="Name of the sweep, or its YAML file.")]
Scale = Annotated[str | None, typer.Option(help="Only launches at this scale.")]
Plan = Annotated[
    str | None, typer.Option(help="A plan key, or 'all'. Default: the newest launch.")
]
Printed = Annotated[TextFormat, typer.Option(help="Format of the table.")]


@contextmanager
def requests_exit_2() -> Iterator[None]:
    """Print what was wrong with the request or cannot be written, without a traceback."""
    try:
        yield
    except RequestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        # A full disk or a closed pipe has no file to name, and no other folder would help.
        if error.filename is None:
            raise
        reason = f"{error.filename}: {error.strerror}; write elsewhere with --out FOLDER"
        typer.echo(f"error: {reason}", err=True)
        raise typer.Exit(2) from error


def load_measured(sweep: str, uri: str, scale: str | None, plan: str | None) -> pl.DataFrame:
    """Load the trials of a sweep, of which at least one has a result."""
    from analysis.store.runs import measured

    name = sweep_name(sweep)
    runs = load(name, uri, plan=plan, scale=scale)
    if measured(runs):
        return runs
    # A launch that was killed early leaves trials without a state.
    counts = runs["state"].fill_null("not started").value_counts()
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.rows()))
    errors = runs["error"].drop_nulls().unique(maintain_order=True).to_list()
    because = f" ({'; '.join(errors)})" if errors else ""
    raise RequestError(
        f"no finished trial in {name!r}: {states}{because}; "
        f"see `{command('orchestration', 'status', name)}`"
    )


def in_store(action: str, sweep: str, runs_dir: Path, uri: str | None) -> str:
    """Write a command about a sweep of the store that this one reads."""
    where = [] if runs_dir == DEFAULT_RUNS else ["--runs-dir", str(runs_dir)]
    where += [] if uri is None else ["--tracking-uri", shown(uri)]
    return command("analysis", action, sweep, *where)


@app.command()
def export(
    sweep: Annotated[
        str | None, typer.Argument(help="A sweep, or its file. Default: all.")
    ] = None,
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.")] = Path("runs.parquet"),
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    scale: Scale = None,
    # Unlike in other commands all plans by default: an export is for programs that select
    # themselves.
    plan: Annotated[
        str, typer.Option(help="A plan key; 'all'; or 'newest' of each sweep.")
    ] = "all",
) -> None:
    """Write every trial as one row: settings, results with units, stages and run ids."""
    from analysis.store.export import missing, write_table

    with requests_exit_2():
        uri = store_uri(runs_dir, tracking_uri)
        runs = load(sweep, uri, plan=None if plan == "newest" else plan, scale=scale)
        write_table(runs, out)
    typer.echo(f"{out}: {runs.height} trials, {runs.width} columns")
    absent = missing(runs)
    # A state may be null (a launch killed early): null is not COMPLETE and counts as unfinished.
    unfinished = runs.height - int((runs["state"] == "COMPLETE").sum())
    typer.echo(f"{unfinished} trials not complete, {absent.height} results missing")


@app.command()
def findings(
    sweep: Sweep,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    scale: Scale = None,
    plan: Plan = None,
    format: Printed = TextFormat.markdown,
) -> None:
    """Print every comparison, interaction and trend of a sweep, tested together."""
    with requests_exit_2():
        from analysis.claims.exploration import explore
        from analysis.tables.findings import findings_table
        from analysis.tables.render import TEXT_FORMATS

        runs = load_measured(sweep, store_uri(runs_dir, tracking_uri), scale, plan)
        typer.echo(TEXT_FORMATS[format](findings_table(runs, explore(runs))), nl=False)


@app.command()
def pareto(
    sweep: Sweep,
    over: Annotated[
        list[str], typer.Argument(help="Two metrics, sizes or numeric settings, or more.")
    ],
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    scale: Scale = None,
    plan: Plan = None,
    format: Printed = TextFormat.markdown,
) -> None:
    """Print the settings of a sweep that no other beats in all of some results."""
    with requests_exit_2():
        from analysis.tables.findings import pareto_table
        from analysis.tables.render import TEXT_FORMATS

        runs = load_measured(sweep, store_uri(runs_dir, tracking_uri), scale, plan)
        typer.echo(TEXT_FORMATS[format](pareto_table(runs, over)), nl=False)


@app.command()
def report(
    sweep: Sweep,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: reports beside the runs.")
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    scale: Scale = None,
    plan: Plan = None,
    answer: Annotated[
        bool, typer.Option("--answer", help="Print the answer and the table, not the files.")
    ] = False,
) -> None:
    """Write one self-contained HTML page, and Markdown: question, results, fits, cost, origin."""
    from analysis.report.report import write_report
    from analysis.studies.summary import print_summary, summarise

    with requests_exit_2():
        uri = store_uri(runs_dir, tracking_uri)
        runs = load_measured(sweep, uri, scale, plan)
        paths = list(write_report(runs, out or beside(runs_dir, "reports"), uri))
        if answer:
            print_summary(summarise(runs, uri))
        else:
            typer.echo("\n".join(map(as_seen, paths)))
