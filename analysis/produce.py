"""The work of the commands `figures` and `tables`: make all or some, write them, or check them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from analysis.charts import style
from analysis.charts.files import FORMATS, changes, write
from analysis.charts.grammar import Source
from analysis.charts.records import document, write_json
from analysis.charts.style import Venue
from analysis.figures import gallery
from analysis.figures.parts.registry import FIGURES, StoreTrials
from analysis.figures.sweeps import sweep_figure
from analysis.paper.published import absent
from analysis.store.opening import open_store
from analysis.store.requests import RequestError
from analysis.store.runs import load_runs, measured
from analysis.tables.columns import ABSENT
from analysis.tables.published import TABLES
from analysis.tables.render import TEXT_FORMATS
from analysis.tables.results import ResultTable, result_table
from gigatok.names import TAG_SCALE, FigureChoice

SUFFIXES = {"markdown": "md", "csv": "csv", "latex": "tex"}


@dataclass(frozen=True)
class FigureOptions:
    """Formats and page of the figures that are written, and the axes that they show."""

    formats: tuple[str, ...]
    venue: Venue = style.PLAIN
    choice: FigureChoice = field(default_factory=FigureChoice)


@dataclass
class Written:
    """Files that were written, and why others were not."""

    paths: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Note why something cannot be made, and go on."""
        try:
            yield
        except RequestError as error:
            self.skipped.append(str(error))


def make_figures(
    names: Sequence[str],
    sources: Sequence[Source],
    runs: StoreTrials | None,
    out: Path,
    look: FigureOptions,
) -> Written:
    """Write figures from each source that they exist in."""
    outcome = Written()
    for name in names:
        # A source that never has a figure is skipped in silence; one that lacks its runs is not.
        offered = [source for source in sources if gallery.offers(name, source)]
        # A single figure that no source has must fail with the reason, not write nothing.
        only_asked = sources[:1] if len(names) == 1 else []
        for source in offered or only_asked:
            with outcome.attempt():
                data = gallery.named_figure(name, source, runs, look.choice)
                outcome.paths += write(data, out, look.formats, look.venue)
    return outcome


@dataclass(frozen=True)
class StoredStudies:
    """Trials of the newest launch of each sweep at each scale, and why some are left out."""

    tables: tuple[pl.DataFrame, ...]
    left_out: tuple[str, ...]


def stored_studies(uri: str, scale: str | None = None) -> StoredStudies:
    """Read every study of a store that has a result; at one scale, where it is given.

    Raises:
        RequestError: there is no such store.
    """
    launches = open_store(uri).launches(None)
    tables, left_out = [], []
    for sweep, at in sorted({(one.sweep, one.tags.get(TAG_SCALE, "")) for one in launches}):
        name = f"{sweep} at scale {at}"
        if scale not in (None, at):
            left_out.append(f"{name}: another scale than --scale {scale}")
            continue
        try:
            rows = load_runs(sweep, uri, scale=at)
        except RequestError as error:
            left_out.append(f"{name}: {error}")
            continue
        if measured(rows):
            tables.append(rows)
        else:
            left_out.append(f"{name}: no finished trial")
    return StoredStudies(tuple(tables), tuple(left_out))


def make_tables(
    names: Sequence[str],
    studies: StoredStudies | None,
    out: Path,
    formats: Sequence[str],
    columns: Sequence[str] | None = None,
) -> Written:
    """Write published tables by name, and the result table of every study of a store.

    Args:
        names: of published tables.
        studies: of a store; None: it was not asked for.
        out: folder to write to.
        formats: keys of `SUFFIXES`.
        columns: metrics and config keys of the studies' tables; None: the metrics of all tables.
    """
    outcome = Written()
    for name in names:
        outcome.paths += _write_table(TABLES[name](), name, out, formats)
    for rows in () if studies is None else studies.tables:
        with outcome.attempt():
            name = f"{rows['sweep'][0]}-{rows['scale'][0]}"
            outcome.paths += _write_table(result_table(rows, columns), name, out, formats)
    outcome.skipped += () if studies is None else studies.left_out
    return outcome


