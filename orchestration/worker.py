"""Process on the node: `python -m orchestration.worker STAGE_DIR` runs one stage.

Every backend starts this same command. It takes the stage's lease, writes heartbeats, spools the
metrics that the stage reports, and leaves DONE, FAILED.json or a checkpoint. Its exit code only
repeats what those files say.

Started several times with torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, and MASTER_ADDR
and MASTER_PORT or a file to meet through), the processes run the stage together: rank 0 does all
of the above, the others only compute. For a stage that is not parallel they exit at once, and rank
0 runs it alone.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gigatok.plugins import PluginError
from gigatok.runtime.context import Interrupted, Ranks, Runtime, Scores
from gigatok.runtime.memory import keep_freed_memory
from gigatok.runtime.tracker import NullTracker, Tracker
from gigatok.stages import STAGES
from orchestration.costs import calibration, ceilings
from orchestration.heart import EXIT_BUSY, Heart
from orchestration.policy import faults
from orchestration.runs import provenance
from orchestration.runs.holder import LeaseHolder, LeaseLost, acquire, hash_outputs
from orchestration.runs.stage_records import Attempt, Done
from orchestration.runs.state import AttemptFolder, StageFolder
from orchestration.runs.used_plugins import load_used
from orchestration.tracking.spool import SpoolWriter

# 130 is a shell's code for SIGINT.
EXIT_FAILED, EXIT_INTERRUPTED = faults.EXIT_FAILED, 130
THREADS_VARIABLE = "GIGATOK_THREADS"


def main(stage_dir: str) -> int:
    """Run the stage of a folder once; returns the exit code."""
    # First of all: if the launcher dies during the imports below, its death must be noticed.
    launcher_lives = _watch_launcher()
    stop = threading.Event()
    _stop_on_signals(stop)
    folder = StageFolder.at(Path(stage_dir).resolve())
    ranks = Ranks.from_environment()
    try:
        # Before the stage is looked up: one of them may bring it.
        load_used(folder.spec().plugins, folder.store)
    except PluginError as error:
        return _refuse(folder, ranks, error)
    if ranks.world > 1 and not STAGES[folder.spec().stage].parallel:
        if ranks.rank > 0:
            return 0
        ranks = Ranks()
    with _together(folder, ranks) as announce:
        if ranks.rank > 0:
            return _follow(folder, ranks, announce(0), announce(0), stop)
        try:
            return _lead(folder, ranks, announce, stop, launcher_lives)
        except LeaseLost as lost:
            print(lost, file=sys.stderr, flush=True)
            return EXIT_BUSY


def _refuse(folder: StageFolder, ranks: Ranks, error: PluginError) -> int:
    """Record that this node cannot run the stage."""
    print(error, file=sys.stderr, flush=True)
    # As in `_claim`: there is no attempt, and another worker may run the stage, or have run it.
    if ranks.rank == 0 and not _is_anothers(folder):
        folder.write_failure(faults.from_exception(error, 0))
    return EXIT_FAILED


@contextmanager
def _together(folder: StageFolder, ranks: Ranks) -> Iterator[Callable[[int], int]]:
    """Join the other processes; yields a call that sends them a number of rank 0 and waits."""
    if ranks.world == 1:
        yield lambda number: number
        return
    from gigatok.runtime import distributed

    with ExitStack() as stack:
        try:
            stack.enter_context(distributed.process_group(ranks))
        except Exception as error:
            # The others wait in vain and are killed: only this process knows the cause.
            _fail_without_attempt(folder, error)
            raise
        yield distributed.from_main


def _lead(
    folder: StageFolder,
    ranks: Ranks,
    announce: Callable[[int], int],
    stop: threading.Event,
    launcher_lives: Callable[[], bool],
) -> int:
    """Run the stage as the process that holds the lease.

    Sends the other processes the attempt's number and the micro-batch; 0 stands for none.
    """
    # The other processes wait for two announcements, whether there is an attempt or not.
    holder = _claim(folder)
    if holder is None:
        announce(0)
        announce(0)
        cancelled = folder.cancelled_by() is not None
        return EXIT_INTERRUPTED if cancelled else _nothing_to_do(folder)
    # Before the heart starts: all that any thread prints belongs into the attempt's log.
    redirect_output(folder.log(holder.lease.attempt))
    heart = Heart(holder, stop, launcher_lives)
    heart.start()
    try:
        attempt = _begin(folder, ranks, holder)
        announce(attempt.number)
        announce(attempt.micro_batch or 0)
        return _run_attempt(folder, ranks, holder, attempt, heart, stop)
    except Exception as error:
        _give_up(holder, error)
        raise


def _give_up(holder: LeaseHolder, error: Exception) -> None:
    """Record an error outside the stage itself, such as a full disk before or after its run.

    Raises:
        LeaseLost: another worker holds the stage. It may have removed this attempt's folder and
            so caused the error; nothing of this attempt is kept.
    """
    try:
        if not isinstance(error, LeaseLost):
            holder.fail(faults.from_exception(error, holder.lease.attempt))
            return
    except LeaseLost as lost:
        error = lost
    holder.discard()
    raise error


def _claim(folder: StageFolder) -> LeaseHolder | None:
    """Take the lease; None if the stage is cancelled, complete, or run by another worker."""
    if folder.cancelled_by() is not None:
        return None
    try:
        return acquire(folder)
    except Exception as error:
        if _is_anothers(folder):
            return None  # this worker slept, and its successor removed what it had begun
        _fail_without_attempt(folder, error)
        raise


def _fail_without_attempt(folder: StageFolder, error: Exception) -> None:
    """Record an error before an attempt began: nobody else would learn why none ever starts."""
    folder.write_failure(faults.from_exception(error, 0))
    # Another worker may have taken the stage since: its stage must not look failed.
    if _is_anothers(folder):
        folder.clear_failure()


def _is_anothers(folder: StageFolder) -> bool:
    lease = folder.lease()
    return folder.is_complete() or (lease is not None and lease.is_alive())


def _begin(folder: StageFolder, ranks: Ranks, holder: LeaseHolder) -> Attempt:
    """Prepare the attempt's folder, and record that the attempt runs."""
    # Before `first_step` below is read, which counts the checkpoints that were taken over.
    holder.inherit()
    where = provenance.collect()
    attempt = Attempt(
        number=holder.lease.attempt,
        host=holder.lease.host,
        pid=holder.lease.pid,
        started=time.time(),
        first_step=folder.checkpoint_step(),
        micro_batch=_micro_batch(folder, where["device"]),
        threads=_threads(),
        processes=ranks.world,
        startup_seconds=provenance.process_seconds(),
        provenance=where,
    )
    # Within the attempt, here and at its end: what waited longer than it ran would have no time.
    provenance.count_waiting()
    holder.record(attempt)
    return attempt


