"""Expected seeds and cost of a study that adds seeds until its claims are decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from gigatok.claims.power import Course
from gigatok.names import setting_name
from orchestration.costs.amounts import hours_text
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.budget import hours_unit
from orchestration.forecast.devices import Machines
from orchestration.forecast.totals import HOUR
from orchestration.launching.rounds import seed_counts, with_seeds
from orchestration.plan.graph import Plan

Chances = Mapping[str, list[float]]
"""Setting of an undecided claim -> how likely each of its seeds is run, by number."""


def rounds_line(progress: Progress, machine: Machines, courses: Mapping[str, Course]) -> str:
    """Say how many seeds a setting is expected to get, and what all rounds cost.

    Args:
        progress: of the plan as it is now; its own stages are counted unless they are complete.
        machine: on what stages run.
        courses: name of a claim -> its expected course; those of which nothing is known are left
            out, and get all seeds that they may.
    """
    plan, looks = progress.plan, progress.plan.sweep.looks
    assert looks is not None
    settings = _settings(plan)
    if not settings:
        return "no claim is decided by seeds: none is added"
    largest = with_seeds(plan, dict.fromkeys(settings, looks.at_most))
    sure = survey(largest, progress.store, lambda stage: machine(stage).site)
    unit = hours_unit(progress, machine)
    most = dict.fromkeys(settings, [1.0] * looks.at_most)
    at_most = f"{looks.at_most} seeds and {hours_text(_hours(sure, machine, most))} {unit}"
    unknown = [claim for names in settings.values() for claim in names if claim not in courses]
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        return f"seeds until decided: nothing is known yet of {names}; at most {at_most}"
    chances = {setting: _chances(plan, setting, courses) for setting in settings}
    seeds = sum(map(sum, chances.values())) / len(chances)
    hours = hours_text(_hours(sure, machine, chances))
    return (
        f"seeds until decided: expected are {seeds:.1f} seeds per setting and {hours} {unit} over "
        f"all rounds; at most {at_most}"
    )


def _settings(plan: Plan) -> dict[str, list[str]]:
    """Map the settings that may get seeds to the claims that want them."""
    found: dict[str, list[str]] = defaultdict(list)
    for claim in plan.sweep.claims:
        for setting in claim.settings if claim.decided_by_seeds else ():
            found[setting].append(claim.name)
    return found


def _chances(plan: Plan, setting: str, courses: Mapping[str, Course]) -> list[float]:
    """Compute how likely each seed of a setting is run: if any of its claims is open by then."""
    looks, there = plan.sweep.looks, seed_counts(plan)[setting]
    assert looks is not None
    open_ = [courses[name] for name in _settings(plan)[setting]]
    return [
        1.0 if seed <= there else 1 - math.prod(1 - one.reaches(seed) for one in open_)
        for seed in range(1, looks.at_most + 1)
    ]


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
