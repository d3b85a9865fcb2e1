"""What runs next: which stage is ready, in which order, and what a failure or a gate holds back.

Knows keys and numbers only: no clock, no files, no backend. The runner
(`orchestration.launching.runner`), the submission to a cluster
(`orchestration.cluster.submission`) and the simulator (`orchestration.forecast.simulator`)
decide by this code alike.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestration.runs.state import State

Rank = tuple[float, float]
"""Where a stage stands in the order: the smallest first."""


@dataclass(frozen=True)
class Graph:
    """Which stage reads which.

    Attributes:
        inputs: stage key -> keys of what it reads; each stage comes after its inputs.
        needed_by: the other way round.
    """

    inputs: Mapping[str, Collection[str]]
    needed_by: Mapping[str, Sequence[str]] = field(init=False)

    def __post_init__(self) -> None:
        needed_by: dict[str, list[str]] = {key: [] for key in self.inputs}
        for key, inputs in self.inputs.items():
            for parent in inputs:
                needed_by[parent].append(key)
        object.__setattr__(self, "needed_by", needed_by)

    def below(self, key: str) -> list[str]:
        """Every stage that cannot run without this one."""
        return _reach(self.needed_by[key], self.needed_by.__getitem__)


def pass_failure_downstream(
    inputs: Mapping[str, Collection[str]], states: Mapping[str, State]
) -> list[str]:
    """Waiting stages below a failed one.

    Args:
        inputs: stage key -> keys of its inputs, each stage after its inputs.
        states: by stage key.
    """
    bad = {key for key, state in states.items() if state in ("FAILED", "UPSTREAM_FAILED")}
    found = []
    for key, needs in inputs.items():
        if states[key] == "WAITING" and not bad.isdisjoint(needs):
            bad.add(key)
            found.append(key)
    return found


# Order


def cheapest_first(
    graph: Graph, trials: Iterable[Collection[str]], seconds: Mapping[str, float]
) -> dict[str, Rank]:
    """The cheapest trial first; what trials share counts for the cheapest of them.

    So small models answer, and show mistakes, before large ones are paid for. Within a trial the
    longest chain goes first.
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
    """The longest chain first, so that the whole ends soonest (Graham's list scheduling, 1969)."""
    return {key: (-left, 0.0) for key, left in remaining_seconds(graph, seconds).items()}


Order = Callable[[Graph, Iterable[Collection[str]], Mapping[str, float]], dict[str, Rank]]
ORDERS: dict[str, Order] = {"cheapest": cheapest_first, "longest": longest_first}


def remaining_seconds(graph: Graph, seconds: Mapping[str, float]) -> dict[str, float]:
    """Time of the longest chain that starts with each stage."""
    longest = dict.fromkeys(graph.inputs, 0.0)
    for key in reversed(list(graph.inputs)):
        longest[key] += seconds[key]
        for parent in graph.inputs[key]:
            longest[parent] = max(longest[parent], longest[key])
    return longest


# Decisions


class Scheduler:
    """Hands out the stages of one plan, each when it is its turn."""

    def __init__(
        self,
        graph: Graph,
        ranks: Mapping[str, Rank],
        *,
        complete: Collection[str] = (),
        skipped: Collection[str] = (),
        gates: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            graph: of the plan.
            ranks: the order among stages that are ready, by one of `ORDERS`.
            complete: stages that need not run; their gates are still to be opened or shut.
            skipped: stages that are not to be run now, complete or not.
            gates: stage -> other stages whose gates must `open` before it starts.
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
            self._missing[key] = sum(i not in done for i in inputs) + len(guards)
            self._queue(key)

    def take(self) -> str | None:
        """The next stage to start; None: nothing is ready. Whoever takes it says how it ends."""
        key = self.peek()
        if key is not None:
            heapq.heappop(self._ready)
        return key

    def peek(self) -> str | None:
        """What `take` would give."""
        while self._ready and self._ready[0][1] in self._over:
            heapq.heappop(self._ready)
        return self._ready[0][1] if self._ready else None

    def complete(self, key: str) -> None:
        """A stage is done: what waited for it alone becomes ready."""
        self._over.add(key)
        for child in self._graph.needed_by[key]:
            self._one_less(child)

    def again(self, key: str) -> None:
        """A stage ended without a result and is to be started once more."""
        self._queue(key)

    def fail(self, key: str) -> list[str]:
        """A stage is given up; returns what is given up with it, because it needs its outputs."""
        self._over.add(key)
        below = [k for k in self._graph.below(key) if k not in self._over]
        self._over.update(below)
        return below

    def open(self, guard: str) -> None:
        """The gate at a complete stage lets what is above it pass."""
        for key in self._behind_gate.get(guard, ()):
            self._unopened[key].discard(guard)
            self._one_less(key)

    def at_gates(self) -> set[str]:
        """Stages that cannot start before gates open: those at them, and all behind these."""
        starts = [key for key, guards in self._unopened.items() if guards]
        return set(_reach(starts, self._follow))

    def shut(self, guards: Iterable[str]) -> list[str]:
        """Gates stay closed for good; returns what is held: what is above them, and below that."""
        above = [key for guard in guards for key in self._behind_gate.get(guard, ())]
        held = [key for key in _reach(above, self._follow) if key not in self._over]
        self._over.update(held)
        return held

    def _follow(self, key: str) -> list[str]:
        return [*self._graph.needed_by[key], *self._behind_gate.get(key, ())]

    def _one_less(self, key: str) -> None:
        self._missing[key] -= 1
        self._queue(key)

    def _queue(self, key: str) -> None:
        if self._missing[key] == 0 and key not in self._over:
            heapq.heappush(self._ready, (self._ranks[key], key))


def _reach(starts: Iterable[str], follow: Callable[[str], Sequence[str]]) -> list[str]:
    """Starts and everything behind them, each once."""
    found = dict.fromkeys(starts)
    pending = list(found)
    while pending:
        for key in follow(pending.pop()):
            if key not in found:
                found[key] = None
                pending.append(key)
    return list(found)
