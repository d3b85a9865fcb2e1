"""How long `status` takes on a sweep of 10,000 stages: python -m tests.benchmarks.status_10k."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan, PlannedStage, make_plan
from orchestration.policy.faults import from_exception
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done, Spec
from orchestration.runs.state import StageFolder, Store
from orchestration.sweep.definition import expand, load_sweep

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 1667
"""Of six stages each, none shared."""
SWEEP = """question: Does status stay quick?
scale: smoke
set: {{tokenizer.encoder: S, tokenizer.decoder: S}}
axes: {{tokenizer.lr: [{rates}]}}
"""


def make_sweep(folder: Path, trials: int) -> Path:
    """A sweep over that many learning rates."""
    rates = ", ".join(f"{1e-4 + 1e-8 * index:.8f}" for index in range(trials))
    file = folder / "large.yaml"
    file.write_text(SWEEP.format(rates=rates))
    return file


def fill(store: Store, plan: Plan) -> None:
    """Folders as real workers leave them: most complete, some failed, running or not begun."""
    folders = store.folders((s.stage, key, s.readable) for key, s in plan.stages.items())
    for index, (key, stage) in enumerate(plan.stages.items()):
        if index % 10 == 9:
            continue
        make_folder(folders[key], stage)
        run(folders[key], index)


def make_folder(folder: StageFolder, stage: PlannedStage) -> None:
    """A folder as the launcher leaves it for the worker."""
    for name in ("attempts", "spool", "logs"):
        (folder.path / name).mkdir(parents=True, exist_ok=True)
    spec = Spec(
        stage=stage.stage,
        version=1,
        key=stage.key,
        readable=stage.readable,
        config=stage.config.model_dump(mode="json"),
        inputs=dict(stage.inputs),
    )
    (folder.path / "spec.json").write_text(spec.model_dump_json())


def run(folder: StageFolder, index: int) -> None:
    """One attempt, which ends by the stage's number."""
    attempt = Attempt(number=1, host="node-1", pid=1, started=time.time())
    (folder.path / "attempts" / "001.json").write_text(attempt.model_dump_json())
    if index % 100 == 7:
        (folder.path / "FAILED.json").write_text(
            from_exception(RuntimeError("no"), 1).model_dump_json()
        )
    elif index % 100 == 8:
        acquire(folder)
    else:
        done = Done(metrics={}, protocol={}, artifacts={}, finished=1.0, seconds=1.0, attempt=1)
        folder.done_file.write_text(done.model_dump_json())


def measure(folder: Path, *options: str) -> tuple[float, float]:
    """Seconds of the whole command, the interpreter's start included: by the clock, of CPU."""
    started, before = time.monotonic(), os.times()
    subprocess.run(
        [sys.executable, "-m", "orchestration", "status", "large", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return time.monotonic() - started, cpu


def main() -> None:
    """Print the times of the table and of the JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = load_sweep(make_sweep(folder, TRIALS))
        plan = make_plan(sweep, expand(sweep))
        store = Store(folder / "runs")
        fill(store, plan)
        record_launch(plan, store, LaunchRequest(sweep="large.yaml"))
        print(f"{len(plan.trials)} trials, {len(plan.stages)} stages")
        for options in ((), ("--json",)):
            times = [measure(folder, *options) for _ in range(3)]
            shown = (f"{seconds:.2f} s ({cpu:.2f} s of CPU)" for seconds, cpu in times)
            print("status", *options, " · ".join(shown))


if __name__ == "__main__":
    main()
