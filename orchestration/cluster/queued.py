"""What a scheduler says about queued stages: one question for all, remembered for some seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestration.backends.slurm_queue import ask_squeue
from orchestration.cluster.journal import Journal
from orchestration.runs.files import write_atomic
from orchestration.runs.records import Record, UnixTime, read_record, to_json
from orchestration.runs.state import Store

FRESH_SECONDS = 10.0
"""So old an answer is used again, whoever asked: schedulers suffer from `watch`."""


@dataclass(frozen=True)
class Queued:
    """A stage's job.

    Attributes:
        job: the scheduler's handle.
        state: in the scheduler's words; None: it does not answer, or does not know the job.
        why: why it waits, in words; None: for its inputs.
    """

    job: str
    state: str | None
    why: str | None


Answer = dict[str, tuple[str, str]]
"""Handle -> state and reason."""


class KeptAnswer(Record):
    """The newest answer of the scheduler, for whoever asks next."""

    time: UnixTime
    jobs: Answer


def queued_stages(store: Store, keys: Iterable[str]) -> dict[str, Queued]:
    """The jobs of those stages that were handed to a scheduler."""
    journal = store.root / "journal"
    if not journal.is_dir():
        return {}
    jobs = Journal(store).jobs()
    mine = {key: str(jobs[key].handle) for key in keys if key in jobs}
    answer = _ask(journal / ".queue") if mine else None
    return {key: _queued(handle, answer) for key, handle in mine.items()}


def _queued(handle: str, answer: Answer | None) -> Queued:
    if answer is None:
        return Queued(handle, None, f"job {handle}; squeue does not answer here")
    if handle not in answer:
        return Queued(handle, None, f"job {handle} is not in the queue any more")
    state, reason = answer[handle]
    if reason == "Dependency":
        return Queued(handle, state, None)
    why = f"job {handle}: {state.lower()}" + (f", {reason}" if reason else "")
    return Queued(handle, state, why)


def _ask(cache: Path) -> Answer | None:
    kept = read_record(cache, KeptAnswer)
    if kept is not None and 0 <= time.time() - kept.time < FRESH_SECONDS:
        return kept.jobs
    statuses = ask_squeue()
    if statuses is None:
        return None
    jobs = {handle: (status.state, status.reason) for handle, status in statuses.items()}
    write_atomic(cache, to_json(KeptAnswer(time=time.time(), jobs=jobs)), durable=False)
    return jobs
