"""Proposal of the next runs of a study: those that tell most about its claims, per GPU hour.

What may run are the sweep's own trials, more seeds of its settings, and settings between and
beyond them. Results are those of complete stages in the runs directory, whichever launch ran them;
hours are those that `plan` shows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gigatok.claims.claim import Claim
from gigatok.claims.design import AT_ONCE, Seeds, Step, choose, merged
from gigatok.claims.evidence import Results
from gigatok.names import setting_name
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.budget import calibrate_command, hours_unit
from orchestration.forecast.devices import Machines
from orchestration.forecast.totals import HOUR
from orchestration.launching.outlook import earlier_results
from orchestration.plan.graph import PlannedTrial, make_plan
from orchestration.runs.state import Store
from orchestration.study.prospects import Prospect, find_prospects
from orchestration.sweep.candidates import Entry, Read, entry_of, with_candidates
from orchestration.sweep.definition import Expansion, Sweep, Trial
from orchestration.sweep.settings.keys import SEED


@dataclass(frozen=True)
class Proposal:
    """Runs that are proposed, in their order, with what is expected of them.

    Attributes:
        sweep: as its file is, with the claims that were asked about.
        budget: hours that they may take.
        unit: of hours.
        prospects: claims that are undecided and that runs may settle.
        steps: the runs, whose states are in the order of the prospects.
        include: entries that the sweep needs for those that it has not.
        own: those that it has, as entries.
        notes: what no run was chosen for, and why.
    """

    sweep: Sweep
    budget: float
    unit: str
    prospects: tuple[Prospect, ...]
    steps: tuple[Step, ...]
    include: tuple[Entry, ...]
    own: tuple[Entry, ...]
    notes: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Sum the hours of all runs."""
        return sum(step.hours for step in self.steps)

    def data(self) -> dict[str, Any]:
        """Describe it as plain data; the width of no interval is null."""
        return {
            "sweep": self.sweep.name,
            "scale": self.sweep.scale,
            "budget": self.budget,
            "hours": self.hours,
            "hours_unit": self.unit,
            "claims": [_prospect_data(prospect) for prospect in self.prospects],
            "steps": [_step_data(step) for step in self.steps],
            "include": [dict(entry) for entry in self.include],
            "own": [dict(entry) for entry in self.own],
            "notes": list(self.notes),
        }


def _prospect_data(prospect: Prospect) -> dict[str, Any]:
    claim = prospect.goal.claim
    # The width is one of logarithms, and relative where no noise was measured.
    state = "half_width" if prospect.goal.narrows else "probability"
    more = {"state": state, "measured": prospect.measured, "predicted": prospect.predicted}
    return {"name": claim.name, "text": claim.text, **more}


def _step_data(step: Step) -> dict[str, Any]:
    return {
        "runs": {setting: list(seeds) for setting, seeds in step.runs.items()},
        "hours": step.hours,
        "before": [state if math.isfinite(state) else None for state in step.before],
        "after": [state if math.isfinite(state) else None for state in step.after],
    }


def propose(sweep: Sweep, read: Read, store: Store, machine: Machines, budget: float) -> Proposal:
    """Propose what to run next.

    Args:
        sweep: with the claims that are asked about.
        read: reads it with more entries of `include`.
        store: the runs directory, with results and with records of what stages took.
        machine: on what each kind of stage would run.
        budget: hours in all.

    Raises:
        ValueError: nothing is claimed, or nobody knows what the runs would take.
    """
    _check(sweep)
    over_sizes = [claim for claim in sweep.claims if not claim.decided_by_seeds]
    wider = with_candidates(sweep, over_sizes, read)
    trials = tuple(_with_more_seeds(wider))
    plan = make_plan(wider, Expansion(trials, ()))
    runs = _Runs(survey(plan, store, lambda stage: machine(stage).site), machine)
    earlier = list(earlier_results(runs.progress))
    prospects, notes = find_prospects(sweep, wider, earlier)
    goals = [prospect.goal for prospect in prospects]
    have = _results_of(wider.claims, earlier[0][1])
    spare = runs.spare(have, {s for goal in goals for s in goal.claim.settings})
    if left := [setting for setting, seeds in spare.items() if not seeds]:
        notes.append(f"nothing left to run, or uncalibrated: {', '.join(left)}")
    steps = merged(choose(goals, have, spare, runs.hours, budget), goals, have, runs.hours)
    include, own = _entries(sweep, runs, steps)
    unit = hours_unit(runs.progress, machine)
    return Proposal(
        sweep, budget, unit, tuple(prospects), tuple(steps), include, own, tuple(notes)
    )


