"""A sweep as one page: what was asked, what ran, what the data show and do not, what it cost.

The page is a list of sections of texts, tables and pictures; two templates print it. Nothing is
written here that the tables and tests do not say.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import polars as pl
from jinja2 import Environment, PackageLoader

from analysis.charts.files import write
from analysis.charts.records import with_ending
from analysis.claims.confounds import find_confounds
from analysis.claims.exploration import explore
from analysis.claims.fitted import fitted_laws, law_sentences
from analysis.claims.judged import judge
from analysis.figures.rate_distortion import planes_figure
from analysis.figures.sweeps import sweep_figure, sweep_pictures
from analysis.statistics.complexity import MEASURES, Relation, complexity_relations
from analysis.statistics.groups import Group, groups
from analysis.statistics.rate_distortion import DISTORTIONS, Front, fronts, gaps
from analysis.store.export import missing
from analysis.store.requests import RequestError
from analysis.store.runs import ACTUAL_SECONDS, PREDICTED_SECONDS, STAGE_RUN, STAGE_SECONDS
from analysis.studies.answer import answer
from analysis.studies.summary import found_by_search
from analysis.tables.columns import ABSENT
from analysis.tables.findings import findings_table
from analysis.tables.results import result_table, sweep_and_scale
from gigatok.claims.words import JudgedClaim, legend
from gigatok.names import METRICS, PARAM_SEED
from gigatok.text.credentials import shown
from gigatok.text.markdown import inert

_MAX_ROWS = 60
"""Rows of a table of trials; the CSV beside the figure has them all."""


@dataclass(frozen=True)
class TextBlock:
    """Sentences; several become a list."""

    sentences: tuple[str, ...]
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class TableBlock:
    """Cells as text; numeric columns are aligned to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class PictureBlock:
    """A PNG beside the Markdown, inside the HTML."""

    file: Path
    caption: str
    kind: ClassVar[str] = "picture"

    @cached_property
    def base64(self) -> str:
        """Encode the file for a data URI."""
        return base64.b64encode(self.file.read_bytes()).decode()


Block = TextBlock | TableBlock | PictureBlock


@dataclass(frozen=True)
class Section:
    """A headline and what stands below it."""

    title: str
    blocks: Sequence[Block]


class _Shown(NamedTuple):
    """Pictures of a report: the sweep's figure, rate and distortion, what the models make."""

    figure: Path
    plane: Path | None
    grid: Path | None


def write_report(runs: pl.DataFrame, folder: Path, tracking_uri: str) -> list[Path]:
    """Write `<sweep>-<scale>.html`, which needs no other file, `.md` and its pictures.

    Args:
        runs: what `load_runs` returned, with at least one result.
        folder: the folder to write to; created if needed.
        tracking_uri: store of the runs, which the page names as their origin.

    Returns:
        The HTML, the Markdown, then the files of the figure.

    Raises:
        RequestError: no chart of the sweep has a single point.
    """
    figure = sweep_figure(runs, uri=tracking_uri)
    # Drawn first: a sweep without a single point is refused before any page is written.
    files = write(figure, folder, ("pdf", "png"))
    planes = planes_figure(f"{figure.name}-rate-distortion", _in_the_plane(runs)[0])
    plane = write(planes, folder, ("png",))[0] if planes else None
    grids = sweep_pictures(runs, tracking_uri)
    grid = write(grids, folder, ("png",))[0] if grids else None
    shown = _Shown(folder / f"{figure.name}.png", plane, grid)
    sections = _sections(runs, shown, tracking_uri)
    title = runs["question"][0] or sweep_and_scale(runs)
    environment = Environment(
        loader=PackageLoader("analysis.report"), trim_blocks=True, lstrip_blocks=True
    )
    # Names and errors come from users and logs: neither page may run them as HTML or markup.
    environment.filters |= {"cell": _markdown_cell, "inert": inert}
    plans = ", ".join(dict.fromkeys(plan for plan in runs["plan"] if plan))
    subtitle = f"{sweep_and_scale(runs)}, plan {plans}"
    written = []
    for suffix, escape in (("html", True), ("md", False)):
        # The same sections for both; Markdown makes its own texts inert by a filter.
        environment.autoescape = escape
        template = environment.get_template(f"report.{suffix}.j2")
        path = with_ending(folder / figure.name, suffix)
        text = template.render(title=title, subtitle=subtitle, sections=sections)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return [*written, *files, *(file for file in (plane, grid) if file)]


