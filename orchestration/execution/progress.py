"""The states of a plan's stages while it runs: kept by the runner, shown by the display."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gigatok.stages import STAGES
from orchestration.costs.calibration import load_calibration
from orchestration.costs.cost import Cost, Sites, predict
from orchestration.execution.scheduler import Graph
from orchestration.plan.graph import Plan, PlannedStage
from orchestration.runs.stage_records import Failure, Spec
from orchestration.runs.state import StageFolder, State, Store


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
        left: stages that this launch does not run, although they are not complete.
        held_stages: stages that a gate keeps from starting, and why.
        held: why nothing new was started any more; None: it was not.
        slots: stages that run at the same time.
        started: UNIX seconds.
        costs: what each stage is predicted to need.
        damaged: stages that were complete, whose outputs are gone although another stage needs
            them, and what is wrong with them; they run again.
    """

    plan: Plan
    folders: dict[str, StageFolder]
    reused: frozenset[str]
    costs: Mapping[str, Cost]
    ran: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    done_elsewhere: set[str] = field(default_factory=set)
    interrupted: bool = False
    left: frozenset[str] = frozenset()
    held_stages: dict[str, str] = field(default_factory=dict)
    held: str | None = None
    slots: int = 1
    started: float = field(default_factory=time.time)
    damaged: Mapping[str, str] = field(default_factory=dict)
    _states: dict[str, State] = field(init=False)
    _counts: Counter[State] = field(init=False)

    @property
    def store(self) -> Store:
        """The runs directory."""
        return next(iter(self.folders.values())).store

    def __post_init__(self) -> None:
        self._states = {
            key: "COMPLETE" if key in self.reused else "WAITING" for key in self.folders
        }
        self._counts = Counter(self._states.values())

    @cached_property
    def graph(self) -> Graph:
        """Which stage of the plan reads which."""
        return Graph({key: tuple(s.inputs.values()) for key, s in self.plan.stages.items()})

    @property
    def states(self) -> Mapping[str, State]:
        """State of every stage by key, in the plan's order."""
        return self._states

    def grow(self, plan: Plan, store: Store) -> list[str]:
        """Take over a plan that has all stages of this one and more; returns the new ones' keys.

        Stages that were left alone stay so; see `orchestration.launching.runner.Runner.take_up`.
        """
        new = {key: stage for key, stage in plan.stages.items() if key not in self.folders}
        folders = store.folders((s.stage, key, s.readable) for key, s in new.items())
        calibration = load_calibration(store)
        self.costs = {**predict(plan, calibration, calibration.newest_site), **self.costs}
        self.plan = plan
        self.__dict__.pop("graph", None)
        self.folders |= folders
        self.reused |= {key for key, folder in folders.items() if folder.is_complete()}
        for key in folders:
            self._states[key] = "COMPLETE" if key in self.reused else "WAITING"
            self._counts[self._states[key]] += 1
        self.distrust_damaged()
        return list(new)

    def distrust_damaged(self, named: Collection[str] = ()) -> None:
        """Let complete stages run again whose outputs are gone although they are needed.

        A scratch file system that purges old files takes outputs away behind everybody's back.
        Those that nobody reads any more are no loss: the scores are in DONE.

        Stages whose DONE cannot be read run again in any case, because their scores are lost.

        Args:
            named: stages that a user asked for by name; their outputs are hashed as well.
        """
        for key in sorted(self.reused):
            if self.folders[key].done() is None:
                self._distrust(key, "its DONE cannot be read")
        for key in named:
            if self._states[key] == "COMPLETE":
                self._distrust(key, self.folders[key].damage(thorough=True))
        # Backwards: a stage that runs again needs its own inputs as well.
        for key, stage in reversed(list(self.plan.stages.items())):
            if self._states[key] == "WAITING" and key not in self.left:
                for parent in stage.inputs.values():
                    if self._states[parent] == "COMPLETE":
                        self._distrust(parent, self.folders[parent].damage())

    def _distrust(self, key: str, damage: str | None) -> None:
        if damage is not None:
            self.damaged = {**self.damaged, key: damage}
            self.reused -= {key}
            self.ran.discard(key)
            self.set(key, "WAITING")

    def set(self, key: str, state: State) -> None:
        """Change the state of a stage."""
        self._counts[self._states[key]] -= 1
        self._counts[state] += 1
        self._states[key] = state

    def fail(self, key: str, failure: Failure) -> list[str]:
        """Give up a stage and what is behind it; returns the latter."""
        self.failures[key] = failure
        self.set(key, "FAILED")
        below = [other for other in self.graph.below(key) if self._states[other] == "WAITING"]
        for other in below:
            self.set(other, "UPSTREAM_FAILED")
        return below

    def count(self, state: State) -> int:
        """How many stages are in a state."""
        return self._counts[state]

    def will_run(self, key: str) -> bool:
        """Whether a stage is still to be started by this launch."""
        return self._states[key] == "WAITING" and key not in self.left

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        resting = {*self.left, *self.held_stages}
        waiting = self.count("WAITING") - sum(self._states[k] == "WAITING" for k in resting)
        return not (waiting or self.count("RUNNING"))


def survey(plan: Plan, store: Store, sites: Sites | None = None) -> Progress:
    """Which stages of a plan are complete already, and what all will need; makes no folder.

    Args:
        plan: the graph.
        store: the runs directory, with its records of what stages took.
        sites: on what each kind of stage will run; None: where it was measured last.
    """
    folders = store.folders((s.stage, key, s.readable) for key, s in plan.stages.items())
    complete = frozenset(key for key, folder in folders.items() if folder.is_complete())
    calibration = load_calibration(store)
    costs = predict(plan, calibration, sites or calibration.newest_site)
    progress = Progress(plan, folders, complete, costs)
    progress.distrust_damaged()
    return progress


def stage_spec(stage: PlannedStage, progress: Progress) -> Spec:
    """What a worker needs to run a stage of a plan."""
    folders = progress.folders
    return Spec(
        stage=stage.stage,
        version=STAGES[stage.stage].version,
        key=stage.key,
        readable=stage.readable,
        config=stage.config.model_dump(mode="json"),
        inputs={name: f"{name}/{folders[key].name}" for name, key in stage.inputs.items()},
        prediction=progress.costs[stage.key].prediction(),
    )
