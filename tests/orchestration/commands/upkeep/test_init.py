"""The command that copies the shipped sweeps, and plans with what it copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gigatok.commands.application import application
from orchestration.sweep.definition import SWEEPS_DIR

PLAN = ("plan", "mine/decoder_scaling.yaml", "--scale", "smoke")


def run(*words: str) -> str:
    done = CliRunner().invoke(application(""), words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_copies_to_edit_are_planned_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("init", "mine")
    assert "python -m orchestration.launch mine/decoder_scaling.yaml --scale smoke" in said
    names = {file.name for file in (tmp_path / "mine").glob("*.yaml")}
    assert names == {file.name for file in SWEEPS_DIR.glob("*.yaml")}
    assert (tmp_path / "mine" / "profiles" / "slurm.yaml").is_file()
    # The shipped scales, without a folder of them.
    assert "decoder_scaling at scale smoke · " in run(*PLAN)

    edited = tmp_path / "mine" / "decoder_scaling.yaml"
    edited.write_text(edited.read_text().replace("what does", "what on earth does"))
    (tmp_path / "mine" / "learning_rate.yaml").unlink()
    said = run("init", "mine")
    assert "mine: 1 files written" in said
    assert "what on earth does" in edited.read_text()

    (tmp_path / "mine" / "scales").mkdir()
    scale = (SWEEPS_DIR / "scales" / "smoke.yaml").read_text()
    (tmp_path / "mine" / "scales" / "smoke.yaml").write_text(scale)
    shown = run(*PLAN)
    assert "what on earth does" in shown
    assert "at scale smoke (mine/scales/smoke.yaml)" in shown


def test_a_file_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    refused = CliRunner().invoke(application(""), ["init", "mine"])
    assert refused.exit_code == 2
    assert "mine" in refused.output
