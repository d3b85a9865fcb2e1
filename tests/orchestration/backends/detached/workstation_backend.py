"""Scheduler of processes on this machine: the smallest detached backend that is whole.

One process looks after each job or array, in a session of its own, and tells of its elements by
files: `<runs>/workstation/<name>/state-<index>`. The tests copy this file elsewhere and
register it there, as the backend of a user would be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import join, quote
from typing import Any

from gigatok.startup import for_children
from orchestration.backends import profile_options
from orchestration.backends.base import (
    BackendSpec,
    Capabilities,
    Checkup,
    Dependency,
    Finding,
    Infeasible,
    Job,
    JobStatus,
)
from orchestration.backends.snapshot import take_snapshot
from orchestration.backends.workers import rank_environments
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request, keep_profile, load_profile
from orchestration.runs.files import write_atomic
from orchestration.runs.state import StageFolder, Store

TICK_SECONDS = 0.1
OWN_JOB = "WORKSTATION_JOB"
FROM_START = Dependency()


class WorkstationBackend:
    """Stages as processes of this machine that outlive the launcher."""

    name = "workstation"
    capabilities = Capabilities(detached=True, time_limits=False)

    def __init__(self, jobs: int | None, profile: Profile, store: Store) -> None:
        self.parallelism = jobs or profile.max_parallel
        self._store = store
        self._root = store.job_files(self.name).resolve()
        self._profile = profile

    def warm_up(self) -> None:
        pass

    def free_slots(self) -> int:
        return sys.maxsize

    def largest_array(self) -> int:
        return 100

    def check(self, request: Request) -> None:
        if request.nodes > 1:
            raise Infeasible(f"nodes {request.nodes}: this machine is one")

    def submit(self, folder: StageFolder, request: Request) -> Job:
        return self.submit_array([folder], request, name=f"one-{uuid.uuid4().hex[:8]}")[0]

    def submit_array(
        self,
        folders: Sequence[StageFolder],
        request: Request,
        *,
        name: str,
        after: Dependency = FROM_START,
        parallelism: int | None = None,
    ) -> list[Job]:
        worker = [sys.executable, "-m", "orchestration.worker"]
        commands = [[*worker, str(folder.path.resolve())] for folder in folders]
        width = parallelism or self.parallelism or len(folders)
        more = {"width": width, "processes": request.processes}
        more |= {"stages": [str(folder.path.resolve()) for folder in folders]}
        job = self._start(name, commands, after, **more)
        handles = handles_of(job, len(folders))
        return [Job(folder, handle) for folder, handle in zip(folders, handles, strict=True)]

    def submit_controller(self, command: Sequence[str], name: str, delay: int) -> str:
        return self._start(name, [list(command)], FROM_START, begin=time.time() + delay)

    def _start(self, name: str, commands: list[list[str]], after: Dependency, **more: Any) -> str:
        folder = self._root / name
        folder.mkdir(parents=True)
        job = uuid.uuid4().hex[:8]
        profile = str(keep_profile(self._profile, self._root))
        record = {
            "profile": profile,
            "id": job,
            "commands": commands,
            "after": asdict(after),
            "begin": 0,
            **more,
        }
        write_atomic(folder / "job.json", json.dumps(record))
        for index in range(len(commands)):
            write_atomic(folder / f"state-{index}", "PENDING")
        code = for_children(str(take_snapshot(self._store)))
        script = folder / "job.sh"
        # `gc` reads here which copy of the code is in use.
        script.write_text(
            f"export PYTHONPATH={quote(code['PYTHONPATH'])}\n"
            f"exec {join([sys.executable, '-m', __name__, str(folder)])}\n"
        )
        with (folder / "log").open("w") as log:
            subprocess.Popen(
                ["sh", script],
                start_new_session=True,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **code, OWN_JOB: job},
            )
        return job

    def start_after(self, controller: str, jobs: Iterable[str]) -> None:
        (folder,) = [folder for job, folder in self._folders() if job == controller]
        write_atomic(folder / "after", json.dumps(sorted(jobs)))

    def own_job(self) -> str | None:
        return os.environ.get(OWN_JOB)

    def find(self, name: str) -> str | None:
        record = self._root / name / "job.json"
        return json.loads(record.read_text())["id"] if record.exists() else None

    def is_whole(self, name: str, handles: Iterable[str]) -> bool:
        return (self._root / name / "log").exists()

    def discard(self, name: str) -> None:
        shutil.rmtree(self._root / name, ignore_errors=True)

    def _folders(self) -> Iterator[tuple[str, Path]]:
        for record in self._root.glob("*/job.json"):
            yield json.loads(record.read_text())["id"], record.parent

    def listed(self) -> Mapping[str, JobStatus]:
        return {handle: status_of(state) for handle, state in states(self._root).items()}

    def statuses(self, jobs: Sequence[Job]) -> Mapping[str, JobStatus]:
        listed = self.listed()
        return {job.handle: listed[job.handle] for job in jobs if job.handle in listed}

    def poll(self, job: Job) -> Ended | None:
        if job.folder.is_complete():
            return Ended(0)
        return self.listed()[job.handle].ended

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        time.sleep(seconds)

    def cancel(self, job: Job) -> None:
        self.cancel_jobs([job.handle])

    def cancel_jobs(self, handles: Iterable[str], *, waiting_only: bool = False) -> None:
        folders = dict(self._folders())
        for handle in handles:
            job, _, element = handle.partition("_")
            for state in folders[job].glob(f"state-{element or '*'}"):
                wish = state.with_name(state.name.replace("state", "cancel"))
                write_atomic(wish, "waiting" if waiting_only else "all")

    def logs(self, job: Job) -> list[Path]:
        job_id = str(job.handle).partition("_")[0]
        return [folder / "log" for known, folder in self._folders() if known == job_id]

    def close(self) -> None:
        pass


def handles_of(job: str, elements: int) -> list[str]:
    return [job] if elements == 1 else [f"{job}_{index}" for index in range(elements)]


def states(root: Path) -> dict[str, str]:
    found = {}
    for file in root.glob("*/job.json"):
        record = json.loads(file.read_text())
        for index, handle in enumerate(handles_of(record["id"], len(record["commands"]))):
            state = file.with_name(f"state-{index}")
            found[handle] = state.read_text() if state.exists() else "PENDING"
    return found


def status_of(state: str) -> JobStatus:
    word, _, code = state.partition(" ")
    if word == "CANCELLED":
        return JobStatus(word, Ended(0, "cancelled"))
    if word == "ENDED":
        return JobStatus(word, Ended(int(code)))
    return JobStatus(word, reason=None if word == "PENDING" else "")


# The process that looks after a job


class Supervisor:
    """Runs the elements of one job when what they wait for allows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = json.loads((folder / "job.json").read_text())
        self.waiting = list(range(len(self.job["commands"])))
        self.running: dict[int, list[subprocess.Popen[bytes]]] = {}
        self.profile = load_profile(Path(self.job["profile"]), profile_options())

    def run(self) -> None:
        while self.waiting or self.running:
            known = states(self.folder.parent)
            for index in list(self.waiting):
                self._start_or_drop(index, known)
            for index, processes in list(self.running.items()):
                stopped = self._is_cancelled(index, "all")
                for process in processes:
                    if stopped and process.poll() is None:
                        process.terminate()
                if all(process.poll() is not None for process in processes):
                    del self.running[index]
                    self._conclude(index, processes[0].returncode, stopped)
            time.sleep(TICK_SECONDS)

    def _conclude(self, index: int, code: int, stopped: bool) -> None:
        """Apply the policies to a worker that ended without a result."""
        if "stages" in self.job and not stopped:
            folder = StageFolder.at(Path(self.job["stages"][index]))
            again = not folder.is_complete()
            if again and faults.after_end(folder, Ended(code), self.profile) is None:
                self._run(index)
                return
        self._tell(index, "CANCELLED" if stopped else f"ENDED {code}")

    def _run(self, index: int) -> None:
        command, processes = self.job["commands"][index], self.job.get("processes", 1)
        self.running[index] = [
            subprocess.Popen(command, env={**os.environ, **rank})
            for rank in rank_environments(processes)
        ]

    def _start_or_drop(self, index: int, known: dict[str, str]) -> None:
        after = self.job["after"]
        complete = [*after["complete"], *(f"{job}_{index}" for job in after["aligned"])]
        lost = [h for h in complete if known[h] not in ("PENDING", "RUNNING", "ENDED 0")]
        if self._is_cancelled(index, "all", "waiting") or lost:
            self.waiting.remove(index)
            self._tell(index, "CANCELLED")
        elif (
            all(known[handle] == "ENDED 0" for handle in complete)
            and are_over(after["over"], known)
            and self._has_begun(known)
            and len(self.running) < self.job.get("width", 1)
        ):
            self.waiting.remove(index)
            self._run(index)
            self._tell(index, "RUNNING")

    def _has_begun(self, known: dict[str, str]) -> bool:
        wish = self.folder / "after"
        jobs = json.loads(wish.read_text()) if wish.exists() else None
        return time.time() > self.job["begin"] if jobs is None else are_over(jobs, known)

    def _is_cancelled(self, index: int, *wishes: str) -> bool:
        file = self.folder / f"cancel-{index}"
        return file.exists() and file.read_text() in wishes

    def _tell(self, index: int, state: str) -> None:
        write_atomic(self.folder / f"state-{index}", state)


def are_over(jobs: Iterable[str], known: dict[str, str]) -> bool:
    wanted = set(jobs)
    return not any(
        state in ("PENDING", "RUNNING") and wanted & {handle, handle.partition("_")[0]}
        for handle, state in known.items()
    )


def check_options(options: Mapping[str, Any]) -> None:
    if options.keys() - {"nice"}:
        raise ValueError(f"{', '.join(options)}: the only option is nice")


def examine(checkup: Checkup) -> Iterator[Finding]:
    yield Finding("workstation", "ok", "sh is here", "workstation")


BACKEND = BackendSpec(
    WorkstationBackend, detached=True, check_options=check_options, examine=examine
)

if __name__ == "__main__":
    Supervisor(Path(sys.argv[1])).run()