def _micro_batch(folder: StageFolder, device: str) -> int | None:
    """Return the samples per forward pass, if memory ran out here or for an equal model before."""
    known = [n for n in (folder.micro_batch(), ceilings.ceiling(folder, device)) if n is not None]
    return min(known, default=None)


def _threads() -> int:
    # One thread unless the backend says more: several stages share the cores of a machine.
    return int(os.environ.get(THREADS_VARIABLE, "1"))


def _follow(
    folder: StageFolder, ranks: Ranks, attempt: int, micro_batch: int, stop: threading.Event
) -> int:
    """Compute along with rank 0, which runs this attempt; an error ends this process."""
    if attempt == 0:
        return _nothing_to_do(folder)
    redirect_output(folder.log(attempt, ranks.rank))
    try:
        work = folder.work(attempt)
        _run_stage(folder, work, ranks, micro_batch or None, NullTracker(), stop)
    except Interrupted as interruption:
        print(interruption, flush=True)
        return EXIT_INTERRUPTED
    except BaseException as error:
        # Written before this process ends: rank 0 will only see a broken connection. But a
        # successor's attempt may run by now, and this error is not its failure.
        lease = folder.lease()
        if lease is not None and lease.attempt == attempt:
            used = folder.spec().plugins
            folder.write_failure(faults.from_exception(error, attempt, used))
        raise
    return 0


def _nothing_to_do(folder: StageFolder) -> int:
    return 0 if folder.done_file.exists() else EXIT_BUSY


def _run_attempt(
    folder: StageFolder,
    ranks: Ranks,
    holder: LeaseHolder,
    attempt: Attempt,
    heart: Heart,
    stop: threading.Event,
) -> int:
    spool = SpoolWriter(folder, attempt.number, heart.report)
    heart.sample_into(spool)
    try:
        scores = _run_stage(folder, holder.work, ranks, attempt.micro_batch, spool, stop)
    except Interrupted as interruption:
        print(interruption, flush=True)
        if (who := folder.cancelled_by()) is not None:
            holder.fail(faults.cancelled(who, attempt.number))
        return _end(folder, holder, heart, spool, attempt, "interrupted")
    except BaseException as error:
        # The launcher reads the record, people read the log, so the traceback goes to both.
        # If another process failed first, rank 0 only lost its connection: the first one counts.
        own = faults.from_exception(error, attempt.number, folder.spec().plugins)
        failure = folder.failure() or own
        print(own.traceback, file=sys.stderr, flush=True)
        if folder.spec().plugins:
            print(own.message, file=sys.stderr, flush=True)  # it names the plug-in
        holder.fail(failure)
        return _end(folder, holder, heart, spool, attempt, "failed")
    return _end(folder, holder, heart, spool, attempt, "complete", scores)


