"""The program as its users have it: a wheel in a virtual environment of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards", "sweeps", "examples")
HIDDEN = ("PYTHONPATH", "VIRTUAL_ENV")
"""Variables that could lead from an environment to the checkout."""


def run(*command: str | Path, folder: Path, code: int = 0) -> str:
    """Run a command that must end with an exit code; returns its output, with errors last."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in HIDDEN},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def installed_python(top: Path) -> Path:
    """Build and install the wheel; returns the Python of its environment.

    Other packages are found where these tests find them.

    Args:
        top: empty folder for source, wheel and environment.
    """
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


def install_example(python: Path, folder: Path) -> Path:
    """Install the example plug-in; returns the copy that it was installed from."""
    example = folder / "example"
    shutil.copytree(ROOT / "examples" / "plugin", example)
    run(python, "-m", "pip", "install", "--no-deps", example, folder=folder)
    return example


def remove_example(python: Path, folder: Path) -> None:
    """Uninstall the example plug-in."""
    run(python, "-m", "pip", "uninstall", "--yes", "gigatok-example", folder=folder)


def outcome(runs: Path) -> dict[str, dict[str, str]]:
    """Map each complete stage, named with its key, to the sha256 of its weights by file."""
    stages = runs / "stages"
    return {
        done.parent.relative_to(stages).as_posix(): {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in done.parent.glob("out/*.safetensors")
        }
        for done in stages.glob("*/[!.]*/DONE")
    }
