"""The tracking store as one table: a row per trial, typed columns.

Columns: `CONTEXT`; the trial's params under their own (dotted) names; every metric of
`gigatok.names` and its `protocol.<metric>`; `stage_run.<stage>` and `stage_key.<stage>`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from analysis.stores import (
    DEFAULT_URI,
    PARENT_TAG,
    RawRun,
    RequestError,
    open_store,
    unknown_sweep,
)
from gigatok.names import (
    METRICS,
    PARAM_SEED,
    PARAM_TOKENIZER,
    PREFIX_PROTOCOL,
    PREFIX_STAGE_KEY,
    PREFIX_STAGE_RUN,
    TAG_AXES,
    TAG_ERROR,
    TAG_GIT_DIRTY,
    TAG_GIT_SHA,
    TAG_LAUNCHED,
    TAG_PLAN,
    TAG_QUESTION,
    TAG_SCALE,
    TAG_STATE,
    TAG_TRIAL,
    TAG_TRIAL_KEY,
)

ALL_PLANS = "all"
PROTOCOL, STAGE_RUN, STAGE_KEY = "protocol.", "stage_run.", "stage_key."
"""Prefixes of columns."""

_TRIAL_TAGS = {
    "trial": TAG_TRIAL,
    "trial_key": TAG_TRIAL_KEY,
    "state": TAG_STATE,
    "git_sha": TAG_GIT_SHA,
}
_SWEEP_TAGS = {"plan": TAG_PLAN, "scale": TAG_SCALE, "question": TAG_QUESTION}
CONTEXT: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    **{name: pl.String() for name in _TRIAL_TAGS},
    "git_dirty": pl.Boolean(),
    "error": pl.String(),
    "sweep": pl.String(),
    "sweep_run_id": pl.String(),
    **{name: pl.String() for name in _SWEEP_TAGS},
    "axes": pl.List(pl.String()),
    "launched": pl.Float64(),
}
"""Columns that say where a row comes from; the rest are params and results.

