"""Gates between model sizes: a larger model starts when its smaller sibling has done well.

Siblings are trials equal but for the sizes. A gate stands at every training stage and at what
scores it; the training of the next larger sibling waits there. A stage that fails keeps its gate
shut, a loss that is not finite included.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, field_validator

from gigatok.config import TransformerSize, TrialConfig
from gigatok.names import METRICS
from gigatok.stages import STAGES, Stage
from orchestration.execution.progress import Progress, stage_spec
from orchestration.execution.scheduler import Scheduler
from orchestration.plan.graph import Plan, PlannedTrial
from orchestration.runs.stage_records import Done
from orchestration.runs.state import Store

SIZE_KEYS = ("tokenizer.encoder", "tokenizer.decoder", "generator.size")


def judged() -> dict[str, tuple[str, str]]:
    """Map each metric that a gate may ask for to the training it judges, and who measures it."""
    return {
        metric: (training, stage.name)
        for stage in STAGES.values()
        for metric, training in stage.judges.items()
    }


class Gates(BaseModel):
    """What a model must do before its larger sibling starts.

    better: {lpips: 0.05}   # at most 5 % worse than its own smaller sibling
    throughput: 0.5         # at least half as fast as predicted, where that is calibrated
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    better: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Metric -> by which share of the smaller sibling's value a larger model may be worse."""
    throughput: float | None = Field(None, gt=0, le=1)
    """Share of the predicted speed of training."""

    @field_validator("better")
    @classmethod
    def _known(cls, better: dict[str, float]) -> dict[str, float]:
        for name in better:
            if name not in (metrics := judged()):
                raise ValueError(f"no gate for {name!r}; metrics: {', '.join(metrics)}")
        return better


@dataclass(frozen=True)
class Ladder:
    """The gates of a plan.

    Attributes:
        guards: training stage -> stages of its smaller sibling whose gates it waits for.
        smaller: stage with a gate -> the same stage of its own smaller sibling, if there is one.
    """

    guards: Mapping[str, Collection[str]] = field(default_factory=dict)
    smaller: Mapping[str, str | None] = field(default_factory=dict)


def ladder(plan: Plan, gates: Gates | None) -> Ladder:
    """Who waits for whom.

    Raises:
        ValueError: a metric is asked for whose stage a trial does not have.
    """
    if gates is None:
        return Ladder()
    guards: dict[str, dict[str, None]] = defaultdict(dict)
    smaller: dict[str, str | None] = {}
    for kind in (stage for stage in STAGES.values() if stage.trains):
        for group in _siblings(plan, kind):
            for above, below in _pairs(kind, group):
                mine = _gate_stages(kind, gates, above)
                if below is None:
                    continue
                theirs = _gate_stages(kind, gates, below)
                guards[above.stages[kind.name]].update(dict.fromkeys(theirs.values()))
                for stage, key in theirs.items():
                    smaller.setdefault(key, None)
                    smaller[mine[stage]] = key
    return Ladder({key: tuple(found) for key, found in guards.items()}, smaller)


def _siblings(plan: Plan, kind: Stage) -> Iterable[list[PlannedTrial]]:
    """Trials with this training that differ in sizes only, one of each trained model."""
    sized = set(SIZE_KEYS)
    for group in plan.sweep.zip:
        if not sized.isdisjoint(group):
            sized |= group.keys()
    found: dict[str, dict[str, PlannedTrial]] = defaultdict(dict)
    for trial in plan.trials:
        if kind.name in trial.stages:
            free = {key: v for key, v in trial.trial.axes.items() if key not in sized}
            alike = json.dumps([_models_before(kind, trial), free], sort_keys=True, default=str)
            found[alike].setdefault(trial.stages[kind.name], trial)
    return (list(models.values()) for models in found.values())


