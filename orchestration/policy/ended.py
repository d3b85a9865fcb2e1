"""End of a job as its backend saw it, before anybody judges what it means."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.runs.stage_records import Kind


@dataclass(frozen=True)
class Ended:
    """End of a job.

    Attributes:
        exit_code: of the worker; negative for a signal; None where nobody knows.
        reason: what the backend knows beyond that, such as `preempted`, `node_lost`,
            `timed_out` or `out_of_memory`; None: nothing.
        host: where it ran, if known.
    """

    # None, never 0, where a node was lost with the process: 0 would mean that the worker is done.
    exit_code: int | None
    reason: Kind | None = None
    host: str | None = None
