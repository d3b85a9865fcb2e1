"""Expected seeds and cost of a study that adds seeds until its claims are decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from gigatok.claims.claim import Claim
from gigatok.claims.power import Course
from gigatok.names import setting_name
from orchestration.costs.amounts import hours_text
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.budget import hours_unit
from orchestration.forecast.devices import Machines
from orchestration.forecast.totals import HOUR
from orchestration.launching.rounds import seed_counts, with_seeds
from orchestration.plan.graph import Plan

Open = Mapping[Claim, Course | None]
"""Undecided claims that seeds decide, and the course that each is expected to take, if known."""
Chances = Mapping[str, list[float]]
"""Setting of such a claim -> how likely each of its seeds is run, by number."""


def rounds_line(progress: Progress, machine: Machines, open_: Open) -> str:
    """Say how many seeds a setting is expected to get, and what all rounds cost from now on.

    Args:
        progress: of the plan as it is now.
        machine: on what stages run.
        open_: claims of unknown course are taken to get all seeds that they may.
    """
    plan, looks = progress.plan, progress.plan.sweep.looks
    assert looks is not None
    settings = dict.fromkeys(setting for claim in open_ for setting in claim.settings)
    if not settings:
        return "seeds until decided: no claim asks for more"
    # Of the plan with all seeds that there may be, each stage is as likely as its first seed.
    largest = survey(
        with_seeds(plan, dict.fromkeys(settings, looks.at_most)),
        progress.store,
        lambda stage: machine(stage).site,
    )
    unit = hours_unit(progress, machine)
    most = dict.fromkeys(settings, [1.0] * looks.at_most)
    at_most = f"{looks.at_most} seeds and {hours_text(_hours(largest, machine, most))} {unit}"
    unknown = ", ".join(claim.name for claim, course in open_.items() if course is None)
    if unknown:
        return f"seeds until decided: nothing is known yet of {unknown}; at most {at_most}"
    chances = {setting: _chances(plan, setting, open_) for setting in settings}
    seeds = sum(map(sum, chances.values())) / len(chances)
    hours = hours_text(_hours(largest, machine, chances))
    return (
        f"seeds until decided: expected are {seeds:.1f} seeds per setting and {hours} {unit} over "
        f"all rounds; at most {at_most}"
    )


def _chances(plan: Plan, setting: str, open_: Open) -> list[float]:
    """Compute how likely each seed of a setting is run: if any of its claims is open by then."""
    looks, there = plan.sweep.looks, seed_counts(plan)[setting]
    assert looks is not None
    courses = [course for claim, course in open_.items() if course and setting in claim.settings]

    def chance(seed: int) -> float:
        # A claim is open at the seeds that are there already, so that only later looks decide.
        passed = (1 - _share(one.reaches(seed), one.reaches(there)) for one in courses)
        return 1 - math.prod(passed)

    return [1.0 if n <= there else chance(n) for n in range(1, looks.at_most + 1)]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _hours(largest: Progress, machine: Machines, chances: Chances) -> float | None:
    """Add up the hours of stages, weighted with how likely they run; None: one is not known."""
    likely: dict[str, float] = defaultdict(float)
    for planned in largest.plan.trials:
        seeds = chances.get(setting_name(planned.trial.name))
        seed = planned.trial.config.seed
        for key in planned.stages.values():
            # A stage that seeds share runs with the first of them.
            likely[key] = max(likely[key], 1.0 if seeds is None else seeds[seed])
    total = 0.0
    for key, chance in likely.items():
        cost = largest.costs[key]
        if not largest.will_run(key) or cost.uncounted:
            continue
        if cost.seconds is None:
            return None
        total += chance * cost.seconds * machine(largest.plan.stages[key].stage).units / HOUR
    return total
