"""Gates between model sizes: a larger model starts when its smaller sibling has done well.

Siblings are trials that differ only in their sizes. A gate stands at every training stage and at
the stage that scores it; the training of the next larger sibling waits there. A stage that fails,
also by a loss that is not finite, keeps its gate shut. The largest setting of a claim that
predicts it waits as well, for what measures the smaller ones.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, field_validator

from gigatok.config import TransformerSize, TrialConfig
from gigatok.names import METRICS
from gigatok.stages import STAGES, Stage
from orchestration.execution.progress import Progress, stage_spec
from orchestration.execution.scheduler import Scheduler
from orchestration.plan.graph import Plan, PlannedTrial
from orchestration.plan.held_out import held_out
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
    """Conditions that a model must meet before its larger sibling starts.

    better: {lpips: 0.05}   # at most 5 % worse than its own smaller sibling
    throughput: 0.5         # at least half as fast as predicted, if that is calibrated
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    better: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Metric -> share of the smaller sibling's value by which a larger model may be worse."""
    throughput: float | None = Field(None, gt=0, le=1)
    """Smallest share of the predicted training speed."""

    @field_validator("better")
    @classmethod
    def _known(cls, better: dict[str, float]) -> dict[str, float]:
        for name in better:
            if name not in (metrics := judged()):
                raise ValueError(f"no gate for {name!r}; metrics: {', '.join(metrics)}")
        return better


@dataclass(frozen=True)
class Ladder:
    """Gates of a plan.

    Attributes:
        guards: training stage -> stages of its smaller sibling whose gates it waits for.
        smaller: stage with a gate -> the same stage of its own smaller sibling, if there is one.
    """

    guards: Mapping[str, Collection[str]] = field(default_factory=dict)
    smaller: Mapping[str, str | None] = field(default_factory=dict)


def ladder(plan: Plan, gates: Gates | None, predict_first: bool = False) -> Ladder:
    """Find for every stage the gates that it waits for.

    Args:
        plan: the plan.
        gates: what is asked of smaller siblings; None: nothing.
        predict_first: the largest setting of a prediction waits until the smaller ones are
            measured.

    Raises:
        ValueError: a gate asks for a metric whose stage a trial lacks.
    """
    guards: dict[str, dict[str, None]] = defaultdict(dict)
    smaller: dict[str, str | None] = {}
    if gates is not None:
        _between_siblings(plan, gates, guards, smaller)
    for one in held_out(plan) if predict_first else ():
        waits = {key: {**guards.get(key, {}), **dict.fromkeys(one.measured)} for key in one.first}
        # Claims over quantities that order the settings differently would wait for each other.
        if not _has_circle(plan, {**guards, **waits}):
            guards.update(waits)
            for key in one.measured:
                smaller.setdefault(key, None)
    return Ladder({key: tuple(found) for key, found in guards.items()}, smaller)


def _has_circle(plan: Plan, guards: Mapping[str, Iterable[str]]) -> bool:
    waits = {key: {*s.inputs.values(), *guards.get(key, ())} for key, s in plan.stages.items()}
    try:
        TopologicalSorter(waits).prepare()
    except CycleError:
        return True
    return False


def _between_siblings(
    plan: Plan, gates: Gates, guards: dict[str, dict[str, None]], smaller: dict[str, str | None]
) -> None:
    """Add the gates of the smaller sibling of every training."""
    for kind in (stage for stage in STAGES.values() if stage.trains):
        for group in _siblings(plan, kind):
            for above, below in _pairs(kind, group):
                # Before the smallest is skipped: a metric that it cannot report must be refused as
                # well.
                mine = _gate_stages(kind, gates, above)
                if below is None:
                    continue
                theirs = _gate_stages(kind, gates, below)
                guards[above.stages[kind.name]].update(dict.fromkeys(theirs.values()))
                for stage, key in theirs.items():
                    # `setdefault`: the smallest model has a gate too, but no sibling to be
                    # compared with.
                    smaller.setdefault(key, None)
                    smaller[mine[stage]] = key


def _siblings(plan: Plan, kind: Stage) -> Iterable[list[PlannedTrial]]:
    """Group trials with this training that differ in sizes only, one of each trained model."""
    sized = set(SIZE_KEYS)
    # Keys that vary with a size in one `zip` group, such as its learning rate, belong to the size.
    for group in plan.sweep.zip:
        if not sized.isdisjoint(group):
            sized |= group.keys()
    found: dict[str, dict[str, PlannedTrial]] = defaultdict(dict)
    for trial in plan.trials:
        if kind.name in trial.stages:
            # As text: values of axes may be lists or mappings, which cannot be keys of a dict.
            free = {key: v for key, v in trial.trial.axes.items() if key not in sized}
            alike = json.dumps([_models_before(kind, trial), free], sort_keys=True, default=str)
            # By the key of the training: trials that differ only in later stages share one model.
            found[alike].setdefault(trial.stages[kind.name], trial)
    return (list(models.values()) for models in found.values())


