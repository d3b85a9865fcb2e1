"""SLURM: jobs and job arrays through submitit, and one question to the scheduler about them all.

A job runs `slurm_job.StageJob`, which applies the failure policies itself: the launcher may be
gone by then. What a job has become is read, in this order, from the stage folder, from `squeue`
and from `sacct`; what none of them knows has ended only after `ABSENT_SECONDS` of silence.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from gigatok.startup import FOR_CHILDREN
from orchestration.backends.base import Capabilities, Ended, Infeasible, Job, NoAnswer, QueueFull
from orchestration.backends.slurm_job import StageJob, signal_delay
from orchestration.backends.slurm_queue import Queue
from orchestration.cluster.snapshot import take_snapshot
from orchestration.policy import faults
from orchestration.policy.profile import Profile, Request
from orchestration.runs.files import write_atomic
from orchestration.runs.state import StageFolder, Store

ENDLESS = 10**6
"""submitit's limit of timeouts, which must never decide: `orchestration.policy.faults` does."""


_SILENCE = re.compile("contact slurm controller|timed out", re.IGNORECASE)
"""How sbatch complains where the scheduler, not the request, is at fault."""


class SlurmBackend:
    """Stages as jobs and array elements of a SLURM cluster."""

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
        self._root = store.slurm_files.resolve()
        self._queue = Queue()

    @cached_property
    def code(self) -> Path:
        """The copy of the source that jobs import, taken when the first is queued."""
        return take_snapshot(self._store)

    def warm_up(self) -> None:
        """Nothing to do."""

    def free_slots(self) -> int:
        """Any number: the scheduler keeps the queue."""
        return sys.maxsize

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
        options = words(self.options(request))
        if shutil.which("sbatch") is None:
            raise ValueError("--backend slurm: there is no sbatch here; log in to the cluster")
        test = ["sbatch", "--test-only", *options, "--wrap=true"]
        said = subprocess.run(
            test, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if said.returncode:
            kind = NoAnswer if _SILENCE.search(said.stderr) else Infeasible
            raise kind(f"{' '.join(options)}: {said.stderr.strip()}")

    def options(self, request: Request) -> dict[str, Any]:
        """What a request means to sbatch, by the long names of its options."""
        per_node = request.processes // request.nodes
        options: dict[str, Any] = {
            "nodes": request.nodes,
            "ntasks_per_node": per_node,
            "cpus_per_task": request.cpus,
            "time": request.time_minutes,
            "requeue": True,
        }
        if request.gpus:
            options["gpus_per_node"] = math.ceil(request.gpus) * per_node
        if request.memory_gb is not None:
            options["mem"] = f"{math.ceil(request.memory_gb * per_node * 1024)}M"
        options |= {name.replace("-", "_"): value for name, value in request.slurm.items()}
        if bad := self._bad_nodes():
            given = [str(options["exclude"])] if options.get("exclude") else []
            options["exclude"] = ",".join([*given, *bad])
        return {name: value for name, value in options.items() if value not in (None, False)}

    def _bad_nodes(self) -> list[str]:
        """Nodes of this cluster that lost workers repeatedly, unless no others would be left."""
        bad = faults.bad_hosts(self._store)
        if not bad:
            return []
        listing = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%N"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        nodes = set(listing.stdout.split())
        known = nodes.intersection(bad)
        return sorted(known) if known < nodes else []

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
        dependency: str | None = None,
        parallelism: int | None = None,
    ) -> list[Job]:
        """Queue stages that ask for the same as one job array; one alone is a plain job.

        Args:
            folders: the stages, in the order of the array's indices.
            request: what each of them asks for.
            name: the jobs' name, new with every call; also names the folder of their files.
            dependency: as sbatch takes it, such as `aftercorr:17`. Where it can no longer be
                fulfilled, the jobs are cancelled.
            parallelism: elements that run at the same time at most; None: the backend's.

        Returns:
            One job per folder; handles are `ARRAY_INDEX`, or `JOB` for one alone.

        Raises:
            QueueFull: the user's limit of submitted jobs is reached; none of these was queued.
            NoAnswer: whether they were queued is not known.
            ValueError: the scheduler refuses; says what and why.
        """
        executor = self._executor(name)
        executor.update_parameters(
            slurm_job_name=name,
            slurm_array_parallelism=parallelism or self.parallelism or len(folders),
            slurm_signal_delay_s=signal_delay(self._profile, request),
            slurm_setup=self.setup(),
            slurm_srun_args=[f"--cpus-per-task={request.cpus}", "--kill-on-bad-exit=0"],
            slurm_wckey="",
            slurm_additional_parameters=self._additional(request, dependency),
        )
        profile = self.profile_file()
        calls = [StageJob(str(folder.path.resolve()), str(profile)) for folder in folders]
        with outside_of_jobs():
            try:
                submitted = executor.submit_array(calls)
            except (FailedJobError, FailedSubmissionError) as error:
                raise refusal(str(error)) from error
        return [Job(folder, job.job_id) for folder, job in zip(folders, submitted, strict=True)]

    def _executor(self, name: str) -> submitit.AutoExecutor:
        try:
            return submitit.AutoExecutor(
                self.files(name),
                cluster="slurm",
                slurm_max_num_timeout=ENDLESS,
                slurm_python=quote(sys.executable),
            )
        except RuntimeError as error:
            raise ValueError(f"--backend slurm: {error}") from error

    def files(self, name: str) -> Path:
        """The folder of what belongs to the jobs of this name."""
        return self._root / name

    def setup(self) -> list[str]:
        """The profile's lines, then those that make a job import the launch's code only."""
        return [
            *self._profile.setup,
            f"export PYTHONPATH={quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            *(f"export {name}={value}" for name, value in FOR_CHILDREN.items()),
        ]

    def _additional(self, request: Request, dependency: str | None) -> dict[str, Any]:
        options = self.options(request)
        if dependency is not None:
            options |= {"dependency": dependency, "kill_on_invalid_dep": "yes"}
        return options

    def profile_file(self) -> Path:
        """A copy for the jobs, because the user may change the original meanwhile."""
        text = self._profile.model_dump_json()
        file = self._root / f"profile-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self._root.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write_atomic(file, text)
        return file

    # Jobs

    def poll(self, job: Job) -> Ended | None:
        """None while the job may still run or start."""
        if job.folder.is_complete():
            return Ended(0)
        return self._queue.ended(job)

    def cancel(self, job: Job) -> None:
        """The worker saves a checkpoint, for which the cluster's KillWait is left."""
        self.cancel_all([job])

    def cancel_all(self, jobs: Sequence[Job]) -> None:
        """Cancel many with one command each thousand."""
        for start in range(0, len(jobs), 1000):
            handles = [job.handle for job in jobs[start : start + 1000]]
            subprocess.run(["scancel", "--quiet", *handles], check=False)

    def logs(self, job: Job) -> list[Path]:
        """What the supervisor printed, of all the job's attempts."""
        return sorted(self._root.glob(f"*/{job.handle}_*_log.*"))

    def close(self) -> None:
        """Nothing: jobs go on without the launcher."""


def words(options: Mapping[str, Any]) -> list[str]:
    """Options of sbatch as they are typed."""
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]


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


def refusal(said: str, command: str = "sbatch") -> Exception:
    """What a complaint of one of the scheduler's commands means."""
    if re.search("SubmitJob", said):
        return QueueFull(f"{command}: {said}")
    if _SILENCE.search(said):
        return NoAnswer(f"{command}: {said}")
    return ValueError(f"{command} refuses: {said}")


def connect(jobs: int | None, profile: Profile, store: Store) -> SlurmBackend:
    """The backend for this cluster, with at most `jobs` stages of an array at a time.

    Raises:
        ValueError: `jobs` is not positive.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    return SlurmBackend(jobs, profile, store)
