"""How fast the results table is read: `python tests/benchmarks/runs_table.py [--trials N]`.

Makes an MLflow sqlite database of that many trials, the schema by MLflow and the rows by bulk
inserts, and times `load_runs` cold and warm; then, on a smaller one, against
`mlflow.search_runs`. Each measurement is a process of its own, imports included in none.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from gigatok import names

SWEEP = "large"
PLAN = "0123456789abcdef"
STAGES = (
    "extract_reference_features",
    "train_tokenizer",
    "evaluate_reconstruction",
    "extract_codes",
    "train_generator",
    "evaluate_generation",
    "linear_probe",
)
TRIALS_PER_STAGE = 10
"""How many trials share a stage run."""
STAGE_PARAMS = 23
"""Params of a stage's run, of which a table needs none; 8 to 78 in a real store."""
Row = tuple[Any, ...]
RUN = "runs (run_uuid, name, status, start_time, end_time, lifecycle_stage,"
RUN += " experiment_id, user_id, source_type, artifact_uri)"
TEXT = "(key, value, run_uuid)"
"""Columns of params and tags."""
POINT = "(key, value, timestamp, step, is_nan, run_uuid)"


def make_store(path: Path, trials: int, metrics: int, params: int, *, apart: bool) -> None:
    """Write one sweep run, its trials and their stage runs, as the launcher writes them.

    With `apart` each trial has what trials now share through the sweep's run.
    """
    from mlflow import MlflowClient

    experiment = int(MlflowClient(f"sqlite:///{path}").create_experiment(SWEEP))
    rng = random.Random(0)
    sweep = _uuid(rng)
    stage_runs = {stage: [_uuid(rng) for _ in _blocks(trials)] for stage in STAGES}
    # Sorted, as sqlite inserts in the order of a primary key several times as fast.
    runs = sorted(_uuid(rng) for _ in range(trials))
    with sqlite3.connect(path) as db, _without_indexes(db):
        everything = [sweep, *(run for of in stage_runs.values() for run in of), *runs]
        _insert(db, RUN, (_run(run, experiment) for run in everything))
        _insert(db, f"tags {TEXT}", ((k, v, sweep) for k, v in _sweep_tags().items()))
        _insert_stages(db, rng, sweep, stage_runs, _metrics(metrics))
        _insert_trials(db, rng, sweep, stage_runs, runs, _metrics(metrics))
        same = {f"tokenizer.part_{i}.setting": json.dumps(i) for i in range(params - 4)}
        of = runs if apart else [sweep]
        _share(db, "params", of, same)
        _share(db, "tags", of, _protocols(names.METRICS))
        db.execute(f"INSERT INTO latest_metrics {POINT} SELECT {POINT[1:-1]} FROM metrics")


@contextmanager
def _without_indexes(db: sqlite3.Connection) -> Iterator[None]:
    """Drop the indexes that are no primary keys, and make them at the end: one sort for each."""
    db.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -2000000")
    found = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    indexes = db.execute(found).fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    yield
    for _, sql in indexes:
        db.execute(sql)


def _insert_stages(
    db: sqlite3.Connection,
    rng: random.Random,
    sweep: str,
    stage_runs: dict[str, list[str]],
    keys: list[str],
) -> None:
    """Write the stage runs; each stage reports its part of the metrics."""
    for number, (stage, runs) in enumerate(stage_runs.items()):
        part = keys[number :: len(STAGES)]
        _share(db, "tags", runs, _stage_tags(stage, sweep) | _protocols(part))
        own = ((k, v, run) for run in runs for k, v in _own_tags(rng, run).items())
        _insert(db, f"tags {TEXT}", own)
        read = {f"{stage}.part_{i}.setting": json.dumps(i) for i in range(STAGE_PARAMS)}
        _share(db, "params", runs, read)
        points = (point for run in runs for point in _points(rng, part, run))
        _insert(db, f"metrics {POINT}", points)


