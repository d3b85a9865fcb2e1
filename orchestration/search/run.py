"""Search that runs: it asks Optuna for trials, looks at their curves, prunes and tells.

Each trial is an ordinary trial of the sweep's plan, which grows by it; the runner brings its
stages forward like any others, on any backend. What happened is read from the stage folders and
from the study alone, so that a killed controller goes on where it was.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from gigatok.config import TrainingConfig
from gigatok.stages import STAGES
from orchestration.execution.progress import Progress
from orchestration.execution.results import merged_scores
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, PlannedTrial, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import StageFolder, Store
from orchestration.search import asking
from orchestration.sweep.definition import Expansion, Trial
from orchestration.sweep.search.block import GPU_HOURS, Search
from orchestration.tracking.spool import MetricPoint, SpoolReader

_log = logging.getLogger(__name__)

STEP = "pruned_at_step"
"""User attribute of a pruned trial; all that have run have `gpu_hours` as well."""
SPENT, CHARGED = "spent_hours", "charged_stages"
"""User attributes: what a trial took of the budget, and for which of its stages. Trials share
stages: `gpu_hours` is what all of a trial's cost, `spent_hours` of those that no other has paid
for, and that ran since the search began."""


@dataclass
class Round:
    """Study of Optuna: the search itself, or the check of what it found under other keys.

    Attributes:
        label: in front of its trials' numbers; "" for the search itself.
        trials: by number, those whose suggestion makes a trial.
        open: numbers of trials that are under way.
        readers: of the curves of open trials.
        spent: device hours of the trials that are over.
    """

    label: str
    search: Search
    study: Study
    trials: dict[int, Trial] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    readers: dict[int, SpoolReader] = field(default_factory=dict)
    spent: float = 0.0
    asked: int = 0

    @property
    def exhausted(self) -> bool:
        """Tell whether the budget allows no further trial."""
        most = asking.grid_size(self.search)
        # After the last point of a grid, Optuna's sampler draws points a second time.
        limit = self.search.trials if most is None else min(most, self.search.trials)
        hours = self.search.hours
        return self.asked >= limit or (hours is not None and self.spent >= hours)

    def name(self, number: int) -> str:
        """Return the beginning of a trial's name."""
        return f"{self.label}{number:03d}"


