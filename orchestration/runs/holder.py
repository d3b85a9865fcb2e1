"""Right to run a stage: held by one worker at a time, and needed to publish anything.

A worker may sleep at any moment and wake long after another worker has taken over its stage (a
paused machine, a stalled file system, SIGSTOP). So each attempt works in a folder of its own, and
everything that it does outside that folder is guarded twice: the worker checks that it still holds
the lease, and it writes in a way that cannot undo what a successor has done since that check:

    lease.json    is linked into place, which fails if there is one
    heartbeats    go into the attempt's own folder
    out/          is renamed into place, which fails if there are outputs
    DONE          is linked into place, which fails if there is one
    FAILED.json   is checked again after it was written
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from gigatok.files.durable import sync, sync_tree
from orchestration.runs import leases
from orchestration.runs.files import create_atomic, locked, remove, set_aside, write_atomic
from orchestration.runs.leases import Beat, Lease
from orchestration.runs.records import to_json
from orchestration.runs.stage_records import Attempt, Done, Failure
from orchestration.runs.state import AttemptFolder, StageFolder


class LeaseLost(RuntimeError):
    """Loss of the lease: another worker took the stage over, so this one must stop."""


class LeaseHolder:
    """Holder of a stage's lease, with everything that only a holder may do."""

    def __init__(self, folder: StageFolder, lease: Lease) -> None:
        self.folder = folder
        self.lease = lease
        self._beats = 0

    @property
    def work(self) -> AttemptFolder:
        """Folder of this attempt."""
        return self.folder.work(self.lease.attempt)

    def renew(self, progress: Mapping[str, Any]) -> None:
        """Write the heartbeat.

        Raises:
            LeaseLost: another worker holds the lease, or has completed the stage.
        """
        self._check()
        self._beats += 1
        beat = Beat(beat=self._beats, heartbeat=time.time(), progress=dict(progress))
        try:
            # Not flushed to disk: after a power cut no worker lives whose heartbeat could matter.
            write_atomic(self.work.heartbeat, to_json(beat), durable=False)
        except FileNotFoundError as error:
            raise LeaseLost(f"{self.work.path} was cleared by a successor") from error

    def inherit(self) -> None:
        """Take over the checkpoints of earlier attempts, and remove their folders.

        A checkpoint's files never change once it has its final name, so they are hard-linked. All
        other files are copied, because their writer may wake and go on writing. Checkpoints are
        taken first: they claim no more progress than the other files hold.
        """
        earlier = [work for work in self.folder.works() if work.path != self.work.path]
        source = next((work for work in earlier if work.checkpoints.is_dir()), None)
        if source is not None:
            # Filled under a hidden name and renamed when it is whole: a worker that is killed
            # meanwhile leaves no half-filled `checkpoints/` that a later attempt would go on from.
            part = self.work.path / ".checkpoints"
            for file in _checkpoints_first(source.checkpoints):
                target = part / file.relative_to(source.checkpoints)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(file, target, immutable=_is_of_checkpoint(file, source.checkpoints))
            part.mkdir(parents=True, exist_ok=True)
            # Before the originals go: a power cut must not find neither of them.
            sync_tree(part)
            part.rename(self.work.checkpoints)
            sync(self.work.path)
            sync(self.work.path.parent)
        for work in earlier:
            shutil.rmtree(work.path, ignore_errors=True)

    def record(self, attempt: Attempt, *, done_follows: bool = False) -> None:
        """Create or replace the record of this attempt.

        Args:
            attempt: the record.
            done_follows: the stage is marked complete next. Should a power cut leave the record
                as it was before, DONE says how the attempt ended.

        Raises:
            LeaseLost: another worker holds the lease, or has completed the stage.
        """
        with self._guarded():
            self.folder.write_attempt(attempt, flush_name=not done_follows)

    def fail(self, failure: Failure) -> None:
        """Record why this attempt failed.

        Raises:
            LeaseLost: another worker holds the lease, or has completed the stage.
        """
        with self._guarded():
            self.folder.write_failure(failure)
            # The lock may have been broken while this worker slept, and a successor may have
            # completed the stage between the check and the write. A complete stage has no failure.
            if self.folder.is_complete():
                self.folder.clear_failure()

    def complete(self, done: Done) -> None:
        """Publish the outputs of this attempt as those of the stage, and mark the stage complete.

        `hash_outputs` must have flushed them to disk before. The lease is removed too.

        Raises:
            LeaseLost: another worker holds the lease, or has completed the stage.
        """
        with self._guarded():
            # Outputs before DONE: whoever sees DONE must find all outputs that it lists. Flushed
            # with it, as file systems keep the order in which names of one folder change; where
            # one does not, the next launch finds the outputs missing and runs the stage again.
            self._publish_outputs()
            self.folder.clear_failure()
            try:
                create_atomic(self.folder.done_file, to_json(done))
            except FileExistsError as error:
                raise LeaseLost(f"{self.folder.path.name} is complete already") from error
            self.drop_lease()
        for work in self.folder.works():
            shutil.rmtree(work.path, ignore_errors=True)

    def release(self) -> None:
        """Give the lease back without completing; checkpoints stay for the next attempt.

        Raises:
            LeaseLost: another worker holds the lease, or has completed the stage.
        """
        # Before the lease goes: afterwards the attempt's folder may belong to a successor.
        shutil.rmtree(self.work.out, ignore_errors=True)
        with self._guarded():
            self.drop_lease()

    def discard(self) -> None:
        """Remove everything that this attempt wrote, after its lease was lost."""
        shutil.rmtree(self.work.path, ignore_errors=True)

    def _publish_outputs(self) -> None:
        try:
            # A rename onto a folder that is not empty fails, so a successor's outputs stay
            # untouched.
            self.work.out.rename(self.folder.out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            self._check()
            # Nobody completed the stage: these are outputs of a worker that was killed between
            # its rename and DONE, or of a stage that is run again because they were damaged.
            self.folder.out.rename(self.work.path / "replaced")
            self.work.out.rename(self.folder.out)

    def drop_lease(self) -> None:
        """Remove the lease, unless another worker holds it."""
        current = self.folder.lease()
        if current is None or current.token == self.lease.token:
            (self.folder.path / "lease.json").unlink(missing_ok=True)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Hold the stage's lock, as the holder of its lease."""
        with _locked(self.folder):
            self._check()
            yield

    def _check(self) -> None:
        current = self.folder.lease()
        # By the random token: a successor may run on the same host under the same process id.
        if current is None or current.token != self.lease.token:
            who = "nobody" if current is None else f"attempt {current.attempt} on {current.host}"
            raise LeaseLost(f"{self.folder.path.name}: the lease was lost; {who} holds it now")
        if self.folder.is_complete():
            self.drop_lease()
            raise LeaseLost(f"{self.folder.path.name} was completed by another worker")


def acquire(folder: StageFolder) -> LeaseHolder | None:
    """Take the lease of a stage; None if the stage is complete or another worker runs it.

    Waits up to `LEASE_SECONDS` if the holder cannot be seen from here and may be dead.

    Raises:
        ValueError: `out/` is a link, through which nothing can be published.
    """
    if folder.is_complete():
        return None
    # Outside the lock: the wait for silence may take a minute, and others need the lock meanwhile.
    leases.watch_suspects([folder])
    with _locked(folder):
        names = (folder.path / "lease.json", folder.done_file)
        # Listed before the states are read: a record that appears afterwards is a successor's, and
        # must not be removed with the dead ones.
        spent = [path for path in names if os.path.lexists(path)]
        held = folder.lease()
        if folder.is_complete() or (held is not None and held.is_alive()):
            return None
        _refuse_linked_outputs(folder)
        for path in spent:  # a dead lease, or what a power cut left of a record
            _remove(path)
        return _take(folder)


def _take(folder: StageFolder) -> LeaseHolder | None:
    """Create the lease; exactly one of several workers that try succeeds."""
    holder = LeaseHolder(folder, Lease.mine(_new_work(folder)))
    try:
        # Not flushed: after a power cut no holder lives, and a torn lease counts as none.
        create_atomic(folder.path / "lease.json", to_json(holder.lease), durable=False)
    except FileExistsError:
        holder.discard()
        return None
    if folder.is_complete():
        # This worker slept since its last check, and a successor has completed the stage.
        holder.discard()
        holder.drop_lease()
        return None
    folder.clear_failure()
    return holder


def break_dead_lease(folder: StageFolder) -> None:
    """Remove a lease whose heartbeat this process has seen unchanged for too long.

    The worker that is started next then need not watch it for a whole `LEASE_SECONDS` again.
    """
    with _locked(folder):
        held = folder.lease()
        if held is not None and not held.is_alive():
            (folder.path / "lease.json").unlink(missing_ok=True)


def reopen_damaged(folder: StageFolder) -> None:
    """Reopen a complete stage whose outputs are damaged; an intact one stays complete."""
    with _locked(folder):
        # Checked under the lock, with hashes: another launch may have repaired it since.
        if folder.is_complete() and folder.damage(thorough=True) is not None:
            folder.done_file.unlink()
            # Flushed: a DONE that came back after a power cut would vouch for outputs that are
            # gone.
            sync(folder.path)


def leftovers_of_complete(folder: StageFolder) -> list[Path]:
    """List what a killed or late worker left beside DONE: folders of attempts and a dead lease."""
    found = [work.path for work in folder.works()]
    file = folder.path / "lease.json"
    if file.exists():
        lease = folder.lease()
        if lease is None or not lease.is_alive():
            found.append(file)
    return found


def tidy(folder: StageFolder) -> None:
    """Remove the leftovers of workers from the folder of a complete stage."""
    for path in leftovers_of_complete(folder):
        remove(path)


def _locked(folder: StageFolder) -> AbstractContextManager[None]:
    # Broken after the time that a dead lease lasts: a stopped holder must not block the stage for
    # longer, and every guarded write stays safe without the lock.
    return locked(folder.path / ".lock", break_after=leases.LEASE_SECONDS)


def hash_outputs(out: Path) -> dict[str, tuple[int, str]]:
    """Flush outputs to disk and hash them: path below `out` -> (bytes, sha256).

    What DONE lists must outlive a power cut, or it would be trusted although it is missing. So the
    files, the names in their folders and the folders themselves are flushed.
    """
    sync_tree(out)
    found = {}
    # Sorted, so that equal outputs give equal DONE files whatever order the file system lists.
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[str(path.relative_to(out))] = (path.stat().st_size, digest)
    return found


def _new_work(folder: StageFolder) -> int:
    """Make the folder of the next attempt; returns its number, which no other attempt has."""
    # Records and folders both count: a folder may be cleaned, and a record may never be written.
    records = (file.stem for file in (folder.path / "attempts").glob("*.json"))
    numbers = [int(name) for name in records if name.isdecimal()]
    numbers += [int(work.path.name) for work in folder.works()]
    number = max(numbers, default=0) + 1
    while True:
        try:
            # `mkdir` fails if the folder exists, so two workers never get the same number. Its
            # name is flushed with the attempt's record, before the first checkpoint.
            folder.work(number).out.mkdir(parents=True)
            return number
        except FileExistsError:
            number += 1


def _remove(path: Path) -> None:
    """Remove a file; set anything else aside, since its content is unknown."""
    if path.is_dir():
        set_aside(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_linked_outputs(folder: StageFolder) -> None:
    if folder.out.is_symlink():
        raise ValueError(
            f"{folder.out} is a symbolic link. Outputs are published by renaming a folder, which "
            "a link would send astray. Remove it; to keep outputs on another disk, link the whole "
            "runs directory or give --runs-dir"
        )


def _checkpoints_first(folder: Path) -> Iterator[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    # Hidden folders are unfinished or damaged checkpoints.
    kept = [path for path in files if not path.relative_to(folder).parts[0].startswith(".")]
    yield from sorted(kept, key=lambda path: not _is_of_checkpoint(path, folder))


def _is_of_checkpoint(file: Path, folder: Path) -> bool:
    # `gigatok.training.checkpoint` gives a folder this name once all of its files are written.
    return file.relative_to(folder).parts[0].startswith("step-")


def _link_or_copy(source: Path, target: Path, *, immutable: bool) -> None:
    if immutable:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # a file system without hard links
    shutil.copy2(source, target)
