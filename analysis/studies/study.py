"""A study at one moment: its stages and their states, what failed and why, when it will end.

Read from the tracking store, which the launcher keeps up to date while a sweep runs.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from analysis.store import artifacts
from analysis.store.interface import SweepRun
from analysis.store.opening import open_store
from analysis.store.runs import STAGE_KEY, load_runs
from analysis.studies.cells import load_cells
from gigatok import names

# A launcher sends the progress of a running stage at most every 5 s: by then 24 are missing.
SILENT_SECONDS = 120.0
"""A running stage that was not heard of for so long is said to be silent."""
LOG_LINES = 15


@dataclass(frozen=True)
class Title:
    """Launch of a sweep, as the store lists them."""

    sweep: str
    scale: str
    plan: str
    launched: float
    """UNIX seconds of the newest launch of this plan."""
    state: str
    question: str
    run_id: str
    graph: Mapping[str, tuple[str, ...]]
    """Stage -> the stages it reads, in the order they run; empty where it was not recorded."""
    predicted: float | None = None
    """Seconds of all its stages together, as its launch expected; None: not of each."""
    forecast: Mapping[str, Any] | None = None
    """Time left, as `names.TAG_FORECAST` says it; None: its launcher has sent none."""
    is_search: bool = False
    experiment: str = ""
    """Id of its experiment in the store."""

    @property
    def name(self) -> str:
        """Name the study, such as `decoder_scaling micro, 2026-11-25 20:02 UTC`."""
        when = datetime.fromtimestamp(self.launched, UTC)
        return f"{self.sweep} {self.scale}, {when:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class StageFailure:
    """Failed stage.

    Attributes:
        trials: names of the trials that share it.
        stage_run: id of its MLflow run, which has the log.
    """

    stage: str
    trials: tuple[str, ...]
    reason: str
    host: str
    attempts: int
    stage_run: str


@dataclass(frozen=True)
class WatchedStudy:
    """A study at one moment.

    Attributes:
        runs: one row per trial, as `load_runs` returns it.
        stages: names in the order they run.
        cells: a row per trial and stage: `trial`, `run_id`, `stage`, `key`, `stage_run`, `state`,
            `reason`, `host`, `attempts`, `seconds`, `predicted` and `actual` (of the worker, where
            a prediction was made and it ran in one go), `done`, `total`, `unit`, `left` (seconds)
            and `heard` (UNIX seconds of the last sign of life).
        now: UNIX seconds.
    """

    title: Title
    runs: pl.DataFrame
    stages: tuple[str, ...]
    cells: pl.DataFrame
    failures: tuple[StageFailure, ...]
    now: float

    # Kept: a view asks for it at every number, and ten thousand trials have 70,000 cells.
    @cached_property
    def work(self) -> pl.DataFrame:
        """Select the cells of distinct stages: a stage that trials share is one."""
        return self.cells.unique("key", keep="first", maintain_order=True)

    @property
    def counts(self) -> dict[str, int]:
        """Count the distinct stages in each state."""
        # In the order of `STATES`, so that a headline does not change its order as stages end.
        found = Counter(self.work["state"].to_list())
        return {state: found[state] for state in names.STATES if found[state]}

    @property
    def progress(self) -> float:
        """Measure the share of distinct stages that is over or, of running ones, done."""
        # Pruned stages will not run: without them a finished search would never reach 100 %.
        over = pl.col("state").is_in(["COMPLETE", "PRUNED"])
        parts = pl.when(over).then(1.0).otherwise(_part())
        return float(self.work.select(parts.fill_null(0.0).mean()).item())

    @property
    def spent(self) -> float:
        """Sum the seconds of all distinct stages, pauses between attempts included."""
        return float(self.work["seconds"].sum())

    @property
    def silent(self) -> float | None:
        """Count the seconds since any running stage was heard of, where suspicious; else None."""
        heard = self.work.filter(pl.col("state") == "RUNNING")["heard"].max()
        if heard is None or self.now - float(str(heard)) < SILENT_SECONDS:
            return None
        return self.now - float(str(heard))


def list_studies(uri: str) -> list[Title]:
    """List every launch in a store, the newest first.

    Raises:
        RequestError: no such store, or it does not answer.
    """
    launches = open_store(uri).launches(None)
    return sorted(map(_title, launches), key=lambda title: -title.launched)


def load_study(uri: str, title: Title, now: float | None = None) -> WatchedStudy:
    """Read a study.

    Raises:
        RequestError: it is not in the store any more, or has no trial yet.
    """
    # By plan: a later launch of the sweep must not take the place of the one that is looked at.
    runs = load_runs(title.sweep, uri, plan=title.plan, scale=title.scale or None)
    at = time.time() if now is None else now
    stages = _ordered_stages(runs, title.graph)
    cells = load_cells(uri, runs, stages, title.graph, at)
    return WatchedStudy(title, runs, stages, cells, _failures(cells), at)


def seconds_left(study: WatchedStudy) -> tuple[float | None, str]:
    """Say when a study will have ended, by the estimate of its launcher, and what that rests on.

    Returns:
        Seconds, None where nothing can be said; and a sentence.
    """
    if study.work.filter(pl.col("state").is_in(["WAITING", "RUNNING"])).is_empty():
        return 0.0, "nothing is left to run"
    sent = study.title.forecast
    if sent is None:
        return None, "its launcher has sent no estimate"
    age = study.now - sent["made"]
    if age > SILENT_SECONDS:
        # It looks at folders and knows the graph; a guess from here would be another estimate.
        silent = f"its launcher was last heard of {age / 60:.0f} min ago"
        return None, f"{silent}; the command status estimates"
    line = str(sent["line"])
    return (None, line) if sent["end"] is None else (max(0.0, sent["end"] - age), line)


def log_tail(uri: str, stage_run: str, within: Path | None, lines: int = LOG_LINES) -> str | None:
    """Read the last lines of the newest log of a stage that did not complete; None without one.

    Raises:
        artifacts.Outside: the log lies on this machine, but not within that folder.
    """
    # Logs are named by attempt and listed in order: the last one is of the newest attempt.
    files = artifacts.listing(uri, stage_run, "logs", within)
    content = artifacts.read(uri, stage_run, files[-1], within) if files else None
    if content is None:
        return None
    return "\n".join(content.decode(errors="replace").splitlines()[-lines:])


def state_table(study: WatchedStudy) -> pl.DataFrame:
    """Make a row per trial: name, state, a column per stage with its state, why it is not done."""
    wide = study.cells.pivot("stage", index="run_id", values="state")
    joint = study.runs.select("run_id", "trial", "state")
    reasons = (
        study.cells.filter(pl.col("reason").is_not_null())
        .group_by("run_id", maintain_order=True)
        .agg(why=(pl.col("stage") + ": " + pl.col("reason")).str.join("; "))
    )
    found = joint.join(wide, "run_id", "left", maintain_order="left")
    return found.join(reasons, "run_id", "left", maintain_order="left")


def state_pills(study: WatchedStudy) -> pl.DataFrame:
    """Turn `state_table` into lists of one word each, which a data grid shows as pills."""
    found = state_table(study)
    states = [c for c in found.columns if c in study.stages or c == "state"]
    words = [pl.col(c).str.to_lowercase().str.replace("_", " ").alias(c) for c in states]
    lists = [pl.concat_list(c).alias(c) for c in states]
    return found.with_columns(words).with_columns(lists)


def stage_counts(study: WatchedStudy) -> pl.DataFrame:
    """Count the distinct stages of each name in each state: `stage`, `state`, `count`."""
    found = study.work.group_by("stage", "state").len("count")
    order = {stage: i for i, stage in enumerate(study.stages)}
    rank = pl.col("stage").replace_strict(order, return_dtype=pl.Int64())
    return found.sort(rank, "state")


def spent_against_predicted(study: WatchedStudy) -> str:
    """Say what the study has taken so far and what its launch expected."""
    timed = _timed(study.work)
    if timed.is_empty():
        return "no stage was launched with a prediction and ran in one go yet"
    predicted, actual = timed.select(pl.col("predicted").sum(), pl.col("actual").sum()).row(0)
    return (
        f"what ran in one go ({timed.height:,} of {study.work.height:,} stages) took "
        f"{actual / predicted:.2f} times the predicted time"
    )


def _timed(work: pl.DataFrame) -> pl.DataFrame:
    """Select the stages of which both times are known."""
    return work.filter((pl.col("predicted") > 0) & pl.col("actual").is_not_null())


def stage_times(study: WatchedStudy) -> pl.DataFrame:
    """Sum the seconds of each kind of stage, in the order they run.

    Returns:
        `stage`, `complete`, `mean`, `total`; then of those that were predicted and ran in one go:
        `predicted`, `actual`, both summed, and `ratio`, actual over predicted.
    """
    done = study.work.filter(pl.col("state") == "COMPLETE").group_by("stage")
    found = done.agg(
        complete=pl.len(), mean=pl.col("seconds").mean(), total=pl.col("seconds").sum()
    )
    # The ratio of the sums, not the mean of ratios: short stages would decide that.
    both = _timed(study.work).group_by("stage").agg(pl.col("predicted", "actual").sum())
    both = both.with_columns(ratio=pl.col("actual") / pl.col("predicted"))
    found = found.join(both, "stage", "left")
    order = pl.DataFrame({"stage": study.stages}, schema={"stage": pl.String()})
    return order.join(found, "stage", "left", maintain_order="left")


def running_now(study: WatchedStudy) -> pl.DataFrame:
    """List the running stages: what, where, how far, seconds left and since it was heard of."""
    running = study.work.filter(pl.col("state") == "RUNNING")
    return running.select(
        "trial",
        "stage",
        "host",
        "attempts",
        part=_part(),
        at=pl.format("{} {} of {}", "unit", "done", "total"),
        left="left",
        heard=study.now - pl.col("heard"),
    )


def _part() -> pl.Expr:
    return pl.col("done") / pl.col("total")


def _title(launch: SweepRun) -> Title:
    tags = launch.tags
    graph = json.loads(tags.get(names.TAG_GRAPH, "{}"))
    return Title(
        launch.sweep,
        tags.get(names.TAG_SCALE, ""),
        tags.get(names.TAG_PLAN, ""),
        launch.launched,
        tags.get(names.TAG_STATE, "WAITING"),
        tags.get(names.TAG_QUESTION, ""),
        launch.run_id,
        {stage: tuple(inputs) for stage, inputs in graph.items()},
        float(tags[names.TAG_PREDICTED_SECONDS]) if names.TAG_PREDICTED_SECONDS in tags else None,
        json.loads(tags[names.TAG_FORECAST]) if names.TAG_FORECAST in tags else None,
        names.PREFIX_SEARCH + "study" in tags,
        launch.experiment,
    )


def _ordered_stages(runs: pl.DataFrame, graph: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """List the stages of the trials, in the order they run as far as that was recorded."""
    found = [c.removeprefix(STAGE_KEY) for c in runs.columns if c.startswith(STAGE_KEY)]
    # The graph has all stages of the sweep; those that are off have no key in any trial.
    known = [stage for stage in graph if stage in found]
    return (*known, *(stage for stage in found if stage not in known))


def _failures(cells: pl.DataFrame) -> tuple[StageFailure, ...]:
    # UPSTREAM_FAILED is no failure of its own; the stage that caused it is listed.
    failed = cells.filter(pl.col("state") == "FAILED")
    # Trials that share a failed stage share one failure.
    grouped = failed.group_by("key", maintain_order=True).agg(
        pl.col("stage", "reason", "stage_run").first(),
        host=pl.col("host").first().fill_null(""),
        attempts=pl.col("attempts").first().fill_null(1),
        trials="trial",
    )
    rows = grouped.drop("key").to_dicts()
    return tuple(StageFailure(trials=tuple(row.pop("trials")), **row) for row in rows)