def _sections(runs: pl.DataFrame, shown: _Shown, tracking_uri: str) -> list[Section]:
    found = groups(runs)
    made = result_table(runs)
    results = (TableBlock(made.head, made.rows, made.numeric), TextBlock(made.notes))
    confounds = tuple(find_confounds(runs)) or ("Nothing that the table shows.",)
    # What a reader came for stands first, all within the first screen: the answer and its figure.
    parts: dict[str, Iterable[Block]] = {
        "Answer": _answer(runs, tracking_uri),
        "Figures": _pictures(shown),
        "Claims": _claims(judge(runs, tracking_uri)),
        "Plan": _plan(runs, found),
        "What ran": _what_ran(runs),
        "Results": results,
        "What the data show": _shown(runs),
        "Scaling fits": [_said(*law_sentences(fitted_laws(found)))],
        "Rate and distortion": _planes(runs),
        "Complexity of the latents": _complexity(complexity_relations(runs)),
        "What else differs": [TextBlock(confounds)],
        "Cost": _cost(runs),
        "Predicted cost": _predicted(runs),
        "Provenance": _provenance(runs, tracking_uri),
    }
    return [Section(title, tuple(blocks)) for title, blocks in parts.items()]


def _pictures(shown: _Shown) -> Iterable[Block]:
    yield PictureBlock(shown.figure, "The sweep's figure; its data are in the CSV beside it.")
    if shown.grid is not None:
        yield PictureBlock(shown.grid, "What the models make, of the first seed of each setting.")
    if shown.plane is not None:
        caption = "Rate and distortion; dashed lines are the front of each family."
        yield PictureBlock(shown.plane, caption)


def _said(*sentences: str) -> TextBlock:
    return TextBlock(sentences)


def _answer(runs: pl.DataFrame, tracking_uri: str) -> Iterable[Block]:
    found = answer(runs, tracking_uri, found_by_search(runs, tracking_uri))
    yield _said(found.headline)
    if found.sentences:
        yield _said(*found.sentences)


def _claims(claims: Sequence[JudgedClaim]) -> Iterable[Block]:
    if not claims:
        yield _said(
            "Nothing was claimed beforehand: all of this is exploration. A sweep's file may claim "
            "what its results should show; each claim is then tested."
        )
        return
    yield _said(*(claim.sentence for claim in claims), legend(claims))


