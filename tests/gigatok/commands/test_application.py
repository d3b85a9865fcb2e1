"""The command line of entry points: what it lists, imports and completes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gigatok.commands import application
from gigatok.commands.console import HELP
from gigatok.startup import PACKAGES

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = "from gigatok.commands.console import main\nmain()\n"
"""What pip writes for an entry point of scripts."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program as it is installed, in a folder of its own."""
    path = tmp_path / "bin" / "gigatok"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def run(program: Path, *words: str, **variables: str) -> str:
    folder = program.parent.parent / "work"
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, program, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another installed package: two commands, one of which is broken, and a name of ours."""
    (tmp_path / "other_lab.py").write_text(
        'def greet(name: str) -> None:\n    """Greet someone.\n\n    Twice."""\n'
        "    if name == 'nobody':\n        raise ValueError('nobody is here')\n"
        "    print(f'hello {name}')\n"
    )
    (tmp_path / "other_broken.py").write_text("import there_is_no_such_module\n")
    metadata = tmp_path / "other_lab-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-lab\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[gigatok.commands]\ngreet = other_lab:greet\nlaunch = other_lab:greet\n"
        "broken = other_broken:command\nmissing = not_installed.at_all:command\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    application.commands.cache_clear()
    yield
    application.commands.cache_clear()


def test_a_paragraph_of_the_help_fills_its_lines() -> None:
    app = application.application("First line,\nsecond.\n\nCodes: 0 done,\n1 failed.")
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert [line.strip() for line in shown.splitlines()][3:6] == [
        "First line, second.",
        "",
        "Codes: 0 done, 1 failed.",
    ]


def test_every_command_can_be_imported_and_is_described_by_its_docstring() -> None:
    assert {"launch", "status", "analysis", "encode"} <= application.commands().keys()
    for name, point in application.commands().items():
        command = application.loaded(point)
        line = application.described(point)
        assert line, name
        if not isinstance(point.load(), typer.Typer):
            assert line == (command.help or "").partition("\n")[0], name


def test_an_installed_package_adds_commands(other: None) -> None:
    app = application.application(HELP)
    done = CliRunner().invoke(app, ["greet", "Ada"])
    assert (done.exit_code, done.output) == (0, "hello Ada\n")
    refused = CliRunner().invoke(app, ["greet", "nobody"])
    assert (refused.exit_code, refused.stderr) == (2, "nobody is here\n")
    assert application.commands()["launch"].value == "orchestration.launch:launch"


def test_a_broken_command_breaks_no_other(other: None) -> None:
    app = application.application(HELP)
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert listed.exit_code == 0
    assert "Greet someone." in listed.output
    assert "broken: ModuleNotFoundError" in listed.output
    for name in ("broken", "missing"):
        refused = CliRunner().invoke(app, [name], env={"COLUMNS": "200"})
        assert refused.exit_code == 2
        assert f"{name} is broken: " in refused.output


def test_a_part_of_the_commands_is_that_of_one_package() -> None:
    app = application.application(HELP, within="orchestration.commands")
    commands = typer.main.get_command(app).list_commands(None)  # type: ignore[attr-defined,arg-type]
    assert "status" in commands
    assert not {"launch", "analysis", "encode"} & set(commands)


def test_a_misspelt_command_names_the_nearest() -> None:
    refused = CliRunner().invoke(application.application(HELP), ["lanch"])
    assert refused.exit_code == 2
    assert "launch" in refused.output


@pytest.mark.heavy
def test_help_imports_no_command(program: Path) -> None:
    look = "import atexit, sys\natexit.register(lambda: print(sorted(sys.modules)))\n"
    program.write_text(look + SCRIPT)
    shown = run(program, "--help")
    assert "Show what a launch would run and reuse" in shown
    modules = [f"{point.module}" for point in application.commands().values()]
    assert [name for name in modules if f"'{name}'" in shown] == []


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("gigatok", "sim"), ["simulate"]),
        (("gigatok", "launch", "dec"), ["decoder_scaling"]),
        (("gigatok", "launch", "my"), ["my_question.yaml"]),
    ],
)
def test_a_shell_completes_commands_and_sweeps(
    program: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    (program.parent.parent / "work").mkdir()
    (program.parent.parent / "work" / "my_question.yaml").touch()
    variables = {
        "_GIGATOK_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    assert run(program, **variables).split() == expected


@pytest.mark.heavy
def test_the_program_imports_nothing_from_the_working_folder(program: Path) -> None:
    folder = program.parent.parent / "work"
    folder.mkdir()
    for name in {*PACKAGES, "random", "typing"}:
        (folder / f"{name}.py").write_text("raise SystemExit('of the user')", encoding="utf-8")
    # Beside the program, too, lie programs of others.
    (program.parent / "random.py").write_text("raise SystemExit('of a program')")
    assert "figures" in run(program, "analysis", "--help", LC_ALL="C", PYTHONUTF8="0")
    shown = run(program, "plan", "decoder_scaling", "--scale", "smoke")
    assert "`gigatok calibrate decoder_scaling --scale smoke`" in shown