def _insert_trials(
    db: sqlite3.Connection,
    rng: random.Random,
    sweep: str,
    stage_runs: dict[str, list[str]],
    runs: list[str],
    keys: list[str],
) -> None:
    _insert(db, f"metrics {POINT}", (point for run in runs for point in _points(rng, keys, run)))
    settings = (
        (k, v, run) for number, run in enumerate(runs) for k, v in _settings(number).items()
    )
    _insert(db, f"params {TEXT}", settings)
    tags = (
        (k, v, run)
        for number, run in enumerate(runs)
        for k, v in (_trial_tags(number, stage_runs) | _own_tags(rng, run)).items()
    )
    _insert(db, f"tags {TEXT}", tags)
    _share(db, "tags", runs, _shared_tags(sweep))


def _insert(db: sqlite3.Connection, columns: str, rows: Iterable[Row]) -> None:
    places = ", ".join("?" * (columns.count(",") + 1))
    db.executemany(f"INSERT INTO {columns} VALUES ({places})", rows)


def _share(db: sqlite3.Connection, table: str, runs: list[str], texts: dict[str, str]) -> None:
    """Give many runs the same params or tags, within sqlite."""
    # CROSS JOIN keeps the order: run by run, as MLflow writes, and readers find them together.
    query = f"INSERT INTO {table} {TEXT} SELECT t.key, t.value, r.value"
    query += " FROM json_each(?) r CROSS JOIN json_each(?) t"
    db.execute(query, (json.dumps(runs), json.dumps(texts)))


def _uuid(rng: random.Random) -> str:
    return f"{rng.getrandbits(128):032x}"


