"""Options of a launch: declared once, and the same on the command line and in Python."""

from __future__ import annotations

import re
from inspect import signature

from typer.testing import CliRunner

from orchestration.__main__ import app
from orchestration.commands.resume import resume, retry
from orchestration.launch import launch
from orchestration.launching.launched import LaunchRequest
from orchestration.study.study import LaunchOptions

OPTIONS = {name for name, field in LaunchRequest.model_fields.items() if field.description}


def test_an_option_of_a_launch_is_one_field() -> None:
    assert signature(launch).parameters.keys() >= OPTIONS
    # On the command line, the patch is switched off by `--no-patch`.
    assert LaunchOptions.__annotations__.keys() == OPTIONS | {"send_patch"}


def test_what_is_left_out_stays_as_it_was_launched() -> None:
    for command in (resume, retry):
        found = signature(command).parameters
        assert {found[name].default for name in OPTIONS & found.keys()} == {None}
    shown = CliRunner().invoke(app, ["resume", "--help"], env={"COLUMNS": "160"}).output
    assert re.search(r"--jobs .*Stages at a time; default: as launched\.", shown)
    assert re.search(r"--backend .*One of: local, ray, slurm; default: as launched\.", shown)
    assert re.search(r"--ignore-gates .*Start larger models whatever smaller ones did\.", shown)
