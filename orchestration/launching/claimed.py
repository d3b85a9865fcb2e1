"""Claims of a study with the moment when each was first launched, and what was known then.

`<runs>/sweeps/<sweep>/claims.jsonl` has a line for each claim, added when it is launched for the
first time. So a report can say of a claim that it was made before any of its results existed. A
claim that predicts its largest setting gets a second line, with the prediction, once the smaller
settings have run.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from gigatok.claims.claim import CLAIMED, Claim, Claimed, Extrapolation, parse_claimed
from gigatok.names import CLAIMS_FILE, setting_name
from orchestration.execution.progress import Progress
from orchestration.plan.graph import Plan
from orchestration.plan.held_out import PredictedSetting, held_out, stages_with
from orchestration.runs.files import cut_torn_line, locked, read_if_there
from orchestration.runs.state import StageFolder, Store
from orchestration.runs.studies import study_folder
from orchestration.tracking.sweep_runs import Findings, expectation


def has_news(progress: Progress, changed: Iterable[str]) -> bool:
    """Tell whether a stage that changed may call for a prediction."""
    predicts = any(claim.kind == "prediction" for claim in progress.plan.sweep.claims)
    return predicts and any(progress.states[key] == "COMPLETE" for key in changed)


def launch_findings(progress: Progress) -> Findings:
    """Write down what is new of a plan's claims, and make what its MLflow run says in advance."""
    claimed = claims_found(record_claims(progress))
    return replace(expectation(progress.costs), files=claimed.files)


def record_claims(progress: Progress) -> tuple[Claimed, ...]:
    """Write down claims and predictions that are new; returns all claims of the plan."""
    plan, store = progress.plan, progress.store
    if not plan.sweep.claims:
        return ()
    complete = {key for key, state in progress.states.items() if state == "COMPLETE"}
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
        known |= {one.identity: one for one in new}
        new += _predictions(progress, complete, known)
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
    return sum(any(key in complete for key in stages_with(one, claim.metric)) for one in mine)


# Predictions


def _predictions(
    progress: Progress, complete: Collection[str], known: Mapping[str, Claimed]
) -> Iterator[Claimed]:
    """Predict each largest setting whose smaller ones have all been measured just now."""
    for one in held_out(progress.plan):
        claimed = known[_identity(one.claim, progress.plan)]
        if claimed.prediction is None and all(key in complete for key in one.measured):
            prediction = _predict(one, progress)
            if prediction is not None:
                yield claimed.model_copy(update={"prediction": prediction})


def _predict(one: PredictedSetting, progress: Progress) -> Extrapolation | None:
    # Imported here: statistics take a tenth of a second, which other plans need not wait for.
    from gigatok.claims.evidence import extrapolate
    from gigatok.claims.verdicts import LEVEL
    from orchestration.launching.claim_results import results_of

    results = results_of(progress, [one.claim.metric])[one.claim.metric]
    found = extrapolate(one.claim, results)
    if found is None:
        return None
    low, high = found.interval(LEVEL)
    return Extrapolation(
        value=math.exp(found.size),
        low=math.exp(low),
        high=math.exp(high),
        at=time.time(),
        begun=any(_has_begun(progress.folders[key]) for key in one.first),
    )


def _has_begun(folder: StageFolder) -> bool:
    return folder.is_complete() or bool(folder.attempts())
