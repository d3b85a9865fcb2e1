"""The tracking store as one table: a row per trial, typed columns.

Columns: `CONTEXT`; the trial's params, its own and those on its sweep's run, under their (dotted)
names, `derived.<name>` and `computed.<name>` for what follows from them; every metric of
`gigatok.names` and its `protocol.<metric>`; every size of `gigatok.names`; `metric.<name>` for
others that were logged; and `stage_run.<stage>`, `stage_key.<stage>`, `stage_seconds.<stage>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl

from analysis.store.cache import remembered
from analysis.store.interface import PARENT_TAG, SweepRun, TrackingStore
from analysis.store.opening import open_store, unknown_sweep
from analysis.store.records import Records, optional, wide
from analysis.store.requests import DEFAULT_URI, RequestError
from gigatok import names

ALL_PLANS = "all"
PROTOCOL, STAGE_RUN, STAGE_KEY = "protocol.", "stage_run.", "stage_key."
STAGE_SECONDS, OTHER_METRIC = "stage_seconds.", "metric."
PREDICTED_SECONDS, ACTUAL_SECONDS = "predicted_seconds.", "actual_seconds."
"""Prefixes of columns; `actual_seconds` are of the worker, where a stage ran in one go."""

_COSTS = {PREDICTED_SECONDS: "predicted", ACTUAL_SECONDS: "actual"}
STAGE_FACTS = (STAGE_SECONDS, *_COSTS)

_TRIAL_TAGS = {
    "trial": names.TAG_TRIAL,
    "trial_key": names.TAG_TRIAL_KEY,
    "state": names.TAG_STATE,
    "git_sha": names.TAG_GIT_SHA,
}
_SWEEP_TAGS = {
    "plan": names.TAG_PLAN,
    "scale": names.TAG_SCALE,
    "question": names.TAG_QUESTION,
    "figure": names.TAG_FIGURE,
}
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

_TEXT_PREFIXES = {
    names.PREFIX_PROTOCOL: PROTOCOL,
    names.PREFIX_STAGE_RUN: STAGE_RUN,
    names.PREFIX_STAGE_KEY: STAGE_KEY,
}
FOLLOWS = (names.PREFIX_DERIVED, names.PREFIX_COMPUTED)
"""Prefixes of params that follow from others: they identify no trial and confound nothing."""
_PREFIXES = (PROTOCOL, STAGE_RUN, STAGE_KEY, *STAGE_FACTS, OTHER_METRIC, *FOLLOWS)


def load_runs(
    sweep: str | None,
    tracking_uri: str = DEFAULT_URI,
    *,
    plan: str | None = None,
    scale: str | None = None,
) -> pl.DataFrame:
    """Read the trials of a sweep: one row each, failed ones included.

    Args:
        sweep: name of the sweep, which is the name of its experiment; None for all sweeps.
        tracking_uri: a database such as `sqlite:///PATH` (read directly) or a server (read
            through MLflow).
        plan: a plan key or its beginning, `"all"`, or None for the newest launch of each sweep.
        scale: only launches at this scale.

    Returns:
        A table sorted by sweep, scale, size of encoder and decoder, axes and seed. A metric that
        was not logged is null; a logged NaN is NaN. With `plan="all"` a trial that several plans
        share appears once. `export.units` says in what each
        column is measured.

    Raises:
        RequestError: no such store, sweep, plan or scale, or no trial in it.
    """
    store = open_store(tracking_uri)
    stamp = store.stamp()
    launches = store.launches(sweep)
    # Before the table is looked up or made: every metric that is known is a column.
    for launch in launches:
        names.learn_metrics(json.loads(launch.tags.get(names.TAG_METRICS, "[]")))
    if not launches:
        raise unknown_sweep(store, sweep or "SWEEP", tracking_uri)
    return remembered(
        stamp, (sweep, plan, scale), lambda: _read(store, launches, sweep, plan, scale)
    )


def load_curves(
    run_ids: Sequence[str], metric: str, tracking_uri: str = DEFAULT_URI
) -> pl.DataFrame:
    """Read one curve per run: columns `run_id`, `step`, `value`, sorted by run and step.

    A resumed stage may log a step twice; the point written last is kept.
    """
    # Time decides between points of one step, not the order in which the store returns them.
    points = open_store(tracking_uri).curves(run_ids, metric)
    last = points.sort("time").unique(["run_id", "step"], keep="last", maintain_order=True)
    return last.select("run_id", "step", "value").sort("run_id", "step")


def measured(runs: pl.DataFrame) -> list[str]:
    """List the metrics of which a trial has a number, in the order of `names.METRICS`."""
    return [name for name in names.METRICS if runs[name].is_finite().any()]


def scored(runs: pl.DataFrame) -> list[str]:
    """List the metrics that were measured and say how well a trial did, not how large it is."""
    # A network's parameters are known when its training ends, which may be long before any score.
    return [name for name in measured(runs) if names.METRICS[name].unit != names.PARAMETERS]


def params_of(runs: pl.DataFrame) -> list[str]:
    """List the columns that are params of the trials' configs."""
    return list(_params_among(tuple(runs.columns)))


