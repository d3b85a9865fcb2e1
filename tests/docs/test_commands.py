"""The commands that README and docs show: all are parsed, those marked `<!-- run -->` are run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import PAGES, ROOT, Block, blocks, commands, generated

OURS = {
    "orchestration.launch",
    "orchestration",
    "analysis",
    "dashboards",
    "gigatok",
    "gigatok.published",
}
"""Command lines whose parsers check what the pages show."""
OTHER_MODULES = {
    *("mkdocs", "orchestration.worker", "orchestration.sweep.schema"),
    *("tests.benchmarks.gpu", "tests.benchmarks.models", "tests.benchmarks.sampling"),
}
FOREIGN = {"mlflow", "optuna-dashboard", "torchrun"}
"""Programs of packages that we install, whose options can be looked up."""
OTHER_PROGRAMS = {
    "ruff",
    "mypy",
    "createuser",
    "createdb",
    "mv",
    "docker",
    "kubectl",
    "sky",
    "rsync",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SWEEPS = {path.stem for path in (ROOT / "sweeps").glob("*.yaml")}
EXAMPLES = ROOT / "examples" / "sweeps"
SCALES = {path.stem for path in (ROOT / "sweeps" / "scales").glob("*.yaml")}
SHELL = blocks("bash")
FENCES = {"```", "```bash", "```python", "```yaml", "```text"}
SECONDS = 600


def test_no_block_is_overlooked() -> None:
    fences = [
        line for page in PAGES for line in page.read_text("utf-8").splitlines() if "```" in line
    ]
    assert {line for line in fences if line not in FENCES} == set()
    assert 2 * len(blocks("bash", "python", "yaml", "text")) == len(fences)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_parse(block: Block) -> None:
    found = list(commands(block))
    assert found, "a bash block shows a command"
    for words in found:
        check(words)


def check(words: list[str]) -> None:
    """Fail unless a command exists and takes these arguments."""
    program, *rest = words
    if program == "python" and rest[0] == "-c":
        check_code(rest[1])
    elif program == "python":
        arguments = rest[rest.index("-m") + 1 :]
        check_module(*arguments[:1], arguments[1:])
    elif program == "ray":
        check(rest[rest.index("--") + 1 :])
    elif program == "gigatok":
        check_module(program, rest)
    elif program == "pip":
        check_install(rest)
    elif program == "pytest":
        check_marks(rest)
    else:
        assert program in FOREIGN | OTHER_PROGRAMS, f"unknown program {program}"


def check_module(module: str, arguments: list[str]) -> None:
    if module not in OURS:
        assert module in OTHER_MODULES, f"unknown command python -m {module}"
        assert module == "mkdocs" or find_spec(module)  # MkDocs is an extra of its own
        return
    check_values(parsed(generated().command_line(module), module, arguments))


def parsed(command: Any, name: str, arguments: list[str]) -> Mapping[str, Any]:
    """Parse arguments as the command would, and return its parameters."""
    context = command.make_context(name, arguments)
    if not hasattr(command, "commands"):
        return dict(context.params)
    below = [*context._protected_args, *context.args]
    if not below:
        assert command.invoke_without_command, f"{name} needs a subcommand"
        return dict(context.params)
    found, subcommand, rest = command.resolve_command(context, below)
    return parsed(subcommand, found, rest)


def check_values(parameters: Mapping[str, Any]) -> None:
    """Fail unless sweeps, scales and keys of `--set` exist."""
    sweep = parameters.get("sweep")
    named = {word for word in (sweep, *(parameters.get("sweeps") or ())) if word}
    # Files that the reader writes, or `new-plugin`.
    own = {"my_question", "my_question.yaml", "my_lab/my_lab_ternary.yaml"}
    examples = {f"examples/sweeps/{path.name}" for path in EXAMPLES.glob("*.yaml")}
    known = SWEEPS | own | examples | {f"sweeps/{name}.yaml" for name in SWEEPS}
    assert named <= known, f"no sweep {', '.join(named - known)}"
    assert parameters.get("scale") in (None, *SCALES), f"no scale {parameters['scale']}"
    for setting in parameters.get("set_") or ():
        key = setting.partition("=")[0]
        assert key == "seed" or key in generated().schema(), f"--set {setting}: no such key"


def check_install(words: list[str]) -> None:
    extras = [name for word in words for name in re.findall(r"\[(.*)\]", word)]
    known = PROJECT["project"]["optional-dependencies"]
    unknown = {name for extra in extras for name in extra.split(",")} - set(known)
    assert unknown == set(), "extras that pyproject.toml does not have"


def check_marks(words: list[str]) -> None:
    if "-m" in words:
        known = {line.partition(":")[0] for line in marks()}
        expression = words[words.index("-m") + 1]
        assert set(re.findall(r"\w+", expression)) - {"not", "and", "or"} <= known


def marks() -> list[str]:
    return list(PROJECT["tool"]["pytest"]["ini_options"]["markers"])


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(FOREIGN))
def test_options_of_other_programs(program: str) -> None:
    shown = [words for block in SHELL for words in commands(block) if words[0] == program]
    assert shown, "no page shows it any more"
    for words in shown:
        subcommand = [word for word in words[1:2] if program == "mlflow"]
        path = Path(sys.executable).parent / program
        told = subprocess.run(
            [path, *subcommand, "--help"], capture_output=True, text=True, check=True
        )
        options = [word for word in words if word.startswith("--")]
        assert [option for option in options if option not in told.stdout] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_code_names_what_exists(block: Block) -> None:
    check_code(block.text)


def check_code(text: str) -> None:
    """Fail unless code compiles and imports names that exist."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            for name in missing:  # a submodule
                importlib.import_module(f"{node.module}.{name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


SWEEP = """
question: Does a page show a part of this?
scale: smoke
axes: {tokenizer.decoder: [S, L], tokenizer.semantic_weight: [0, 0.5]}
set: {tokenizer.encoder: S}
claims: {sharper: psnr at tokenizer.decoder=L is higher than at S}
"""


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_plans(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sweeps are planned, a part of one within another; profiles are used in a plan."""
    file = tmp_path / "my_question.yaml"
    is_part = set(yaml.safe_load(block.text)) <= {"seeds", "figure"}
    file.write_text((SWEEP if is_part else "") + block.text)
    is_sweep = is_part or "question:" in block.text
    words = [str(file)] if is_sweep else ["decoder_scaling", "--profile", str(file)]
    plan = generated().command_line("orchestration")
    arguments = ["plan", *words, "--runs-dir", str(tmp_path / "runs"), "--backend", "slurm"]
    code = plan.main(arguments[:-2] if is_sweep else arguments, standalone_mode=False)
    assert not code, capsys.readouterr()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in whose `runs` decoder_scaling is complete at scale smoke."""
    folder = tmp_path_factory.mktemp("docs")
    shell(folder, "python -m orchestration.launch decoder_scaling --scale smoke")
    return folder


def shell(folder: Path, text: str) -> None:
    """Run lines of a shell, with our Python first, and the code of this working tree."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in SHELL if block.runs], ids=str)
def test_commands_run(block: Block, finished: Path) -> None:
    shell(finished, block.text)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in blocks("python") if block.runs], ids=str)
def test_code_runs(block: Block, finished: Path) -> None:
    (finished / "example.py").write_text(block.text)
    shell(finished, "python example.py")