class Searcher:
    """Steers a runner through a search; an `orchestration.launching.runner.Guide`."""

    def __init__(
        self,
        plan: Plan,
        search: Search,
        store: Store,
        profile: Profile,
        changed: Callable[[Searcher], None] = lambda searcher: None,
    ) -> None:
        """Open the study and take up what is in it.

        Args:
            plan: trials that were asked for before, as they were recorded; its key names the
                study.
            search: the sweep's, with the storage that the user wants.
            store: the runs directory.
            profile: says how many devices a stage has.
            changed: called when a trial was added or has ended.

        Raises:
            ValueError: the storage cannot be opened.
        """
        self.plan, self.sweep, self.search = plan, plan.sweep, search
        self.study_name = f"{self.sweep.name}-{self.sweep.scale}-{plan.key}"
        self._profile = profile
        self.journal = store.optuna
        self.changed = changed
        self.rounds: list[Round] = []
        self._warned = False
        """True once it was said that a curve never came: what is so of one trial is so of all."""
        # The order matters: the transfer needs the best trial of the search, and the plan the
        # trials of both.
        self._open("", search)
        self._open_transfer()
        self._plan_trials()

    # Rounds

    def _open(self, label: str, search: Search) -> None:
        name = self.study_name + ("-transfer" if label else "")
        study = asking.open_study(search, name, self.journal)
        found = Round(label, search, study)
        self.rounds.append(found)
        for trial in study.get_trials(deepcopy=False):
            self._take_up(found, trial)

    def _open_transfer(self) -> None:
        """Once the search is over and has a best rate, check it under the other keys."""
        if self._transfer_is_due():
            first = self.rounds[0]
            best = asking.best_trials(first.study, first.search)[0]
            rate = float(best.params[first.search.learning_rate()])
            self._open("transfer ", first.search.transferred(rate))

    def _transfer_is_due(self) -> bool:
        first = self.rounds[0]
        wanted = len(self.rounds) == 1 and bool(first.search.transfer) and _is_over(first)
        return wanted and bool(asking.best_trials(first.study, first.search))

    def _take_up(self, found: Round, trial: FrozenTrial) -> None:
        """Plan a trial of the study, which this process or one before it asked for."""
        found.asked += 1
        try:
            name = found.name(trial.number)
            # A trial that was recorded keeps its config, whatever this code makes of its params.
            # With the blank: `100 ` is no prefix of `1000 `.
            recorded = (t.trial for t in self.plan.trials if t.trial.name.startswith(f"{name} "))
            known = next(recorded, None)
            found.trials[trial.number] = known or found.search.trial(name, trial.params)
        except ValueError as error:
            # The space may hold points that make no model, such as a width that heads do not
            # divide: such a trial fails at once, and the sampler learns of it.
            if not trial.state.is_finished():
                self._end(found, trial.number, TrialState.FAIL, {asking.REASON: str(error)})
            return
        if not trial.state.is_finished():
            found.open.add(trial.number)
        found.spent += float(trial.user_attrs.get(SPENT, 0.0))

    def _plan_trials(self) -> None:
        """Add the trials that are not planned yet; those that are keep their keys."""
        trials = [t for one in self.rounds for _, t in sorted(one.trials.items())]
        planned = {trial.trial.name: trial for trial in self.plan.trials}
        # Planned alone: to plan a thousand trials again for each new one would take longer than a
        # small trial.
        new = tuple(trial for trial in trials if trial.name not in planned)
        added = make_plan(self.sweep, Expansion(new, ()))
        planned |= {trial.trial.name: trial for trial in added.trials}
        # The recorded stage wins over the same key planned anew; sorted, because each stage must
        # come after its inputs.
        stages = {**added.stages, **self.plan.stages}
        order = list(STAGES)
        self.plan = replace(
            self.plan,
            trials=tuple(planned[trial.name] for trial in trials),
            stages=dict(sorted(stages.items(), key=lambda pair: order.index(pair[1].stage))),
        )

    def planned(self) -> Iterator[tuple[Round, int, PlannedTrial]]:
        """List all trials of the plan with their round and number."""
        numbers = ((one, n) for one in self.rounds for n in sorted(one.trials))
        # `_plan_trials` puts the trials into this very order; `strict` holds it to that.
        for (one, number), trial in zip(numbers, self.plan.trials, strict=True):
            yield one, number, trial

    def left(self) -> frozenset[str]:
        """Find stages that only trials need which are over."""
        needed: set[str] = set()
        over: set[str] = set()
        for one, number, trial in self.planned():
            (needed if number in one.open else over).update(trial.stages.values())
        # Trials share stages: one that an open trial needs goes on.
        return frozenset(over - needed)

    def pruned(self) -> dict[str, str]:
        """Map the name of each pruned trial to the reason."""
        told = ((p, one.study.get_trials(deepcopy=False)[n]) for one, n, p in self.planned())
        return {
            planned.trial.name: str(trial.user_attrs.get(asking.REASON, ""))
            for planned, trial in told
            if trial.state == TrialState.PRUNED
        }

    @property
    def is_over(self) -> bool:
        """Tell whether there is nothing to ask for and nothing under way."""
        return all(map(_is_over, self.rounds)) and not self._transfer_is_due()

    def told(self) -> list[str]:
        """Write a line for each trial that has ended."""
        return [
            f"trial {one.name(trial.number)}: {trial.state.name.lower()}"
            for one in self.rounds
            for trial in one.study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]

    # Steering

    def steer(self, runner: Runner) -> bool:
        """Look at all open trials, ask for more; tells whether any is open."""
        # A list, because the plan changes while trials end.
        for one, number, trial in list(self.planned()):
            if number in one.open and self._look(runner, one, number, trial):
                runner.give_up(self._unfinished(runner.progress))
                self.changed(self)
        self._ask(runner)
        return any(one.open for one in self.rounds)

    def _unfinished(self, progress: Progress) -> list[str]:
        return [key for key in self.left() if progress.states[key] != "COMPLETE"]

    def _ask(self, runner: Runner) -> None:
        """Ask for as many trials as are to be under way at once."""
        # Before asking: the last trial of the search may just have ended.
        self._open_transfer()
        current = self.rounds[-1]
        before = current.asked
        while len(current.open) < current.search.at_once and not current.exhausted:
            self._take_up(current, asking.ask(current.search, current.study))
        if current.asked > before:
            self._plan_trials()
            # Then taken up: a new trial may need stages that were given up with an earlier one.
            runner.grow(self.plan)
            open_ = [t for one, n, t in self.planned() if n in one.open]
            runner.take_up({key for trial in open_ for key in trial.stages.values()})
            self.changed(self)

    def _look(self, runner: Runner, one: Round, number: int, trial: PlannedTrial) -> bool:
        """Tell whether a trial has ended; its curve is read before anything that came after it."""
        progress = runner.progress
        # Pruning before completion: both may be true when a look comes late, and the decision must
        # not depend on when it came.
        step = self._pruned_at(one, number, trial, progress.folders)
        if step is not None:
            metric = one.search.pruner.metric
            reason = f"{one.search.pruner.name}: {metric} at step {step}"
            notes = {asking.REASON: reason, STEP: step} | self._hours(one, trial, progress)
            return self._end(one, number, TrialState.PRUNED, notes)
        keys = trial.stages.values()
        failed = [key for key in keys if key in progress.failures]
        if failed:
            failure = progress.failures[failed[0]]
            if failure.kind == "cancelled":
                runner.stop()  # whoever cancels a stage of a search stops the search
                return False
            reason = f"{progress.plan.stages[failed[0]].stage}: {failure.message}"
            notes = {asking.REASON: reason} | self._hours(one, trial, progress)
            return self._end(one, number, TrialState.FAIL, notes)
        if any(progress.states[key] != "COMPLETE" for key in keys):
            return False
        hours = self._hours(one, trial, progress)
        found = results(trial, progress.folders) | {GPU_HOURS: hours[GPU_HOURS]}
        objectives = one.search.objectives
        values = [found.get(name, math.nan) for name in objectives]
        # A failed trial, not a very bad value: the sampler would take a made-up number for a
        # measurement.
        bad = [name for name in objectives if not math.isfinite(found.get(name, math.nan))]
        if bad:
            reason = f"no finite {', '.join(bad)}; there are {', '.join(sorted(found))}"
            notes = {asking.REASON: reason} | hours
            return self._end(one, number, TrialState.FAIL, notes)
        unseen = _unseen(one, number)
        if unseen is not None and not self._warned:
            self._warned = True
            _log.warning("trial %s %s", one.name(number), unseen)
        notes = hours if unseen is None else {asking.REASON: unseen} | hours
        return self._end(one, number, TrialState.COMPLETE, notes, values)

    def _hours(self, one: Round, trial: PlannedTrial, progress: Progress) -> dict[str, Any]:
        """Measure what a trial cost, and what of it no other trial was charged for."""
        trials = one.study.get_trials(deepcopy=False)
        # In the trials' attributes and not in memory: what is charged survives the controller.
        paid = {key for other in trials for key in other.user_attrs.get(CHARGED, ())}
        own = {stage: key for stage, key in trial.stages.items() if key not in paid}
        # Stages that were complete before the search cost it nothing.
        begun = min(t.datetime_start.timestamp() for t in trials if t.datetime_start is not None)
        folders, profile = progress.folders, self._profile
        return {
            GPU_HOURS: device_hours(trial.stages, folders, profile),
            SPENT: device_hours(own, folders, profile, since=begun),
            CHARGED: sorted(own.values()),
        }

    def _pruned_at(
        self, one: Round, number: int, trial: PlannedTrial, folders: Mapping[str, StageFolder]
    ) -> int | None:
        """Report what is new of a trial's curve; the step at which it is pruned, if it is."""
        pruner = one.search.pruner
        key = trial.stages.get(pruner.stage)
        if pruner.name == "none" or key is None:
            return None
        most = training_steps(trial, pruner.stage)
        if number not in one.readers:
            one.readers[number] = SpoolReader(folders[key])
            # Only at the first look: within one process, `report` has said so itself.
            if asking.decided_before(one.search, one.study, number, most):
                return one.study.get_trials(deepcopy=False)[number].last_step
        # A reader begins at the start of the curve; what the study has already is skipped.
        known = one.study.get_trials(deepcopy=False)[number].last_step or 0
        for step, value in curve(one.readers[number], pruner.metric):
            # The last step is left out: a trial that got there is complete, and pruning would save
            # nothing.
            looked_at = step % pruner.every == 0 and pruner.min_steps <= step < most
            if looked_at and step > known:
                if asking.report(one.search, one.study, number, step, value, most):
                    return step
                known = step
        return None

    def _end(
        self,
        one: Round,
        number: int,
        state: TrialState,
        notes: Mapping[str, Any],
        values: list[float] | None = None,
    ) -> bool:
        # Notes before the state: Optuna refuses attributes of finished trials, and a kill in
        # between leaves an open trial, which is looked at again.
        asking.explain(one.study, number, notes)
        asking.tell(one.study, number, state, values)
        one.open.discard(number)
        one.readers.pop(number, None)
        one.spent += float(notes.get(SPENT, 0.0))
        return True