def derived_of(runs: pl.DataFrame) -> list[str]:
    """List the columns that the sweeps' `derive` made."""
    return [name for name in runs.columns if name.startswith(names.PREFIX_DERIVED)]


@cache
def _params_among(columns: tuple[str, ...]) -> tuple[str, ...]:
    not_params = {*CONTEXT, *names.METRICS, *names.SIZES}
    return tuple(c for c in columns if c not in not_params and not c.startswith(_PREFIXES))


def config_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the params of a trial."""
    return {name: row[name] for name in _params_among(tuple(row))}


_PROVENANCE = ("run_id", "trial", "trial_key", "state", "sweep", "sweep_run_id", "scale", "plan")


def origin(row: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """Collect the provenance of a trial's numbers: MLflow run, stages, config, code.

    Args:
        row: of the trial.
        metrics: names of the numbers that are shown; their values and protocols are in it.
    """
    named = [metric for metric in metrics if metric in names.METRICS]
    return {
        "id": row["run_id"],
        **{name: row[name] for name in _PROVENANCE},
        **{name: row[name] for name in ("git_sha", "git_dirty")},
        "seed": row[names.PARAM_SEED],
        "stage_runs": _below(STAGE_RUN, row),
        "stage_keys": _below(STAGE_KEY, row),
        "config": config_of(row),
        "derived": {name: row[name] for name in row if name.startswith(names.PREFIX_DERIVED)},
        "values": {name: row[name] for name in named},
        "protocols": {name: row[PROTOCOL + name] for name in named},
    }


def _below(prefix: str, row: Mapping[str, Any]) -> dict[str, str]:
    return {k.removeprefix(prefix): v for k, v in row.items() if v and k.startswith(prefix)}


def _read(
    store: TrackingStore,
    launches: Sequence[SweepRun],
    sweep: str | None,
    plan: str | None,
    scale: str | None,
) -> pl.DataFrame:
    by_sweep: dict[str, list[SweepRun]] = {}
    for launch in launches:
        by_sweep.setdefault(launch.sweep, []).append(launch)
    if len(by_sweep) > 1 and scale is not None:
        # A sweep that was never launched at the scale is left out, unless none was: then the error
        # below names the scales that there are.
        at_scale = {
            n: [r for r in f if r.tags.get(names.TAG_SCALE) == scale] for n, f in by_sweep.items()
        }
        by_sweep = {name: found for name, found in at_scale.items() if found} or by_sweep
    chosen = [r for n, found in sorted(by_sweep.items()) for r in _choose(found, n, plan, scale)]
    trials, stages = store.trials(chosen)
    if trials.runs.is_empty():
        raise RequestError(f"sweep {sweep!r} has no trial yet (launched, nothing recorded)")
    return _table(chosen, trials, stages)


def _choose(
    launches: Sequence[SweepRun], sweep: str, plan: str | None, scale: str | None
) -> list[SweepRun]:
    # The id breaks ties, so that two launches within one second always come in the same order.
    newest_first = sorted(launches, key=lambda run: (run.launched, run.run_id), reverse=True)
    at_scale = [r for r in newest_first if scale is None or r.tags.get(names.TAG_SCALE) == scale]
    if not at_scale:
        scales = sorted({run.tags.get(names.TAG_SCALE, "?") for run in launches})
        raise RequestError(
            f"sweep {sweep!r} was not launched at scale {scale!r}; it was at {', '.join(scales)}"
        )
    if plan == ALL_PLANS:
        return at_scale
    if plan is None:
        return at_scale[:1]
    matches = [run for run in at_scale if run.tags.get(names.TAG_PLAN, "").startswith(plan)]
    # A beginning of a key may fit several plans; relaunches of one plan are the same plan.
    if len({run.tags[names.TAG_PLAN] for run in matches}) != 1:
        plans = ", ".join(run.tags.get(names.TAG_PLAN, "?") for run in at_scale)
        problem = "matches several plans" if matches else "is not a plan"
        raise RequestError(f"{plan!r} {problem} of sweep {sweep!r}; its plans: {plans}")
    return matches[:1]


def _table(launches: Sequence[SweepRun], trials: Records, stages: Records) -> pl.DataFrame:
    height = trials.runs.height
    # Every trial was found by this tag, so that the column is always there.
    tags = wide(trials.tags, height).rename({PARENT_TAG: "sweep_run_id"})
    found = trials.runs.select("run_id").hstack(tags)
    found = found.join(_launch_columns(launches), "sweep_run_id", "left", maintain_order="left")
    params = _with_shared(wide(trials.params, height), found["sweep_run_id"], launches)
    metrics = wide(trials.metrics, height)
    found = _once(found, params, metrics)
    # Rows were dropped as repeated: params and metrics must follow them.
    if found.height < height:
        params, metrics = params[found["run"]], metrics[found["run"]]
    found = found.hstack(_of_stages(found, stages))
    table = found.select(_context_columns(found)).hstack(
        [
            *with_sizes(pl.DataFrame([*_params(params), *_metrics(metrics)])).get_columns(),
            *_texts(_with_protocols(found, metrics, launches)),
            *found.select(pl.col(f"^({'|'.join(map(re.escape, STAGE_FACTS))}).*$")).get_columns(),
        ]
    )
    return _ordered(table)


def _with_shared(
    params: pl.DataFrame, of: pl.Series, launches: Sequence[SweepRun]
) -> pl.DataFrame:
    """Fill in the params that trials share with their sweep's run, whose ids `of` has."""
    columns = []
    for filled in _shared(of, {launch.run_id: launch.params for launch in launches}):
        key = filled.name
        if key in params.columns:
            # A trial's own param wins. Trials of earlier versions have all of them.
            filled = params[key].fill_null(filled.cast(pl.String))
        columns.append(filled)
    return params.with_columns(columns)