def _pairs(
    kind: Stage, trials: list[PlannedTrial]
) -> Iterable[tuple[PlannedTrial, PlannedTrial | None]]:
    """Pair each trial with the largest that is smaller: in no part larger, in one smaller."""
    sizes = {t.key: _sizes(kind, t.trial.config) for t in trials}
    order = sorted(trials, key=lambda t: sum(sizes[t.key]))
    for index, above in enumerate(order):
        mine = sizes[above.key]
        below = (
            t
            for t in reversed(order[:index])
            if sizes[t.key] != mine
            and all(a <= b for a, b in zip(sizes[t.key], mine, strict=True))
        )
        yield above, next(below, None)


def _sizes(kind: Stage, config: TrialConfig) -> tuple[int, ...]:
    assert kind.model is not None, "a stage that trains leaves a model"
    parts = (part for _, part in getattr(config, kind.model))
    return tuple(_weights(part) for part in parts if isinstance(part, TransformerSize))


def _weights(size: TransformerSize) -> int:
    """Proportional to the parameters of a transformer."""
    return size.layers * size.width**2


def _models_before(kind: Stage, trial: PlannedTrial) -> list[str]:
    """List the keys of the models that a training builds on, such as a generator's tokenizer.

    Only trainings with the same are siblings: losses over different tokens do not compare.
    """
    before = itertools.takewhile(lambda item: item[0] != kind.name, trial.stages.items())
    return [key for name, key in before if STAGES[name].model is not None]


def _gate_stages(kind: Stage, gates: Gates, trial: PlannedTrial) -> dict[str, str]:
    """Map the stages of a trial at which gates stand to their keys."""
    asked = [judged()[metric] for metric in gates.better]
    scored = [stage for training, stage in asked if training == kind.name]
    stages = dict.fromkeys([kind.name, *scored])
    for stage in stages:
        if stage not in trial.stages:
            raise ValueError(
                f"gates: {', '.join(gates.better)}: trial {trial.trial.name} has no stage "
                f"{stage}, which measures it; add the stage or take the gate out of the profile"
            )
    return {stage: trial.stages[stage] for stage in stages}


