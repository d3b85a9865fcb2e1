"""The copy of the code that jobs run: whole, made once, and it knows where it comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.backends.snapshot import PARTS, SOURCE, take_snapshot
from orchestration.runs.provenance import git_state
from orchestration.runs.state import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with this project's code in it."""
    source = tmp_path / "my code"
    skip = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (SOURCE / part).exists():
            shutil.copytree(SOURCE / part, source / part, ignore=skip)
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "start")
    return source


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


@pytest.mark.heavy
def test_it_holds_everything_that_a_worker_imports(tmp_path: Path, source: Path) -> None:
    snapshot = take_snapshot(Store(tmp_path / "runs"), source)
    shutil.rmtree(source)
    program = (
        "import orchestration.worker, orchestration.sweep.definition as s;"
        "s.find_sweep('decoder_scaling'); print(s.__file__)"
    )
    variables = {**os.environ, "PYTHONPATH": str(snapshot), "PYTHONSAFEPATH": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(snapshot / "orchestration" / "sweep" / "definition.py")


@pytest.mark.heavy
def test_an_unchanged_source_is_copied_once_and_a_changed_one_again(
    tmp_path: Path, source: Path
) -> None:
    store = Store(tmp_path / "runs")
    first = take_snapshot(store, source)
    made = first.stat().st_mtime_ns
    assert take_snapshot(store, source) == first
    assert first.stat().st_mtime_ns == made
    (source / "gigatok" / "names.py").open("a").write("# changed\n")
    second = take_snapshot(store, source)
    assert second != first
    assert "# changed" not in (first / "gigatok" / "names.py").read_text()
    assert sorted(path.name for path in first.parent.iterdir()) == sorted(
        [first.name, second.name]
    )


@pytest.mark.heavy
def test_it_knows_the_state_of_git_at_launch(tmp_path: Path, source: Path) -> None:
    store = Store(tmp_path / "runs")
    clean = git_state(source)
    assert clean["git_sha"]
    assert git_state(take_snapshot(store, source)) == clean
    (source / "gigatok" / "names.py").open("a").write("# changed\n")
    changed = take_snapshot(store, source)
    git(source, "commit", "--quiet", "-a", "-m", "later")
    state = git_state(changed)
    assert state["git_sha"] == clean["git_sha"]
    assert state["git_dirty"]
    assert "+# changed" in state["git_patch"]


def test_a_launch_from_a_snapshot_uses_it_as_it_is(tmp_path: Path, source: Path) -> None:
    store = Store(tmp_path / "runs")
    snapshot = take_snapshot(store, source)
    assert take_snapshot(store, snapshot) == snapshot