def _with_protocols(
    found: pl.DataFrame, metrics: pl.DataFrame, launches: Sequence[SweepRun]
) -> pl.DataFrame:
    """Fill in the protocols that trials share with their sweep's run, for the metrics they have.

    Trials of earlier versions have all protocols of their own. An empty one says that there is
    none.
    """
    tags = {
        launch.run_id: {
            key: text for key, text in launch.tags.items() if key.startswith(names.PREFIX_PROTOCOL)
        }
        for launch in launches
    }
    columns = []
    for filled in _shared(found["sweep_run_id"], tags):
        key = filled.name
        if (metric := key.removeprefix(names.PREFIX_PROTOCOL)) in metrics.columns:
            filled = filled.cast(pl.String).set(metrics[metric].is_null(), None)
            own = found[key].fill_null(filled) if key in found.columns else filled
            columns.append(own.set(own == "", None))
    return found.with_columns(columns)


def _shared(of: pl.Series, values: Mapping[str, Mapping[str, str]]) -> Iterator[pl.Series]:
    """Make a column for each key of the sweep runs' values; `of` has the sweep run of each row.

    A column is an Enum: its few texts are stored and typed once, and not for each trial.
    """
    row = of.replace_strict({run: i for i, run in enumerate(values)}, return_dtype=pl.UInt32)
    for key in sorted({key for own in values.values() for key in own}):
        texts = pl.Series(key, [own.get(key) for own in values.values()], pl.String)
        yield texts.cast(pl.Enum(texts.drop_nulls().unique().sort())).gather(row)


def _launch_columns(launches: Sequence[SweepRun]) -> pl.DataFrame:
    rows = [
        {
            "sweep_run_id": launch.run_id,
            "sweep": launch.sweep,
            **{name: launch.tags.get(tag) for name, tag in _SWEEP_TAGS.items()},
            "axes": json.loads(launch.tags.get(names.TAG_AXES, "[]")),
            "launched": launch.launched,
        }
        for launch in launches
    ]
    columns = ("sweep_run_id", "sweep", *_SWEEP_TAGS, "axes", "launched")
    return pl.DataFrame(rows, {name: CONTEXT[name] for name in columns})