`git_dirty`: whether any stage ran from uncommitted code; null where no stage says. `error`: the
failed stage and why.
"""

_PREFIXES = {PREFIX_PROTOCOL: PROTOCOL, PREFIX_STAGE_RUN: STAGE_RUN, PREFIX_STAGE_KEY: STAGE_KEY}


def load_runs(
    sweep: str,
    tracking_uri: str = DEFAULT_URI,
    *,
    plan: str | None = None,
    scale: str | None = None,
) -> pl.DataFrame:
    """Read the trials of a sweep: one row each, failed ones included.

    Args:
        sweep: name of the sweep, which is the name of its experiment.
        tracking_uri: `sqlite:///PATH` (read directly) or a server (read through MLflow).
        plan: a plan key or its beginning, `"all"`, or None for the newest launch.
        scale: only launches at this scale.

    Returns:
        A table sorted by scale, size of encoder and decoder, axes and seed. A metric that was not
        logged is null; a logged NaN is NaN. With `plan="all"` a trial that several plans share
        appears once.

    Raises:
        RequestError: no such store, sweep, plan or scale, or no trial in it.
    """
    store = open_store(tracking_uri)
    launches = store.sweep_runs(sweep)
    if not launches:
        raise unknown_sweep(store, sweep, tracking_uri)
    chosen = _choose(launches, sweep, plan, scale)
    trials = store.trials(sweep, [launch.run_id for launch in chosen])
    if not trials:
        raise RequestError(f"sweep {sweep!r} has no trial yet (launched, nothing recorded)")
    ids = {run for t in trials for tag, run in t.tags.items() if tag.startswith(PREFIX_STAGE_RUN)}
    stages = store.tags(sorted(ids))
    return _table(sweep, {launch.run_id: launch for launch in chosen}, trials, stages)


def load_curves(
    run_ids: Sequence[str], metric: str, tracking_uri: str = DEFAULT_URI
) -> pl.DataFrame:
    """Read one curve per run: columns `run_id`, `step`, `value`, sorted by run and step.

    A resumed stage may log a step twice; the point written last is kept.
    """
    points = open_store(tracking_uri).curves(run_ids, metric) if run_ids else []
    last: dict[tuple[str, int], tuple[int, float]] = {}
    for run, step, time, value in points:
        if (run, step) not in last or time >= last[run, step][0]:
            last[run, step] = (time, value)
    rows = [(run, step, value) for (run, step), (_, value) in last.items()]
    schema = {"run_id": pl.String(), "step": pl.Int64(), "value": pl.Float64()}
    return pl.DataFrame(rows, schema, orient="row").sort("run_id", "step")


def missing(runs: pl.DataFrame) -> pl.DataFrame:
    """Which results are absent: columns `trial`, `seed`, `state`, `metric`, `found`.

    A metric counts as missing where some other trial has it; `found` is `null` or `NaN`.
    """
    rows = [
        (row["trial"], row.get(PARAM_SEED), row["state"], name, found)
        for name in measured(runs)
        for row in runs.iter_rows(named=True)
        if (found := _absence(row[name])) is not None
    ]
    schema = ["trial", "seed", "state", "metric", "found"]
    types = [pl.String(), pl.Int64(), pl.String(), pl.String(), pl.String()]
    return pl.DataFrame(rows, dict(zip(schema, types, strict=True)), orient="row")


def measured(runs: pl.DataFrame) -> list[str]:
    """The metrics of which at least one trial has a number, in the order of `names.METRICS`."""
    return [name for name in METRICS if runs[name].is_finite().any()]


def params_of(runs: pl.DataFrame) -> list[str]:
    """The columns that are params of the trials."""
    not_params = {*CONTEXT, *METRICS}
    prefixes = tuple(_PREFIXES.values())
    return [c for c in runs.columns if c not in not_params and not c.startswith(prefixes)]


def _absence(value: float | None) -> str | None:
    if value is None:
        return "null"
    return "NaN" if math.isnan(value) else None


def _choose(
    launches: Sequence[RawRun], sweep: str, plan: str | None, scale: str | None
) -> list[RawRun]:
    newest_first = sorted(launches, key=_launched, reverse=True)
    at_scale = [r for r in newest_first if scale is None or r.tags.get(TAG_SCALE) == scale]
    if not at_scale:
        scales = sorted({run.tags.get(TAG_SCALE, "?") for run in launches})
        raise RequestError(
            f"sweep {sweep!r} was not launched at scale {scale!r}; it was at {', '.join(scales)}"
        )
    if plan == ALL_PLANS:
        return at_scale
    if plan is None:
        return at_scale[:1]
    matches = [run for run in at_scale if run.tags.get(TAG_PLAN, "").startswith(plan)]
    if len({run.tags[TAG_PLAN] for run in matches}) != 1:
        plans = ", ".join(run.tags.get(TAG_PLAN, "?") for run in at_scale)
        problem = "matches several plans" if matches else "is not a plan"
        raise RequestError(f"{plan!r} {problem} of sweep {sweep!r}; its plans: {plans}")
    return matches[:1]


def _launched(run: RawRun) -> tuple[float, str]:
    return float(run.tags.get(TAG_LAUNCHED, run.started / 1000)), run.run_id


def _table(
    sweep: str,
    launches: Mapping[str, RawRun],
    trials: Sequence[RawRun],
    stages: Mapping[str, Mapping[str, str]],
) -> pl.DataFrame:
    runs = _once(trials, launches)
    context = [_context(sweep, launches[run.tags[PARENT_TAG]], run, stages) for run in runs]
    columns = [pl.Series(name, [row[name] for row in context], t) for name, t in CONTEXT.items()]
    return _ordered(pl.DataFrame([*columns, *_params(runs), *_metrics(runs), *_tags(runs)]))


def _once(trials: Iterable[RawRun], launches: Mapping[str, RawRun]) -> list[RawRun]:
    """Each trial once, with the most results, else of the newest launch: plans share trials."""
    kept: dict[object, RawRun] = {}
    newest_first = sorted(
        trials, key=lambda t: (_launched(launches[t.tags[PARENT_TAG]]), t.run_id), reverse=True
    )
    for trial in newest_first:
        key = (trial.tags.get(TAG_TRIAL_KEY, trial.run_id), frozenset(trial.params.items()))
        if key not in kept or len(trial.metrics) > len(kept[key].metrics):
            kept[key] = trial
    return list(kept.values())


def _ordered(table: pl.DataFrame) -> pl.DataFrame:
    """Trials of one launch start at the same moment, so the order must come from the settings."""
    axes = [axis for row in table["axes"].to_list() for axis in row]
    keys = ["tokenizer.encoder", "tokenizer.decoder", *axes, PARAM_SEED, "trial", "run_id"]
    sizes = {key: [f"{key}.width", f"{key}.layers"] for key in keys}
    columns = [c for key in keys for c in (*sizes[key], key) if c in table.columns]
    return table.sort("scale", *dict.fromkeys(columns), nulls_last=True)


def _context(
    sweep: str, launch: RawRun, run: RawRun, stages: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    mine = {
        tag.removeprefix(PREFIX_STAGE_RUN): stages.get(stage_run, {})
        for tag, stage_run in sorted(run.tags.items())
        if tag.startswith(PREFIX_STAGE_RUN)
    }
    dirty = [tags[TAG_GIT_DIRTY] == "true" for tags in mine.values() if TAG_GIT_DIRTY in tags]
    return {
        "run_id": run.run_id,
        **{name: run.tags.get(tag) for name, tag in _TRIAL_TAGS.items()},
        "git_dirty": any(dirty) if dirty else None,
        "error": _error(mine),
        "sweep": sweep,
        "sweep_run_id": launch.run_id,
        **{name: launch.tags.get(tag) for name, tag in _SWEEP_TAGS.items()},
        "axes": json.loads(launch.tags.get(TAG_AXES, "[]")),
        "launched": _launched(launch)[0],
    }


def _error(stages: Mapping[str, Mapping[str, str]]) -> str | None:
    """Which stages failed, and why; a stage that failed and then succeeded did not fail."""
    failed = {name: tags for name, tags in stages.items() if tags.get(TAG_STATE) == "FAILED"}
    texts = [f"{name}: {tags.get(TAG_ERROR, 'no reason')}" for name, tags in failed.items()]
    return "; ".join(text.strip().partition("\n")[0] for text in texts) or None


def _params(runs: Sequence[RawRun]) -> list[pl.Series]:
    found = {key for run in runs for key in run.params}
    first = (PARAM_TOKENIZER, PARAM_SEED)
    names = [*first, *sorted(found - set(first))]
    return [_typed(name, [run.params.get(name) for run in runs]) for name in names]


def _metrics(runs: Sequence[RawRun]) -> list[pl.Series]:
    return [pl.Series(m, [run.metrics.get(m) for run in runs], pl.Float64()) for m in METRICS]


def _tags(runs: Sequence[RawRun]) -> list[pl.Series]:
    """Protocols of every known metric, and the stages that some trial has."""
    found = {tag for run in runs for tag in run.tags}
    tags = [PREFIX_PROTOCOL + metric for metric in METRICS]
    tags += sorted(tag for tag in found if tag.startswith((PREFIX_STAGE_RUN, PREFIX_STAGE_KEY)))
    return [pl.Series(_column(tag), [r.tags.get(tag) for r in runs], pl.String()) for tag in tags]


def _column(tag: str) -> str:
    prefix = next(prefix for prefix in _PREFIXES if tag.startswith(prefix))
    return _PREFIXES[prefix] + tag.removeprefix(prefix)


_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BOOLEANS = {"true": True, "false": False}


def _typed(name: str, values: Sequence[str | None]) -> pl.Series:
    """Type a whole column of JSON scalars: int, else float, else bool, else text as it is."""
    texts = [None if text in (None, "null") else text for text in values]
    present = [text for text in texts if text is not None]
    if present and all(_INTEGER.fullmatch(text) for text in present):
        return pl.Series(name, [None if t is None else int(t) for t in texts], pl.Int64())
    if present and all(_FLOAT.fullmatch(text) for text in present):
        return pl.Series(name, [None if t is None else float(t) for t in texts], pl.Float64())
    if present and all(text in _BOOLEANS for text in present):
        return pl.Series(name, [None if t is None else _BOOLEANS[t] for t in texts], pl.Boolean())
    return pl.Series(name, texts, pl.String())
