"""Small stages: how many a second, against as many processes that do nothing.

    python tests/benchmarks/idle_stages.py --backend local --backend ray [--stages 300]

The stages do nothing, but go through runner, supervisor and worker as real ones do: folder, lease,
attempt, log, spool, DONE. Beside them processes are started plainly, as many at a time; on Ray
each from a task of its own. Both take turns, and the median of the ratios is what counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

FOLDER = Path(__file__).resolve().parent
IDLE = str(FOLDER / "idle_stage")
sys.path[:0] = [IDLE, str(FOLDER.parents[1])]

import ray  # noqa: E402
import typer  # noqa: E402
from idle_stage import NAME, IdleConfig  # noqa: E402

from orchestration.backends import connect  # noqa: E402
from orchestration.backends.base import Backend  # noqa: E402
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
    """Start what a stage is compared with."""
    return subprocess.run([sys.executable, "-c", "pass"], check=True).returncode


def plainly_on_ray(count: int) -> None:
    """Start processes from tasks; Ray's own processes are there already."""
    ray.get([start_a_process.remote() for _ in range(count)])


def plainly_here(count: int) -> None:
    """Start processes, as many at a time as there are cores."""
    command = [sys.executable, "-c", "pass"]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True), range(count)))


PLAINLY: dict[str, Callable[[int], None]] = {"local": plainly_here, "ray": plainly_on_ray}


def seconds(function: Callable[..., None], *arguments: Any) -> float:
    """Time one call."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def run_stages(backend: Backend, store: Store, count: int) -> None:
    """Run as many stages."""
    plan, kept = idle_plan(count), cast(Backend, Kept(backend))
    progress = Runner(survey(plan, store), store, kept, Profile()).run(lambda keys: None)
    assert len(progress.ran) == count, progress.failures


class Kept:
    """A backend that stays open when a runner closes it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def close(self) -> None:
        """Stay open for the next run."""


def main(
    backend: Annotated[list[str], typer.Option(help="local, ray; repeatable")],
    stages: int = 300,
    rounds: int = 3,
) -> None:
    """Measure and print."""
    os.environ["PYTHONPATH"] = os.pathsep.join([IDLE, os.environ.get("PYTHONPATH", "")])
    for name in backend:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            there = connect(name, None, Profile(), store)
            there.warm_up()
            run_stages(there, Store(Path(folder) / "first"), 4)  # imports, once
            ratios = []
            for number in range(rounds):
                plain = seconds(PLAINLY[name], stages)
                runs = Store(Path(folder) / str(number))
                own = seconds(run_stages, there, runs, stages)
                ratios.append(plain / own)
                print(
                    f"{name}: {stages / own:6.1f} stages, {stages / plain:6.1f} plain processes "
                    f"per second, ratio {ratios[-1]:.2f}",
                    flush=True,
                )
            there.close()
        print(f"{name}: median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    typer.run(main)