def _plan(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[Block]:
    axes = list(dict.fromkeys(axis for row in runs["axes"].to_list() for axis in row or ()))
    # Trials of which no seed was recorded count, but have none to list.
    seeds = sorted({seed for seed in runs[PARAM_SEED] if seed is not None})
    yield _said(
        f"Varied: {', '.join(axes) or 'nothing'}.",
        f"{len(found)} settings ({', '.join(group.label for group in found)}).",
        f"Seeds: {', '.join(map(str, seeds))}; {runs.height} trials.",
    )


def _what_ran(runs: pl.DataFrame) -> Iterable[Block]:
    counts = runs["state"].fill_null("state unknown").value_counts(sort=True).rows()
    states = ", ".join(f"{n} {state}" for state, n in counts)
    yield _said(f"Trials: {states}.")
    errors = [f"{r['trial']}: {r['error']}" for r in runs.iter_rows(named=True) if r["error"]]
    if errors:
        yield _said("Failed stages:", *errors)
    absent = missing(runs)
    if absent.is_empty():
        yield _said("No result is missing: what one trial has, all have.")
        return
    by_trial = absent.group_by("trial", "found", maintain_order=True).agg("metric")
    rows = [
        (trial or "", ", ".join(METRICS[m].label for m in metrics), found)
        for trial, found, metrics in by_trial.rows()
    ]
    yield _trials(("trial", "missing", "found"), rows)


def _shown(runs: pl.DataFrame) -> Iterable[Block]:
    found = explore(runs)
    yield _said(*found.sentences)
    table = findings_table(runs, found)
    if table.rows:
        yield TableBlock(table.head, table.rows, table.numeric)
        yield _said(*table.notes)


def _planes(runs: pl.DataFrame) -> Iterable[Block]:
    planes, refused = _in_the_plane(runs)
    found = [gap.sentence for metric, parts in planes.items() for gap in gaps(parts, metric)]
    none = "No two families span the same rates: no gap can be taken."
    if len(found) > 1:
        found += [f"Intervals of 95 %, each by itself: {len(found)} gaps were looked at."]
    yield _said(*(found + refused or [none]))


def _in_the_plane(runs: pl.DataFrame) -> tuple[dict[str, list[Front]], list[str]]:
    """Find the fronts of each distortion, and say why one has none."""
    planes, refused = {}, []
    for metric in DISTORTIONS:
        try:
            planes[metric] = fronts(runs, metric)
        except RequestError as error:
            refused.append(f"{error}.")
    return planes, refused


def _complexity(relations: Sequence[Relation]) -> Iterable[Block]:
    if not relations:
        yield _said("No setting has both a measure of complexity and a generation score.")
        return
    rows = []
    for relation in relations:
        c = relation.correlation
        interval = ABSENT if c is None or c.low is None else f"[{c.low:+.2f}, {c.high:+.2f}]"
        labels = (METRICS[relation.measure].label, METRICS[relation.target].label)
        rho, p = (f"{c.rho:+.2f}", f"{c.p:.3f}") if c else (ABSENT, ABSENT)
        q = ABSENT if relation.q is None else f"{relation.q:.3f}"
        rows.append((*labels, rho, interval, str(len(relation.settings)), p, q, relation.reason))
    head = ("measure", "score", "Spearman", "95 % interval", "settings", "p", "q", "")
    yield TableBlock(head, tuple(rows), (False, False, True, True, True, True, True, False))
    yield _said(
        f"{len(relations)} correlations were looked at together. p: exact permutation test, or of "
        "5,000 permutations. q: p corrected for their number; of those with q up to 0.05, 5 % are "
        "expected to be chance. Intervals of 95 %, each by itself."
    )
    used = dict.fromkeys(relation.measure for relation in relations)
    yield _said(*(f"{METRICS[m].label}: {MEASURES[m]}." for m in used))


def _cost(runs: pl.DataFrame) -> Iterable[Block]:
    """Sum the time of every stage run once, however many trials share it."""
    rows, total = [], 0.0
    for column in (c for c in runs.columns if c.startswith(STAGE_SECONDS)):
        stage = column.removeprefix(STAGE_SECONDS)
        # Trials that share a stage would count its time several times.
        # By stage run: `unique` keeps one row of all trials that lack the stage, which the filter
        # drops.
        once = runs.unique(STAGE_RUN + stage).filter(pl.col(column).is_not_null())
        seconds = float(once[column].sum())
        total += seconds
        cells = (str(once.height), _duration(seconds), _duration(seconds / max(once.height, 1)))
        rows.append((stage, *cells))
    yield TableBlock(("stage", "runs", "time", "each"), tuple(rows), (False, True, True, True))
    yield _said(
        f"{_duration(total)} in all, each shared stage counted once, from the start of its "
        "first attempt to its end."
    )


def _predicted(runs: pl.DataFrame) -> Iterable[Block]:
    """Compare predicted with actual time of the stages that ran in one go, each once."""
    rows, pairs = [], []
    for column in (c for c in runs.columns if c.startswith(PREDICTED_SECONDS)):
        stage = column.removeprefix(PREDICTED_SECONDS)
        if ACTUAL_SECONDS + stage not in runs.columns:
            continue
        once = runs.unique(STAGE_RUN + stage, maintain_order=True).filter(
            pl.col(column).is_not_null() & pl.col(ACTUAL_SECONDS + stage).is_not_null()
        )
        if not once.height:
            continue
        predicted, actual = once[column].to_list(), once[ACTUAL_SECONDS + stage].to_list()
        # A stage of a millisecond would divide by nearly zero.
        # Ratios stage by stage: sums would let errors of opposite signs cancel.
        ratios = [p / max(a, 1e-3) for p, a in zip(predicted, actual, strict=True)]
        pairs += ratios
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        times = _duration(sum(predicted)), _duration(sum(actual))
        rows.append((stage, str(once.height), *times, spread))
    if not rows:
        yield _said("No stage was launched with a prediction and ran in one go.")
        return
    head = ("stage", "runs", "predicted", "actual", "predicted / actual")
    yield TableBlock(head, tuple(rows), (False, True, True, True, True))
    # A quarter: close enough to plan when a night of runs ends.
    close = sum(abs(ratio - 1) <= 0.25 for ratio in pairs)
    yield _said(f"{close} of {len(pairs)} times were predicted within 25 %.")


def _provenance(runs: pl.DataFrame, tracking_uri: str) -> Iterable[Block]:
    sweep_runs = ", ".join(dict.fromkeys(runs["sweep_run_id"]))
    # A trial's stages may come from several commits, joined by commas.
    versions = sorted({sha for text in runs["git_sha"].drop_nulls() for sha in text.split(",")})
    dirty = " with uncommitted changes" if runs["git_dirty"].any() else ""
    yield _said(
        f"MLflow sweep run {sweep_runs} in {shown(tracking_uri)}.",
        f"Code: {', '.join(versions) or 'version not recorded'}{dirty}.",
    )
    rows = runs.select(pl.col("trial", "run_id", "trial_key").fill_null("")).rows()
    yield _trials(("trial", "MLflow run", "trial key"), rows)


def _trials(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> TableBlock:
    """Make a table of trials, as text; cut a long one, and say how many more there are."""
    left = len(rows) - _MAX_ROWS
    more = [(f"… and {left} more", *("",) * (len(head) - 1))] if left > 0 else []
    return TableBlock(head, (*rows[:_MAX_ROWS], *more), (False,) * len(head))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _markdown_cell(text: str) -> str:
    # A bar would end the cell, in a code span too.
    return inert(text).replace("|", r"\|")
