"""The cells of a study: each stage of each trial, its state, and why it is not done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from analysis.store.opening import open_store
from analysis.store.records import optional, wide
from analysis.store.runs import STAGE_KEY, STAGE_RUN
from gigatok import names

_TAGS = {
    "state": names.TAG_STATE,
    "error": names.TAG_ERROR,
    "host": names.TAG_HOST,
    "attempts": names.TAG_ATTEMPTS,
    "progress": names.TAG_PROGRESS,
    "predicted": names.TAG_PREDICTED_SECONDS,
    "actual": names.TAG_ACTUAL_SECONDS,
}
_TEXT, _INTEGER, _NUMBER = pl.String(), pl.Int64(), pl.Float64()
_PROGRESS = {
    **{"done": _INTEGER, "total": _INTEGER, "unit": _TEXT},
    **{"left": _NUMBER, "heard": _NUMBER},
}
_FACTS = {
    **{"stage_run": _TEXT, "state": _TEXT, "error": _TEXT, "host": _TEXT, "attempts": _INTEGER},
    **{"seconds": _NUMBER, "predicted": _NUMBER, "actual": _NUMBER},
    **_PROGRESS,
}
"""Columns of what a stage run says."""
Graph = Mapping[str, tuple[str, ...]]
"""Stage -> the stages it reads, in the order they run."""


def load_cells(
    uri: str, runs: pl.DataFrame, stages: Sequence[str], graph: Graph, now: float
) -> pl.DataFrame:
    """Make a row per trial and stage that it has, as `study.WatchedStudy.cells` describes it.

    Args:
        uri: the tracking store.
        runs: one row per trial.
        stages: names of the stages.
        graph: empty where none was recorded: then waiting stages have no reason.
        now: UNIX seconds, until which a running stage has taken its time.
    """
    cells = _cells(runs, stages, _facts(uri, runs, now))
    # `_pruned` last: its reason replaces the "waits for" of `_upstream`.
    return _pruned(_upstream(cells, graph), runs)


def _facts(uri: str, runs: pl.DataFrame, now: float) -> pl.DataFrame:
    """Read what the stage runs say: columns `_FACTS`."""
    links = [column for column in runs.columns if column.startswith(STAGE_RUN)]
    if not links:
        return pl.DataFrame(schema=_FACTS)
    ids = runs.select(pl.col(links).cast(pl.String)).unpivot()["value"]
    records = open_store(uri).stages(ids.drop_nulls().unique().sort())
    tags = wide(records.tags, records.runs.height)
    # A stage that runs has taken the time until now.
    ended = pl.col("ended").fill_null(round(now * 1000))
    found = records.runs.hstack(tags).select(
        pl.col("run_id").alias("stage_run"),
        *(optional(tags, tag).alias(name) for name, tag in _TAGS.items()),
        seconds=(ended - pl.col("started")) / 1000,
    )
    # A stage that ended keeps its last progress tag, which says nothing any more.
    texts = found.select(pl.when(pl.col("state") == "RUNNING").then("progress")).to_series()
    parts = pl.DataFrame(list(map(_progress, texts)), _PROGRESS, orient="row")
    return found.hstack(parts).select(pl.col(n).cast(kind) for n, kind in _FACTS.items())


def _progress(text: str | None) -> tuple[int, int, str, float | None, float] | tuple[None, ...]:
    """Read done, total, unit, seconds left and last sign of life from a progress tag."""
    if text is None:
        return (None,) * 5
    said = json.loads(text)
    done, total, at = said["done"], said["total"], said["time"]
    # Speed since this attempt began: steps restored from a checkpoint took no time in it.
    # Up to the last sign of life, not up to now: a silent stage must not look ever slower.
    ahead, taken = done - said["first_done"], at - said["first_time"]
    left = (total - done) * taken / ahead if ahead > 0 and taken > 0 else None
    return done, total, said["unit"], left, at


def _cells(runs: pl.DataFrame, stages: Sequence[str], facts: pl.DataFrame) -> pl.DataFrame:
    kept = ("run_id", "trial", "stage", "key", "stage_run")
    parts = [pl.DataFrame(schema=dict.fromkeys(kept, _TEXT))]
    for stage in stages:
        key, link = pl.col(STAGE_KEY + stage), optional(runs, STAGE_RUN + stage)
        columns = ("run_id", "trial", pl.lit(stage).alias("stage"), key.alias("key"))
        parts.append(runs.select(*columns, stage_run=link).cast(pl.String))
    # No key: the trial has no such stage. A key without a stage run: it has not begun.
    cells = pl.concat(parts).drop_nulls("key").join(facts, "stage_run", "left")
    reason = pl.when(pl.col("state") == "FAILED").then(pl.col("error").fill_null("no reason"))
    return cells.with_columns(
        pl.col("state").fill_null("WAITING"),
        reason=reason.str.strip_chars().str.split("\n").list.first(),
    )


def _upstream(cells: pl.DataFrame, graph: Graph) -> pl.DataFrame:
    """Give waiting stages below a failed one their state, and all waiting ones a reason."""
    # Graphs are recorded by launches; a store without them shows plain waiting.
    if not graph or cells.is_empty():
        return cells
    states = cells.pivot("stage", index="run_id", values="state")
    known = [stage for stage in graph if stage in states.columns]
    # In the order of the graph, so that a failure passes down through several stages.
    for stage in known:
        waits = pl.col(stage) == "WAITING"
        inputs = [name for name in graph[stage] if name in known]
        failed = _named(inputs, ("FAILED", "UPSTREAM_FAILED"))
        late = _named(inputs, ("WAITING", "RUNNING"))
        waiting = pl.when(late != "").then(pl.format("waits for {}", late))
        why = pl.when(failed != "").then(pl.format("{} failed", failed)).otherwise(waiting)
        fails = waits & (failed != "")
        states = states.with_columns(
            pl.when(waits).then(why).alias("why " + stage),
            pl.when(fails).then(pl.lit("UPSTREAM_FAILED")).otherwise(stage).alias(stage),
        )
    both = (pl.struct(then=stage, why="why " + stage).alias(stage) for stage in known)
    long = states.select("run_id", *both).unpivot(known, index="run_id", variable_name="stage")
    found = cells.join(long.unnest("value"), ["run_id", "stage"], "left", maintain_order="left")
    return found.with_columns(
        state=pl.col("then").fill_null(pl.col("state")),
        reason=pl.col("reason").fill_null(pl.col("why")),
    ).drop("then", "why")


def _named(inputs: Sequence[str], states: Sequence[str]) -> pl.Expr:
    """Name the inputs that are in some states; "" where none is."""
    # A state is null where the trial lacks the stage, as with an adopted tokenizer.
    found = [pl.when(pl.col(name).is_in(states)).then(pl.lit(name)) for name in inputs]
    return pl.concat_str([pl.lit(None, pl.String), *found], separator=", ", ignore_nulls=True)


def _pruned(cells: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Give waiting stages that only pruned trials of a search need their state."""
    # A stage that a trial shares with one still wanted is still wanted.
    given_up = pl.col("run_id").is_in(runs.filter(pl.col("state") == "PRUNED")["run_id"].implode())
    pruned = (pl.col("state") == "WAITING") & given_up.all().over("key")
    words = pl.lit("the search has given this trial up")
    return cells.with_columns(
        state=pl.when(pruned).then(pl.lit("PRUNED")).otherwise("state"),
        reason=pl.when(pruned).then(words).otherwise("reason"),
    )
