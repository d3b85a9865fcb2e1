"""Questions and orders to SLURM about a whole sweep: limits, jobs by name, the controller job."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence

from orchestration.backends.base import NoAnswer
from orchestration.backends.slurm import SlurmBackend, outside_of_jobs, refusal
from orchestration.cluster.journal import Submission
from orchestration.policy.profile import Profile, Request

CONTROLLER_MINUTES = 60
CONTROLLER_MEMORY_GB = 4.0
_ACCOUNTING = ("partition", "account", "qos", "reservation", "wckey", "clusters")
"""What the controller takes over of the profile's default sbatch options."""


def largest_array() -> int:
    """How many elements a job array can have; 1 where there are no arrays.

    Raises:
        ValueError: SLURM does not answer.
    """
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.M)
    return max(1, int(found[1])) if found else 1


def find_jobs(names: Iterable[str]) -> dict[str, str]:
    """Name -> id of those jobs and arrays that SLURM knows, queued or over.

    Raises:
        ValueError: the queue cannot be read. An accounting database that is down is none.
    """
    wanted = ",".join(names)
    listing = _ask("squeue", "--me", "--states=all", f"--name={wanted}", "-h", "-o", "%F|%j")
    lines = (line.partition("|") for line in listing.splitlines())
    known = {name: job for job, _, name in lines}
    missing = [name for name in wanted.split(",") if name not in known]
    if missing:
        columns = ["-X", "-n", "-P", "-o", "JobID,JobName", "--starttime=now-7days"]
        command = ["sacct", *columns, f"--name={','.join(missing)}"]
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        for line in answer.stdout.splitlines():
            handle, name = line.split("|", 1)
            known[name] = handle.partition("_")[0]
    return known


def is_whole(backend: SlurmBackend, submission: Submission, job: str) -> bool:
    """Whether all that the jobs of a submission read was in place before its launcher ended."""
    handles = submission.model_copy(update={"job": job}).handles().values()
    folder = backend.files(submission.name)
    return bool(handles) and all(
        (folder / f"{handle}_submitted.pkl").exists() for handle in handles
    )


def cancel_jobs(handles: Iterable[str]) -> None:
    """Cancel jobs, whole arrays and elements; harmless when repeated or too late."""
    elements: dict[str, list[str]] = {}
    for handle in handles:
        job, _, index = handle.partition("_")
        elements.setdefault(job, []).append(index)
    # One name for all elements of an array: each name is a request of its own to the scheduler.
    names = [f"{job}_[{','.join(i)}]" if all(i) else job for job, i in elements.items()]
    if names:
        subprocess.run(["scancel", "--quiet", *names], check=False)


def are_gone(jobs: Iterable[str]) -> bool:
    """Whether none of these jobs and arrays is queued or running any more."""
    command = ["squeue", "--me", "-h", "-o", "%F"]
    return set(jobs).isdisjoint(_ask(*command).split())


def submit_controller(
    backend: SlurmBackend, profile: Profile, command: Sequence[str], name: str, delay: int
) -> str:
    """Queue the job that looks after a sweep; returns its id.

    Args:
        backend: the cluster; its snapshot is what the job runs.
        profile: partition, account and the like of its default request apply.
        command: what the job runs.
        name: unique.
        delay: seconds before it may start.

    Raises:
        QueueFull: the user's limit of submitted jobs is reached.
        NoAnswer: whether it is queued is not known.
        ValueError: the scheduler refuses; says why.
    """
    folder = backend.files(name)
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "controller.sh"
    lines = ["#!/bin/bash", *backend.setup(), f"exec {shlex.join(command)}", ""]
    script.write_text("\n".join(lines), encoding="utf-8")
    options = {
        **backend.options(controller_request(profile)),
        "job_name": name,
        "output": folder / "%j.log",
        "begin": f"now+{delay}seconds",
        "parsable": True,
    }
    arguments = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}")
        for key, value in options.items()
    ]
    with outside_of_jobs():
        order = ["sbatch", *arguments, str(script)]
        said = subprocess.run(
            order, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    if said.returncode:
        raise refusal(said.stderr.strip())
    return said.stdout.strip().partition(";")[0]


def controller_request(profile: Profile) -> Request:
    """One core, a little memory and no GPU."""
    default = profile.default
    memory = default.memory_gb and min(default.memory_gb, CONTROLLER_MEMORY_GB)
    return Request(
        time_minutes=CONTROLLER_MINUTES,
        memory_gb=memory,
        slurm={key: value for key, value in default.slurm.items() if key in _ACCOUNTING},
    )


def start_after(controller: str, jobs: Iterable[str]) -> None:
    """Let the controller start once all these jobs and arrays are over, however they end.

    Raises:
        ValueError: SLURM refuses, because it runs already.
    """
    after = "afterany:" + ":".join(jobs)
    _ask("scontrol", "update", f"JobId={controller}", f"Dependency={after}", "StartTime=now")


def _ask(*command: str) -> str:
    """What a command prints.

    Raises:
        NoAnswer: the scheduler does not answer it.
        ValueError: it fails; says how.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=60,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise refusal(error.stderr.strip(), " ".join(command[:2])) from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]}: {error}") from error
    except OSError as error:
        raise ValueError(f"{command[0]}: {error}; is this a host of the cluster?") from error
