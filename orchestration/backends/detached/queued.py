"""Schedulers' answers about queued stages: one question for all, remembered for some seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from gigatok.config.fields.base import UnixTime
from orchestration.backends import connect_detached
from orchestration.backends.detached.journal import Journal
from orchestration.runs.files import write_atomic
from orchestration.runs.records import Record, read_record, to_json
from orchestration.runs.state import Store

FRESH_SECONDS = 10.0
"""So old an answer is used again, whoever asked: schedulers suffer from `watch`."""


@dataclass(frozen=True)
class Queued:
    """Job of a stage that was handed to a scheduler.

    Attributes:
        job: the scheduler's handle.
        state: in the scheduler's words; None: it does not answer, or does not know the job.
        why: why it waits, in words; None: for its inputs.
    """

    job: str
    state: str | None
    why: str | None


Answer = dict[str, tuple[str, str | None]]
"""Handle -> state and reason, as in `JobStatus`."""


class KeptAnswer(Record):
    """Newest answer of a scheduler, for whoever asks next."""

    time: UnixTime
    jobs: Answer


def queued_stages(store: Store, keys: Iterable[str]) -> dict[str, Queued]:
    """Find the jobs of those stages that were handed to a scheduler."""
    keys = set(keys)
    found: dict[str, Queued] = {}
    for backend, journal in Journal(store).by_backend().items():
        jobs = {key: str(job.handle) for key, job in journal.jobs().items() if key in keys}
        answer = _ask(backend, store) if jobs else None
        found |= {key: _queued(handle, answer) for key, handle in jobs.items()}
    return found


def _queued(handle: str, answer: Answer | None) -> Queued:
    if answer is None:
        return Queued(handle, None, f"job {handle}; the scheduler does not answer here")
    if handle not in answer:
        return Queued(handle, None, f"job {handle} is not in the queue any more")
    state, reason = answer[handle]
    if reason is None:  # `status` names the stages that it waits for, which says more
        return Queued(handle, state, None)
    why = f"job {handle}: {state.lower()}" + (f", {reason}" if reason else "")
    return Queued(handle, state, why)


def _ask(backend: str, store: Store) -> Answer | None:
    cache = store.root / "journal" / f".{backend}-queue"
    kept = read_record(cache, KeptAnswer)
    # Not negative: the clock of the host that wrote it may be ahead, and such an answer would stay
    # fresh for as long.
    if kept is not None and 0 <= time.time() - kept.time < FRESH_SECONDS:
        return kept.jobs
    statuses = connect_detached(backend, store).listed()
    if statuses is None:
        return None
    jobs = {handle: (status.state, status.reason) for handle, status in statuses.items()}
    # Losing this file to a power cut costs one question.
    write_atomic(cache, to_json(KeptAnswer(time=time.time(), jobs=jobs)), durable=False)
    return jobs
