"""The states of a plan's stages while it runs: kept by the runner, shown by the display."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestration.plan import Plan
from orchestration.state import Failure, StageFolder, State, Store


@dataclass
class Progress:
    """What a launch knows of its plan.

    Attributes:
        folders: where each stage is or will be.
        reused: stages that were complete before this launch.
        ran: stages that this launch completed.
        failures: why stages failed.
        elsewhere: stages that another launcher is running.
        done_elsewhere: stages that another launcher completed meanwhile.
        interrupted: whether the user stopped the launch.
        started: UNIX seconds.
    """

    plan: Plan
    folders: dict[str, StageFolder]
    reused: frozenset[str]
    ran: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    done_elsewhere: set[str] = field(default_factory=set)
    interrupted: bool = False
    started: float = field(default_factory=time.time)
    _states: dict[str, State] = field(init=False)
    _counts: Counter[State] = field(init=False)

    def __post_init__(self) -> None:
        self._states = {
            key: "COMPLETE" if key in self.reused else "WAITING" for key in self.folders
        }
        self._counts = Counter(self._states.values())

    @property
    def states(self) -> Mapping[str, State]:
        """State of every stage by key, in the plan's order."""
        return self._states

    def set(self, key: str, state: State) -> None:
        """Change the state of a stage."""
        self._counts[self._states[key]] -= 1
        self._counts[state] += 1
        self._states[key] = state

    def count(self, state: State) -> int:
        """How many stages are in a state."""
        return self._counts[state]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return not (self.count("WAITING") or self.count("RUNNING"))


def survey(plan: Plan, store: Store) -> Progress:
    """Which stages of a plan are complete already; makes no folder."""
    folders = store.folders((s.stage, key, s.readable) for key, s in plan.stages.items())
    complete = frozenset(key for key, folder in folders.items() if folder.is_complete())
    return Progress(plan, folders, complete)


def pass_failure_downstream(
    inputs: Mapping[str, Mapping[str, str]], states: Mapping[str, State]
) -> list[str]:
    """Waiting stages below a failed one.

    Args:
        inputs: stage key -> inputs, each stage after its inputs.
        states: by stage key.
    """
    bad = {key for key, state in states.items() if state in ("FAILED", "UPSTREAM_FAILED")}
    found = []
    for key, needs in inputs.items():
        if states[key] == "WAITING" and not bad.isdisjoint(needs.values()):
            bad.add(key)
            found.append(key)
    return found
