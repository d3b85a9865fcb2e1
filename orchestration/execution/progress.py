"""States of a plan's stages while it runs: kept by the runner, shown by the display."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gigatok.plugins import Plugin
from gigatok.stages import STAGES
from orchestration.costs.calibration import load_calibration
from orchestration.costs.cost import Cost, Sites, predict
from orchestration.execution.scheduler import Graph
from orchestration.plan.graph import Plan, PlannedStage
from orchestration.plan.identity import plugins_of
from orchestration.runs.stage_records import Done, Failure, Spec
from orchestration.runs.state import StageFolder, State, Store
from orchestration.runs.used_plugins import remember


@dataclass(frozen=True)
class Alike:
    """Stages of one kind and one cost, of which a plan has thousands."""

    stage: str
    cost: Cost
    keys: Sequence[str]


@dataclass
class Progress:
    """Knowledge of a launch about its plan.

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
        widths: kind of stage -> slots that it takes, where that is not one.
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
    widths: Mapping[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    damaged: Mapping[str, str] = field(default_factory=dict)
    # Private, so that `set` alone changes it and the counts stay right: counting 10,000 stages in
    # every tick would be slow.
    _states: dict[str, State] = field(init=False)
    _counts: Counter[State] = field(init=False)
    _done: dict[str, Done] = field(init=False, default_factory=dict)

    @property
    def store(self) -> Store:
        """Return the runs directory."""
        return next(iter(self.folders.values())).store

    def __post_init__(self) -> None:
        self._states = {
            key: "COMPLETE" if key in self.reused else "WAITING" for key in self.folders
        }
        self._counts = Counter(self._states.values())

    @cached_property
    def graph(self) -> Graph:
        """Build the graph of which stage reads which."""
        return Graph({key: tuple(s.inputs.values()) for key, s in self.plan.stages.items()})

    @cached_property
    def alike(self) -> list[Alike]:
        """Group all stages by kind and cost."""
        found: dict[tuple[str, int], list[str]] = {}
        # By identity: stages of equal cost share it as an object.
        for key, stage in self.plan.stages.items():
            found.setdefault((stage.stage, id(self.costs[key])), []).append(key)
        return [Alike(kind, self.costs[keys[0]], keys) for (kind, _), keys in found.items()]

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Name every stage by what tells it from others of its kind."""
        trials = {one.trial.name: one.stages for one in self.plan.trials}
        return stage_names(
            trials, {key: stage.readable for key, stage in self.plan.stages.items()}
        )

    @property
    def states(self) -> Mapping[str, State]:
        """Return the state of every stage by key, in the plan's order."""
        return self._states

    def grow(self, plan: Plan, store: Store) -> list[str]:
        """Take over a plan that has all stages of this one and more; returns the new ones' keys.

        Stages that were left alone stay so; see `orchestration.launching.runner.Runner.take_up`.
        """
        new = {key: stage for key, stage in plan.stages.items() if key not in self.folders}
        folders = store.folders((s.stage, key, s.readable) for key, s in new.items())
        calibration = load_calibration(store)
        # The costs that are known win: records that came in meanwhile would otherwise change the
        # order midway.
        self.costs = {**predict(plan, calibration, calibration.newest_site), **self.costs}
        self.plan = plan
        # `cached_property` keeps its value there: those of the larger plan are made at the next
        # use.
        for made in ("graph", "alike", "names"):
            self.__dict__.pop(made, None)
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
        if not self.count("COMPLETE"):
            return
        for key in sorted(self.reused):
            # `is_complete` only looks whether the file exists, which is quick; reading comes
            # second, for complete stages only.
            if self.done(key) is None:
                self._distrust(key, "its DONE cannot be read")
        for key in named:
            if self._states[key] == "COMPLETE":
                self._distrust(key, self.folders[key].damage(thorough=True))
        # Backwards: a stage that runs again needs its own inputs as well.
        # The plan lists each stage after its inputs, so that its reverse meets every reader before
        # what it reads.
        for key, stage in reversed(list(self.plan.stages.items())):
            if self._states[key] == "WAITING" and key not in self.left:
                for parent in stage.inputs.values():
                    if self._states[parent] == "COMPLETE":
                        self._distrust(parent, self.folders[parent].damage())

    def done(self, key: str) -> Done | None:
        """Read the record of a stage's completion, once; None if there is none."""
        if key not in self._done and (found := self.folders[key].done()) is not None:
            self._done[key] = found
        return self._done.get(key)

    def _distrust(self, key: str, damage: str | None) -> None:
        if damage is not None:
            self.damaged = {**self.damaged, key: damage}
            # Both sets are about outputs that exist: a stage that runs again belongs to neither.
            self.reused -= {key}
            self.ran.discard(key)
            self.set(key, "WAITING")

    def set(self, key: str, state: State) -> None:
        """Change the state of a stage."""
        # A stage that runs again gets another record.
        self._done.pop(key, None)
        self._counts[self._states[key]] -= 1
        self._counts[state] += 1
        self._states[key] = state

    def fail(self, key: str, failure: Failure) -> list[str]:
        """Give up a stage and what is behind it; returns the latter."""
        self.failures[key] = failure
        self.set(key, "FAILED")
        # Only those that wait: a stage below may be complete from before, or run elsewhere.
        below = [other for other in self.graph.below(key) if self._states[other] == "WAITING"]
        for other in below:
            self.set(other, "UPSTREAM_FAILED")
        return below

    def count(self, state: State) -> int:
        """Count the stages in a state."""
        return self._counts[state]

    def will_run(self, key: str) -> bool:
        """Tell whether a stage is still to be started by this launch."""
        return self._states[key] == "WAITING" and key not in self.left

    @property
    def finished(self) -> bool:
        """Tell whether nothing is left to run."""
        # A stage may be in both: the set counts it once.
        resting = {*self.left, *self.held_stages}
        waiting = self.count("WAITING") - sum(self._states[k] == "WAITING" for k in resting)
        return not (waiting or self.count("RUNNING"))


def stage_names(
    trials: Mapping[str, Mapping[str, str]], readable: Mapping[str, str]
) -> dict[str, str]:
    """Name stages by the words that the names of all their trials share.

    Args:
        trials: name -> stage -> key.
        readable: by key, for stages whose trials share no word, such as that of the teacher.
    """
    words: dict[str, list[str]] = {}
    for trial, stages in trials.items():
        mine = trial.split()
        for key in stages.values():
            kept = words.setdefault(key, mine)
            words[key] = [word for word in kept if word in mine]
    return {key: " ".join(words.get(key, ())) or name for key, name in readable.items()}


def survey(plan: Plan, store: Store, sites: Sites | None = None) -> Progress:
    """Find which stages of a plan are complete, and what all will need; makes no folder.

    Args:
        plan: the graph.
        store: the runs directory, with its records of what stages took.
        sites: on what each kind of stage will run; None: where it was measured last.
    """
    stages = ((s.stage, key, s.readable) for key, s in plan.stages.items())
    folders, existing = store.find(stages)
    # A look at each folder that exists, without reading the records: a plan of 10,000 trials must
    # be surveyed in seconds.
    complete = frozenset(key for key in existing if folders[key].is_complete())
    calibration = load_calibration(store)
    costs = predict(plan, calibration, sites or calibration.newest_site)
    progress = Progress(plan, folders, complete, costs)
    progress.distrust_damaged()
    return progress


def refuse_other_versions(progress: Progress) -> None:
    """Refuse to run stages whose meaning has changed since they were planned.

    A stage that is complete is reused whatever its version; a key of an older version must never
    name what newer code computes.

    Raises:
        ValueError: a stage that is to run has another version in this code.
    """
    for key, stage in progress.plan.stages.items():
        version = STAGES[stage.stage].version
        if stage.version != version and progress.will_run(key):
            raise ValueError(
                f"{stage.stage} {stage.readable} was launched with version {stage.version} of the "
                f"stage, and this code has version {version}; launch the sweep again, which "
                "reuses what has not changed"
            )


def stage_spec(stage: PlannedStage, progress: Progress) -> Spec:
    """Describe a stage of a plan for its worker."""
    folders = progress.folders
    return Spec(
        stage=stage.stage,
        version=stage.version,
        key=stage.key,
        readable=stage.readable,
        config=stage.config.model_dump(mode="json"),
        inputs={name: f"{name}/{folders[key].name}" for name, key in stage.inputs.items()},
        prediction=progress.costs[stage.key].prediction(),
        plugins=tuple(
            remember(plugin, progress.store)
            for plugin in sorted(_needed_plugins(stage, progress.plan), key=lambda p: p.identity)
        ),
    )


def _needed_plugins(stage: PlannedStage, plan: Plan) -> set[Plugin]:
    """Collect the plug-ins of a stage and of those before it: it loads the models they left."""
    needed = set(plugins_of(STAGES[stage.stage], stage.config))
    return needed.union(*(_needed_plugins(plan.stages[k], plan) for k in stage.inputs.values()))