def _check(sweep: Sweep) -> None:
    if sweep.search is not None:
        raise ValueError(f"{sweep.name} is a search, which chooses its next trials by itself")
    if not sweep.claims:
        raise ValueError(
            f"{sweep.name} claims nothing that runs could settle; write `claims` into the sweep, "
            "or ask about one: --claim 'psnr of the largest params.decoder is predicted by the "
            "smaller ones'"
        )


def _with_more_seeds(sweep: Sweep) -> Iterator[Trial]:
    """List the trials of the settings that claims are about, and further seeds of each."""
    settings = {setting for claim in sweep.claims for setting in claim.settings}
    last: dict[str, Trial] = {}
    for trial in sweep.expansion.trials:
        setting = setting_name(trial.name)
        if setting in settings:
            yield trial
            known = last.get(setting, trial)
            last[setting] = max(known, trial, key=lambda one: one.config.seed)
    # Seeds until decided are for a launch to add.
    for setting, trial in last.items() if sweep.looks is None else ():
        for seed in range(trial.config.seed + 1, trial.config.seed + 1 + AT_ONCE):
            config = trial.config.model_copy(update={"seed": seed})
            name = f"{setting} {SEED}={seed}".strip()
            yield replace(trial, name=name, config=config, axes={**trial.axes, SEED: seed})


def _results_of(claims: Iterable[Claim], results: Mapping[str, Results]) -> Seeds:
    """Find the seeds of each setting that have the metrics of all claims about it."""
    have: dict[str, frozenset[int]] = {}
    for claim in claims:
        for setting in claim.settings:
            seeds = frozenset(results.get(claim.metric, {}).get(setting, ()))
            have[setting] = have.get(setting, seeds) & seeds
    return have


class _Runs:
    """Trials that may run next, by setting and seed, and what they cost."""

    def __init__(self, progress: Progress, machine: Machines) -> None:
        self.progress = progress
        self.trials: dict[tuple[str, int], PlannedTrial] = {
            (setting_name(one.trial.name), one.trial.config.seed): one
            for one in progress.plan.trials
        }
        self._hours = {
            key: self._stage_hours(key, machine)
            for key in progress.plan.stages
            if progress.will_run(key)
        }

    def _stage_hours(self, key: str, machine: Machines) -> float | None:
        cost, stage = self.progress.costs[key], self.progress.plan.stages[key].stage
        # Sums of a plan leave such stages out, too.
        if cost.uncounted:
            return 0.0
        return None if cost.seconds is None else cost.seconds * machine(stage).units / HOUR

    def hours(self, new: Seeds) -> float:
        """Sum the hours of trials; a stage that they share runs once."""
        trials = (self.trials[s, seed] for s, seeds in new.items() for seed in seeds)
        keys = {key for trial in trials for key in trial.stages.values() if key in self._hours}
        return sum(self._hours[key] or 0.0 for key in keys)

    def spare(self, have: Seeds, settings: Collection[str]) -> dict[str, list[int]]:
        """List the seeds that settings may get: not run yet, and of known cost.

        Raises:
            ValueError: nobody knows the cost of any.
        """
        open_ = [
            (s, seed, [self._hours[key] for key in trial.stages.values() if key in self._hours])
            for (s, seed), trial in self.trials.items()
            if s in settings and seed not in have.get(s, ())
        ]
        found: dict[str, list[int]] = {setting: [] for setting in sorted(settings)}
        for setting, seed, hours in open_:
            # A trial that is complete without the metric will not have it, whatever one pays.
            if hours and None not in hours:
                found[setting].append(seed)
        if any(hours for *_, hours in open_) and not any(found.values()):
            raise ValueError(
                f"nobody knows what runs of {self.progress.plan.sweep.name} take here: "
                f"uncalibrated; run `{calibrate_command(self.progress)}` first"
            )
        return found


def _entries(
    sweep: Sweep, runs: _Runs, steps: Iterable[Step]
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Write runs as entries of `include`: those that the sweep lacks, then those that it has."""
    own = {(setting_name(t.name), t.config.seed) for t in sweep.expansion.trials}
    seeds: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for step in steps:
        for setting, new in step.runs.items():
            for seed in new:
                seeds[(setting, seed) in own, setting].append(seed)
    entries = {
        (is_own, setting): entry_of(runs.trials[setting, found[0]].trial, sorted(found))
        for (is_own, setting), found in seeds.items()
    }
    lacking = tuple(entry for (is_own, _), entry in entries.items() if not is_own)
    return lacking, tuple(entry for (is_own, _), entry in entries.items() if is_own)