def _once(found: pl.DataFrame, params: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """Keep each trial of a sweep once, with the most results, else of the newest launch.

    Plans of one sweep share trials. Trials of different sweeps are different answers.
    """
    key = optional(found, names.TAG_TRIAL_KEY).fill_null(pl.col("run_id"))
    found = found.with_columns(_key=key)
    if found.select("sweep", "_key").is_unique().all():
        return found.drop("_key")
    # A NaN was logged and counts as a result.
    count = pl.sum_horizontal(pl.lit(0), pl.exclude("run").is_not_null())
    results = metrics.select("run", _results=count)
    settings = params.select("run", _settings=pl.struct(pl.exclude("run")))
    marked = found.join(results, "run", "left").join(settings, "run", "left")
    marked = marked.with_columns(pl.col("_results").fill_null(0))
    # A relaunch may have begun the trial anew: the one with more results is the better answer.
    best_first = marked.sort("_results", "launched", "run_id", descending=True)
    # Settings are part of it: plans launched with other networks may share a key.
    kept = best_first.unique(["sweep", "_key", "_settings"], keep="first", maintain_order=True)
    # By row again: the columns of params and metrics are gathered by it.
    return kept.drop("_key", "_results", "_settings").sort("run")


def _of_stages(found: pl.DataFrame, stages: Records) -> pl.DataFrame:
    """Join what the stage runs of each trial add to it, along its links."""
    tags = wide(stages.tags, stages.runs.height)
    reason = optional(tags, names.TAG_ERROR).fill_null("no reason").str.strip_chars()
    facts = stages.runs.hstack(tags).select(
        part="run_id",
        seconds=(pl.col("ended") - pl.col("started")) / 1000,
        predicted=optional(tags, names.TAG_PREDICTED_SECONDS).cast(pl.Float64),
        actual=optional(tags, names.TAG_ACTUAL_SECONDS).cast(pl.Float64),
        dirty=optional(tags, names.TAG_GIT_DIRTY) == "true",
        error=pl.when(optional(tags, names.TAG_STATE) == "FAILED").then(
            reason.str.split("\n").list.first()
        ),
    )
    # Stage runs are joined one stage at a time: a trial has at most one run of each.
    dirty, errors, seconds, costs = [], [], [], []  # a column a stage
    for link in sorted(c for c in found.columns if c.startswith(names.PREFIX_STAGE_RUN)):
        stage = link.removeprefix(names.PREFIX_STAGE_RUN)
        ids = found.select(part=pl.col(link).cast(pl.String))
        part = ids.join(facts, "part", "left", maintain_order="left")
        dirty.append(part["dirty"].alias(stage))
        errors.append((f"{stage}: " + part["error"]).alias(stage))
        seconds.append(part["seconds"].alias(STAGE_SECONDS + stage))
        # A store without predictions has no such columns.
        found_costs = (part[column].alias(name + stage) for name, column in _COSTS.items())
        costs += [column for column in found_costs if column.is_not_null().any()]
    none = pl.Series("", [None] * found.height)
    is_dirty = pl.DataFrame([none.cast(pl.Boolean), *dirty]).select(
        # Nulls are skipped: clean and unknown together are clean, where `any_horizontal` gives
        # null.
        git_dirty=pl.max_horizontal(pl.all())
    )
    # Nulls alone concatenate to "", which must not read as a failure.
    said = pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)
    failed = pl.DataFrame([none.cast(pl.String), *errors]).select(
        error=pl.when(said != "").then(said)
    )
    return is_dirty.hstack(failed).hstack([*seconds, *costs])


def _context_columns(found: pl.DataFrame) -> list[pl.Expr]:
    own = {name: optional(found, tag).alias(name) for name, tag in _TRIAL_TAGS.items()}
    return [own.get(name, pl.col(name)).cast(kind) for name, kind in CONTEXT.items()]


def _ordered(table: pl.DataFrame) -> pl.DataFrame:
    """Sort by the settings: trials of one launch start at the same moment."""
    axes = [axis for row in table["axes"].unique(maintain_order=True).to_list() for axis in row]
    keys = ["tokenizer.encoder", "tokenizer.decoder", *axes, names.PARAM_SEED, "trial", "run_id"]
    sizes = {key: [f"{key}.width", f"{key}.layers"] for key in keys}
    columns = [c for key in keys for c in (*sizes[key], key) if c in table.columns]
    # `None` sorts last, so that trials that never started stand below the others.
    return table.sort("sweep", "scale", *dict.fromkeys(columns), nulls_last=True)


