"""A trial: its curves, pictures, settings and origin, and how it differs from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from analysis.statistics.groups import identity_columns, show
from analysis.store import artifacts
from analysis.store.opening import open_store
from analysis.store.requests import RequestError
from analysis.store.runs import STAGE_KEY, STAGE_RUN, config_of, params_of
from gigatok.names import CODE_USES, METRICS, PARAM_SEED, PARAM_TOKENIZER, SYSTEM_PREFIX

PICTURES = (("evaluate_reconstruction", "reconstructions"), ("evaluate_generation", "samples"))
"""Stage and name of the pictures that say how good a trial is."""
PICTURES_OF_TRAINING = ("train_tokenizer", "reconstructions")
"""Stage and name of the pictures that a training logs at several steps."""


@dataclass(frozen=True)
class LoadedTrial:
    """A trial, as a row of `load_runs` and the points that its stages logged.

    Attributes:
        curves: `stage`, `key`, `step`, `value`, sorted; each step once, as it was logged last.
    """

    row: Mapping[str, Any]
    curves: pl.DataFrame

    @property
    def name(self) -> str:
        """Name the trial, such as `S-B`."""
        return str(self.row["trial"])

    @property
    def code_uses(self) -> pl.DataFrame:
        """Select the histogram of codebook usage: `uses`, how many `codes`; may be empty."""
        found = self.curves.filter(pl.col("key") == CODE_USES)
        return found.select(uses=_uses(), codes=pl.col("value").cast(pl.Int64))


def load_trial(uri: str, runs: pl.DataFrame, run_id: str) -> LoadedTrial:
    """Read a trial.

    Raises:
        RequestError: it is not among the runs.
    """
    row = row_of(runs, run_id)
    # Curves hang on stage runs, which trials share; the links lead from the trial to them.
    links = {v: k.removeprefix(STAGE_RUN) for k, v in row.items() if k.startswith(STAGE_RUN) and v}
    points = open_store(uri).curves(list(links))
    # A resumed stage logs some steps again; the last writing counts.
    last = points.sort("time").unique(["run_id", "key", "step"], keep="last")
    stage = pl.col("run_id").replace_strict(links, return_dtype=pl.String())
    curves = last.select(stage.alias("stage"), "key", "step", "value")
    return LoadedTrial(row, curves.sort("stage", "key", "step"))


def row_of(runs: pl.DataFrame, run_id: str) -> dict[str, Any]:
    """Find the row of a trial.

    Raises:
        RequestError: it is not among the runs.
    """
    rows = runs.filter(pl.col("run_id") == run_id)
    if rows.is_empty():
        raise RequestError(f"no trial {run_id} in this study; choose one from the list")
    return rows.row(0, named=True)


def curve(trial: LoadedTrial, stage: str, key: str) -> pl.DataFrame:
    """Select one curve: `step`, `value`."""
    wanted = (pl.col("stage") == stage) & (pl.col("key") == key)
    return trial.curves.filter(wanted).select("step", "value")


def panels(trial: LoadedTrial, stages: Sequence[str]) -> dict[str, list[str]]:
    """List the curves of each stage that have more than one point, in the order stages run."""
    # A final score is a curve of one point, and stands among the results.
    several = trial.curves.group_by("stage", "key").len().filter(pl.col("len") > 1)
    shown = several.filter(~pl.col("key").str.starts_with(SYSTEM_PREFIX))
    found: dict[str, list[str]] = {}
    for stage, key, _ in shown.sort("stage", "key").iter_rows():
        if key != CODE_USES:
            found.setdefault(stage, []).append(key)
    return {stage: found[stage] for stage in stages if stage in found}


def pictures(
    uri: str,
    rows: Sequence[Mapping[str, Any]],
    name: tuple[str, str],
    within: Path | None,
    step: int | None = None,
) -> list[tuple[str, bytes]]:
    """Read the picture of each of some trials that logged it: name of the trial, PNG.

    Args:
        uri: the tracking store.
        rows: the trials.
        name: stage and name of the picture.
        within: folder in which pictures on this machine must lie; None: anywhere.
        step: at which the stage logged it; None: the newest, as the trial has it.

    Raises:
        artifacts.Outside: a picture lies on this machine, but not within that folder.
    """
    stage, title = name
    found = []
    for row in rows:
        if step is None:
            png = artifacts.logged_picture(uri, row["run_id"], stage, title, within)
        else:
            run_id = row.get(STAGE_RUN + stage)
            file = f"pictures/{title}/{step:08d}.png"
            png = artifacts.read(uri, run_id, file, within) if run_id else None
        if png is not None:
            found.append((str(row["trial"]), png))
    return found


def varied_keys(runs: pl.DataFrame) -> list[str]:
    """List the keys in which trials differ: what tells settings apart, then the seed."""
    keys = (*identity_columns(runs), PARAM_SEED)
    return [key for key in keys if runs[key].n_unique() > 1]


def differing_in(
    runs: pl.DataFrame, run_id: str, key: str, most: int
) -> Sequence[Mapping[str, Any]]:
    """Select a trial and those that differ from it in one key alone, one of each value."""
    own = runs.filter(pl.col("run_id") == run_id)
    shared = [name for name in (*identity_columns(runs), PARAM_SEED) if name != key]
    # `nulls_equal`: a setting that neither trial has is one in which they agree.
    same = runs.join(own.select(shared), on=shared, how="semi", nulls_equal=True)
    # The trial itself comes first, so that it stands for its value.
    ordered = pl.concat([own, same]).unique(key, keep="first", maintain_order=True)
    # The names of sizes do not order them: S-L is larger than B-B.
    rank = "params_tokenizer" if key == PARAM_TOKENIZER else key
    return ordered.head(most).sort(rank, nulls_last=True).to_dicts()


def picture_steps(uri: str, row: Mapping[str, Any], stage: str, name: str) -> list[int]:
    """List the steps at which a stage of a trial logged a picture."""
    run_id = row.get(STAGE_RUN + stage)
    files = artifacts.listing(uri, run_id, f"pictures/{name}") if run_id else []
    return [int(PurePath(file).stem) for file in files]


def settings(row: Mapping[str, Any], runs: pl.DataFrame) -> pl.DataFrame:
    """List the configuration: `setting`, `value`, and whether it `varies` within the study."""
    names = params_of(runs)
    varied = [runs[name].n_unique() > 1 for name in names]
    values = [show(row[name], "") for name in names]
    found = pl.DataFrame({"setting": names, "value": values, "varies": varied})
    return found.sort("varies", descending=True, maintain_order=True)


def results(row: Mapping[str, Any]) -> pl.DataFrame:
    """List the results: `result` with its unit, `value`, `protocol`."""
    rows = [
        (METRICS[name].title, METRICS[name].text(row[name]), row.get(f"protocol.{name}"))
        for name in METRICS
        if row.get(name) is not None
    ]
    kinds = {"result": pl.String(), "value": pl.String(), "protocol": pl.String()}
    return pl.DataFrame(rows, kinds, orient="row")


def provenance(row: Mapping[str, Any], cells: pl.DataFrame) -> pl.DataFrame:
    """List where it comes from: a row per stage with key, host, attempts, time and MLflow run."""
    own = cells.filter(pl.col("run_id") == row["run_id"])
    return own.select("stage", "state", "host", "attempts", "seconds", "key", "stage_run")


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> pl.DataFrame:
    """List what differs between two trials: settings, then results, then shared or own stages."""
    params = sorted(config_of(one).keys() | config_of(other).keys())
    stages = sorted(key for key in one.keys() | other.keys() if key.startswith(STAGE_KEY))
    names = [
        *(("setting", key, key) for key in params),
        *(("result", key, METRICS[key].title) for key in METRICS),
        *(("stage key", key, key.removeprefix(STAGE_KEY)) for key in stages),
    ]
    rows = [
        (kind, name, *(_text(key, row.get(key)) for row in (one, other)))
        for kind, key, name in names
        if one.get(key) != other.get(key)
    ]
    columns = dict.fromkeys(("kind", "name", "this", "other"), pl.String())
    return pl.DataFrame(rows, columns, orient="row")


def _uses() -> pl.Expr:
    """Name the bins in words: 0, 1, 2-3, 4-7, ..."""
    n = pl.col("step")
    # Steps are 0, 1 and then powers of two, as `gigatok.names.CODE_USES` defines the histogram.
    return pl.when(n < 2).then(n.cast(pl.String)).otherwise(pl.format("{}-{}", n, 2 * n - 1))


def _text(key: str, value: Any) -> str:
    if key not in METRICS:
        return show(value, "")
    return "not measured" if value is None else METRICS[key].text(value)
