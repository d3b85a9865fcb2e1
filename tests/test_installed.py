"""Installed from a wheel, without the checkout: the main job, and a plug-in beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards", "sweeps", "examples")


def run(*command: str | Path, folder: Path) -> str:
    """Run a command that must succeed, without any variable that could lead to the checkout."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, which finds other packages where these tests do."""
    top = tmp_path_factory.mktemp("wheel")
    source = top / "source"
    for package in PACKAGES:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=without)
    for name in BUILT_FROM:
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, source / name)
    run(sys.executable, "-m", "venv", top / "venv", folder=top)
    python = top / "venv" / "bin" / "python"
    run(python, "-m", "pip", "wheel", "--no-deps", "-w", top / "dist", source, folder=top)
    (wheel,) = (top / "dist").glob("*.whl")
    run(python, "-m", "pip", "install", "--no-deps", wheel, folder=top)
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", purelib, folder=top).strip())
    # The checkout is not among these folders: an editable install names it in a `.pth` file, and
    # those of folders that a `.pth` file adds are not read.
    names = ("site-packages", "dist-packages")
    others = [entry for entry in sys.path if Path(entry).name in names]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    return python


def test_the_main_job_runs_outside_any_checkout(python: Path, tmp_path: Path) -> None:
    where = run(python, "-P", "-c", "import gigatok; print(gigatok.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    shown = run(
        *(python, "-m", "orchestration.launch", "decoder_scaling", "--scale", "smoke"),
        *("--set", "tokenizer.decoder=S"),
        folder=tmp_path,
    )
    assert "0 failed" in shown
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    for command in ("figures", "report", "table"):
        run(python, "-m", "analysis", command, "decoder_scaling", folder=tmp_path)
    run(python, "-m", "analysis", "figures", "figure7", folder=tmp_path)
    run(python, "-m", "dashboards", "export", "decoder_scaling", folder=tmp_path)


def test_a_plugin_is_installed_beside_it_and_its_results_outlive_it(
    python: Path, tmp_path: Path
) -> None:
    example = tmp_path / "example"
    shutil.copytree(ROOT / "examples" / "plugin", example)
    pip = (python, "-m", "pip")
    run(*pip, "install", "--no-deps", example, folder=tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    shutil.copyfile(example / "ternary.yaml", work / "ternary.yaml")
    shown = run(python, "-m", "orchestration", "plan", "ternary.yaml", "--stages", folder=work)
    assert "brightness" in shown
    shown = run(python, "-m", "orchestration.launch", "ternary.yaml", folder=work)
    assert "0 failed" in shown
    assert "brightness (of originals)" in shown
    drawn = run(
        *(python, "-m", "analysis", "figures", "brightness", "--source", "runs"), folder=work
    )
    assert "brightness-runs.png" in drawn
    before = run(python, "-m", "analysis", "table", "ternary", folder=work)
    assert "brightness (of originals)" in before
    # A command that has nothing to do with the plug-in is as it was.
    run(python, "-m", "orchestration", "plan", "decoder_scaling", "--scale", "smoke", folder=work)
    run(*pip, "uninstall", "--yes", "gigatok-example", folder=work)
    status = run(python, "-m", "orchestration", "status", "ternary", folder=work)
    # A terminal of a test is narrow: the message may be on two lines.
    assert "no module 'gigatok_example' can be imported here" in " ".join(status.split())
    assert run(python, "-m", "analysis", "table", "ternary", folder=work) == before


def test_a_new_plugin_is_installed_and_checked(python: Path, tmp_path: Path) -> None:
    run(python, "-m", "gigatok", "new-plugin", "my_lab", folder=tmp_path)
    pip = (python, "-m", "pip")
    run(*pip, "install", "--no-deps", tmp_path / "my_lab", folder=tmp_path)
    # The figure shows what its other things do, so its smoke trial runs all of them.
    shown = run(python, "-m", "gigatok", "check", "my_lab", "--kind", "figure", folder=tmp_path)
    assert "all promises are kept" in shown
    sweep = tmp_path / "my_lab" / "my_lab_ternary.yaml"
    planned = run(python, "-m", "orchestration", "plan", sweep, "--stages", folder=tmp_path)
    assert "my_lab_brightness" in planned
    run(*pip, "uninstall", "--yes", "my-lab", folder=tmp_path)