def _run_stage(
    folder: StageFolder,
    work: AttemptFolder,
    ranks: Ranks,
    micro_batch: int | None,
    tracker: Tracker,
    stop: threading.Event,
) -> Scores:
    # In this function, not at the top: a worker that finds nothing to do must not import torch.
    import torch

    from gigatok.runtime.devices import prepare_device

    spec = folder.spec()
    stage = STAGES[spec.stage]
    config = stage.config.model_validate(spec.config)
    torch.set_num_threads(_threads())
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare_device(device)
    runtime = Runtime(
        checkpoint_dir=work.checkpoints,
        device=device,
        ranks=ranks,
        micro_batch=micro_batch,
        should_stop=stop.is_set,
    )
    stages_root = folder.path.parent.parent
    inputs = {name: stages_root / path / "out" for name, path in spec.inputs.items()}
    return stage.run(config, inputs, work.out, tracker, runtime)


def _end(
    folder: StageFolder,
    holder: LeaseHolder,
    heart: Heart,
    spool: SpoolWriter,
    attempt: Attempt,
    outcome: Any,
    scores: Scores | None = None,
) -> int:
    """Make what is left durable, record how the attempt ended, stop the heart, free the lease.

    The heart beats until the outputs are flushed and hashed: on a shared file system that can take
    longer than a lease lasts.
    """
    heart.end_samples()
    # The spool before the record: whoever reads that the attempt ended finds all its metrics.
    spool.close()
    used = {
        "peak_memory_bytes": provenance.peak_memory(),
        "waited_seconds": provenance.waited_seconds(),
    }
    # The end is read last: what is waited for meanwhile belongs to the attempt as well.
    ends = {"ended": time.time(), "outcome": outcome}
    attempt = attempt.model_copy(update={**used, **ends})
    if scores is None:
        holder.record(attempt)
        heart.stop()
        holder.release()
        return EXIT_INTERRUPTED if outcome == "interrupted" else EXIT_FAILED
    done = _done(folder, holder.work, attempt, scores)
    holder.record(attempt, done_follows=True)
    heart.stop()
    holder.complete(done)
    # After completion, because the observation is a convenience: losing it loses no result.
    if (observation := calibration.observe(folder.spec(), attempt)) is not None:
        calibration.append_observations(folder.store, [observation])
    return 0


def _done(folder: StageFolder, work: AttemptFolder, attempt: Attempt, scores: Scores) -> Done:
    # Also flushes the outputs, which must happen before DONE is written.
    files = hash_outputs(work.out)
    earlier = [a for a in folder.attempts() if a.number != attempt.number]
    ends = [(a.started, a.ended) for a in [*earlier, attempt]]
    return Done(
        metrics=dict(scores.metrics),
        protocol=dict(scores.protocol),
        origin=dict(scores.origin),
        artifacts={name: size for name, (size, _) in files.items()},
        hashes={name: digest for name, (_, digest) in files.items()},
        finished=time.time(),
        seconds=sum(end - start for start, end in ends if end is not None),
        attempt=attempt.number,
    )


def redirect_output(log: Path) -> None:
    """Send all output of this process, including C libraries', to the attempt's log."""
    # What is buffered was printed before the attempt and belongs to the old output.
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    # A crash in a C extension then leaves the Python stack in the log.
    faulthandler.enable(file=2)


def _stop_on_signals(stop: threading.Event) -> None:
    # The handler only sets a flag: the stage finishes its step, saves a checkpoint and leaves.
    # SIGUSR2 is what SLURM is asked to send before the time limit.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.set())


def _watch_launcher() -> Callable[[], bool]:
    """Return a call that tells whether the launcher lives; a forked worker asks through a pipe."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        return launcher.is_alive
    # An orphan gets another parent (init or a subreaper), so a changed parent means it died.
    parent = os.getppid()
    return lambda: os.getppid() == parent


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m orchestration.worker STAGE_DIR")
    sys.exit(main(sys.argv[1]))
