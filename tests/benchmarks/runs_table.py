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
from collections.abc import Iterator
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
CHUNK = 2000
Row = tuple[Any, ...]


def make_store(path: Path, trials: int, metrics: int, params: int) -> None:
    """Write one sweep run, its trials and their stage runs."""
    from mlflow import MlflowClient

    experiment = int(MlflowClient(f"sqlite:///{path}").create_experiment(SWEEP))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -2000000")
        rng = random.Random(0)
        sweep = _uuid(rng)
        _insert(db, "runs", [_run(sweep, experiment)])
        _insert(db, "tags", [(k, v, sweep) for k, v in _sweep_tags().items()])
        stage_runs = {stage: [_uuid(rng) for _ in _blocks(trials)] for stage in STAGES}
        for stage, runs in stage_runs.items():
            _insert(db, "runs", [_run(run, experiment) for run in runs])
            tags = [(k, v, run) for run in runs for k, v in _stage_tags(stage, sweep).items()]
            _insert(db, "tags", tags)
        for start in range(0, trials, CHUNK):
            numbers = range(start, min(start + CHUNK, trials))
            _insert_trials(db, rng, experiment, sweep, stage_runs, numbers, metrics, params)


def _insert_trials(
    db: sqlite3.Connection,
    rng: random.Random,
    experiment: int,
    sweep: str,
    stage_runs: dict[str, list[str]],
    numbers: range,
    metrics: int,
    params: int,
) -> None:
    runs = {number: _uuid(rng) for number in numbers}
    _insert(db, "runs", [_run(run, experiment) for run in runs.values()])
    points, settings, tags = [], [], []
    for number, run in runs.items():
        points += [(key, value, 1, 0, nan, run) for key, value, nan in _values(rng, metrics)]
        settings += [(key, value, run) for key, value in _settings(number, params)]
        links = {stage: stage_runs[stage][number // TRIALS_PER_STAGE] for stage in STAGES}
        tags += [(k, v, run) for k, v in _trial_tags(number, sweep, links).items()]
    order = "key, value, timestamp, step, is_nan, run_uuid"
    for table in ("metrics", "latest_metrics"):
        _insert(db, f"{table} ({order})", points)
    _insert(db, "params (key, value, run_uuid)", settings)
    _insert(db, "tags (key, value, run_uuid)", tags)


def _insert(db: sqlite3.Connection, table: str, rows: list[Row]) -> None:
    if table == "runs":
        table = "runs (run_uuid, name, status, start_time, end_time, lifecycle_stage,"
        table += " experiment_id, user_id, source_type, artifact_uri)"
    db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _uuid(rng: random.Random) -> str:
    return f"{rng.getrandbits(128):032x}"


def _blocks(trials: int) -> range:
    return range(-(-trials // TRIALS_PER_STAGE))


def _run(run: str, experiment: int) -> Row:
    return (run, "run", "FINISHED", 1000, 61_000, "active", experiment, "user", "LOCAL", "none")


def _values(rng: random.Random, metrics: int) -> Iterator[tuple[str, float, bool]]:
    """One in twenty is missing, one in a hundred NaN, one in a thousand infinite."""
    known = list(names.METRICS)[:metrics]
    for key in [*known, *(f"other_{i}" for i in range(metrics - len(known)))]:
        draw = rng.random()
        if draw >= 0.05:
            nan, infinite = draw < 0.06, draw < 0.061
            value = 0.0 if nan else 1.7976931348623157e308 if infinite else rng.gauss(0, 1)
            yield key, value, nan


def _settings(number: int, params: int) -> Iterator[tuple[str, str]]:
    size, seed = "SBL"[number % 3], number % 5
    yield from (("tokenizer", f"S-{size}"), ("seed", str(seed)), ("tokenizer.decoder", size))
    yield "tokenizer.lr", json.dumps(1e-4 * (1 + number // 15))
    yield from ((f"tokenizer.part_{i}.setting", json.dumps(i)) for i in range(params - 4))


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
        "mlflow.parentRunId": sweep,
    }


def _trial_tags(number: int, sweep: str, stage_runs: dict[str, str]) -> dict[str, str]:
    protocols = {names.PREFIX_PROTOCOL + metric: "256 val images" for metric in names.METRICS}
    return {
        names.TAG_KIND: names.KIND_TRIAL,
        names.TAG_TRIAL: f"trial {number}",
        names.TAG_TRIAL_KEY: f"{number:016x}",
        names.TAG_STATE: "COMPLETE",
        names.TAG_GIT_SHA: "c0ffee",
        "mlflow.parentRunId": sweep,
        **{names.PREFIX_STAGE_RUN + stage: run for stage, run in stage_runs.items()},
        **{names.PREFIX_STAGE_KEY + stage: run[:16] for stage, run in stage_runs.items()},
        **protocols,
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
    params: Annotated[int, typer.Option(help="A real trial has 114.")] = 20,
    compare: Annotated[int, typer.Option(help="Trials that MLflow reads as well.")] = 5000,
    keep: Annotated[Path | None, typer.Option(help="Make the stores here, once.")] = None,
) -> None:
    """Measure; the difference cold to warm is the cache."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        for size in (trials, compare):
            store = (keep or Path(folder)) / f"{size}-{metrics}-{params}.db"
            if not store.exists():
                make_store(store, size, metrics, params)
            print(f"{size} trials x {metrics} metrics, {params} params: {_gigabytes(store)}")
            cold, warm = (measure(store, how, cache) for how in ("cold", "warm"))
        theirs = measure(store, "mlflow", cache)
        print(f"against mlflow.search_runs: {theirs / cold:.0f}x cold, {theirs / warm:.0f}x warm")


def _gigabytes(store: Path) -> str:
    return f"{store.stat().st_size / 2**30:.2f} GiB"


if __name__ == "__main__":
    typer.run(main)
