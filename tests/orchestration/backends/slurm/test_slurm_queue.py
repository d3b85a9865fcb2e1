"""What is made of SLURM's answers, and of the lack of one; the answers are scripts here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.backends.base import Dependency, Ended, Job
from orchestration.backends.slurm import queue as slurm_queue
from orchestration.backends.slurm.options import dependency_text
from orchestration.backends.slurm.queue import Queue, elements, status_of
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt
from orchestration.runs.state import StageFolder
from tests.orchestration.test_worker_ranks import training_stage

Say = Callable[..., None]
DOWN = None


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Sets what a command prints; `DOWN`: it fails. What was asked is in the file `asked`."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(slurm_queue, "FRESH_SECONDS", 0.0)

    def script(command: str, *lines: str | None) -> None:
        answer = "exit 1" if lines == (DOWN,) else "cat <<'END'\n" + "\n".join(map(str, lines))
        file = tmp_path / command
        file.write_text(f"#!/bin/sh\necho {command} >> {tmp_path}/asked\n{answer}\nEND\n")
        file.chmod(0o755)

    for command in ("squeue", "sacct"):
        script(command, "")
    return script


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return training_stage(tmp_path / "runs")


def listed(handle: str, state: str, code: int = 0, host: str = "", reason: str = "None") -> str:
    """A line of squeue, whose columns have fixed widths."""
    return f"{handle:<40}{state:<20}{code:<16}{host:<64}{reason:<120}"


def test_the_queue_knows_better_than_the_database(say: Say, folder: StageFolder) -> None:
    say("squeue", listed("17_3", "PENDING", reason="Nodes are DOWN, DRAINED or reserved"))
    say("sacct", "17_3|PREEMPTED|0:0|n1")
    queue, job = Queue(), Job(folder, "17_3")
    assert queue.ended(job) is None
    waits = status_of("PENDING", reason="Nodes are DOWN, DRAINED or reserved")
    assert queue.statuses([job]) == {"17_3": waits}


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (listed("17", "RUNNING", host="n1"), None),
        (listed("17", "COMPLETING", 256, "n1"), None),
        (listed("17", "SOMETHING_NEW", 256, "n1"), None),
        (listed("17", "FAILED", 256, "n1"), Ended(1, None, "n1")),
        (listed("17", "FAILED", 9, "n1"), Ended(-9, None, "n1")),
        (listed("17", "OUT_OF_MEMORY", 0x7D00, "n1"), Ended(125, "out_of_memory", "n1")),
        (listed("17", "NODE_FAIL"), Ended(0, "node_lost")),
    ],
)
def test_only_known_ends_are_ends(
    say: Say, folder: StageFolder, answer: str, ended: Ended | None
) -> None:
    say("squeue", answer)
    assert Queue().ended(Job(folder, "17")) == ended


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("slurmstepd-n1: error: StepId=17.0 exceeded memory limit (9 > 1)", "out_of_memory"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=17.0.", "out_of_memory"),
        ("supervisor: gives up: exceeded memory limit", None),
    ],
    ids=["watched", "limited", "not SLURM's words"],
)
def test_a_job_that_failed_may_have_run_out_of_memory(
    say: Say, folder: StageFolder, printed: str, reason: str | None
) -> None:
    say("squeue", listed("17", "FAILED", 137 << 8, "n1"))
    log = folder.store.job_files("slurm") / "name" / "17_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text(f"{printed}\n")
    ended = Queue().ended(Job(folder, "17"))
    assert ended is not None
    assert (ended.exit_code, ended.reason, ended.host) == (137, reason, "n1")


def test_jobs_that_ended_long_ago_are_in_the_database(say: Say, folder: StageFolder) -> None:
    say(
        "sacct",
        "17_0|TIMEOUT|0:15|n[1-4]",
        "17_1|CANCELLED by 1000|0:0|None assigned",
        "17_[2-9%1]|PENDING|0:0|None assigned",
        "18|COMPLETED|0:0|n2",
    )
    queue = Queue()
    jobs = {handle: Job(folder, handle) for handle in ("17_0", "17_1", "17_2", "18")}
    known = queue.statuses(jobs.values())
    assert known.keys() == {"17_0", "17_1", "18"}
    assert queue.ended(jobs["17_0"]) == Ended(-15, "timed_out", None)
    assert queue.ended(jobs["17_1"]) == Ended(0, "cancelled", None)
    assert queue.ended(jobs["17_2"]) is None
    assert queue.ended(jobs["18"]) == Ended(0, None, "n2")


@pytest.mark.parametrize(
    ("name", "handles"),
    [
        ("17", ["17"]),
        ("17_4", ["17_4"]),
        ("17_[4]", ["17_4"]),
        ("4_[1%1]", ["4_1"]),
        ("17_[0,4-6%2]", ["17_0", "17_4", "17_5", "17_6"]),
        ("17_[0,4-", []),
        ("17_[0-3,...]", []),
        ("17.batch", []),
    ],
)
def test_every_element_is_named(name: str, handles: list[str]) -> None:
    assert elements(name) == handles


def test_many_jobs_are_one_question_to_each(
    say: Say, folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_queue, "FRESH_SECONDS", 100.0)
    say("squeue", *(listed(f"17_{index}", "RUNNING") for index in range(500)))
    folder.write_attempt(Attempt(number=1, host="n1", pid=1, started=0.0))
    queue = Queue()
    jobs = [Job(folder, f"17_{index}") for index in range(1000)]
    assert len(queue.statuses(jobs)) == 500
    assert [queue.ended(job) for job in jobs] == [None] * 1000
    assert (tmp_path / "asked").read_text().split() == ["squeue", "sacct"]


def test_absence_is_death_only_after_long_and_without_a_sign_of_life(
    say: Say, folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, job = Queue(), Job(folder, "17")
    say("sacct", DOWN)
    assert queue.ended(job) is None
    monkeypatch.setattr(slurm_queue, "ABSENT_SECONDS", 0.0)
    holder = acquire(folder)
    assert holder is not None
    assert queue.ended(job) is None
    holder.release()
    assert queue.ended(job) == Ended(None)
    say("squeue", listed("17", "PENDING"))
    assert queue.ended(job) is None


def test_a_scheduler_that_does_not_answer_says_nothing(
    say: Say, folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_queue, "ABSENT_SECONDS", 0.0)
    say("squeue", DOWN)
    queue, job = Queue(), Job(folder, "17")
    assert queue.ended(job) is None
    assert queue.ended(job) is None
    assert queue.statuses([job]) == {}


def test_an_element_that_was_cancelled_before_it_started_is_forgotten_by_slurm(
    say: Say, folder: StageFolder, tmp_path: Path
) -> None:
    say("squeue", listed("17_0", "RUNNING", host="n1"))
    queue = Queue()
    assert queue.ended(Job(folder, "17_2")) == Ended(0, "cancelled")
    assert queue.ended(Job(folder, "18_2")) is None  # nothing is known of its array
    assert queue.ended(Job(folder, "17")) is None
    begun = training_stage(tmp_path / "begun")
    begun.write_attempt(Attempt(number=1, host="n1", pid=1, started=0.0))
    assert queue.ended(Job(begun, "17_3")) is None


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (Dependency(), ""),
        (Dependency(complete=("9",), aligned=("7", "8")), "aftercorr:7:8,afterok:9"),
        (Dependency(complete=("7_2",), over=("5", "6")), "afterok:7_2,afterany:5:6"),
    ],
)
def test_dependencies_are_written_as_sbatch_takes_them(after: Dependency, text: str) -> None:
    assert dependency_text(after) == text
    assert bool(after) is bool(text)
