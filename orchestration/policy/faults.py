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
| cancelled | the user cancelled it | fails, until it is resumed |

What is limited is the number of attempts in a row that bring no newer checkpoint. A host on which
workers were lost twice within a day is named by `bad_hosts`.
"""

from __future__ import annotations

import getpass
import re
import socket
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestration.costs import ceilings
from orchestration.runs.records import Record, UnixTime, append_lines, read_lines
from orchestration.runs.stage_records import Failure, Kind
from orchestration.runs.state import StageFolder, Store

if TYPE_CHECKING:
    from orchestration.backends.base import Ended
    from orchestration.policy.profile import Profile

ATTEMPTS_WITHOUT_PROGRESS: dict[Kind, int] = {
    "exception": 1,
    "non_finite": 2,
    "out_of_memory": 8,
    "preempted": 20,
    "node_lost": 5,
    "timed_out": 3,
    "killed": 3,
    "cancelled": 1,
}
"""How often in a row a stage may end like this without getting further before it has failed."""
IDENTICAL_EXCEPTIONS = 3
"""So many stages that fail with the same exception hold the sweep."""
EXIT_FAILED = 1
"""Of a worker that raised; if it left no failure, it did so before its attempt began."""
_NO_MEMORY = re.compile(
    r"can't allocate memory"  # torch's allocator of host memory
    r"|Cannot allocate memory|std::bad_alloc"  # fork and mmap, C++
    # oneDNN, whose scratch memory is allocated then; what it does not support fails before, and
    # its message goes on with "descriptor".
    r"|could not create a (primitive|memory object)(?! descriptor)"
    r"|CUDA error: out of memory|STATUS_ALLOC_FAILED"  # the driver, cuBLAS and cuDNN
)
"""Messages of libraries that ran out of memory and raise an error of no type of its own."""
LOSSES_OF_A_BAD_HOST, HOST_MEMORY_SECONDS = 2, 24 * 3600.0
"""A host that lost so many workers within that time is avoided."""


class LostHost(Record):
    """Line of `<runs>/lost_hosts.jsonl`: a machine on which a worker was lost."""

    host: str
    time: UnixTime
    kind: Kind
    stage: str


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
    _note_host(folder, ended, kind)
    tries = folder.tries().record(kind, folder.checkpoint_step())
    folder.write_tries(tries)
    count = tries.counts[kind]
    obstacle = None
    if count < profile.attempts(kind):
        obstacle = _shrink(folder, profile) if kind == "out_of_memory" else None
        if obstacle is None:
            folder.clear_failure()
            return None
    failure = folder.failure()
    if failure is None or failure.kind != kind:
        failure = _from_end(folder, ended, kind, count)
    failure = _explained(folder, failure, obstacle, count)
    folder.write_failure(failure)
    return failure


def kind_of(folder: StageFolder, ended: Ended) -> Kind:
    """The kind of an end without completion: the user's word, the worker's, the backend's."""
    if folder.cancelled_by() is not None:
        return "cancelled"
    failure = folder.failure()
    if failure is not None:
        return failure.kind
    if ended.reason is not None:
        return ended.reason
    attempts = folder.attempts()
    if attempts and attempts[-1].outcome == "interrupted" and ended.exit_code != EXIT_FAILED:
        return "preempted"
    return "killed"


def bad_hosts(store: Store) -> list[str]:
    """Hosts on which workers were lost repeatedly of late: better avoided."""
    since = time.time() - HOST_MEMORY_SECONDS
    losses = Counter(
        loss.host for loss in read_lines(store.lost_hosts, LostHost) if loss.time >= since
    )
    return sorted(host for host, count in losses.items() if count >= LOSSES_OF_A_BAD_HOST)


def hold(failures: Iterable[Failure], limit: int) -> str | None:
    """Why a sweep should start nothing new: stages that fail alike would go on to do so.

    Args:
        failures: of this launch.
        limit: so many identical exceptions hold.

    Returns:
        What to tell the user; None: go on. Exceptions are identical when they are of one type
        and come from one place in the code, whatever shapes and paths their messages name.
    """
    alike: dict[str, list[Failure]] = defaultdict(list)
    for failure in failures:
        if failure.kind == "exception":
            alike[_signature(failure)].append(failure)
    worst = max(alike.values(), key=len, default=[])
    if len(worst) < limit:
        return None
    return (
        f"held: {len(worst)} stages failed with the same exception: {worst[-1].message}\n"
        "Nothing new was started. Mend the cause, then `python -m orchestration resume SWEEP "
        "--failed`; or raise `hold_after` in the profile if these failures are unrelated."
    )


