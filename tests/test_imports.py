"""Which way imports go, and what planning must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards")
LIGHT_GIGATOK = (
    "assets",
    "config",
    "costs",
    "credentials",
    "data_fingerprints",
    "durable",
    "measures",
    "markdown",
    "masking",
    "models.frozen.layout",
    "models.generator.layout",
    "models.tokenizer.layout",
    "names",
    "stages",
    "startup",
    "supplies",
    "tracker",
)
"""Modules of gigatok that import no torch."""
SHARED = ("names", "startup", "text")
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
ROOMS: dict[str, set[str]] = {
    "analysis.store": set(),
    "analysis.statistics": {"analysis.store"},
    "analysis.claims": {"analysis.statistics", "analysis.store"},
    "analysis.paper": {"analysis.store"},
    "analysis.charts": {"analysis.store"},
    "analysis.tables": {
        "analysis.charts",
        "analysis.paper",
        "analysis.statistics",
        "analysis.store",
    },
    "analysis.studies": {"analysis.statistics", "analysis.store", "analysis.tables"},
    "analysis.figures": {
        *("analysis.charts", "analysis.claims", "analysis.paper", "analysis.statistics"),
        *("analysis.store", "analysis.studies", "analysis.tables"),
    },
    "analysis.report": {
        *("analysis.charts", "analysis.claims", "analysis.figures", "analysis.statistics"),
        *("analysis.store", "analysis.tables"),
    },
    "dashboards": {
        *("analysis.charts", "analysis.figures", "analysis.store", "analysis.studies"),
        "analysis.tables",
    },
}
"""Room to the rooms that it may import from, lazy and TYPE_CHECKING imports included.

A room's package is the longest of these names that a module begins with. Modules directly in a
package of several rooms, such as `analysis.api`, stand above all of its rooms: no room imports
them, which the same test shows, as they are in no list.
"""
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
            # What is imported may be a module itself: `from analysis.figures import gallery`.
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            if node.module not in PACKAGES:
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


def room_of(name: str) -> str:
    """Find the room of a module; a module above the rooms is alone in its own."""
    return max((room for room in ROOMS if within(name, {room})), key=len, default=name)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    roomy = {name.partition(".")[0] for name in ROOMS}
    wrong = []
    for file in (ROOT / room.replace(".", "/")).rglob("*.py"):
        relative = file.relative_to(ROOT)
        for name in imports(file):
            to = room_of(name)
            if name.partition(".")[0] in roomy and to not in ROOMS[room] | {room}:
                wrong.append(f"{relative} imports {name}")
    assert not wrong, wrong


def test_arrows_between_rooms_go_one_way() -> None:
    TopologicalSorter(ROOMS).prepare()  # raises CycleError otherwise


def module_imports() -> dict[str, set[str]]:
    """Module of a package with rooms to the modules of them that it imports."""
    files = [
        f for top in {room.partition(".")[0] for room in ROOMS} for f in Path(top).rglob("*.py")
    ]
    names = {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in files
    }
    found = {}
    for name, file in names.items():
        known = {
            target if target in names else target.rpartition(".")[0] for target in imports(file)
        }
        found[name] = (known & names.keys()) - {name}
    return found


def test_no_modules_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    TopologicalSorter(module_imports()).prepare()


def test_no_package_has_a_module_called_utils() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("util*.py")]
    assert files == []


@pytest.mark.heavy
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
