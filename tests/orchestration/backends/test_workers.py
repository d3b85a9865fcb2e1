"""Workers run the code that their server imported, and those of one stage end together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from orchestration.backends import workers
from orchestration.backends.workers import Team, rank_environments
from orchestration.runs import provenance

ROOT = Path(__file__).resolve().parents[3]
LAUNCHER = """
import sys
from pathlib import Path
with open(sys.argv[1], "a") as file:
    file.write(f"{__name__} ")
if __name__ == "__main__":
    from orchestration.backends import workers
    from orchestration.runs.state import StageFolder
    workers._PRELOAD = []  # torch takes seconds, and no stage is run here
    folder = StageFolder.at(Path(sys.argv[2]))
    team = workers.start_workers(folder, workers.Slot(1, ""), [{}], Path(sys.argv[2], "log"))
    (worker,) = team.running()
    worker.join()
    assert team.running() == []
    assert team.exit_code == 1
    assert sys.modules["__main__"].__file__ == __file__
"""


@pytest.mark.heavy
def test_a_worker_does_not_run_the_launcher_again(tmp_path: Path) -> None:
    script, seen = tmp_path / "launcher.py", tmp_path / "seen"
    script.write_text(LAUNCHER)
    command = [sys.executable, str(script), str(seen), str(tmp_path)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert seen.read_text() == "__main__ "
    assert "Traceback" in (tmp_path / "log").read_text()  # it ran: there is no stage to find


@pytest.mark.heavy
def test_workers_import_nothing_from_the_folder_of_a_program_that_uses_the_packages(
    tmp_path: Path,
) -> None:
    place, script, seen = tmp_path / "place", tmp_path / "launcher.py", tmp_path / "seen"
    place.mkdir()
    mark = f"import pathlib; pathlib.Path({str(tmp_path / 'mark')!r}).touch()\n"
    for name in ("gigatok", "orchestration", "random", "tempfile"):
        (place / f"{name}.py").write_text(f"{mark}raise SystemExit('of the user')\n")
    script.write_text(LAUNCHER.replace("_PRELOAD = []", "_PRELOAD = ['gigatok.names']"))
    command = [sys.executable, str(script), str(seen), str(tmp_path)]
    subprocess.run(command, cwd=place, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert not (tmp_path / "mark").exists()


def test_the_state_of_the_code_is_asked_for_once() -> None:
    provenance.imported_state.cache_clear()
    provenance.imported_state()
    provenance.collect()
    assert provenance.collect()["git_sha"] == provenance.imported_state()["git_sha"]
    assert provenance.imported_state.cache_info().misses == 1


# Several processes of one stage


def succeed() -> None:
    """End with exit code 0."""


def fail() -> None:
    sys.exit(3)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Wait for others that never come, deaf to requests."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)


def started(*ends: Callable[[], None]) -> list[BaseProcess]:
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [context.Process(target=end) for end in ends]
    for process in processes:
        process.start()
    return processes


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ((succeed, succeed), 0),
        ((hang, fail), 3),
        ((fail, hang), 3),
        ((hang, die), -signal.SIGKILL),
        ((hang, succeed, fail), 3),
    ],
)
def test_a_team_ends_as_the_first_that_failed(
    ends: tuple[Callable[[], None], ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PARTNER_SECONDS", 0.2)
    team = Team(started(*ends))
    while team.running():
        time.sleep(0.05)
    assert team.exit_code == code


@pytest.mark.heavy
def test_a_death_counts_more_than_what_followed_in_the_same_moment() -> None:
    processes = started(fail, die)
    for process in processes:
        process.join()
    team = Team(processes)
    assert team.running() == []
    assert team.exit_code == -signal.SIGKILL


def test_processes_of_one_machine_meet_at_a_place_of_their_own() -> None:
    assert rank_environments(1) == [{}]
    first, second = rank_environments(2), rank_environments(2)
    assert [one["RANK"] for one in first] == ["0", "1"]
    places = [{one["GIGATOK_MEETING"] for one in stage} for stage in (first, second)]
    assert [len(place) for place in places] == [1, 1]
    assert places[0] != places[1]
    (other,) = rank_environments(2, nodes=2, node=1, meeting=("host", 29500))
    assert other == {
        **{"MASTER_ADDR": "host", "MASTER_PORT": "29500"},
        **{"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"},
    }
