"""The commit is known whoever owns the checkout and whatever a git hook has exported."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestration.runs.provenance import git_state


def git(folder: Path, *arguments: str) -> str:
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = {
        f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **identity, **names},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.strip()


def repository(folder: Path) -> str:
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", folder.name)
    return git(folder, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"},  # "dubious ownership", by git's own test
        {"GIT_DIR": "{other}/.git"},
        {"GIT_DIR": "{other}/.git", "GIT_WORK_TREE": "{other}"},
    ],
)
def test_the_commit_is_that_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    sha = repository(tmp_path / "code")
    assert repository(tmp_path / "other") != sha
    for name, text in variables.items():
        monkeypatch.setenv(name, text.format(other=tmp_path / "other"))
    state = git_state(tmp_path / "code")
    assert (state["git_sha"], state["git_dirty"]) == (sha, False)


def test_without_git_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "code")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path / "code")["git_sha"] is None
