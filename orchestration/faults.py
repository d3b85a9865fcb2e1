"""What went wrong, as a kind, and what follows from it; the same on every backend.

| kind | what it is | what follows |
|---|---|---|
| exception | the stage raised | fails at once; three identical ones hold the sweep |
| non_finite | a loss or gradient was not finite | once more from the last checkpoint, then fails |
| out_of_memory | the device's or the host's memory ran out | half the micro-batch, same identity |
| preempted | the scheduler or the user stopped it | goes on from its checkpoint |
| node_lost | its machine went away | goes on elsewhere |
| timed_out | its time was up | goes on from its checkpoint |
| killed | it ended without a result or an explanation | goes on from its checkpoint |

What is limited is the number of attempts in a row that bring no newer checkpoint.
"""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

from orchestration.state import Failure, Kind, StageFolder

if TYPE_CHECKING:
    from orchestration.backends.base import Ended
    from orchestration.profile import Profile

ATTEMPTS_WITHOUT_PROGRESS: dict[Kind, int] = {
    "exception": 1,
    "non_finite": 2,
    "out_of_memory": 8,
    "preempted": 20,
    "node_lost": 5,
    "timed_out": 3,
    "killed": 3,
}
"""How often in a row a stage may end like this without getting further before it has failed."""
IDENTICAL_EXCEPTIONS = 3
"""So many stages that fail with the same exception hold the sweep."""


def after_end(folder: StageFolder, ended: Ended, profile: Profile) -> Failure | None:
    """What follows from an attempt that did not complete its stage.

    Counts the attempt in the folder, and prepares the next one (a smaller micro-batch).

    Args:
        folder: the stage; nobody runs it any more.
        ended: what the backend says.
        profile: how often what is tried again.

    Returns:
        None: try again. A failure: give up; it is written into the folder.
    """
    kind = kind_of(folder, ended)
    tries = folder.tries().record(kind, folder.checkpoint_step())
    folder.write_tries(tries)
    count = tries.counts[kind]
    if count < profile.attempts(kind) and (kind != "out_of_memory" or _shrink(folder)):
        folder.clear_failure()
        return None
    failure = folder.failure()
    if failure is None:
        failure = _from_end(folder, ended, kind, count)
        folder.write_failure(failure)
    return failure


def kind_of(folder: StageFolder, ended: Ended) -> Kind:
    """The kind of an end without completion: what the worker says, then what the backend says."""
    failure = folder.failure()
    if failure is not None:
        return failure.kind
    if ended.reason is not None:
        return ended.reason
    attempts = folder.attempts()
    if attempts and attempts[-1].outcome == "interrupted":
        return "preempted"
    return "killed"


def _shrink(folder: StageFolder) -> bool:
    """Halve the micro-batch of the next attempt; whether that was possible."""
    config = folder.spec().config
    training = config.get("tokenizer") or config.get("generator") or {}
    size = folder.micro_batch() or training.get("micro_batch") or training.get("batch_size")
    if size is None or size < 2:
        return False
    folder.write_micro_batch(size // 2)
    return True


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


def _from_end(folder: StageFolder, ended: Ended, kind: Kind, count: int) -> Failure:
    """The failure of a worker that ended, more than once, without completing or saying why."""
    attempts = folder.attempts()
    how = "lost" if ended.exit_code is None else f"exit code {ended.exit_code}"
    if ended.exit_code is not None and ended.exit_code < 0:
        how = f"signal {-ended.exit_code}"
    if ended.reason is not None:
        how = f"{ended.reason.replace('_', ' ')}, {how}"
    return Failure(
        kind=kind,
        message=f"the worker ended without a result ({how}), {count} times "
        "in a row without getting further",
        traceback=None,
        attempt=attempts[-1].number if attempts else 0,
        time=time.time(),
    )