def hold_on_disk(folders: Iterable[StageFolder], limit: int, since: float) -> str | None:
    """`hold` by the failures that the stage folders of a plan tell, of attempts after `since`."""
    failures = (failure for folder in folders if (failure := folder.failure()) is not None)
    return hold((failure for failure in failures if failure.time >= since), limit)


def cancelled(who: str, attempt: int) -> Failure:
    """The failure of a stage that a user did not want any more."""
    return _failure("cancelled", f"cancelled by {who}", attempt)


def user() -> str:
    """Who runs this process, for the record of a cancellation."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # The user of a container may have no name.
        name = "unknown"
    return f"{name} on {socket.gethostname()}"


def from_exception(error: BaseException, attempt: int) -> Failure:
    """The failure that an exception in a stage means."""
    name = type(error).__name__
    return Failure(
        kind=_kind_of_exception(error),
        message=f"{name}: {error}",
        traceback="".join(traceback.format_exception(error)),
        attempt=attempt,
        time=time.time(),
    )


def _kind_of_exception(error: BaseException) -> Kind:
    names = {base.__name__ for base in type(error).__mro__}
    if "NonFiniteLoss" in names:
        return "non_finite"
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "out_of_memory"
    if isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(str(error)):
        return "out_of_memory"
    if "DistError" in names or (isinstance(error, RuntimeError) and "/gloo/" in str(error)):
        return "killed"  # another process of the stage is gone
    return "exception"


def _shrink(folder: StageFolder, profile: Profile) -> str | None:
    """Halve the micro-batch of the next attempt; or why that is not possible."""
    spec = folder.spec()
    if (refusal := ceilings.refusal(spec)) is not None:
        return refusal
    training = ceilings.training_of(spec)
    assert training is not None
    share = training.batch_size // profile.request(spec.stage).processes
    attempts = folder.attempts()
    used = attempts[-1].micro_batch if attempts else None
    size = min(share, used or folder.micro_batch() or training.micro_batch or share)
    if size < 2:
        return "the micro-batch is a single sample already"
    folder.write_micro_batch(size // 2)
    if attempts and folder.failure() is not None:
        # The process itself ran into it, not a limit on the host's memory that a request sets.
        ceilings.learn(folder, attempts[-1].provenance["device"], size // 2)
    return None


def _note_host(folder: StageFolder, ended: Ended, kind: Kind) -> None:
    """Remember a host that lost a worker; one that could not start is no fault of the host."""
    attempts = folder.attempts()
    host = ended.host or (attempts[-1].host if attempts else None)
    vanished = ended.exit_code is None or ended.exit_code < 0
    if host is None or not (kind == "node_lost" or (kind == "killed" and vanished)):
        return
    loss = LostHost(host=host, time=time.time(), kind=kind, stage=folder.name)
    append_lines(folder.store.lost_hosts, [loss])


def _signature(failure: Failure) -> str:
    """Type and place of an exception; its whole message where no place is known."""
    places = re.findall(r'File "(.+)", line (\d+), in', failure.traceback or "")
    kind = failure.message.partition(":")[0]
    return f"{kind} at {places[-1]}" if places else failure.message


def _explained(folder: StageFolder, failure: Failure, obstacle: str | None, count: int) -> Failure:
    """A failure with what was tried, and what the user can do."""
    added = ""
    if failure.kind == "out_of_memory":
        tried = obstacle or f"{count} times in a row, with ever smaller micro-batches"
        added = f"\nMemory ran out and {tried}; ask for more memory or a larger device"
    elif failure.kind == "non_finite" and count > 1:
        step = folder.checkpoint_step()
        start = f"the checkpoint of step {step}" if step else "the start, without a checkpoint"
        added = f"\nThe same again from {start}; lower the learning rate or clip gradients"
    return failure.model_copy(update={"message": failure.message + added})


def _from_end(folder: StageFolder, ended: Ended, kind: Kind, count: int) -> Failure:
    """The failure of a worker that ended without completing or saying why."""
    attempts = folder.attempts()
    number = attempts[-1].number if attempts else 0
    if kind == "cancelled":
        return cancelled(folder.cancelled_by() or "somebody", number)
    how = "lost" if ended.exit_code is None else f"exit code {ended.exit_code}"
    if ended.exit_code is not None and ended.exit_code < 0:
        how = f"signal {-ended.exit_code}"
    if ended.reason is not None:
        how = f"{ended.reason.replace('_', ' ')}, {how}"
    times = f", {count} times in a row without getting further" if count > 1 else ""
    return _failure(kind, f"the worker ended without a result ({how}){times}", number)


def _failure(kind: Kind, message: str, attempt: int) -> Failure:
    return Failure(kind=kind, message=message, traceback=None, attempt=attempt, time=time.time())
