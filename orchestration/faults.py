"""What went wrong, as a kind, and what follows from it."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import Literal

from orchestration.state import Failure, StageFolder

Kind = Literal["exception", "killed", "non_finite", "out_of_memory"]

ATTEMPTS_WITHOUT_PROGRESS = 3
"""How often in a row a stage may end without getting further before it counts as failed."""


@dataclass
class Tries:
    """Ends without completion, in a row and without a newer checkpoint, of one stage."""

    count: int = 0
    step: int = -1

    def record(self, checkpoint_step: int) -> None:
        """Count one end."""
        self.count = 1 if checkpoint_step > self.step else self.count + 1
        self.step = max(self.step, checkpoint_step)

    @property
    def exhausted(self) -> bool:
        """Whether trying again is pointless."""
        return self.count >= ATTEMPTS_WITHOUT_PROGRESS


def from_exception(error: BaseException, attempt: int) -> Failure:
    """The failure that an exception in a stage means."""
    kind: Kind = "exception"
    name = type(error).__name__
    if name == "NonFiniteLoss":
        kind = "non_finite"
    elif isinstance(error, MemoryError) or name == "OutOfMemoryError":
        kind = "out_of_memory"
    text = "".join(traceback.format_exception(error))
    return Failure(
        kind=kind,
        message=f"{name}: {error}",
        traceback=text,
        attempt=attempt,
        time=time.time(),
    )


def from_exit(folder: StageFolder, exit_code: int | None) -> Failure:
    """The failure of a worker that ended, more than once, without completing or saying why."""
    attempts = folder.attempts()
    how = "lost" if exit_code is None else f"exit code {exit_code}"
    if exit_code is not None and exit_code < 0:
        how = f"signal {-exit_code}"
    return Failure(
        kind="killed",
        message=f"the worker ended without a result ({how}), {ATTEMPTS_WITHOUT_PROGRESS} times "
        "in a row without getting further",
        traceback=None,
        attempt=attempts[-1].number if attempts else 0,
        time=time.time(),
    )
