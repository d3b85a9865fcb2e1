"""What a sweep costs to track in MLflow: python -m tests.benchmarks.tracking_sweep [--trials 30].

Stages of a sweep begin, log and end, some at a time, and after each change a round of the
launcher's sending thread brings a real sqlite store up to date. Printed are, for a trial, the CPU
seconds and the database's commits, connections and statements; then the CPU seconds of a round in
which nothing has changed, with a launch's number of trials. `--dump` writes what the store holds,
without times and ids: two versions of the code must write the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import event
from sqlalchemy.engine import Engine

from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.shipping import Tracking, default_uri
from tests.benchmarks.status_10k import make_sweep
from tests.orchestration.tracking.tracking_helpers import Run

JOBS, STEPS, LOGS = 4, 50, 3
"""Stages at a time; steps that each logs at once, and how often."""
SCORES = {
    "train_tokenizer": ("params_total", "params_head", "codebook_usage"),
    "evaluate_reconstruction": ("psnr", "rfid", "rkid", "lpips"),
    "train_generator": ("ar_val_loss", "ar_bits_per_image"),
    "evaluate_generation": ("gfid", "gkid"),
    "linear_probe": ("probe_accuracy",),
}
VOLATILE = re.compile("token|host|launched|progress|artifact|source.git|user|git_")
"""Tags that differ from one launch to the next."""


def main(
    trials: int = 30,
    waiting: Annotated[int, typer.Option(help="Trials of the launch without changes.")] = 600,
    dump: Annotated[Path | None, typer.Option(help="Write what the store holds.")] = None,
) -> None:
    """Measure."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with tempfile.TemporaryDirectory() as folder:
        begin, live, leave = run_sweep(Path(folder), trials, dump)
        print(f"{trials} trials of {len(SCORES) + 3} stages; of a trial:")
        for what, spent in (
            ("at the launch", begin),
            ("while it runs", live),
            ("at the end", leave),
        ):
            print(f"  {what:>13}: {described(spent, trials)}")
        print(f"  {'together':>13}: {described(begin + live + leave, trials)}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"a round without changes, {waiting} trials: {idle_round(Path(folder), waiting)}")


def run_sweep(
    folder: Path, trials: int, dump: Path | None
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Run all stages of a sweep; returns what sending took at first, in the course, at last."""
    store, plan = Store(folder / "runs"), planned(folder, trials)
    tracking = Tracking(default_uri(store), store, plan, launched=1.0)
    with counted() as begin:
        tracking._round(leaving=False)
    live: Counter[str] = Counter()
    for _ in lives(store, plan, tracking):
        with counted() as spent:
            tracking._round(leaving=False)
        live += spent
    with counted() as leave:
        tracking._round(leaving=True)
    if dump is not None:
        dump.write_text(json.dumps(contents(default_uri(store)), indent=1, sort_keys=True))
    return begin, live, leave


def lives(store: Store, plan: Plan, tracking: Tracking) -> Iterator[None]:
    """Let stages begin, log and end, `JOBS` at a time; a round of sending follows each change."""
    order = sorted(plan.stages, key=lambda key: depth(plan, key))
    for keys in (order[at : at + JOBS] for at in range(0, len(order), JOBS)):
        runs = [Run(store, plan, key) for key in keys]
        for log in range(LOGS):
            for run in runs:
                run.log(range(log * STEPS, (log + 1) * STEPS), **{"train/lr": 1e-4})
            tracking.notify(keys)
            yield
        for key, run in zip(keys, runs, strict=True):
            stage = plan.stages[key].stage
            if stage.startswith("evaluate"):
                run.picture("samples", STEPS * LOGS)
            run.complete(**{name: len(name) / 7 for name in SCORES.get(stage, ())})
        tracking.notify(keys)
    yield


def depth(plan: Plan, key: str) -> int:
    """Count the stages on the longest way to a stage."""
    return 1 + max((depth(plan, one) for one in plan.stages[key].inputs.values()), default=0)


def idle_round(folder: Path, trials: int) -> str:
    """Measure rounds of a launch that waits, its runs being there."""
    store, plan = Store(folder / "runs"), planned(folder, trials)
    tracking = Tracking(default_uri(store), store, plan, launched=1.0)
    with counted() as first:
        tracking._round(leaving=False)
    with counted() as spent:
        for _ in range(3):
            tracking._round(leaving=False)
    return f"{described(spent, 3)} (the first, of a trial: {described(first, trials)})"


def planned(folder: Path, trials: int) -> Plan:
    """Plan a sweep over that many learning rates, all stages."""
    sweep = load_sweep(make_sweep(folder, trials))
    return make_plan(sweep, expand(sweep))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count milliseconds of CPU, and what all databases are asked for."""
    counts: Counter[str] = Counter()
    heard = {
        "connections": ("connect", lambda *of: counts.update(["connections"])),
        "commits": ("commit", lambda *of: counts.update(["commits"])),
        "statements": ("before_cursor_execute", lambda *of: counts.update(["statements"])),
    }
    for name, hook in heard.values():
        event.listen(Engine, name, hook)
    started = time.process_time()
    try:
        yield counts
    finally:
        counts["ms"] = round(1000 * (time.process_time() - started))
        for name, hook in heard.values():
            event.remove(Engine, name, hook)


def described(spent: Counter[str], of: int) -> str:
    """Write counts for one of several."""
    parts = [f"{spent[name] / of:.1f} {name}" for name in ("commits", "connections", "statements")]
    return f"{spent['ms'] / 1000 / of:.3f} s CPU, {', '.join(parts)}"


def contents(uri: str) -> dict[str, Any]:
    """Collect all runs of a store by name: params, metrics, tags and files."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = {}
    ids = {}
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    for run in runs:
        ids[run.info.run_id] = run.data.tags["mlflow.runName"]
    for run in runs:
        metrics = {
            key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        tags = {k: ids.get(v, v) for k, v in run.data.tags.items() if not VOLATILE.search(k)}
        found[ids[run.info.run_id]] = {
            **{"params": run.data.params, "metrics": metrics, "tags": tags},
            "status": run.info.status,
            "datasets": sorted(one.dataset.name for one in run.inputs.dataset_inputs),
            "models": len(
                client.search_logged_models(
                    [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
                )
            ),
            "files": sorted(files(Path(run.info.artifact_uri.removeprefix("file://")))),
        }
    return found


def files(folder: Path) -> Iterator[str]:
    """List files; of those that hold no time, with a hash."""
    for path in folder.rglob("*"):
        if path.is_file():
            name = re.sub(
                r"\+timestamp.*?(\+compressed)?\.", r"\1.", str(path.relative_to(folder))
            )
            is_timed = "attempts" in name or name == "spec.json"
            yield (
                name
                if is_timed
                else f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
            )


if __name__ == "__main__":
    typer.run(main)