def _blocks(trials: int) -> range:
    return range(-(-trials // TRIALS_PER_STAGE))


def _run(run: str, experiment: int) -> Row:
    return (run, "run", "FINISHED", 1000, 61_000, "active", experiment, "user", "LOCAL", "none")


def _metrics(number: int) -> list[str]:
    known = list(names.METRICS)[:number]
    return [*known, *(f"other_{i}" for i in range(number - len(known)))]


def _points(rng: random.Random, keys: list[str], run: str) -> Iterator[Row]:
    """One in twenty is missing, one in a hundred NaN, one in a thousand infinite."""
    for key in keys:
        draw = rng.random()
        # Sizes are never missing where a tokenizer was trained.
        if key.startswith("params_") or draw >= 0.05:
            nan, infinite = draw < 0.06, draw < 0.061
            value = 0.0 if nan else 1.7976931348623157e308 if infinite else rng.gauss(0, 1)
            yield key, value, 1, 0, nan, run


def _settings(number: int) -> dict[str, str]:
    size, seed = "SBL"[number % 3], number % 5
    own = {"tokenizer": f"S-{size}", "seed": str(seed), "tokenizer.decoder": size}
    return {**own, "tokenizer.lr": json.dumps(1e-4 * (1 + number // 15))}


def _sweep_tags() -> dict[str, str]:
    return {
        names.TAG_KIND: names.KIND_SWEEP,
        names.TAG_PLAN: PLAN,
        names.TAG_SCALE: "micro",
        names.TAG_QUESTION: "How fast is the table?",
        names.TAG_AXES: json.dumps(["tokenizer.decoder", "tokenizer.lr"]),
        names.TAG_LAUNCHED: "1.0",
    }


def _stage_tags(stage: str, sweep: str) -> dict[str, str]:
    return {
        names.TAG_KIND: names.KIND_STAGE,
        names.TAG_STAGE: stage,
        names.TAG_STATE: "COMPLETE",
        names.TAG_GIT_DIRTY: "false",
        names.TAG_GIT_SHA: "c0ffee",
        names.TAG_HOST: "node",
        names.TAG_ATTEMPTS: "1",
        names.TAG_PREDICTED_SECONDS: "60.0",
        names.TAG_ACTUAL_SECONDS: "60.0",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.source.name": "gigatok.stages",
        **_born_tags(sweep),
    }


def _born_tags(sweep: str) -> dict[str, str]:
    """Make the tags that trials and stages get when their run is created."""
    of_sweep = {names.TAG_SWEEP: SWEEP, names.TAG_SCALE: "micro", names.TAG_PLAN: PLAN}
    return {**of_sweep, "mlflow.parentRunId": sweep, "mlflow.user": "user"}


def _own_tags(rng: random.Random, run: str) -> dict[str, str]:
    """Make the tags of which no two runs share a value."""
    return {names.TAG_TOKEN: _uuid(rng), "mlflow.runName": f"run {run[:16]}"}


def _protocols(metrics: Iterable[str]) -> dict[str, str]:
    protocol = "Inception 139 px, 256 val images"
    return {names.PREFIX_PROTOCOL + name: protocol for name in metrics}


def _trial_tags(number: int, stage_runs: dict[str, list[str]]) -> dict[str, str]:
    links = {stage: runs[number // TRIALS_PER_STAGE] for stage, runs in stage_runs.items()}
    return {
        names.TAG_TRIAL: f"trial {number}",
        names.TAG_TRIAL_KEY: f"{number:016x}",
        "mlflow.gigatok.order": f"{number:06d}",
        **{names.PREFIX_STAGE_RUN + stage: run for stage, run in links.items()},
        **{names.PREFIX_STAGE_KEY + stage: run[:16] for stage, run in links.items()},
    }


def _shared_tags(sweep: str) -> dict[str, str]:
    return {
        names.TAG_KIND: names.KIND_TRIAL,
        names.TAG_STATE: "COMPLETE",
        names.TAG_GIT_SHA: "c0ffee",
        **_born_tags(sweep),
    }


_MEASURE = """
import resource, sys, time
from analysis import load_runs
import analysis.store.databases, analysis.store.runs, polars, mlflow
uri, how = sys.argv[1:]
started, worked = time.perf_counter(), time.process_time()
if how == "mlflow":
    mlflow.set_tracking_uri(uri)
    kind = "tags.`gigatok.kind` = 'trial'"
    table = mlflow.search_runs(
        experiment_names=["large"], filter_string=kind, max_results=10**6
    )
else:
    table = load_runs("large", uri)
seconds, work = time.perf_counter() - started, time.process_time() - worked
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(seconds, work, peak, *table.shape)
"""


def measure(store: Path, how: str, cache: Path) -> float:
    """Seconds of one read in a fresh process; prints them with the peak memory."""
    environment = os.environ | {"GIGATOK_CACHE": str(cache)}
    command = [sys.executable, "-c", _MEASURE, f"sqlite:///{store}", how]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    seconds, work, peak, rows, columns = map(float, done.stdout.split()[-5:])
    shape = f"{rows:.0f} x {columns:.0f}"
    print(
        f"{how:>8}: {shape} in {seconds:.2f} s ({work:.2f} s CPU), peak {peak:.1f} GiB", flush=True
    )
    return seconds


def main(
    trials: int = 100_000,
    metrics: int = 50,
    params: Annotated[int, typer.Option(help="A real trial has 150.")] = 150,
    apart: Annotated[bool, typer.Option(help="As versions wrote that shared nothing.")] = False,
    compare: Annotated[int, typer.Option(help="Trials that MLflow reads as well.")] = 5000,
    keep: Annotated[Path | None, typer.Option(help="Make the stores here, once.")] = None,
) -> None:
    """Measure; the difference cold to warm is the cache."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        for size in (trials, compare):
            name = f"{size}-{metrics}-{params}{'-apart' * apart}.db"
            store = (keep or Path(folder)) / name
            if not store.exists():
                make_store(store, size, metrics, params, apart=apart)
            print(f"{size} trials x {metrics} metrics, {params} params: {_gigabytes(store)}")
            cold, warm = (measure(store, how, cache) for how in ("cold", "warm"))
        theirs = measure(store, "mlflow", cache)
        print(f"against mlflow.search_runs: {theirs / cold:.0f}x cold, {theirs / warm:.0f}x warm")


def _gigabytes(store: Path) -> str:
    return f"{store.stat().st_size / 2**30:.2f} GiB"


if __name__ == "__main__":
    typer.run(main)
