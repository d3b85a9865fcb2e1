"""The simulator against closed forms; the scheduler's own rules are tested beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import mean

import pytest

from orchestration.execution.scheduler import ORDERS, Graph, Scheduler
from orchestration.forecast.simulator import (
    Cluster,
    Outcome,
    Simulation,
    Work,
    best_interval,
    daly_interval,
    young_interval,
)

HOUR = 3600.0


def simulate(
    inputs: Mapping[str, tuple[str, ...]],
    works: Mapping[str, Work],
    cluster: Cluster,
    *,
    order: str = "cheapest",
    interval: float = math.inf,
    seed: int = 0,
    attempts: int | None = None,
) -> Outcome:
    graph = Graph(inputs)
    seconds = {key: work.seconds for key, work in works.items()}
    ranks = ORDERS[order](graph, [[key] for key in inputs], seconds)
    limits = None if attempts is None else {"node_lost": attempts, "preempted": attempts}
    simulation = Simulation(
        Scheduler(graph, ranks), works, cluster, interval=interval, seed=seed, attempts=limits
    )
    return simulation.run()


def independent(count: int, seconds: float = 10.0) -> tuple[dict[str, tuple[()]], dict[str, Work]]:
    keys = [f"s{i}" for i in range(count)]
    return dict.fromkeys(keys, ()), dict.fromkeys(keys, Work(seconds))


def conserved(outcome: Outcome, devices: int) -> bool:
    whole = devices * outcome.makespan
    return math.isclose(outcome.busy + outcome.idle, whole, rel_tol=1e-9)


def test_one_device_takes_the_sum() -> None:
    inputs, works = independent(7)
    works = {key: Work(float(i)) for i, key in enumerate(works, start=1)}
    outcome = simulate(inputs, works, Cluster(1))
    assert outcome.makespan == pytest.approx(28.0)
    assert outcome.idle == pytest.approx(0.0)
    assert outcome.complete == 7


@pytest.mark.parametrize(("count", "devices"), [(7, 3), (6, 3), (1, 5), (100, 7)])
def test_equal_stages_come_in_whole_rounds(count: int, devices: int) -> None:
    outcome = simulate(*independent(count), Cluster(devices))
    assert outcome.makespan == pytest.approx(10.0 * math.ceil(count / devices))
    assert conserved(outcome, devices)


def test_a_chain_takes_the_sum_on_any_number_of_devices() -> None:
    keys = [f"s{i}" for i in range(5)]
    inputs = {key: tuple(keys[i - 1 : i]) if i else () for i, key in enumerate(keys)}
    outcome = simulate(inputs, {key: Work(3.0) for key in keys}, Cluster(50))
    assert outcome.makespan == pytest.approx(15.0)
    assert outcome.idle == pytest.approx(49 * 15.0)


def test_checkpoints_add_their_time_and_the_last_segment_has_none() -> None:
    cluster = Cluster(1, checkpoint_seconds=1.0)
    outcome = simulate({"s": ()}, {"s": Work(100.0)}, cluster, interval=10.0)
    assert outcome.makespan == pytest.approx(109.0)
    assert outcome.writing == pytest.approx(9.0)


def test_writers_share_the_bandwidth() -> None:
    keys = ["a", "b"]
    works = {key: Work(20.0, checkpoint_bytes=100.0) for key in keys}
    inputs: dict[str, tuple[()]] = dict.fromkeys(keys, ())
    together = simulate(inputs, works, Cluster(2, bandwidth=10.0), interval=10.0)
    alone = simulate(inputs, works, Cluster(1, bandwidth=10.0), interval=10.0)
    assert together.makespan == pytest.approx(20.0 + 20.0)  # both write 100 at half the rate
    assert alone.makespan == pytest.approx(2 * (20.0 + 10.0))


def test_a_writer_that_comes_later_slows_the_first_down() -> None:
    works = {
        "a": Work(20.0, checkpoint_bytes=100.0),
        "first": Work(5.0),
        "b": Work(20.0, checkpoint_bytes=30.0),
    }
    inputs: dict[str, tuple[str, ...]] = {"a": (), "first": (), "b": ("first",)}
    # a writes alone from 10 to 15; then b, too: b is done at 21, a at 23 and, computing on, at 33.
    outcome = simulate(inputs, works, Cluster(2, bandwidth=10.0), interval=10.0)
    assert outcome.makespan == pytest.approx(33.0)
    assert outcome.writing == pytest.approx(13.0 + 6.0)


def test_a_large_bandwidth_is_none() -> None:
    inputs, works = independent(40, HOUR)
    base = {"devices": 8, "failure_rate": 0.5 / HOUR, "preemption_rate": 0.5 / HOUR}
    free = Cluster(**base, checkpoint_seconds=20.0)
    wide = Cluster(**base, checkpoint_seconds=20.0, bandwidth=1e18)
    works = {key: Work(HOUR, checkpoint_bytes=1.0) for key in works}
    one = simulate(inputs, works, free, interval=300.0)
    two = simulate(inputs, works, wide, interval=300.0)
    assert sum(one.blows.values()) > 10
    assert one.makespan == pytest.approx(two.makespan)
    assert one.lost == pytest.approx(two.lost)
    assert one.writing == pytest.approx(two.writing)


def test_a_queue_limit_is_all_that_runs() -> None:
    outcome = simulate(*independent(10), Cluster(10, queue_limit=2))
    assert outcome.makespan == pytest.approx(50.0)


def test_a_stage_of_several_devices_waits_for_all_of_them() -> None:
    works = {"a": Work(1.0), "b": Work(2.0, devices=2)}
    outcome = simulate({"a": (), "b": ()}, works, Cluster(2))
    assert outcome.makespan == pytest.approx(3.0)
    with pytest.raises(ValueError, match="asks for 2 devices; there are 1"):
        simulate({"a": (), "b": ()}, works, Cluster(1))


@pytest.mark.heavy
def test_failures_without_checkpoints_cost_what_theory_says() -> None:
    """E[T] = (e^{W/M} - 1) M for work W begun anew after each failure."""
    inputs, works = independent(20_000, HOUR)
    works = {key: Work(HOUR, checkpoint_bytes=None) for key in works}
    outcome = simulate(inputs, works, Cluster(1, failure_rate=1 / HOUR), seed=3)
    assert outcome.makespan / 20_000 == pytest.approx(HOUR * math.expm1(1.0), rel=0.03)


def daly_seconds(
    work: float, interval: float, checkpoint: float, restart: float, mtbf: float
) -> float:
    """Compute the expected seconds of one stage on one device (Daly 2006, equation 20)."""
    cycles = work / interval
    return mtbf * math.exp(restart / mtbf) * math.expm1((interval + checkpoint) / mtbf) * cycles


@pytest.mark.parametrize("interval", [300.0, 1200.0, 4800.0])
def test_failures_with_checkpoints_cost_what_daly_says(interval: float) -> None:
    mtbf, pause, restart, work = 2 * HOUR, 60.0, 30.0, 1000 * HOUR
    cluster = Cluster(1, failure_rate=1 / mtbf, checkpoint_seconds=pause, restart_seconds=restart)
    works = {"s": Work(work)}
    times = [
        simulate({"s": ()}, works, cluster, interval=interval, seed=s).makespan for s in range(60)
    ]
    assert mean(times) == pytest.approx(
        daly_seconds(work, interval, pause, restart, mtbf), rel=0.01
    )


@pytest.mark.heavy
def test_the_best_interval_is_dalys() -> None:
    mtbf, pause = 4 * HOUR, 120.0
    cluster = Cluster(200, failure_rate=1 / mtbf, checkpoint_seconds=pause)
    inputs, works = independent(200, 300 * HOUR)

    def cost(interval: float) -> float:
        return simulate(inputs, works, cluster, interval=interval, seed=1).busy

    young, daly = young_interval(pause, mtbf), daly_interval(pause, mtbf)
    best, costs = best_interval(cost, young)
    assert max(young, daly) < best * 1.5
    assert best < young * 1.5
    assert cost(daly) <= costs[best] * 1.002
    assert min(costs[min(costs)], costs[max(costs)]) > 1.1 * costs[best]


def test_young_is_the_limit_of_daly() -> None:
    assert daly_interval(1.0, 1e9) == pytest.approx(young_interval(1.0, 1e9), rel=1e-3)
    assert daly_interval(10.0, 4.0) == 4.0


def test_a_preempted_stage_loses_nothing_but_the_checkpoint() -> None:
    inputs, works = independent(50, 10 * HOUR)
    cluster = Cluster(5, preemption_rate=1 / HOUR, checkpoint_seconds=60.0)
    outcome = simulate(inputs, works, cluster, interval=HOUR / 4)
    assert outcome.blows["preempted"] > 300
    assert outcome.lost == pytest.approx(0.0, abs=1e-6)
    assert conserved(outcome, 5)


def test_a_stage_without_progress_is_given_up_and_what_needs_it_too() -> None:
    inputs = {"a": (), "b": ("a",), "c": ()}
    works = {key: Work(100 * HOUR, checkpoint_bytes=None) for key in "ab"} | {"c": Work(1.0)}
    cluster = Cluster(2, failure_rate=1 / HOUR)
    outcome = simulate(inputs, works, cluster, attempts=3)
    assert (outcome.failed, outcome.complete) == (1, 1)
    assert conserved(outcome, 2)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bandwidth", [None, 2e6])
def test_nothing_is_lost_from_sight_and_a_seed_repeats_itself(
    seed: int, bandwidth: float | None
) -> None:
    chance = random.Random(seed)
    keys = [f"s{i}" for i in range(80)]
    inputs = {k: tuple(chance.sample(keys[:i], min(i, 2))) for i, k in enumerate(keys)}
    works = {
        key: Work(
            chance.uniform(100, 4 * HOUR),
            chance.choice((1, 1, 2, 4)),
            chance.choice((None, 1e8, 1e9)),
        )
        for key in keys
    }
    cluster = Cluster(
        9,
        failure_rate=0.1 / HOUR,
        preemption_rate=0.2 / HOUR,
        queue_limit=6,
        bandwidth=bandwidth,
        checkpoint_seconds=5.0,
        restart_seconds=40.0,
    )
    first = simulate(inputs, works, cluster, interval=900.0, seed=seed)
    assert conserved(first, 9)
    useful = sum(work.seconds * work.devices for work in works.values())
    assert first.complete == 80
    assert first.useful == pytest.approx(useful)
    assert sum(first.blows.values()) > 5
    assert first == simulate(inputs, works, cluster, interval=900.0, seed=seed)
    other = simulate(inputs, works, cluster, interval=900.0, seed=seed + 100)
    assert other.makespan != first.makespan
