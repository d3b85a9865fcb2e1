"""Claims of a study with the moment when each was first launched, and what was known then.

`<runs>/sweeps/<sweep>/claims.jsonl` has a line for each claim, added when it is launched for the
first time. So a report can say of a claim that it was made before any of its results existed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection
from pathlib import Path

from gigatok.claims.claim import CLAIMED, Claim, Claimed, parse_claimed
from gigatok.names import CLAIMS_FILE, setting_name
from gigatok.stages import STAGES
from orchestration.plan.graph import Plan, PlannedTrial
from orchestration.runs.files import cut_torn_line, locked, read_if_there
from orchestration.runs.state import Store
from orchestration.runs.studies import study_folder
from orchestration.tracking.sweep_runs import Findings


def record_claims(plan: Plan, store: Store, complete: Collection[str]) -> tuple[Claimed, ...]:
    """Write down claims that are new, and return all of the plan with their moments.

    Args:
        plan: with its claims.
        store: the runs directory.
        complete: keys of the stages that are complete.
    """
    if not plan.sweep.claims:
        return ()
    path = _file(plan, store)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two launches at once must not date one claim twice.
    with locked(path.with_suffix(".lock")):
        path.touch()
        # What a launch that was killed had begun to write.
        cut_torn_line(path)
        known = _known(path)
        new = [
            Claimed(
                claim=claim,
                looks=plan.sweep.looks,
                identity=identity,
                at=time.time(),
                results=_results(claim, plan, complete),
            )
            for claim in plan.sweep.claims
            if (identity := _identity(claim, plan)) not in known
        ]
        with path.open("a", encoding="utf-8") as file:
            file.writelines(one.model_dump_json() + "\n" for one in new)
    return read_claimed(plan, store)


def read_claimed(plan: Plan, store: Store) -> tuple[Claimed, ...]:
    """Read when the claims of a plan were made; those that never were launched are left out."""
    known = _known(_file(plan, store))
    # Under the name that it has now.
    return tuple(
        known[identity].model_copy(update={"claim": claim})
        for claim in plan.sweep.claims
        if (identity := _identity(claim, plan)) in known
    )


def claims_found(claimed: Collection[Claimed]) -> Findings:
    """Make the file of a sweep's MLflow run that says what was claimed when; none without."""
    if not claimed:
        return Findings()
    return Findings(files={CLAIMS_FILE: CLAIMED.dump_json(tuple(claimed), indent=1)})


def _file(plan: Plan, store: Store) -> Path:
    return study_folder(store, plan.sweep.name) / "claims.jsonl"


def _known(path: Path) -> dict[str, Claimed]:
    lines = (read_if_there(path) or b"").splitlines()
    # A line that were skipped would date its claim anew.
    return {one.identity: one for one in parse_claimed(b"[%s]" % b",".join(lines), str(path))}


def _identity(claim: Claim, plan: Plan) -> str:
    said = claim.model_dump(mode="json", exclude={"name", "text"})
    looks = plan.sweep.looks
    # More looks are more chances: they are part of what was said beforehand.
    times = None if looks is None else looks.model_dump()
    text = json.dumps([plan.sweep.scale, times, said], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _results(claim: Claim, plan: Plan, complete: Collection[str]) -> int:
    """Count the trials of a claim's settings that have its metric already."""
    settings = set(claim.settings)
    mine = (trial for trial in plan.trials if setting_name(trial.trial.name) in settings)
    return sum(_has(trial, claim.metric, complete) for trial in mine)


def _has(trial: PlannedTrial, metric: str, complete: Collection[str]) -> bool:
    return any(
        key in complete and metric in STAGES[stage].scores(trial.trial.config)
        for stage, key in trial.stages.items()
    )
