"""What runs next, without anything running."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from orchestration.execution.scheduler import (
    ORDERS,
    Graph,
    Rank,
    Scheduler,
    cheapest_first,
    longest_first,
    pass_failure_downstream,
)
from orchestration.runs.state import State

# Two trials that share a root: small (a) and large (b), each trained, then scored.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "data": (),
    "train a": ("data",),
    "train b": ("data",),
    "score a": ("train a",),
    "score b": ("train b",),
}
TRIALS = [["data", "train b", "score b"], ["data", "train a", "score a"]]
SECONDS = {"data": 1.0, "train a": 10.0, "train b": 100.0, "score a": 50.0, "score b": 2.0}


def ranked(inputs: Mapping[str, tuple[str, ...]]) -> dict[str, Rank]:
    """The order of the mapping."""
    return {key: (float(index), 0.0) for index, key in enumerate(inputs)}


def drain(scheduler: Scheduler) -> list[str]:
    """Everything, one at a time."""
    taken = []
    while (key := scheduler.take()) is not None:
        taken.append(key)
        scheduler.complete(key)
    return taken


def random_graph(chance: random.Random, count: int = 60) -> Graph:
    keys = [f"s{i}" for i in range(count)]
    inputs = {
        key: tuple(chance.sample(keys[:i], min(i, chance.choice((0, 1, 1, 2)))))
        for i, key in enumerate(keys)
    }
    return Graph(inputs)


def test_cheapest_first_finishes_a_small_trial_before_a_large_one_starts() -> None:
    graph = Graph(INPUTS)
    order = drain(Scheduler(graph, cheapest_first(graph, TRIALS, SECONDS)))
    assert order == ["data", "train a", "score a", "train b", "score b"]


def test_longest_first_starts_the_longest_chain() -> None:
    graph = Graph(INPUTS)
    order = drain(Scheduler(graph, longest_first(graph, TRIALS, SECONDS)))
    assert order == ["data", "train b", "train a", "score a", "score b"]


def test_complete_stages_are_not_handed_out_and_skipped_ones_stay() -> None:
    graph = Graph(INPUTS)
    done = ["data", "train a"]
    scheduler = Scheduler(graph, ranked(INPUTS), complete=done, skipped=["train b"])
    assert drain(scheduler) == ["score a"]


def test_a_failure_takes_what_needs_it_and_nothing_else() -> None:
    scheduler = Scheduler(Graph(INPUTS), ranked(INPUTS))
    scheduler.complete("data")
    assert scheduler.fail("train a") == ["score a"]
    assert drain(scheduler) == ["train b", "score b"]


def test_what_ended_without_result_comes_again_in_its_old_place() -> None:
    scheduler = Scheduler(Graph(INPUTS), ranked(INPUTS), complete=["data"])
    assert scheduler.take() == "train a"
    scheduler.again("train a")
    assert scheduler.take() == "train a"


def test_a_gate_lets_nothing_pass_until_it_opens() -> None:
    gates = {"train b": ["train a", "score a"]}
    scheduler = Scheduler(Graph(INPUTS), ranked(INPUTS), complete=["data"], gates=gates)
    assert drain(scheduler) == ["train a", "score a"]
    scheduler.open("train a")
    assert scheduler.take() is None
    scheduler.open("score a")
    assert drain(scheduler) == ["train b", "score b"]


def test_a_gate_that_stays_shut_holds_all_above_it_and_what_reads_that() -> None:
    inputs = {**INPUTS, "train c": ("data",), "score c": ("train c",)}
    gates = {"train b": ["train a"], "train c": ["train b"]}
    scheduler = Scheduler(Graph(inputs), ranked(inputs), complete=["data"], gates=gates)
    scheduler.complete("train a")
    assert set(scheduler.shut(["train a"])) == {"train b", "score b", "train c", "score c"}
    assert drain(scheduler) == ["score a"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(20))
def test_every_stage_comes_once_after_its_inputs(order: str, seed: int) -> None:
    chance = random.Random(seed)
    graph = random_graph(chance)
    seconds = {key: chance.random() for key in graph.inputs}
    trials = [chance.sample(list(graph.inputs), 9) for _ in range(5)]
    taken = drain(Scheduler(graph, ORDERS[order](graph, trials, seconds)))
    assert sorted(taken) == sorted(graph.inputs)
    place = {key: index for index, key in enumerate(taken)}
    assert all(place[i] < place[key] for key, inputs in graph.inputs.items() for i in inputs)


@pytest.mark.parametrize("seed", range(20))
def test_failing_one_by_one_gives_up_what_passing_downstream_finds(seed: int) -> None:
    chance = random.Random(seed)
    graph = random_graph(chance)
    scheduler = Scheduler(graph, ranked(dict.fromkeys(graph.inputs, ())))
    states: dict[str, State] = dict.fromkeys(graph.inputs, "WAITING")
    given_up = set()
    for key in chance.sample(list(graph.inputs), 6):
        if states[key] == "WAITING":
            states[key] = "FAILED"
            below = scheduler.fail(key)
            given_up.update(below)
            states |= dict.fromkeys(below, "UPSTREAM_FAILED")
    fresh: dict[str, State] = {
        k: "FAILED" if s == "FAILED" else "WAITING" for k, s in states.items()
    }
    assert set(pass_failure_downstream(graph.inputs, fresh)) == given_up


def test_passing_failure_downstream_is_transitive() -> None:
    inputs = {"a": (), "b": ("a",), "c": ("b",), "d": ()}
    before: dict[str, State] = {"a": "FAILED", "b": "WAITING", "c": "WAITING", "d": "WAITING"}
    assert pass_failure_downstream(inputs, before) == ["b", "c"]
