"""Jobs and job arrays of a SLURM cluster, submitted through submitit.

A job runs `orchestration.backends.slurm.job.StageJob`, which applies the failure policies itself:
the launcher may be gone by then. What a job has become is read, in this order, from the stage
folder, from `squeue` and from `sacct`; what none of them knows has ended only after
`ABSENT_SECONDS` of silence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shlex import join, quote
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from gigatok.startup import FOR_CHILDREN
from orchestration.backends.base import (
    Capabilities,
    Dependency,
    Infeasible,
    Job,
    JobStatus,
    NoAnswer,
)
from orchestration.backends.slurm.commands import SILENCE, ask, lines_of, refusal, run
from orchestration.backends.slurm.job import StageJob
from orchestration.backends.slurm.options import (
    controller_request,
    dependency_text,
    sbatch_options,
    signal_delay,
    words,
)
from orchestration.backends.slurm.queue import Queue, ask_about, ask_squeue
from orchestration.backends.snapshot import take_snapshot
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request, keep_profile
from orchestration.runs.state import StageFolder, Store

ENDLESS = 10**6
"""submitit's limit of timeouts, which must never decide: `orchestration.policy.faults` does."""
AT_ONCE = Dependency()


class SlurmBackend:
    """Stages as jobs and array elements of a SLURM cluster."""

    name = "slurm"
    capabilities = Capabilities(detached=True, time_limits=True)

    def __init__(self, jobs: int | None, profile: Profile, store: Store) -> None:
        """Connect.

        Args:
            jobs: stages that run at the same time at most; None: as the profile says.
            profile: what is asked of the cluster.
            store: the runs directory, on a file system that all nodes see.
        """
        self.parallelism = jobs or profile.max_parallel
        self._profile = profile
        self._store = store
        self._root = store.job_files(self.name).resolve()
        self._queue = Queue()

    @cached_property
    def code(self) -> Path:
        """Copy of the source that jobs import, taken when the first is queued."""
        return take_snapshot(self._store)

    def warm_up(self) -> None:
        """Do nothing: there is nothing to start."""

    def free_slots(self) -> int:
        """Return any number: the scheduler keeps the queue."""
        return sys.maxsize

    def largest_array(self) -> int:
        """Read MaxArraySize; 1 where there are no arrays.

        Raises:
            ValueError: SLURM does not answer.
        """
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.M)
        return max(1, int(found[1])) if found else 1

    def check(self, request: Request) -> None:
        """Let the scheduler say whether it could ever run this.

        Raises:
            Infeasible: it could not; with its reason.
            NoAnswer: it does not answer.
            ValueError: there is no scheduler.
        """
        if request.gpus % 1:
            raise Infeasible(
                f"gpus {request.gpus:g}: SLURM gives whole devices; ask for 1, "
                "or for a share as the cluster names it, such as slurm: {gres: 'shard:1'}"
            )
        # The same options as at submission, so that a refusal comes before anything is queued.
        options = words(sbatch_options(request, self._store))
        if shutil.which("sbatch") is None:
            raise ValueError("--backend slurm: there is no sbatch here; log in to the cluster")
        # Partitions, limits and node sizes are the cluster's to know: let it judge by itself.
        said = run(["sbatch", "--test-only", *options, "--wrap=true"])
        if said.returncode:
            kind = NoAnswer if SILENCE.search(said.stderr) else Infeasible
            raise kind(f"{' '.join(options)}: {said.stderr.strip()}")

    # Submission

    def submit(self, folder: StageFolder, request: Request) -> Job:
        """Queue one stage."""
        name = f"{folder.spec().stage}-{uuid.uuid4().hex[:8]}"
        return self.submit_array([folder], request, name=name)[0]

    def submit_array(
        self,
        folders: Sequence[StageFolder],
        request: Request,
        *,
        name: str,
        after: Dependency = AT_ONCE,
        parallelism: int | None = None,
    ) -> list[Job]:
        """Queue stages as one job array; handles are `ARRAY_INDEX`, or `JOB` for one alone."""
        # A folder for each submission: `discard` deletes it, and `gc` finds the snapshot that its
        # scripts name.
        executor = self._executor(name)
        executor.update_parameters(
            slurm_job_name=name,
            # submitit's own limit is 256 where none is given.
            slurm_array_parallelism=parallelism or self.parallelism or len(folders),
            slurm_signal_delay_s=signal_delay(self._profile, request),
            slurm_setup=self._setup(),
            # Since SLURM 22.05 srun does not inherit `--cpus-per-task` of the job.
            # `--kill-on-bad-exit=0`: rank 0 must live to decide what follows when another process
            # has died.
            slurm_srun_args=[f"--cpus-per-task={request.cpus}", "--kill-on-bad-exit=0"],
            slurm_wckey="",  # submitit's default names itself, which accounting may not know
            slurm_additional_parameters=self._additional(request, after),
        )
        profile = str(keep_profile(self._profile, self._root))
        calls = [StageJob(str(folder.path.resolve()), profile) for folder in folders]
        # A job that submits would hand its own SLURM_* variables on, and sbatch takes some of them
        # for options.
        with outside_of_jobs():
            try:
                submitted = executor.submit_array(calls)
            except (FailedJobError, FailedSubmissionError) as error:
                raise refusal(str(error)) from error
        return [Job(folder, job.job_id) for folder, job in zip(folders, submitted, strict=True)]

    def _executor(self, name: str) -> submitit.AutoExecutor:
        try:
            return submitit.AutoExecutor(
                self._root / name,
                cluster="slurm",
                slurm_max_num_timeout=ENDLESS,
                slurm_python=quote(sys.executable),
            )
        except RuntimeError as error:
            raise ValueError(f"--backend slurm: {error}") from error

    def _setup(self) -> list[str]:
        """List the profile's lines, then those that make a job import the launch's code only."""
        return [
            *self._profile.setup,
            f"export PYTHONPATH={quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            *(f"export {name}={value}" for name, value in FOR_CHILDREN.items()),
        ]

    def _additional(self, request: Request, after: Dependency) -> dict[str, Any]:
        options = sbatch_options(request, self._store)
        if after:
            # Otherwise what can never start any more would wait in the queue for ever.
            options |= {"dependency": dependency_text(after), "kill_on_invalid_dep": "yes"}
        return options

    def submit_controller(self, command: Sequence[str], name: str, delay: int) -> str:
        """Queue a job of one core that runs a command; it may start after `delay` seconds."""
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "controller.sh"
        lines = ["#!/bin/bash", *self._setup(), f"exec {join(command)}", ""]
        script.write_text("\n".join(lines), encoding="utf-8")
        options = {
            **sbatch_options(controller_request(self._profile), self._store),
            "job_name": name,
            "output": folder / "%j.log",
            # The delay is the fallback: a launcher that is killed before `start_after` leaves a
            # controller that starts by the clock.
            "begin": f"now+{delay}seconds",
            "parsable": True,
        }
        with outside_of_jobs():
            said = run(["sbatch", *words(options), str(script)])
        if said.returncode:
            raise refusal(said.stderr.strip())
        # `ID;CLUSTER` where there are several clusters.
        return said.stdout.strip().partition(";")[0]

    def start_after(self, controller: str, jobs: Iterable[str]) -> None:
        """Replace a controller's delay by a dependency on the end of jobs and arrays.

        Raises:
            ValueError: SLURM refuses, because it runs already.
        """
        after = dependency_text(Dependency(over=tuple(jobs)))
        update = (f"JobId={controller}", f"Dependency={after}", "StartTime=now")
        ask("scontrol", "update", *update)

    def discard(self, name: str) -> None:
        """Delete the files of a submission that was refused."""
        shutil.rmtree(self._root / name, ignore_errors=True)

    # Jobs

    def own_job(self) -> str | None:
        """Return the id of the job that this process runs in."""
        return os.environ.get("SLURM_JOB_ID")

    def find(self, name: str) -> str | None:
        """Ask the queue, then the accounting database, for the id of a job or array by its name.

        Raises:
            ValueError: the queue cannot be read. An accounting database that is down is none.
        """
        listing = ask("squeue", "--me", "--states=all", f"--name={name}", "-h", "-o", "%F")
        # An array may take several lines, all of them with its id.
        if ids := listing.split():
            return ids[-1]
        columns = ["-X", "-n", "-P", "-o", "JobID", "--starttime=now-7days"]
        # By default sacct looks at today only, and an interrupted launch may be repeated days
        # later.
        ended = lines_of(["sacct", *columns, f"--name={name}"]) or []
        return ended[-1].partition("_")[0] if ended else None

    def is_whole(self, name: str, handles: Iterable[str]) -> bool:
        """Tell whether submitit had put all pickles in place, which it does after sbatch."""
        folder = self._root / name
        files = [folder / f"{handle}_submitted.pkl" for handle in handles]
        return bool(files) and all(file.exists() for file in files)

    def listed(self) -> Mapping[str, JobStatus] | None:
        """Ask squeue for all jobs of this user."""
        return ask_squeue()

    def statuses(self, jobs: Sequence[Job]) -> Mapping[str, JobStatus]:
        """Ask squeue about jobs, and sacct about those that it does not list."""
        return ask_about(jobs)

    def poll(self, job: Job) -> Ended | None:
        """Return the end of a job; None while it may still run or start."""
        if job.folder.is_complete():
            return Ended(0)
        return self._queue.ended(job)

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Sleep: SLURM tells nobody of the end of a job."""
        time.sleep(seconds)

    def cancel(self, job: Job) -> None:
        """Stop a job; its worker saves a checkpoint, for which the cluster's KillWait is left."""
        self.cancel_jobs([job.handle])

    def cancel_jobs(self, handles: Iterable[str], *, waiting_only: bool = False) -> None:
        """Cancel jobs, whole arrays and elements with one command."""
        elements: dict[str, list[str]] = {}
        for handle in handles:
            job, _, index = handle.partition("_")
            # An id of a whole array has the index "", which stands for all of its elements below.
            elements.setdefault(job, []).append(index)
        # One name for all elements of an array: each name is a request of its own to SLURM.
        names = [f"{job}_[{','.join(i)}]" if all(i) else job for job, i in elements.items()]
        state = ["--state=PENDING"] if waiting_only else []
        if names:
            subprocess.run(["scancel", "--quiet", *state, *names], check=False)

    def logs(self, job: Job) -> list[Path]:
        """List what the supervisor printed, of all the job's attempts."""
        return sorted(self._root.glob(f"*/{job.handle}_*_log.*"))

    def close(self) -> None:
        """Do nothing: jobs go on without the launcher."""


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide the variables of the job that this process runs in, if any, from what it submits."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    # These say which cluster, and what the user always wants; they are not the job's.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or name.startswith("SBATCH_")
    }
    with clean_env():
        os.environ.update(kept)
        yield