def _params(values: pl.DataFrame) -> list[pl.Series]:
    first = (names.PARAM_TOKENIZER, names.PARAM_SEED)
    ordered = [*first, *sorted(set(values.columns) - {"run", *first})]
    absent = pl.Series(values=[None] * values.height, dtype=pl.String())
    return [_typed(values.get_column(n, default=absent.alias(n))) for n in ordered]


def _metrics(values: pl.DataFrame) -> list[pl.Series]:
    """List every known metric, then what else was logged."""
    # A column for every known metric, measured or not: readers need not ask whether it is there.
    absent = pl.Series(values=[None] * values.height, dtype=pl.Float64())
    known = [values.get_column(n, default=absent.alias(n)) for n in names.METRICS]
    others = sorted(set(values.columns) - {"run", *names.METRICS})
    return [*known, *(values[name].alias(OTHER_METRIC + name) for name in others)]


def with_sizes(table: pl.DataFrame) -> pl.DataFrame:
    """Add every size of `names.SIZES` to a table of params and metrics; unknown ones are null."""
    # Counted before this one was logged: runs of earlier versions have the counts that it is of.
    at_inference = pl.col("params_total") - pl.col("params_head")
    table = table.with_columns(params_tokenizer=pl.coalesce("params_tokenizer", at_inference))
    made = [
        pl.Series(name, _sizes(table, size), pl.Float64)
        for name, size in names.SIZES.items()
        if name not in names.METRICS
    ]
    return table.hstack(made)


def _sizes(table: pl.DataFrame, size: names.Size) -> list[float | None]:
    # A sweep without the stage, or a run of an earlier version, has no such column; one that is
    # null everywhere, or holds the texts of several kinds, is no number.
    numeric = [c for c in size.reads if c in table.columns and table[c].dtype.is_numeric()]
    if len(numeric) < len(size.reads):
        return [None] * table.height
    rows = table.select(numeric).iter_rows()
    return [None if None in row else float(size.of(*row)) for row in rows]


def _texts(found: pl.DataFrame) -> list[pl.Series]:
    """List protocols of every known metric, and the stages that some trial has."""
    tags = [names.PREFIX_PROTOCOL + metric for metric in names.METRICS]
    links = (names.PREFIX_STAGE_RUN, names.PREFIX_STAGE_KEY)
    tags += sorted(column for column in found.columns if column.startswith(links))
    texts = [optional(found, tag).alias(_column(tag)) for tag in tags]
    return found.select("run", *texts).drop("run").get_columns()


def _column(tag: str) -> str:
    prefix = next(prefix for prefix in _TEXT_PREFIXES if tag.startswith(prefix))
    return _TEXT_PREFIXES[prefix] + tag.removeprefix(prefix)


_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BOOLEANS = {"true": True, "false": False}


def _typed(texts: pl.Series) -> pl.Series:
    """Type a whole column of JSON scalars: int, else float, else bool, else text as it is."""
    if isinstance(texts.dtype, pl.Enum):
        known = texts.dtype.categories
        present_only = known.set(~known.is_in(texts.unique().cast(pl.String).implode()), None)
        return _typed(present_only).gather(texts.to_physical()).alias(texts.name)
    # A column that is null everywhere says nothing about its type: it stays text.
    present = [text for text in texts.unique() if text not in (None, "null")]
    parsed: Mapping[str, Any] = {}
    kind: pl.DataType = pl.String()
    if present and all(_INTEGER.fullmatch(text) for text in present):
        parsed = {text: int(text) for text in present}
        if all(-(2**63) <= number < 2**63 for number in parsed.values()):
            kind = pl.Int64()
        else:  # a null would be no value, and a float would make different seeds equal
            parsed = {text: text for text in present}
    elif present and all(_FLOAT.fullmatch(text) for text in present):
        kind, parsed = pl.Float64(), {text: float(text) for text in present}
    elif present and all(text in _BOOLEANS for text in present):
        kind, parsed = pl.Boolean(), _BOOLEANS
    else:
        parsed = {text: text for text in present}
    return texts.replace_strict(parsed, default=None, return_dtype=kind)