class Gatekeeper:
    """Opens and shuts the gates of one plan by what its stages have left."""

    def __init__(
        self,
        progress: Progress,
        store: Store,
        gates: Gates | None,
        predicted: Mapping[str, float | None],
    ) -> None:
        """Prepare.

        Args:
            progress: of the plan; what is held is noted in it.
            store: the runs directory; what is held is noted there, too.
            gates: None: there are none.
            predicted: seconds of each stage; None: uncalibrated.
        """
        self._progress = progress
        self._store = store
        self._gates = gates or Gates()
        self._predicted = predicted
        self._ladder = ladder(progress.plan, gates)
        self._judged: set[str] = set()

    def guards(self) -> dict[str, list[str]]:
        """List what each stage waits for, without what is left alone: nobody would open that."""
        left = {key for key in self._progress.left if self._progress.states[key] == "WAITING"}
        guards = self._ladder.guards.items()
        return {key: [g for g in mine if g not in left] for key, mine in guards}

    def look(self, scheduler: Scheduler) -> None:
        """Judge what is over already."""
        for key in self._ladder.smaller:
            if self._progress.states[key] == "COMPLETE":
                self.judge(key, scheduler)
            elif self._progress.states[key] in ("FAILED", "UPSTREAM_FAILED"):
                self.shut([key], scheduler)

    def judge(self, key: str, scheduler: Scheduler) -> list[str]:
        """Open the gate at a complete stage, or hold what is above it; returns what is held.

        A stage that was complete before its smaller sibling, such as one of another sweep, is
        judged when that is.
        """
        waited = (k for k, below in self._ladder.smaller.items() if below == key)
        held = []
        for one in (key, *waited):
            if one in self._judged or not self._can_judge(one):
                continue
            self._judged.add(one)
            why = self._verdict(one)
            if why is None:
                scheduler.open(one)
            else:
                held += self._hold(scheduler.shut([one]), why)
        return held

    def _can_judge(self, key: str) -> bool:
        """Tell if a stage with a gate is complete, and its smaller sibling is or never will be."""
        states, below = self._progress.states, self._ladder.smaller.get(key)
        if key not in self._ladder.smaller or states[key] != "COMPLETE":
            return False
        comes = below is not None and states[below] in ("WAITING", "RUNNING")
        return not comes or below in self._progress.left

    def shut(self, keys: Iterable[str], scheduler: Scheduler) -> list[str]:
        """Hold what is above stages that have failed; returns what is held."""
        held = []
        for key in keys:
            stage = self._progress.plan.stages[key]
            failure = self._progress.failures.get(key)
            reason = f": {failure.message.splitlines()[0]}" if failure else ""
            why = f"held: {stage.stage} of the smaller {stage.readable} failed{reason}"
            held += self._hold(scheduler.shut([key]), why)
        return held

    def _verdict(self, key: str) -> str | None:
        """Say why the gate at a complete stage stays shut; None: it opens."""
        stage, done = self._progress.plan.stages[key], self._done(key)
        checks = [self._slow(key, done)]
        below = self._ladder.smaller[key]
        if below is not None and self._progress.states[below] == "COMPLETE":
            other = self._progress.plan.stages[below].readable
            for metric, share in self._gates.better.items():
                if judged()[metric][1] == stage.stage:
                    value = done.metrics.get(metric)
                    reference = self._done(below).metrics.get(metric)
                    checks.append(worse(metric, share, stage.readable, value, other, reference))
        return next((f"held: {why}" for why in checks if why is not None), None)

    def _done(self, key: str) -> Done:
        done = self._progress.folders[key].done()
        assert done is not None, "only complete stages are judged"
        return done

    def _slow(self, key: str, done: Done) -> str | None:
        stage, predicted = self._progress.plan.stages[key], self._predicted.get(key)
        least = self._gates.throughput
        if least is None or predicted is None or not STAGES[stage.stage].trains:
            return None
        # Predictions are for a processor of one's own; what others took says nothing of a model.
        attempts = self._progress.folders[key].attempts()
        waited = sum(attempt.waited_seconds or 0.0 for attempt in attempts)
        took = max(done.seconds - waited, 1e-9)
        share = predicted / took
        if share >= least:
            return None
        return (
            f"{stage.stage} of {stage.readable} took {took:.1f} s where {predicted:.1f} s "
            f"were predicted: {share:.0%} of the throughput, {least:.0%} is asked for"
        )

    def _hold(self, keys: list[str], why: str) -> list[str]:
        plan, folders = self._progress.plan, self._progress.folders
        made = self._store.create_all(stage_spec(plan.stages[key], self._progress) for key in keys)
        folders.update(made)
        for key in keys:
            self._progress.held_stages[key] = why
            folders[key].hold(why)
        return keys


def worse(
    metric: str,
    share: float,
    name: str,
    value: float | None,
    other: str,
    reference: float | None,
) -> str | None:
    """Say why a model is too much worse than its smaller sibling; None: it is not.

    Args:
        metric: of `gigatok.names`.
        share: of the reference by which it may be worse.
        name: of the model.
        value: its metric; None: it has none.
        other: name of the smaller sibling.
        reference: the sibling's.
    """
    for owner, number in ((name, value), (other, reference)):
        if number is None or not math.isfinite(number):
            return f"{metric} of {owner} is {'missing' if number is None else number}"
    assert value is not None
    assert reference is not None
    loss = value - reference if METRICS[metric].better == "lower" else reference - value
    if loss <= share * abs(reference):
        return None
    return (
        f"{metric} of {name} is {value:.4g}, {loss / max(abs(reference), 1e-12):.1%} worse than "
        f"{reference:.4g} of the smaller {other}; {share:.1%} is allowed"
    )
