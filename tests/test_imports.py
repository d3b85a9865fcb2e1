"""Which way imports go, and what planning must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards")
LIGHT_GIGATOK = (
    "assets",
    "config",
    "credentials",
    "data_fingerprints",
    "durable",
    "flops",
    "frozen_flops",
    "markdown",
    "masking",
    "memory",
    "names",
    "sizes",
    "stages",
    "startup",
    "supplies",
    "tracker",
)
"""Modules of gigatok that import no torch."""
SHARED = ("credentials", "markdown", "names", "startup")
"""Modules of the standard library alone, which those who read runs need as well."""
MAY_IMPORT = {
    "gigatok": {"gigatok"},
    "orchestration": {"orchestration", *(f"gigatok.{name}" for name in LIGHT_GIGATOK)},
    "analysis": {"analysis", *(f"gigatok.{name}" for name in SHARED)},
    "dashboards": {"dashboards", "analysis", *(f"gigatok.{name}" for name in SHARED)},
}
OWNERS = {
    "torch": {"gigatok"},
    "ray": {"orchestration"},
    "submitit": {"orchestration"},
    "optuna": {"orchestration"},
    "matplotlib": {"analysis"},
    "polars": {"analysis"},
    "mlflow": {"orchestration", "analysis"},
    "streamlit": {"dashboards"},
    "plotly": {"dashboards"},
}
"""The packages that alone may import these. Torch starts in the worker
and in the server that forks workers."""
ALLOWED = {
    ("orchestration/worker.py", "torch"),
    ("orchestration/backends/preloaded.py", "gigatok"),
    ("orchestration/worker.py", "gigatok.runtime.distributed"),
}


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            if node.module in PACKAGES:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def within(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = []
    for file in (ROOT / package).rglob("*.py"):
        relative = str(file.relative_to(ROOT))
        for name in imports(file):
            top = name.partition(".")[0]
            foreign = top in PACKAGES and not within(name, MAY_IMPORT[package])
            unowned = top in OWNERS and package not in OWNERS[top]
            allowed = {(relative, top), (relative, name)} & ALLOWED
            if (foreign or unowned) and not allowed:
                wrong.append(f"{relative} imports {name}")
    assert not wrong, wrong


def test_no_package_has_a_module_called_utils() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("util*.py")]
    assert files == []


@pytest.mark.parametrize(
    "module",
    [
        "orchestration.launch",
        "orchestration.__main__",
        "analysis.__main__",
        "dashboards.__main__",
    ],
)
def test_commands_start_without_heavy_imports(module: str) -> None:
    code = (
        f"import sys, importlib; importlib.import_module({module!r});"
        "heavy = ('torch', 'ray', 'mlflow', 'optuna', 'matplotlib', 'pandas');"
        "heavy += ('streamlit', 'plotly');"
        "print([name for name in heavy if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
