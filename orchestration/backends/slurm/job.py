"""Supervisor that a SLURM job runs for a stage, once per process of the stage.

It starts the worker, passes the scheduler's signals on to it, and when the worker ends without a
result asks `orchestration.policy.faults` what follows: again in this allocation, back into the
queue, or failure. It exits with 0 only if the stage is complete, so that `afterok` means what it
says.

Nothing that changes is kept here or in the pickle: a job that SLURM requeues by itself starts the
same supervisor again, and everything it needs to know is in the stage folder.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from submitit.core.utils import DelayedSubmission

from gigatok.text.command_lines import command
from orchestration.backends import profile_options
from orchestration.backends.detached.holding import hold_queue
from orchestration.backends.slurm.commands import ask
from orchestration.backends.slurm.options import signal_delay
from orchestration.backends.workers import free_port, memory_kills
from orchestration.heart import EXIT_BUSY
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.files import write_atomic
from orchestration.runs.provenance import JOB_VARIABLES
from orchestration.runs.stage_records import Kind
from orchestration.runs.state import StageFolder
from orchestration.worker import EXIT_FAILED, EXIT_INTERRUPTED, THREADS_VARIABLE

TICK_SECONDS = 0.2
BUSY_SECONDS = 2.0
"""How often a stage is tried that another worker holds, such as one on a node that was lost."""
ANSWER_SECONDS = 30.0
"""How long the scheduler may take to answer."""
LEADER_SECONDS = 300.0
"""How long a process waits for the one that leads the stage to say where it is."""


@dataclass(frozen=True)
class StageJob:
    """Call that submitit pickles: two paths."""

    stage_dir: str
    profile_file: str

    def __call__(self) -> None:
        """Run the stage's worker until the stage is complete.

        Raises:
            SystemExit: it is not; back in the queue, cancelled, or failed.
        """
        profile = load_profile(Path(self.profile_file), profile_options())
        Supervisor(StageFolder.at(Path(self.stage_dir)), profile).run()

    def checkpoint(self) -> DelayedSubmission:
        """Repeat the call, where a signal comes before the supervisor listens."""
        return DelayedSubmission(self)


@dataclass(frozen=True)
class Allocation:
    """Place of this process in its job, as SLURM says it.

    Attributes:
        job_id: what `scontrol` knows the job by; of one element in an array.
        restarts: how often it was requeued.
        rank: this process, of `world`; 0 decides what follows.
        local_rank: the same, counted on this node.
        nodes: how many the job has.
        cpus: of this process.
    """

    job_id: str
    restarts: int
    rank: int
    world: int
    local_rank: int
    nodes: int
    cpus: int

    @staticmethod
    def from_environment() -> Allocation:
        """Read the variables that SLURM has set."""

        def number(name: str, default: int) -> int:
            return int(os.environ.get(f"SLURM_{name}", default))

        job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
        return Allocation(
            # An element may have the number of its array, by which SLURM takes all elements.
            job_id=f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job,
            restarts=number("RESTART_COUNT", 0),
            rank=number("PROCID", 0),
            world=number("NTASKS", 1),
            local_rank=number("LOCALID", 0),
            nodes=number("JOB_NUM_NODES", 1),
            cpus=number("CPUS_PER_TASK", 1),
        )


class Supervisor:
    """Process of a stage's job that starts workers and decides what follows their ends."""

    def __init__(self, folder: StageFolder, profile: Profile) -> None:
        self._folder = folder
        self._profile = profile
        self._allocation = Allocation.from_environment()
        self._signalled: float | None = None
        self._first_signal = 0
        # After submitit's own handlers, and instead of them: those would pickle the call and
        # requeue by themselves, past the policies.
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._note)

    def run(self) -> None:
        """Run workers until the stage is complete or, where another process leads it, one ended.

        Raises:
            SystemExit: it is not complete, and this job is over.
        """
        while True:
            code = self._run_worker()
            if self._folder.is_complete():
                return
            # The lease of a worker that died with its node is alive for a while; to give the place
            # back would only lose it.
            if code == EXIT_BUSY and self._signalled is None:
                time.sleep(BUSY_SECONDS)
                continue
            if self._allocation.rank > 0:
                return  # the job ends as rank 0 ends
            stopped = self._why_stopped() if self._signalled is not None else None
            if code != EXIT_BUSY and self._gives_up(code, stopped):
                sys.exit(EXIT_FAILED)
            # With several processes, the others have to start anew as well, which SLURM can do.
            if stopped is not None or self._allocation.world > 1:
                self._requeue()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signalled is None:
            self._signalled = time.monotonic()
            # SIGUSR2 comes before the time limit or a preemption, SIGTERM at the end: the second
            # says less.
            self._first_signal = number

    def _gives_up(self, code: int, stopped: Kind | None) -> bool:
        reason = stopped
        if reason is None and code == -signal.SIGKILL and memory_kills() > self._memory_kills:
            reason = "out_of_memory"
        ended = Ended(code, reason, os.environ.get("SLURMD_NODENAME", socket.gethostname()))
        failure = faults.after_end(self._folder, ended, self._profile)
        say(f"{ended}: " + ("again" if failure is None else f"gives up: {failure.message}"))
        if failure is not None and (held := hold_queue(self._folder, self._profile)):
            say(held)
        return failure is not None

    # The worker

    def _run_worker(self) -> int:
        self._memory_kills = memory_kills()
        worker = subprocess.Popen(
            [sys.executable, "-m", "orchestration.worker", str(self._folder.path)],
            env={**os.environ, **self._worker_environment()},
        )
        told = False
        while True:
            try:
                return worker.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            if self._signalled is not None:
                if not told:
                    say("stopping: the worker saves a checkpoint")
                    worker.terminate()
                    told = True
                # Whoever is late loses the checkpoint, not the place in the queue.
                if time.monotonic() - self._signalled > self._patience():
                    say("the worker did not stop in time")
                    worker.kill()

    def _patience(self) -> float:
        """Return seconds for the last checkpoint, so that enough are left to requeue the job."""
        request = self._profile.request(self._folder.spec().stage)
        return 0.8 * signal_delay(self._profile, request)

    def _worker_environment(self) -> dict[str, str]:
        allocation = self._allocation
        alone = {
            THREADS_VARIABLE: str(allocation.cpus),
            JOB_VARIABLES: "SLURM_JOB_ID,SLURM_ARRAY_JOB_ID,SLURM_ARRAY_TASK_ID",
        }
        if allocation.world == 1:
            return alone
        address, port = self._meeting_point()
        return alone | {
            "RANK": str(allocation.rank),
            "WORLD_SIZE": str(allocation.world),
            "LOCAL_RANK": str(allocation.local_rank),
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
        }

    def _meeting_point(self) -> tuple[str, str]:
        """Learn rank 0's address and port; it takes a free one, because nodes may be shared."""
        allocation = self._allocation
        # With the count of restarts: a requeued job keeps its id, and would read the address of
        # its last run.
        name = f"{allocation.job_id}-{allocation.restarts}.meeting"
        file = Path(os.environ["SUBMITIT_FOLDER"]) / name
        if allocation.rank == 0:
            address = "127.0.0.1" if allocation.nodes == 1 else socket.gethostname()
            write_atomic(file, f"{address} {free_port()}")
        deadline = time.monotonic() + LEADER_SECONDS
        while not file.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank 0 has not written {file}")
            time.sleep(TICK_SECONDS)
        address, port = file.read_text(encoding="utf-8").split()
        return address, port

    # The scheduler

    def _why_stopped(self) -> Kind:
        """Ask SLURM about this job; where it does not answer, go by the first signal."""
        shown = _ask("scontrol", "show", "job", "--oneliner", self._allocation.job_id) or ""
        fields = dict(re.findall(r"(\w+)=(\S+)", shown))
        # Asked first: SLURM warns of a preemption with the same SIGUSR2 as of a time limit.
        if fields.get("PreemptTime", "None") not in ("None", "N/A"):
            return "preempted"
        if self._first_signal == signal.SIGUSR2:
            return "timed_out"
        # SIGTERM alone, and SLURM is already ending the job for good.
        return "cancelled" if fields.get("JobState") == "COMPLETING" else "preempted"

    def _requeue(self) -> None:
        """Go back into the queue, under the same job id; SLURM ends this process."""
        if _ask("scontrol", "requeue", self._allocation.job_id) is None:
            again = command("orchestration", "resume")
            say(f"cannot requeue; `{again}` submits the stage again")
        sys.exit(EXIT_INTERRUPTED)


def say(text: str) -> None:
    """Print into the job's own log."""
    print(f"supervisor: {text}", flush=True)


def _ask(*command: str) -> str | None:
    """Return what a command prints; None if it fails, and then the log says why."""
    try:
        return ask(*command, seconds=ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        say(str(error))
        return None
