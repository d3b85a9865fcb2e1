"""Results survive upgrades: runs directories of earlier versions are reused as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gigatok.stages import BUILT_IN
from orchestration.execution.progress import Progress, survey
from orchestration.launching.history import newest_launch
from orchestration.launching.launched import restored
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.plan.make_runs_fixture import FIXTURES, SWEEPS, check

FIXTURE_NAMES = sorted(folder.name for folder in FIXTURES.glob("runs_*"))
RAISED: dict[str, dict[str, str]] = {
    "runs_1": {
        "evaluate_reconstruction": "version 3: `ssim` is over windows inside the image",
        "evaluate_generation": "version 2: protocols name the estimates of KID and precision",
        "search_guidance": "version 2: the same of KID",
    },
    "runs_2": {},
}
"""Stages whose version was raised on purpose since a fixture was made, and why."""


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, into which a fixture can be copied."""
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def surveyed(sweep: str, *overrides: str) -> Progress:
    loaded = load_sweep(f"{sweep}.yaml", None, overrides)
    return survey(make_plan(loaded, expand(loaded)), Store(Path("runs")))


@pytest.mark.parametrize("name", FIXTURE_NAMES)
def test_every_stage_of_an_earlier_version_is_reused(name: str, earlier: Path) -> None:
    """A failure means that users lose their results: give the change of a key up.

    A new option belongs behind a default; a changed meaning or default, which is meant to lose
    them, raises the version of the stages concerned, which then have a line in `RAISED`.
    """
    shutil.copytree(FIXTURES / name, earlier, dirs_exist_ok=True)
    kinds, lost = set(), set()
    for sweep in SWEEPS:
        progress = surveyed(sweep)
        stages = progress.plan.stages
        # `reused` would miss those that have to run again for a raised one, as the fixtures hold
        # no large outputs.
        lost |= {s.stage for key, s in stages.items() if not progress.folders[key].done()}
        assert RAISED[name] or set(stages) == progress.reused
        kinds |= {stage.stage for stage in stages.values()}
    assert lost == set(RAISED[name])
    assert kinds == set(BUILT_IN)


def test_the_newest_fixture_is_of_this_version() -> None:
    """A raised stage is an exception in older fixtures, and its new key is kept by the next."""
    assert not RAISED[FIXTURE_NAMES[-1]], "make the next fixture: see make_runs_fixture.py"


@pytest.mark.parametrize("name", FIXTURE_NAMES)
def test_a_plan_that_an_earlier_version_recorded_is_read(name: str, earlier: Path) -> None:
    """Commands that go on with a launch read its record; none of them plans again."""
    shutil.copytree(FIXTURES / name, earlier, dirs_exist_ok=True)
    for sweep in SWEEPS:
        store = Store(Path("runs"))
        recorded = restored(newest_launch(store, sweep), store)
        loaded = load_sweep(f"{sweep}.yaml", None, ())
        planned = make_plan(loaded, expand(loaded))
        then, now = (
            {key for key, stage in plan.stages.items() if stage.stage not in RAISED[name]}
            for plan in (recorded, planned)
        )
        assert then == now
        assert RAISED[name] or recorded.key == planned.key


def test_what_is_not_there_is_not_reused(earlier: Path) -> None:
    shutil.copytree(FIXTURES / FIXTURE_NAMES[-1], earlier, dirs_exist_ok=True)
    progress = surveyed("trained", "tokenizer.lr=1e-3")
    # Not `reused`: their outputs were not kept, so a stage that needs them makes them run again.
    there = {s.stage for key, s in progress.plan.stages.items() if progress.folders[key].done()}
    assert there == {"extract_teacher_features", "extract_reference_features"}


@pytest.mark.parametrize("name", FIXTURE_NAMES)
def test_no_record_names_this_machine(name: str) -> None:
    check(FIXTURES / name)
