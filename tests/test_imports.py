"""Which way imports go, and what planning must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards")
LIGHT_GIGATOK = (
    *("claims", "commands", "config", "contracts.base", "costs", "files", "names", "plugins"),
    *("stages", "startup", "text"),
    *("data.asset_table", "data.assets", "data.supplies", "runtime"),
    *("models.generator.layout", "models.tokenizer.layout"),
)
"""Modules of gigatok that import no torch."""
SHARED = ("claims", "contracts.base", "names", "plugins", "startup", "text")
"""Light modules that those who read runs need as well: names, options, and what claims say."""
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
    "polars": {"analysis", "dashboards"},
    "mlflow": {"orchestration", "analysis"},
    "streamlit": {"dashboards"},
    "altair": {"dashboards"},
    "vl_convert": {"dashboards"},
}
"""The packages that alone may import these. Torch starts in the worker
and in the server that forks workers."""


ROOMS = (
    # The science
    *("gigatok.startup", "gigatok.plugins", "gigatok.names", "gigatok.text", "gigatok.files"),
    *("gigatok.config.fields", "gigatok.config.kinds", "gigatok.config", "gigatok.claims"),
    *("gigatok.data.archives", "gigatok.data", "gigatok.runtime"),
    *("gigatok.models", "gigatok.costs", "gigatok.training"),
    *("gigatok.scores", "gigatok.published", "gigatok.stages", "gigatok.contracts"),
    *("gigatok.hub", "gigatok.api", "gigatok.folders", "gigatok.commands"),
    # When and where
    *("orchestration.yaml", "orchestration.runs", "orchestration.command_lines"),
    "orchestration.terminal",
    *("orchestration.sweep.settings", "orchestration.sweep.formulas"),
    *("orchestration.sweep.grid", "orchestration.sweep.search", "orchestration.sweep"),
    *("orchestration.plan", "orchestration.costs"),
    *("orchestration.execution", "orchestration.tracking", "orchestration.policy"),
    *("orchestration.exits", "orchestration.heart", "orchestration.worker"),
    *("orchestration.backends", "orchestration.backends.ray"),
    *("orchestration.forecast", "orchestration.launching"),
    *("orchestration.backends.detached", "orchestration.backends.slurm"),
    *("orchestration.search", "orchestration.study", "orchestration.commands"),
    # The results
    *("analysis.store", "analysis.statistics", "analysis.claims", "analysis.paper"),
    *("analysis.charts", "analysis.tables", "analysis.studies", "analysis.figures"),
    *("analysis.report", "dashboards"),
    # A plug-in may add to all of the rooms above, so its check uses them all.
    *("gigatok.commands.smoke_trials", "gigatok.commands.check"),
)
"""Rooms from the bottom up: each imports from those before it, lazily or for types as well.

A module belongs to the longest of these names that it begins with. Modules that stand directly in
a package above its rooms, such as `analysis.api`, are in none: no room imports them.
"""
ALLOWED = {
    ("gigatok/commands/smoke_trials.py", "orchestration"),
    ("gigatok/commands/smoke_trials.py", "analysis"),
    ("orchestration/worker.py", "torch"),
    ("orchestration/backends/preloaded.py", "gigatok"),
    ("orchestration/worker.py", "gigatok.runtime.distributed"),
}
MOST_MODULES = 15
"""Modules in one folder; more, and nobody reads them in order."""


@cache
def imports(file: Path) -> frozenset[str]:
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
    return frozenset(found)


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


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def files_of(room: str) -> list[Path]:
    """List the files of a room without those of rooms inside it; a module is its own file."""
    path = ROOT / room.replace(".", "/")
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    found = [file for file in files if room_of(module_of(file)) == room]
    assert found, f"no module in {room}"
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    wrong = []
    for file in files_of(room):
        relative = file.relative_to(ROOT)
        for name in imports(file):
            to = room_of(name)
            below = to in ROOMS and ROOMS.index(to) <= ROOMS.index(room)
            allowed = {(str(relative), to), (str(relative), name)} & ALLOWED
            if name.partition(".")[0] in PACKAGES and not (below or allowed):
                wrong.append(f"{relative} imports {name}")
    assert not wrong, wrong


def module_imports() -> dict[str, set[str]]:
    """Module of a package with rooms to the modules of them that it imports."""
    files = [file for top in PACKAGES for file in (ROOT / top).rglob("*.py")]
    names = {module_of(file): file for file in files}
    found = {}
    for name, file in names.items():
        known = {
            target if target in names else target.rpartition(".")[0] for target in imports(file)
        }
        found[name] = (known & names.keys()) - {name}
    return found


def test_no_modules_import_each_other() -> None:
    TopologicalSorter(module_imports()).prepare()


def folder_of(module: str) -> str:
    """Find the folder of a module; one that stands directly in a package is alone in its own."""
    is_folder = (ROOT / module.replace(".", "/")).is_dir()
    folder = module if is_folder else module.rpartition(".")[0]
    return module if folder in PACKAGES else folder


def test_no_folders_import_each_other() -> None:
    pairs = {
        (folder_of(module), folder_of(target))
        for module, targets in module_imports().items()
        for target in targets
    }
    assert [(a, b) for a, b in sorted(pairs) if a < b and (b, a) in pairs] == []


def test_a_folder_has_few_modules_side_by_side() -> None:
    folders = {file.parent for top in PACKAGES for file in (ROOT / top).rglob("*.py")}
    counts = {folder: len([*folder.glob("[!_]*.py")]) for folder in folders}
    assert {str(f.relative_to(ROOT)): n for f, n in counts.items() if n > MOST_MODULES} == {}


def test_no_package_has_a_module_called_utils() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("util*.py")]
    assert files == []


@pytest.mark.heavy
@pytest.mark.parametrize(
    "module",
    [
        "gigatok.__main__",
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
        "heavy += ('streamlit', 'altair', 'vl_convert');"
        "print([name for name in heavy if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@pytest.mark.heavy
def test_stages_that_train_nothing_start_without_what_training_needs() -> None:
    stages = (
        *("adopt_tokenizer", "adopt_generator", "extract_codes"),
        *("evaluate_reconstruction", "evaluate_generation", "search_guidance"),
    )
    code = (
        "import sys, importlib;"
        f"[importlib.import_module(f'gigatok.stages.{{name}}.run') for name in {stages!r}];"
        # Each takes as long to import as torch, and a sweep starts thousands of stages.
        "slow = ('torch.distributed.fsdp', 'torchmetrics', 'scipy', 'transformers');"
        "print([name for name in slow if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
