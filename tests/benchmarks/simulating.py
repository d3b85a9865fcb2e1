"""How long a large simulation takes: `python tests/benchmarks/simulating.py`.

100,000 stages in chains of seven, up to 20 hours each, with failures, preemptions and hourly
checkpoints on 10,000 devices; without and with a file system that all share.
"""

from __future__ import annotations

import random
import time

import typer

from orchestration.execution.scheduler import ORDERS, Graph, Scheduler
from orchestration.forecast.simulator import Cluster, Simulation, Work

HOUR = 3600.0


def main(stages: int = 100_000, devices: int = 10_000, chain: int = 7, seed: int = 0) -> None:
    """Time the scheduler and the simulator together."""
    chance = random.Random(seed)
    keys = [f"s{i}" for i in range(stages)]
    inputs = {key: (keys[i - 1],) if i % chain else () for i, key in enumerate(keys)}
    works = {key: Work(chance.uniform(0.5, 20) * HOUR, 1, 1e10) for key in keys}
    for bandwidth in (None, 1e12):
        cluster = Cluster(
            devices,
            failure_rate=1 / (500 * HOUR),
            preemption_rate=1 / (200 * HOUR),
            bandwidth=bandwidth,
            checkpoint_seconds=20.0,
            restart_seconds=60.0,
        )
        started = time.perf_counter()
        graph = Graph(inputs)
        trials = [keys[i : i + chain] for i in range(0, stages, chain)]
        ranks = ORDERS["cheapest"](graph, trials, {key: w.seconds for key, w in works.items()})
        simulation = Simulation(Scheduler(graph, ranks), works, cluster, interval=HOUR, seed=seed)
        outcome = simulation.run()
        shared = "no limit" if bandwidth is None else f"{bandwidth / 1e9:.0f} GB/s shared"
        print(
            f"{stages} stages on {devices} devices, {shared}: "
            f"{time.perf_counter() - started:.1f} s; makespan {outcome.makespan / HOUR:.0f} h, "
            f"idle {outcome.idle / (devices * outcome.makespan):.1%}, "
            f"{sum(outcome.blows.values())} blows, {outcome.complete} complete"
        )


if __name__ == "__main__":
    typer.run(main)
