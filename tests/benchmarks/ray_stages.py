"""Small stages on Ray: how many a second, against plain Ray tasks that start a process each.

    python tests/benchmarks/ray_stages.py [--stages 1000]

The stages do nothing, but go through runner, supervisor and worker as real ones do: folder, lease,
attempt, log, spool, DONE. Both use the same Ray on this machine, one after the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
IDLE = str(FOLDER / "idle_stage")
sys.path[:0] = [IDLE, str(FOLDER.parents[1])]

import ray  # noqa: E402
from idle_stage import NAME, IdleConfig  # noqa: E402

from orchestration.backends.ray.backend import RayBackend  # noqa: E402
from orchestration.execution.progress import survey  # noqa: E402
from orchestration.launching.runner import Runner  # noqa: E402
from orchestration.plan.graph import Plan, PlannedStage, make_plan  # noqa: E402
from orchestration.policy.profile import Profile  # noqa: E402
from orchestration.runs.state import Store  # noqa: E402
from orchestration.sweep.definition import expand, load_sweep  # noqa: E402


def idle_plan(count: int) -> Plan:
    """As many stages that wait for nothing."""
    sweep = load_sweep("decoder_scaling", "smoke")
    configs = {f"{number:016x}": IdleConfig(number=number) for number in range(count)}
    plan = make_plan(replace(sweep, stages=("train_tokenizer",)), expand(sweep))
    trial = plan.trials[0].trial.config
    stages = {
        key: PlannedStage(NAME, key, config, {}, "s", trial, 1) for key, config in configs.items()
    }
    return replace(plan, trials=(), stages=stages)


@ray.remote(num_cpus=1, max_retries=0)
def start_a_process() -> int:
    """What the platform is compared with."""
    return subprocess.run([sys.executable, "-c", "pass"], check=True).returncode


def plain_seconds(count: int) -> float:
    """Of plain tasks; Ray's own processes are there already."""
    cpus = int(ray.cluster_resources()["CPU"])
    ray.get([start_a_process.remote() for _ in range(cpus)])
    started = time.perf_counter()
    ray.get([start_a_process.remote() for _ in range(count)])
    return time.perf_counter() - started


def stage_seconds(count: int, runner: Runner) -> float:
    """Of the same number of stages, the imports of the first ones included."""
    started = time.perf_counter()
    progress = runner.run(lambda keys: None)
    assert len(progress.ran) == count, progress.failures
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=1000)
    count = parser.parse_args().stages
    os.environ["PYTHONPATH"] = os.pathsep.join([IDLE, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        backend = RayBackend(None, Profile(), store)
        backend.warm_up()
        plain = plain_seconds(count)
        runner = Runner(survey(idle_plan(count), store), store, backend, Profile())
        stages = stage_seconds(count, runner)
    print(f"plain tasks  {count / plain:7.1f} per second")
    print(f"stages       {count / stages:7.1f} per second, {plain / stages:.2f} of it")


if __name__ == "__main__":
    main()
