"""Seeds until decided: what the next round of a study adds to its plan.

A round is an ordinary launch. Once all stages of a plan are complete, its claims are judged; the
settings of claims that are undecided get one seed more, up to the sweep's limit. That is computed
from the results alone, so that whoever goes on after a kill, anywhere, adds the same seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gigatok.claims.claim import Claim
from gigatok.names import setting_name
from orchestration.costs.amounts import hours_text
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.budget import hours_spent, hours_unit, record_refusal
from orchestration.forecast.devices import Machines, machines
from orchestration.forecast.totals import add_up, to_run
from orchestration.launching.claimed import read_claimed
from orchestration.launching.launched import LaunchRequest, record_file
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from orchestration.sweep.definition import Expansion, Trial
from orchestration.sweep.settings.keys import SEED


@dataclass(frozen=True)
class Limit:
    """GPU hours that all rounds of a study may take together; core hours without GPU."""

    hours: float
    machine: Machines


@dataclass(frozen=True)
class Due:
    """Plan with the seeds that are due.

    Attributes:
        plan: to run next; the one that was asked about if nothing is due.
        claims: names of the claims that stay undecided because no seed of theirs fits the limit.
        refused: why it does not; None: nothing was refused.
    """

    plan: Plan
    claims: tuple[str, ...] = ()
    refused: str | None = None


def hours_limit(request: LaunchRequest, profile: Profile) -> Limit | None:
    """Read the limit of GPU hours of a launch; None: it has none."""
    if request.max_gpu_hours is None:
        return None
    return Limit(request.max_gpu_hours, machines(request.backend, request.jobs, profile))


def due_seeds(plan: Plan, store: Store, limit: Limit | None = None) -> Due:
    """Add the seeds that undecided claims call for, by what is complete, round after round.

    Where a whole round exceeds the limit, it is that of the claims that come first in the file.
    """
    while claims := _open_claims(plan, store):
        rounds = [_with_next_seed(plan, claims[:n]) for n in range(len(claims), 0, -1)]
        # What was begun within the limit is gone on with, whatever its stages turned out to take.
        begun = (one for one in rounds if record_file(store, one.sweep.name, one.key).exists())
        fitting = (one for one in rounds if limit is None or _excess(one, store, limit) is None)
        following = next(begun, None) or next(fitting, None)
        if following is None:
            assert limit is not None
            names = tuple(claim.name for claim in claims)
            return Due(plan, names, _refusal(names, _excess(rounds[-1], store, limit)))
        plan = following
    return Due(plan)


def record_refused(due: Due, store: Store) -> None:
    """Record for `status` that a round of seeds exceeds the limit, and which claims stay open."""
    assert due.refused is not None
    plan = due.plan
    scale, found = plan.sweep.scale, [due.refused]
    record_refusal(store, plan.sweep.name, plan.key, scale, found, due.claims)


def added_line(before: Plan, after: Plan) -> str:
    """Say which seeds a round adds."""
    known = {trial.trial.name for trial in before.trials}
    new = [trial.trial.name for trial in after.trials if trial.trial.name not in known]
    return f"undecided claims: {len(new)} trials more ({', '.join(new)})"


def with_seeds(plan: Plan, wanted: Mapping[str, int]) -> Plan:
    """Extend a plan until settings have so many seeds; those of others stay as they are."""
    trials = tuple(_extended(plan, wanted))
    cells = Expansion(trials, plan.excluded, plan.dropped, plan.repeated)
    return make_plan(plan.sweep, cells)


def seed_counts(plan: Plan) -> Counter[str]:
    """Count the seeds of each setting."""
    return Counter(setting_name(trial.trial.name) for trial in plan.trials)


def _open_claims(plan: Plan, store: Store) -> list[Claim]:
    """Find the claims that another seed may decide; none while stages are left."""
    looks = plan.sweep.looks
    if looks is None:
        return []
    progress: Progress = survey(plan, store)
    if progress.reused < plan.stages.keys():
        return []
    # Imported here: statistics take a tenth of a second, which other plans need not wait for.
    from gigatok.claims.verdicts import verdicts
    from orchestration.launching.claim_results import results_of

    claims, counts = plan.sweep.claims, seed_counts(plan)
    judged = verdicts(claims, results_of(progress, {c.metric for c in claims}), looks)
    return [
        verdict.claim
        for verdict in judged
        if verdict.decision == "undecided"
        and verdict.claim.decided_by_seeds
        and min(counts[setting] for setting in verdict.claim.settings) < looks.at_most
    ]


def _with_next_seed(plan: Plan, claims: list[Claim]) -> Plan:
    """Give the settings of claims one seed more, up to the sweep's limit."""
    counts, looks = seed_counts(plan), plan.sweep.looks
    assert looks is not None
    settings = dict.fromkeys(setting for claim in claims for setting in claim.settings)
    return with_seeds(plan, {s: min(counts[s] + 1, looks.at_most) for s in settings})


def _extended(plan: Plan, wanted: Mapping[str, int]) -> Iterator[Trial]:
    """List the trials of a plan, and behind the last of each setting its further ones."""
    counts, passed = seed_counts(plan), Counter[str]()
    for planned in plan.trials:
        trial = planned.trial
        yield trial
        setting = setting_name(trial.name)
        passed[setting] += 1
        if passed[setting] < counts[setting]:
            continue
        # Seeds of such a sweep are 0, 1, 2, ...
        for seed in range(counts[setting], wanted.get(setting, 0)):
            config = trial.config.model_copy(update={"seed": seed})
            name = f"{setting} {SEED}={seed}".strip()
            yield replace(trial, name=name, config=config, axes={**trial.axes, SEED: seed})


# The limit of all rounds


def _excess(plan: Plan, store: Store, limit: Limit) -> str | None:
    """Say by which sum a round exceeds the limit; None: it does not."""
    progress = survey(plan, store, lambda stage: limit.machine(stage).site)
    # Since the first launch with these claims: what was there before has cost them nothing.
    begun = min((one.at for one in read_claimed(plan, store)), default=0.0)
    spent = hours_spent(progress, limit.machine, begun)
    needed = add_up(limit.machine, to_run(progress)).hours
    unit = hours_unit(progress, limit.machine)
    given = f"--max-gpu-hours {limit.hours:g}"
    if needed is None:
        # As at the start of a launch: a limit would be a promise that nobody can keep.
        return f"{given}: nobody knows what another seed takes"
    if spent + needed <= limit.hours:
        return None
    total = hours_text(spent + needed)
    return f"{given}: {hours_text(spent)} spent + {hours_text(needed)} for a seed = {total} {unit}"


def _refusal(claims: tuple[str, ...], excess: str | None) -> str:
    verb = "stays" if len(claims) == 1 else "stay"
    return f"{', '.join(claims)} {verb} undecided for want of budget, {excess}"
