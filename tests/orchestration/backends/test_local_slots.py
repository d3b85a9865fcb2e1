"""How many stages this machine runs at a time."""

from __future__ import annotations

import pytest

from orchestration.backends.local import MOST_PER_DEVICE, make_slots


@pytest.mark.parametrize("jobs", [1000, 100_000_000])
def test_more_than_the_machine_can_run_is_refused_at_once(
    jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(ValueError, match=rf"--jobs {jobs}: .* 2 cores, at most 16"):
        make_slots(jobs)
    assert len(make_slots(2 * MOST_PER_DEVICE)) == 16


def test_a_profile_says_how_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    assert [len(make_slots(None, most)) for most in (None, 1, 64)] == [2, 1, 2]