def _write_table(table: ResultTable, name: str, out: Path, formats: Sequence[str]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for form in formats:
        path = out / f"{name}.{SUFFIXES[form]}"
        # UTF-8 by name: arrows and ± are in every table, and a locale may lack them.
        path.write_text(TEXT_FORMATS[form](table), encoding="utf-8")
        paths.append(path)
    path = out / f"{name}.json"
    write_json(path, document(name, table.title, table.notes, table.records, table.origins))
    return [*paths, path]


def checked(make: Callable[[Path], Written], out: Path) -> tuple[Written, list[str]]:
    """Make everything again elsewhere, and list what differs from what is in `out`."""
    # Through the same code as writing, so that a check cannot pass on other grounds.
    with TemporaryDirectory() as folder:
        outcome = make(Path(folder))
        return outcome, changes(out, Path(folder)) if outcome.paths else []


def figure_names(name: str | None, *, everything: bool) -> list[str]:
    """Choose the figures asked for; none where the name must be a sweep's.

    Raises:
        RequestError: neither a name nor `--all`, or both.
    """
    _check_asked(name, everything=everything)
    if name is None:
        return list(FIGURES)
    found = gallery.known(name)
    return [found] if found else []


def table_names(name: str | None, *, everything: bool) -> list[str]:
    """Choose the published tables asked for.

    Raises:
        RequestError: no such table, neither a name nor `--all`, or both.
    """
    _check_asked(name, everything=everything)
    if name is None:
        return list(TABLES)
    # "Table 10" as people write it is the name table10.
    plain = name.lower().replace(" ", "")
    if plain not in TABLES:
        raise RequestError(f"no published table {name!r}; there are {', '.join(TABLES)}")
    return [plain]


def _check_asked(name: str | None, *, everything: bool) -> None:
    # Both were given, or neither.
    if everything == (name is not None):
        raise RequestError("give the name of a figure or sweep, or --all; --list has the names")


def formats_of(given: Sequence[str] | None, allowed: Sequence[str]) -> tuple[str, ...]:
    """Read formats from options that may hold several each, by comma; all where none is given.

    Raises:
        RequestError: an unknown format.
    """
    # Typer gives a list of options; each may be a list by comma, as in `--format pdf,png`.
    names = [name.strip() for one in given or () for name in one.split(",") if name.strip()]
    wrong = [name for name in names if name not in allowed]
    if wrong:
        raise RequestError(f"unknown format {', '.join(wrong)}; allowed: {', '.join(allowed)}")
    # Each format once, however often it is given.
    return tuple(dict.fromkeys(names)) or tuple(allowed)


def look(
    formats: Sequence[str] | None, venue: str, choice: FigureChoice, *, column: bool
) -> FigureOptions:
    """Read how to draw from what was typed.

    Raises:
        RequestError: an unknown format or venue.
    """
    kinds = formats_of(formats, FORMATS) if formats else ("pdf", "png")
    return FigureOptions(kinds, style.page(venue, column=column), choice)


def write_sweep(runs: pl.DataFrame, uri: str, out: Path, wanted: FigureOptions) -> Written:
    """Draw the figure of one sweep from its trials."""
    data = sweep_figure(runs, wanted.choice, uri)
    return Written(write(data, out, wanted.formats, wanted.venue))


def print_figures() -> None:
    """List every figure with its sources; then what could not be found."""
    lines = [
        (
            figure.name,
            figure.paper or ABSENT,
            "yes" if figure.published else ABSENT,
            ", ".join(figure.sweeps) or ("any that fits" if figure.runs else ABSENT),
        )
        for figure in FIGURES.values()
    ]
    _print(("figure", "in the paper", "published", "runs of"), lines)
    # Some rows have a note only: the figure holds no numbers at all.
    gone = [(row.place, row.what or row.note, row.note if row.what else "") for row in absent()]
    _print(("not to be had", "what", ""), gone)


def print_tables() -> None:
    """List every published table with its title."""
    _print(("table", "what"), [(name, make().title) for name, make in TABLES.items()])


def _print(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, box=SIMPLE_HEAD)
    for line in lines:
        table.add_row(*map(escape, line))
    Console().print(table)
