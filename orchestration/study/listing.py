"""Studies of a runs directory, each in a line: how far it is, and what it asks or has decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.launching.history import all_launches
from orchestration.launching.launched import LaunchedPlan
from orchestration.runs.state import State, Store
from orchestration.runs.studies import launched_names, study_folder
from orchestration.study.status import stage_states

ACTIVE: tuple[State, ...] = ("RUNNING", "FAILED", "WAITING")
"""States that a study as a whole has as soon as one of its stages does, the most urgent first."""


@dataclass(frozen=True)
class StudyLine:
    """Study at one scale, by its newest launch there.

    Attributes:
        trials: number of them.
        complete: trials of which every stage is complete.
        state: that of its most urgent stage, in lower case; `held` where gates keep all that wait.
        launched: UNIX seconds.
        answer: counts of verdicts; None: it claims nothing.
    """

    sweep: str
    scale: str
    trials: int
    complete: int
    state: str
    launched: float
    question: str
    answer: str | None


def list_studies(runs: str | Path = "runs") -> list[StudyLine]:
    """List the studies that were launched into a runs directory, the newest launch first."""
    store = Store(Path(runs))
    found = [_line(one, store) for name in launched_names(store) for one in _newest(store, name)]
    return sorted(found, key=lambda line: line.launched, reverse=True)


def _newest(store: Store, sweep: str) -> Iterable[LaunchedPlan]:
    """Find the newest launch at each scale: scales are studies of their own."""
    newest: dict[str, LaunchedPlan] = {}
    for launched in all_launches(store, sweep):
        newest.setdefault(launched.scale, launched)
    return newest.values()


def _line(launched: LaunchedPlan, store: Store) -> StudyLine:
    states = stage_states(launched, launched.folders(store))
    complete = [
        all(states[key] == "COMPLETE" for key in stages.values())
        for stages in launched.trials.values()
    ]
    return StudyLine(
        sweep=launched.sweep,
        scale=launched.scale,
        trials=len(launched.trials),
        complete=sum(complete),
        state=_state(launched, states, store),
        launched=launched.launched,
        question=launched.question,
        answer=_answer(launched, store),
    )


def _state(launched: LaunchedPlan, states: dict[str, State], store: Store) -> str:
    there = set(states.values())
    # A search that was only just launched has no stage yet.
    state = next((one for one in ACTIVE if one in there), "COMPLETE" if there else "WAITING")
    if state == "WAITING" and all(_holds(launched, states, store)):
        return "held"
    return state.lower()


def _holds(launched: LaunchedPlan, states: dict[str, State], store: Store) -> Iterator[bool]:
    """Tell of each waiting stage whether a gate keeps it from starting."""
    folders = launched.folders(store)
    return (folders[key].held() is not None for key, s in states.items() if s == "WAITING")


def _answer(launched: LaunchedPlan, store: Store) -> str | None:
    """Count the verdicts on what a study claims."""
    # Before its values are parsed, which takes as long as all the rest.
    if not (study_folder(store, launched.sweep) / "claims.jsonl").is_file():
        return None
    written = launched.values().sweep
    if not written.claims:
        return None
    # Statistics take a tenth of a second to import, which lists without claims need not wait for.
    from gigatok.claims.verdicts import verdicts
    from orchestration.launching.claim_results import results_of_launch

    results = results_of_launch(launched, store, {claim.metric for claim in written.claims})
    found = verdicts(written.claims, results, written.looks)
    counts = Counter(verdict.decision for verdict in found)
    said = ", ".join(f"{count} {decision}" for decision, count in counts.items())
    return f"{len(found)} claim{'s' * (len(found) > 1)}: {said}"
