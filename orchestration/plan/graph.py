"""Trials -> one graph of stages; equal stages merge. Imports neither torch nor ray nor mlflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from gigatok.config import Config, TrialConfig
from gigatok.config.once import OncePerSections
from gigatok.stages import STAGES, Stage
from orchestration.plan.identity import StageKeys, digest
from orchestration.sweep.definition import Expansion, Sweep, Trial
from orchestration.sweep.grid.expansion import Dropped
from orchestration.sweep.grid.stage_graph import stage_graphs


# A tuple is made five times as fast as an object of a frozen class, and plans have ten thousands.
class PlannedStage(NamedTuple):
    """Node of the graph.

    Attributes:
        key: identity; equal keys are the same stage.
        inputs: stage name -> key of each stage whose outputs it reads.
        readable: what a person recognises it by, such as `S-B`; not part of the identity.
        trial: the whole config of the first trial that has it: its cost depends on more than it
            reads itself, such as the models among its inputs.
        version: of the stage when it was planned; part of the key.
    """

    stage: str
    key: str
    config: Config
    inputs: Mapping[str, str]
    readable: str
    trial: TrialConfig
    version: int


@dataclass(frozen=True)
class PlannedTrial:
    """Trial and the key of each of its stages; `key` identifies the trial by its stages."""

    trial: Trial
    stages: Mapping[str, str]
    key: str


@dataclass(frozen=True)
class Plan:
    """Graph of a sweep. `stages` is ordered: each comes after its inputs."""

    sweep: Sweep
    trials: tuple[PlannedTrial, ...]
    stages: Mapping[str, PlannedStage]
    excluded: tuple[Mapping[str, object], ...]
    key: str
    dropped: tuple[Dropped, ...] = ()
    repeated: tuple[Mapping[str, object], ...] = ()

    def shared(self) -> int:
        """Count the stage runs that merging saves."""
        return sum(len(t.stages) for t in self.trials) - len(self.stages)


def make_plan(sweep: Sweep, expansion: Expansion) -> Plan:
    """Build the graph of all trials of a sweep.

    Raises:
        ValueError: a trial has none of the stages that the sweep asks for.
    """
    graph = _Graph(sweep)
    trials = tuple([graph.add(trial) for trial in expansion.trials])
    # By kind, in the order of the registry, which puts every kind after those that it reads. So
    # each stage comes after its inputs: schedulers and surveys rely on that.
    order = {stage: index for index, stage in enumerate(STAGES)}
    by_stage = sorted(graph.stages.values(), key=lambda s: order[s.stage])
    key = search_key(sweep)
    if key is None:
        # Sorted: listing the values of an axis in another order is the same plan, and is found as
        # launched.
        trial_keys = ",".join(sorted(t.key for t in trials))
        key = digest(sweep.name + ":" + sweep.scale + ":" + trial_keys)
    return Plan(
        sweep,
        trials,
        {s.key: s for s in by_stage},
        expansion.excluded,
        key,
        expansion.dropped,
        expansion.repeated,
    )


def search_key(sweep: Sweep) -> str | None:
    """Compute the key of a search's plan, which stays while trials are added; None: no search.

    So a larger budget goes on with the same search.
    """
    if sweep.search is None:
        return None
    graph = _Graph(sweep)
    # By an example and not by the trials so far, which grow: space, sampler and seed are in
    # `search.identity`, the fixed rest of the config in the key of the example.
    example = [graph.add(trial).key for trial in sweep.expansion.trials]
    return digest(":".join([sweep.name, sweep.scale, *example, sweep.search.identity]))


@dataclass(frozen=True)
class _Step:
    """Stage with the names of its inputs: what trials with equal sections need not ask twice.

    Attributes:
        inputs: names of the inputs, in the order of the graph.
        needs: the same, sorted as keys have them.
        keys: makes the config that the stage reads of a trial, and its keys.
        readable: names the stage of a trial.
    """

    stage: Stage
    inputs: tuple[str, ...]
    needs: tuple[str, ...]
    keys: Callable[[TrialConfig], StageKeys]
    readable: Callable[[TrialConfig], str]


def _step(stage: Stage, inputs: tuple[str, ...]) -> _Step:
    needs = tuple(sorted(inputs))
    keys = OncePerSections(lambda trial: StageKeys(stage, stage.read(trial), needs))
    return _Step(stage, inputs, needs, keys, OncePerSections(stage.readable))


class _Graph:
    """Graph under construction: the stages of the trials so far, equal ones once."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.stages: dict[str, PlannedStage] = {}
        self._graphs = stage_graphs(sweep.stages)
        self._steps: dict[int, list[_Step]] = {}
        self._known: dict[tuple[str, tuple[str, ...]], _Step] = {}

    def _steps_of(self, trial: TrialConfig) -> list[_Step]:
        graph = self._graphs(trial)
        # By identity: there are a few graphs, which live as long as the function that finds them.
        found = self._steps.get(id(graph))
        if found is None:
            found = self._steps[id(graph)] = [self._step(*one) for one in graph]
        return found

    def _step(self, stage: Stage, inputs: tuple[str, ...]) -> _Step:
        known = (stage.name, inputs)
        if known not in self._known:
            self._known[known] = _step(stage, inputs)
        return self._known[known]

    def add(self, trial: Trial) -> PlannedTrial:
        """Add the stages of a trial."""
        config = trial.config
        keys: dict[str, str] = {}
        for step in self._steps_of(config):
            read = step.keys(config)
            key = keys[step.stage.name] = read.key(tuple([keys[name] for name in step.needs]))
            # The first trial with a key stands for all: `readable` and the config for the costs
            # come from it.
            if key not in self.stages:
                self.stages[key] = PlannedStage(
                    step.stage.name,
                    key,
                    read.config,
                    {name: keys[name] for name in step.inputs},
                    step.readable(config),
                    config,
                    step.stage.version,
                )
        if not keys:
            self._refuse(trial)
        # In the order of the graph, so that the same stages give the same key.
        return PlannedTrial(trial, keys, digest(",".join(keys.values())))

    def _refuse(self, trial: Trial) -> NoReturn:
        applicable = [name for name, stage in STAGES.items() if stage.applies(trial.config)]
        raise ValueError(
            f"{self.sweep.path}: trial {trial.name} has none of the stages "
            f"{', '.join(self.sweep.stages)}; it has {', '.join(applicable)}"
        )