def _pairs(
    kind: Stage, trials: list[PlannedTrial]
) -> Iterable[tuple[PlannedTrial, PlannedTrial | None]]:
    """Pair each trial with its largest smaller sibling: in no part larger, in one smaller."""
    sizes = {t.key: _sizes(kind, t.trial.config) for t in trials}
    order = sorted(trials, key=lambda t: sum(sizes[t.key]))
    for index, above in enumerate(order):
        mine = sizes[above.key]
        below = (
            t
            # From the largest down. Sizes form a partial order: S-B is neither smaller nor larger
            # than B-S, and no gate stands between them.
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
    """Return a number proportional to the parameters of a transformer: 12 L d² without biases."""
    # Relative size is enough, and a size without a name has no other measure.
    return size.layers * size.width**2


def _models_before(kind: Stage, trial: PlannedTrial) -> list[str]:
    """List the keys of the models that a training builds on, such as a generator's tokenizer.

    Only trainings with the same are siblings: losses over different tokens do not compare.
    """
    # A trial's stages are in the order of the graph, so that those before the training come first.
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
    """Keeper of one plan's gates: opens and shuts them by the results of the stages."""

    def __init__(
        self,
        progress: Progress,
        store: Store,
        gates: Gates | None,
        predicted: Mapping[str, float | None],
        predict_first: bool = False,
    ) -> None:
        """Prepare the gates of a plan.

        Args:
            progress: progress of the plan; held stages are noted in it.
            store: the runs directory; held stages are noted there too.
            gates: the conditions; None: there are no gates.
            predicted: stage key -> predicted seconds; None: uncalibrated.
            predict_first: see `ladder`.
        """
        self._progress = progress
        self._store = store
        self._gates = gates or Gates()
        self._predicted = predicted
        self._ladder = ladder(progress.plan, gates, predict_first)
        self._judged: set[str] = set()

    def guards(self) -> dict[str, list[str]]:
        """Map each stage to the gates that it waits for, without those of stages left alone.

        This launch does not run the stages that are left alone, so nobody would open their gates.
        """
        left = {key for key in self._progress.left if self._progress.states[key] == "WAITING"}
        guards = self._ladder.guards.items()
        return {key: [g for g in mine if g not in left] for key, mine in guards}

    def look(self, scheduler: Scheduler) -> None:
        """Judge the stages that are over already."""
        for key in self._ladder.smaller:
            if self._progress.states[key] == "COMPLETE":
                self.judge(key, scheduler)
            elif self._progress.states[key] in ("FAILED", "UPSTREAM_FAILED"):
                self.shut([key], scheduler)

    def judge(self, key: str, scheduler: Scheduler) -> list[str]:
        """Open the gate at a complete stage, or hold the stages behind it; returns the held ones.

        A stage that was complete before its smaller sibling, for example by another sweep, is
        judged when the sibling is complete.
        """
        waited = (k for k, below in self._ladder.smaller.items() if below == key)
        held = []
        for one in (key, *waited):
            # Judged once: an open gate must not be counted as opened twice by the scheduler.
            if one in self._judged or not self._can_judge(one):
                continue
            self._judged.add(one)
            why = self._reason_to_hold(one)
            if why is None:
                scheduler.open(one)
            else:
                held += self._hold(scheduler.shut([one]), why)
        return held

    def _can_judge(self, key: str) -> bool:
        """Tell whether a stage with a gate is complete, and its sibling is or never will be."""
        states, below = self._progress.states, self._ladder.smaller.get(key)
        if key not in self._ladder.smaller or states[key] != "COMPLETE":
            return False
        # A sibling that is left alone will not complete in this launch: waiting for it would hold
        # the larger model forever.
        comes = below is not None and states[below] in ("WAITING", "RUNNING")
        return not comes or below in self._progress.left

    def shut(self, keys: Iterable[str], scheduler: Scheduler) -> list[str]:
        """Hold the stages behind failed ones; returns the held ones."""
        held = []
        for key in keys:
            stage = self._progress.plan.stages[key]
            failure = self._progress.failures.get(key)
            reason = f": {failure.message.splitlines()[0]}" if failure else ""
            why = f"held: {stage.stage} of the smaller {stage.readable} failed{reason}"
            held += self._hold(scheduler.shut([key]), why)
        return held

    def _reason_to_hold(self, key: str) -> str | None:
        """Say why the gate at a complete stage stays shut; None: it opens."""
        stage, done = self._progress.plan.stages[key], self._done(key)
        # All checks are cheap; the first reason is the one that is shown.
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
        # Predictions assume a processor of one's own. Time lost to other processes says nothing
        # about the model.
        attempts = self._progress.folders[key].attempts()
        waited = sum(attempt.waited_seconds or 0.0 for attempt in attempts)
        # A stage of a moment may take 0 seconds on the clock.
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
        # The folder may not exist yet: a held stage has never been started.
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
        metric: name of the metric, as in `gigatok.names`.
        share: share of the reference by which the value may be worse.
        name: name of the model.
        value: the model's value; None: it has none.
        other: name of the smaller sibling.
        reference: the sibling's value; None: it has none.
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
        # The reference may be 0, as a loss can be.
        f"{metric} of {name} is {value:.4g}, {loss / max(abs(reference), 1e-12):.1%} worse than "
        f"{reference:.4g} of the smaller {other}; {share:.1%} is allowed"
    )
