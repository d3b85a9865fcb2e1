"""What the commands `figures` and `tables` do: make all or some, write them, or check them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from analysis.charts import style
from analysis.charts.style import Venue
from analysis.charts.writing import FORMATS, changes, save, write
from analysis.figures import gallery, search_history
from analysis.figures import runs as run_figures
from analysis.figures.gallery import Runs, Source
from analysis.paper.published import absent
from analysis.store.stores import RequestError
from analysis.tables.published import TABLES, origins
from analysis.tables.render import TEXT_FORMATS
from analysis.tables.results import ABSENT, ResultTable, result_table

SUFFIXES = {"markdown": "md", "csv": "csv", "latex": "tex"}


@dataclass(frozen=True)
class Look:
    """How figures are written."""

    formats: tuple[str, ...]
    venue: Venue = style.PLAIN
    width: float | None = None
    curves: tuple[str, ...] = ()


@dataclass
class Outcome:
    """Files that were written, and why others were not."""

    paths: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def attempt(self, make: Callable[[], list[Path]]) -> None:
        """Write one thing, or note why it cannot be made."""
        try:
            self.paths += make()
        except RequestError as error:
            self.skipped.append(str(error))


def make_figures(
    names: Sequence[str], sources: Sequence[Source], runs: Runs | None, out: Path, look: Look
) -> Outcome:
    """Write figures from each source that they exist in."""
    outcome = Outcome()
    for name in names:
        offered = [source for source in sources if gallery.offers(name, source)]
        only_asked = sources[:1] if len(names) == 1 else []
        for source in offered or only_asked:
            outcome.attempt(lambda n=name, s=source: _figure(n, s, runs, out, look))  # type: ignore[misc]
    return outcome


def _figure(name: str, source: Source, runs: Runs | None, out: Path, look: Look) -> list[Path]:
    plate = gallery.plate(name, source, runs, curves=look.curves)
    return write(plate, out, look.formats, look.venue, width=look.width)


def make_tables(
    names: Sequence[str],
    sources: Sequence[Source],
    runs: Runs | None,
    out: Path,
    formats: Sequence[str],
) -> Outcome:
    """Write published tables by name, and the result table of every sweep of the store."""
    outcome = Outcome()
    if "published" in sources:
        outcome.paths += [p for n in names for p in _published(n, out, formats)]
    if "runs" not in sources:
        return outcome
    if runs is None:
        outcome.skipped.append("tables of runs: there is no tracking store; launch a sweep first")
        return outcome
    for sweep in runs.table["sweep"].unique(maintain_order=True):
        outcome.attempt(lambda s=sweep: _of_sweep(s, runs, out, formats))  # type: ignore[misc]
    return outcome


def _published(name: str, out: Path, formats: Sequence[str]) -> list[Path]:
    table = TABLES[name]()
    found = origins(table)
    return _write_table(table, name, out, formats, {"table": name, "sources": found})


def _of_sweep(sweep: str, runs: Runs, out: Path, formats: Sequence[str]) -> list[Path]:
    rows = runs.table.filter(runs.table["sweep"] == sweep)
    table = result_table(rows)
    context = ["run_id", "trial", "trial_key", "state", "plan", "git_sha"]
    name = f"{sweep}-{rows['scale'][0]}"
    return _write_table(
        table, name, out, formats, {"table": name, "runs": rows.select(context).to_dicts()}
    )


def _write_table(
    table: ResultTable, name: str, out: Path, formats: Sequence[str], sources: dict[str, object]
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for form in formats:
        path = out / f"{name}.{SUFFIXES[form]}"
        path.write_text(TEXT_FORMATS[form](table), encoding="utf-8")
        paths.append(path)
    record = {"title": table.title, "notes": list(table.notes), **sources}
    path = out / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [*paths, path]


def checked(make: Callable[[Path], Outcome], out: Path) -> tuple[Outcome, list[str]]:
    """Make everything again elsewhere; what differs from what is in `out`."""
    with TemporaryDirectory() as folder:
        outcome = make(Path(folder))
        return outcome, changes(out, Path(folder)) if outcome.paths else []


def chosen(
    name: str | None,
    names: Sequence[str],
    *,
    everything: bool,
    known: Callable[[str], str | None],
) -> list[str]:
    """The figures asked for; none where the name must be a sweep's.

    Raises:
        RequestError: neither a name nor `--all`, or both.
    """
    if everything == (name is not None):
        raise RequestError("give the name of a figure or sweep, or --all; --list has the names")
    found = known(name) if name else None
    return list(names) if everything else [found] if found else []


def table_names(name: str | None, *, everything: bool) -> list[str]:
    """The published tables asked for.

    Raises:
        RequestError: no such table, neither a name nor `--all`, or both.
    """
    plain = name.lower().replace(" ", "") if name else None
    own = {known: known for known in TABLES}
    wanted = chosen(plain, list(TABLES), everything=everything, known=own.get)
    if not wanted:
        raise RequestError(f"no published table {name!r}; there are {', '.join(TABLES)}")
    return wanted


def formats_of(given: Sequence[str] | None, allowed: Sequence[str]) -> tuple[str, ...]:
    """Formats from options that may hold several each, by comma; all where none is given.

    Raises:
        RequestError: an unknown format.
    """
    names = [name.strip() for one in given or () for name in one.split(",") if name.strip()]
    wrong = [name for name in names if name not in allowed]
    if wrong:
        raise RequestError(f"unknown format {', '.join(wrong)}; allowed: {', '.join(allowed)}")
    return tuple(dict.fromkeys(names)) or tuple(allowed)


def look(
    formats: Sequence[str] | None, venue: str, curves: Sequence[str] | None, *, column: bool
) -> Look:
    """How to draw, from what was typed.

    Raises:
        RequestError: an unknown format or venue.
    """
    if venue not in style.VENUES:
        raise RequestError(f"unknown venue {venue!r}; known: {', '.join(style.VENUES)}")
    page = style.VENUES[venue]
    kinds = formats_of(formats, FORMATS) if formats else ("pdf", "png")
    logged = tuple(name for one in curves or () for name in one.split(","))
    return Look(kinds, page, page.column if column else None, logged)


def sweep_figure(runs: pl.DataFrame, out: Path, wanted: Look) -> Outcome:
    """Draw the figure of one sweep from its trials."""
    from analysis.figures.export import IMAGE_FORMATS, export_figure
    from analysis.figures.plots import draw_figure
    from analysis.figures.sweeps import figure_info

    if wanted.venue is not style.PLAIN or wanted.width or wanted.curves:
        raise RequestError("--venue, --width and --metric are for figures by name, not for sweeps")
    info = figure_info(runs)
    own = [form for form in wanted.formats if form in IMAGE_FORMATS]
    others = [form for form in wanted.formats if form not in IMAGE_FORMATS]
    paths = export_figure(info, runs, out, own)
    more = save(draw_figure(info), out / info.name, others) if others else []
    return Outcome([*paths, *more])


def print_figures() -> None:
    """Every figure with its sources; then what could not be found."""
    numbers = {name: number for number, name in gallery.PAPER_NAMES.items()}
    lines = []
    for name in gallery.NAMES:
        own = run_figures.FIGURES.get(name)
        searched = "any with a search block" if name == search_history.NAME else ABSENT
        sweeps = ", ".join(own.sweeps) if own else searched
        published = "yes" if name in gallery.PUBLISHED else ABSENT
        lines.append((name, numbers.get(name, ABSENT), published, sweeps))
    _print(("figure", "in the paper", "published", "runs of"), lines)
    gone = [(row.place, row.what or row.note, row.note if row.what else "") for row in absent()]
    _print(("not to be had", "what", ""), gone)


def print_tables() -> None:
    """Every published table with its title."""
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
