"""What `python -m` takes from the place where it is typed: no module, no locale, no backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gigatok.startup import PACKAGES, for_children, hiding

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parent.parent
LOOK = """
import json, os, sys
print(json.dumps([sys.path[0], sys.flags.utf8_mode, os.environ.get("MPLBACKEND")]))
"""


def python(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_never_imports_from_the_working_folder(tmp_path: Path, package: str) -> None:
    for name in {*PACKAGES, "random", "socket", "typing_extensions"} - {package}:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the user')", encoding="utf-8")
    done = python(tmp_path, "-m", package, "--help", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_program_that_imports_the_packages_keeps_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import gigatok, analysis\n", encoding="utf-8")
    (tmp_path / "mine" / "study.py").write_text(LOOK, encoding="utf-8")
    done = python(tmp_path, "-m", "mine.study", MPLBACKEND="svg")
    assert done.stdout.strip() == f'["{tmp_path}", 0, "svg"]', done.stderr


def test_modules_that_hide_ours_are_named(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").touch()
    (tmp_path / "gigatok").mkdir()  # a folder of data is no package
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "__init__.py").touch()
    assert hiding(str(tmp_path)) == ["analysis.py", "dashboards"]
    assert hiding(str(ROOT)) == []


def test_children_import_the_code_that_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("raise SystemExit('of the user')", encoding="utf-8")
    done = python(tmp_path, "-m", "analysis", "--help", **for_children(str(ROOT), {}))
    assert done.returncode == 0, done.stderr
