"""Faults: kinds of failure, and the policy for each; the same on every backend.

| kind | cause | policy | |---|---|---| | exception | the stage raised an error | fails at once;
three identical ones hold the sweep | | non_finite | a loss or gradient was not finite | one retry
from the last checkpoint, then fails | | out_of_memory | memory of the device or the host ran out |
retry with half the micro-batch | | preempted | the scheduler or the user stopped it | resumes from
its checkpoint | | node_lost | its machine was lost | resumes on another | | timed_out | its time
limit was reached | resumes from its checkpoint | | killed | it ended without a result or an
explanation | resumes from its checkpoint | | cancelled | the user cancelled it | fails, until it
is resumed |

The limit is on attempts in a row that make no newer checkpoint. `bad_hosts` lists hosts on which
workers were lost twice within a day.
"""

from __future__ import annotations

import re
import socket
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable

from gigatok.config.fields.base import UnixTime
from gigatok.plugins import place_in_plugin
from gigatok.text.command_lines import command
from orchestration.costs import ceilings
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile
from orchestration.runs.provenance import user_name
from orchestration.runs.records import Record, UsedPlugin, append_lines, read_lines
from orchestration.runs.stage_records import Failure, Kind
from orchestration.runs.state import StageFolder, Store

EXIT_FAILED = 1
"""Exit code of a worker that raised; without a record, it raised before its attempt began."""
_NO_MEMORY = re.compile(
    r"can't allocate memory"  # torch's allocator of host memory
    r"|Cannot allocate memory|std::bad_alloc"  # fork and mmap, C++
    # oneDNN, whose scratch memory is allocated then; what it does not support fails before, and
    # its message goes on with "descriptor".
    r"|could not create a (primitive|memory object)(?! descriptor)"
    r"|CUDA error: out of memory|STATUS_ALLOC_FAILED"  # the driver, cuBLAS and cuDNN
)
"""Messages of libraries that ran out of memory but raise no error type of their own."""
LOSSES_OF_A_BAD_HOST, HOST_MEMORY_SECONDS = 2, 24 * 3600.0
"""Losses of workers within this time after which a host is avoided."""


class LostHost(Record):
    """Line of `<runs>/lost_hosts.jsonl`: a machine on which a worker was lost."""

    host: str
    time: UnixTime
    kind: Kind
    stage: str


def after_end(folder: StageFolder, ended: Ended, profile: Profile) -> Failure | None:
    """Decide what follows from an attempt that did not complete its stage.

    Counts the attempt in the folder, and prepares the next one (a smaller micro-batch).

    Args:
        folder: the stage; no process runs it any more.
        ended: the end, as the backend reports it.
        profile: the number of attempts for each kind.

    Returns:
        None: try again. A failure: give up; it is written into the folder.
    """
    kind = kind_of(folder, ended)
    _note_host(folder, ended, kind)
    # Written before the decision: a launcher that is killed here does not lose the count.
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
    """Find the kind of an end without completion, by the user, the worker, then the backend."""
    # A cancelled stage looks preempted to its worker and lost to its backend.
    if folder.cancelled_by() is not None:
        return "cancelled"
    failure = folder.failure()
    if failure is not None:
        return failure.kind
    if ended.reason is not None:
        return ended.reason
    last = folder.last_attempt()
    # It saved and left on a signal; with exit code 1 it failed while it left.
    left = last is not None and last.outcome == "interrupted" and ended.exit_code != EXIT_FAILED
    return "preempted" if left else "killed"


def bad_hosts(store: Store) -> list[str]:
    """List hosts on which workers were lost repeatedly of late."""
    since = time.time() - HOST_MEMORY_SECONDS
    losses = Counter(
        loss.host for loss in read_lines(store.lost_hosts, LostHost) if loss.time >= since
    )
    return sorted(host for host, count in losses.items() if count >= LOSSES_OF_A_BAD_HOST)


