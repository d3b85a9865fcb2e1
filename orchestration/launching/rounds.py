"""Seeds until decided: what the next round of a study adds to its plan.

A round is an ordinary launch. Once all stages of a plan are complete, its claims are judged; the
settings of claims that are undecided get one seed more, up to the sweep's limit. That is computed
from the results alone, so that whoever goes on after a kill, anywhere, adds the same seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from gigatok.names import setting_name
from orchestration.execution.progress import Progress, survey
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import Expansion, Trial
from orchestration.sweep.settings.keys import SEED

HELPED_BY_SEEDS = ("difference", "equivalence", "order")
"""Kinds of claims that more seeds decide; trends and predictions are decided by sizes."""


def with_due_seeds(plan: Plan, store: Store) -> Plan:
    """Add the seeds that undecided claims call for, by what is complete; else return the plan."""
    if plan.sweep.looks is None:
        return plan
    while settings := _undecided(plan, store):
        trials = tuple(_with_next_seed(plan, settings))
        cells = Expansion(trials, plan.excluded, plan.dropped, plan.repeated)
        plan = make_plan(plan.sweep, cells)
    return plan


def added_line(before: Plan, after: Plan) -> str:
    """Say which seeds a round adds."""
    known = {trial.trial.name for trial in before.trials}
    new = [trial.trial.name for trial in after.trials if trial.trial.name not in known]
    return f"undecided claims: {len(new)} trials more ({', '.join(new)})"


def _undecided(plan: Plan, store: Store) -> set[str]:
    """Find the settings whose claims another seed may decide; none while stages are left."""
    # Imported here: statistics take a tenth of a second, which other plans need not wait for.
    from gigatok.claims.verdicts import verdicts
    from orchestration.launching.outlook import results_of

    progress: Progress = survey(plan, store)
    if progress.reused < plan.stages.keys():
        return set()
    claims, looks = plan.sweep.claims, plan.sweep.looks
    assert looks is not None
    judged = verdicts(claims, results_of(progress, {c.metric for c in claims}), looks)
    open_ = (v.claim for v in judged if v.decision == "undecided")
    wanted = {s for c in open_ if c.kind in HELPED_BY_SEEDS for s in c.settings}
    return {s for s in wanted if _counts(plan)[s] < looks.at_most}


def _counts(plan: Plan) -> Counter[str]:
    return Counter(setting_name(trial.trial.name) for trial in plan.trials)


def _with_next_seed(plan: Plan, settings: set[str]) -> Iterator[Trial]:
    """List the trials of a plan, and behind the last of each setting its next one."""
    counts, passed = _counts(plan), Counter[str]()
    for planned in plan.trials:
        trial = planned.trial
        yield trial
        setting = setting_name(trial.name)
        passed[setting] += 1
        if setting in settings and passed[setting] == counts[setting]:
            # Seeds of such a sweep are 0, 1, 2, ...
            seed = counts[setting]
            config = trial.config.model_copy(update={"seed": seed})
            name = f"{setting} {SEED}={seed}".strip()
            yield replace(trial, name=name, config=config, axes={**trial.axes, SEED: seed})
