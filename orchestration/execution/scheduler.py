"""Scheduler: which stage is ready, in which order, and what a failure or a gate holds back.

It knows keys and numbers only: no clock, no files, no backend. The runner
(`orchestration.launching.runner`), the submission to a cluster
(`orchestration.backends.detached.submission`) and the simulator
(`orchestration.forecast.simulator`) all decide by this code.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestration.runs.state import State

Rank = tuple[float, float]
"""Place of a stage in the order; the smallest starts first."""


@dataclass(frozen=True)
class Graph:
    """Graph of stages by what they read.

    Attributes:
        inputs: stage key -> keys of the stages that it reads; each stage comes after its inputs.
        needed_by: stage key -> keys of the stages that read it.
    """

    inputs: Mapping[str, Collection[str]]
    needed_by: Mapping[str, Sequence[str]] = field(init=False)

    def __post_init__(self) -> None:
        needed_by: dict[str, list[str]] = {key: [] for key in self.inputs}
        for key, inputs in self.inputs.items():
            for parent in inputs:
                needed_by[parent].append(key)
        # The dataclass is frozen because many readers share one graph; this field is derived once.
        object.__setattr__(self, "needed_by", needed_by)

    def below(self, key: str) -> list[str]:
        """List every stage that cannot run without this one."""
        return _reach(self.needed_by[key], self.needed_by.__getitem__)


def pass_failure_downstream(
    inputs: Mapping[str, Collection[str]], states: Mapping[str, State]
) -> list[str]:
    """List the waiting stages that a failed stage blocks.

    Args:
        inputs: stage key -> keys of its inputs, each stage after its inputs.
        states: stage key -> state.
    """
    bad = {key for key, state in states.items() if state in ("FAILED", "UPSTREAM_FAILED")}
    found = []
    # One pass is enough: every stage comes after its inputs.
    for key, needs in inputs.items():
        if states[key] == "WAITING" and not bad.isdisjoint(needs):
            bad.add(key)
            found.append(key)
    return found


# Order


def cheapest_first(
    graph: Graph, trials: Iterable[Collection[str]], seconds: Mapping[str, float]
) -> dict[str, Rank]:
    """Rank the stages so that the cheapest trial goes first.

    A stage that several trials share counts for the cheapest of them. So small models give
    results, and show mistakes, before large ones are paid for. Within a trial the longest chain
    goes first.
    """
    chains = remaining_seconds(graph, seconds)
    costs = dict.fromkeys(graph.inputs, float("inf"))
    for stages in trials:
        cost = sum(seconds[key] for key in stages)
        for key in stages:
            costs[key] = min(costs[key], cost)
    return {key: (costs[key], -chains[key]) for key in graph.inputs}


def longest_first(
    graph: Graph, trials: Iterable[Collection[str]], seconds: Mapping[str, float]
) -> dict[str, Rank]:
    """Rank the stages by the longest chain first, to end soonest.

    This is list scheduling (Graham, "Bounds on multiprocessing timing anomalies", 1969).
    """
    return {key: (-left, 0.0) for key, left in remaining_seconds(graph, seconds).items()}


Order = Callable[[Graph, Iterable[Collection[str]], Mapping[str, float]], dict[str, Rank]]
ORDERS: dict[str, Order] = {"cheapest": cheapest_first, "longest": longest_first}


def remaining_seconds(graph: Graph, seconds: Mapping[str, float]) -> dict[str, float]:
    """Compute for each stage the seconds of the longest chain that starts with it."""
    longest = dict.fromkeys(graph.inputs, 0.0)
    # Backwards: a stage's chain is known before its inputs take it over.
    for key in reversed(list(graph.inputs)):
        longest[key] += seconds[key]
        for parent in graph.inputs[key]:
            longest[parent] = max(longest[parent], longest[key])
    return longest


# Decisions


class Scheduler:
    """Scheduler of one plan: hands out each stage when its inputs and gates allow."""

    def __init__(
        self,
        graph: Graph,
        ranks: Mapping[str, Rank],
        *,
        complete: Collection[str] = (),
        skipped: Collection[str] = (),
        gates: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Prepare the queue of ready stages.

        Args:
            graph: the graph of the plan.
            ranks: the order among ready stages, by one of `ORDERS`.
            complete: stages that need not run; their gates are still to be opened or shut.
            skipped: stages that must not run now, complete or not.
            gates: stage -> stages whose gates must `open` before it starts.
        """
        self._graph = graph
        self._ranks = ranks
        self._over = {*complete, *skipped}
        self._behind_gate: dict[str, list[str]] = defaultdict(list)
        self._missing: dict[str, int] = {}
        self._unopened: dict[str, set[str]] = defaultdict(set)
        self._ready: list[tuple[Rank, str]] = []
        done, gates = set(complete), gates or {}
        for key, inputs in graph.inputs.items():
            guards = gates.get(key, ())
            for guard in guards:
                self._behind_gate[guard].append(key)
                self._unopened[key].add(guard)
            # One counter for inputs and gates together: a stage is ready when it reaches 0.
            self._missing[key] = sum(i not in done for i in inputs) + len(guards)
            self._queue(key)

    def take(self) -> str | None:
        """Take the next stage to start; None: none is ready. The caller must report its end."""
        key = self.peek()
        if key is not None:
            heapq.heappop(self._ready)
        return key

    def peek(self) -> str | None:
        """Return the stage that `take` would give, and leave it in the queue."""
        # Stages that ended while they were queued are dropped only when they come to the top.
        while self._ready and self._ready[0][1] in self._over:
            heapq.heappop(self._ready)
        return self._ready[0][1] if self._ready else None

    def complete(self, key: str) -> None:
        """Note that a stage is complete: stages that waited for it alone become ready."""
        self._over.add(key)
        for child in self._graph.needed_by[key]:
            self._one_less(child)

    def again(self, key: str) -> None:
        """Queue a stage again that ended without a result."""
        self._queue(key)

    def fail(self, key: str) -> list[str]:
        """Mark a stage failed; returns the stages below, which fail with it."""
        self._over.add(key)
        # Those that are over keep their own fate: complete, failed for another reason, or held.
        below = [k for k in self._graph.below(key) if k not in self._over]
        self._over.update(below)
        return below

    def open(self, guard: str) -> None:
        """Open the gate at a complete stage for the stages behind it."""
        for key in self._behind_gate.get(guard, ()):
            # The set is kept next to the counter only for `at_gates`, which must tell gates from
            # inputs.
            self._unopened[key].discard(guard)
            self._one_less(key)

    def at_gates(self) -> set[str]:
        """List the stages that cannot start before gates open: at gates, or behind such stages."""
        starts = [key for key, guards in self._unopened.items() if guards]
        return set(_reach(starts, self._follow))

    def shut(self, guards: Iterable[str]) -> list[str]:
        """Keep gates shut for good; returns the held stages: those behind, and all below."""
        above = [key for guard in guards for key in self._behind_gate.get(guard, ())]
        held = [key for key in _reach(above, self._follow) if key not in self._over]
        self._over.update(held)
        return held

    def _follow(self, key: str) -> list[str]:
        # A stage that never runs also never opens the gate that stands at it.
        return [*self._graph.needed_by[key], *self._behind_gate.get(key, ())]

    def _one_less(self, key: str) -> None:
        self._missing[key] -= 1
        self._queue(key)

    def _queue(self, key: str) -> None:
        # Checked here too: a stage may have been held or failed since its last input completed.
        if self._missing[key] == 0 and key not in self._over:
            heapq.heappush(self._ready, (self._ranks[key], key))


def _reach(starts: Iterable[str], follow: Callable[[str], Sequence[str]]) -> list[str]:
    """Collect the starting stages and everything that follows from them, each once."""
    # A dict and not a set: the order of its keys is the same in every run.
    found = dict.fromkeys(starts)
    # A stack and not recursion: chains of a large plan exceed Python's recursion limit.
    pending = list(found)
    while pending:
        for key in follow(pending.pop()):
            if key not in found:
                found[key] = None
                pending.append(key)
    return list(found)