def _unseen(one: Round, number: int) -> str | None:
    """Say that a trial's curve never came, so that nothing could prune it; None: it came."""
    pruner = one.search.pruner
    if pruner.name == "none" or one.study.get_trials(deepcopy=False)[number].intermediate_values:
        return None
    where = f"{pruner.stage} logged no {pruner.metric} at a multiple of {pruner.every} steps"
    return f"could not be pruned: {where} from step {pruner.min_steps} on"


def _is_over(one: Round) -> bool:
    return one.exhausted and not one.open


def curve(reader: SpoolReader, metric: str) -> Iterator[tuple[int, float]]:
    """Read what is new of a curve."""
    for line in reader.lines():
        for item in line.items:
            if isinstance(item, MetricPoint) and item.name == metric:
                yield item.step, item.value


def training_steps(trial: PlannedTrial, stage: str) -> int:
    """Look up how many steps a training stage of a trial takes."""
    training: TrainingConfig = getattr(trial.trial.config, str(STAGES[stage].model))
    return training.steps


def results(trial: PlannedTrial, folders: Mapping[str, StageFolder]) -> dict[str, float]:
    """Collect all scores of a trial's complete stages."""
    return merged_scores(folders[key].done() for key in trial.stages.values())


def device_hours(
    stages: Mapping[str, str],
    folders: Mapping[str, StageFolder],
    profile: Profile,
    since: float = 0.0,
) -> float:
    """Add up hours times devices that stages took, until now where one runs.

    Args:
        stages: stage -> key.
        folders: by key.
        profile: says how many devices a stage has.
        since: only attempts that started later, UNIX seconds.
    """
    total = 0.0
    for stage, key in stages.items():
        request = profile.request(stage)
        # A stage without GPU counts as one device: the budget then is in hours of a process.
        devices = max(1.0, request.gpus * request.processes)
        attempts = [a for a in folders[key].attempts() if a.started >= since]
        took = [a.ended - a.started for a in attempts if a.ended is not None]
        if attempts and attempts[-1].ended is None and folders[key].state() == "RUNNING":
            took.append(time.time() - attempts[-1].started)  # of a trial that is pruned now
        total += devices * sum(took) / 3600
    return total
