"""Places of this machine: how many stages run at a time, and what each has."""

from __future__ import annotations

import pytest

from orchestration.backends.base import Infeasible
from orchestration.backends.local import MOST_PER_DEVICE, LocalBackend, find_places
from orchestration.policy.profile import Request


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})


@pytest.fixture
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside 16 cores."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("jobs", [1000, 100_000_000])
def test_more_than_the_machine_can_run_is_refused_at_once(jobs: int) -> None:
    with pytest.raises(ValueError, match=rf"--jobs {jobs}: .* 2 cores, at most 16"):
        find_places(jobs)
    assert find_places(2 * MOST_PER_DEVICE).jobs == 16


@pytest.mark.usefixtures("two_cores")
def test_a_profile_says_how_many_at_most() -> None:
    assert [find_places(None, most).jobs for most in (None, 1, 64)] == [2, 1, 2]


@pytest.mark.usefixtures("eight_gpus")
@pytest.mark.parametrize(
    ("jobs", "processes", "at_once", "threads"),
    [
        (None, 1, 8, 2),
        (None, 3, 2, 2),
        (None, 4, 2, 2),
        (None, 8, 1, 2),
        (2, 1, 2, 8),
        (2, 4, 2, 2),
        (1, 4, 1, 4),
        (16, 1, 16, 1),
    ],
)
def test_stages_share_gpus_and_cores_out(
    jobs: int | None, processes: int, at_once: int, threads: int
) -> None:
    places = find_places(jobs)
    assert (places.at_once(processes), places.threads(processes)) == (at_once, threads)


@pytest.mark.parametrize(
    ("cores", "jobs", "processes", "at_once", "threads"),
    [
        (8, None, 1, 4, 2),
        (8, None, 2, 4, 1),
        (8, None, 3, 2, 1),
        (8, 2, 2, 2, 2),
        (2, None, 2, 1, 1),
        (2, 1, 4, 1, 1),
        (64, None, 8, 4, 2),
    ],
)
def test_without_gpus_each_process_has_a_core(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    jobs: int | None,
    processes: int,
    at_once: int,
    threads: int,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    places = find_places(jobs)
    assert (places.at_once(processes), places.threads(processes)) == (at_once, threads)


@pytest.mark.usefixtures("eight_gpus")
def test_gpus_that_are_not_there_are_refused() -> None:
    backend = LocalBackend()
    for allowed in (Request(), Request(processes=8), Request(processes=2, gpus=1)):
        backend.check(allowed)
    for request, said in (
        (Request(processes=9, gpus=1), "9 processes with gpus 1: this machine has 8"),
        (Request(processes=9), "processes 9: each needs a GPU of its own, and this machine has 8"),
        (Request(processes=2, nodes=2), "nodes 2: the local backend has one"),
    ):
        with pytest.raises(Infeasible, match=said):
            backend.check(request)


@pytest.mark.usefixtures("eight_gpus")
def test_gpus_that_jobs_share_are_no_processes_own() -> None:
    backend = LocalBackend(16)
    backend.check(Request())
    with pytest.raises(Infeasible, match="--jobs 16 lets stages share the 8 GPUs; ask for at m"):
        backend.check(Request(processes=2))


@pytest.mark.usefixtures("two_cores")
def test_processes_without_end_are_refused() -> None:
    LocalBackend().check(Request(processes=16))
    with pytest.raises(Infeasible, match="processes 17: this machine runs at most 16"):
        LocalBackend().check(Request(processes=17))