def hold(failures: Iterable[Failure], limit: int) -> str | None:
    """Say why a sweep should start nothing new: stages that fail alike will go on failing.

    Args:
        failures: failures of this launch.
        limit: number of identical exceptions that hold.

    Returns:
        A message for the user; None: go on. Exceptions are identical if they have one type and
        come from one place in the code, whatever shapes and paths their messages name.
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
        "Nothing new was started. Fix the cause, then "
        f"`{command('orchestration', 'resume', 'SWEEP', '--failed')}`; or raise `hold_after` in "
        "the profile if these failures are unrelated."
    )


def hold_on_disk(folders: Iterable[StageFolder], limit: int, since: float) -> str | None:
    """Apply `hold` to the failures in the stage folders, of attempts after `since`."""
    failures = (failure for folder in folders if (failure := folder.failure()) is not None)
    return hold((failure for failure in failures if failure.time >= since), limit)


def cancelled(who: str, attempt: int) -> Failure:
    """Make the failure of a stage that a user cancelled."""
    return _failure("cancelled", f"cancelled by {who}", attempt)


def user() -> str:
    """Name the user who runs this process, for the record of a cancellation."""
    return f"{user_name()} on {socket.gethostname()}"


def from_exception(error: BaseException, attempt: int, used: Iterable[UsedPlugin] = ()) -> Failure:
    """Make the failure for an exception in a stage; it names the plug-in that may be at fault.

    Args:
        error: the exception.
        attempt: number of the attempt; 0: none had begun.
        used: plug-ins of the stage.
    """
    name = type(error).__name__
    # What a plug-in returned may fail in our code; then the reader has to know of all.
    names = ", ".join(plugin.name for plugin in used)
    blamed = place_in_plugin(error) or (f"the stage uses plug-in {names}" if names else "")
    return Failure(
        kind=_kind_of_exception(error),
        message=f"{name}: {error}" + (f" ({blamed})" if blamed else ""),
        traceback="".join(traceback.format_exception(error)),
        attempt=attempt,
        time=time.time(),
    )


def _kind_of_exception(error: BaseException) -> Kind:
    # By name: this module must not import torch to know its classes.
    names = {base.__name__ for base in type(error).__mro__}
    if "NonFiniteLoss" in names:
        return "non_finite"
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "out_of_memory"
    if isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(str(error)):
        return "out_of_memory"
    if "DistError" in names or (isinstance(error, RuntimeError) and "/gloo/" in str(error)):
        return "killed"  # the peer's end is the cause, this error its effect
    return "exception"


def _shrink(folder: StageFolder, profile: Profile) -> str | None:
    """Halve the micro-batch of the next attempt, or say why that is impossible."""
    spec = folder.spec()
    if (refusal := ceilings.refusal(spec)) is not None:
        return refusal
    training = ceilings.training_of(spec)
    assert training is not None
    share = training.batch_size // profile.request(spec.stage).processes
    last = folder.last_attempt()
    used = last.micro_batch if last else None
    # The size that failed, if known; the one learnt before; else the whole share of a process.
    size = min(share, used or folder.micro_batch() or training.micro_batch or share)
    if size < 2:
        return "the micro-batch is a single sample already"
    folder.write_micro_batch(size // 2)
    if last and folder.failure() is not None:
        # Only if the process itself ran out: a limit that a job's request sets says nothing about
        # the device, so other stages must not learn from it.
        ceilings.learn(folder, last.provenance["device"], size // 2)
    return None


def _note_host(folder: StageFolder, ended: Ended, kind: Kind) -> None:
    """Record a host that lost a worker, but not one on which a worker failed to start."""
    last = folder.last_attempt()
    host = ended.host or (last.host if last else None)
    vanished = ended.exit_code is None or ended.exit_code < 0
    if host is None or not (kind == "node_lost" or (kind == "killed" and vanished)):
        return
    loss = LostHost(host=host, time=time.time(), kind=kind, stage=folder.name)
    append_lines(folder.store.lost_hosts, [loss])


def _signature(failure: Failure) -> str:
    """Return type and place of an exception; the whole message if no place is known."""
    # The last frame: the first ones are the same for every stage.
    places = re.findall(r'File "(.+)", line (\d+), in', failure.traceback or "")
    kind = failure.message.partition(":")[0]
    return f"{kind} at {places[-1]}" if places else failure.message


def _explained(folder: StageFolder, failure: Failure, obstacle: str | None, count: int) -> Failure:
    """Add to a failure what was tried, and what the user can do."""
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
    """Make the failure of a worker that ended without completing or saying why."""
    last = folder.last_attempt()
    number = last.number if last else 0
    if kind == "cancelled":
        return cancelled(folder.cancelled_by() or "somebody", number)
    how = "lost" if ended.exit_code is None else f"exit code {ended.exit_code}"
    # `subprocess` reports death by a signal as its negative number.
    if ended.exit_code is not None and ended.exit_code < 0:
        how = f"signal {-ended.exit_code}"
    if ended.reason is not None:
        how = f"{ended.reason.replace('_', ' ')}, {how}"
    times = f", {count} times in a row without getting further" if count > 1 else ""
    return _failure(kind, f"the worker ended without a result ({how}){times}", number)


def _failure(kind: Kind, message: str, attempt: int) -> Failure:
    return Failure(kind=kind, message=message, traceback=None, attempt=attempt, time=time.time())
