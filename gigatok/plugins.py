"""Plug-ins: code of users that registers data sets, models, stages, metrics, backends, figures.

A plug-in is an importable module, a Python file, or a folder with `__init__.py`. To import it is
to register what it offers, by the calls that the built-ins use. Each one has an identity, the
version of its distribution or a hash of its code, which enters the keys of the stages that it
touches: other code gives other results. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from gigatok.startup import PACKAGES

GROUP, FIGURES = "gigatok.plugins", "gigatok.figures"
"""Entry points of installed distributions; the value of each is a module.

Those of figures are apart: they are drawn with packages that planning must not import.
"""
DIGITS = 16
"""Hex digits of a hash of code, as many as a stage's key has."""

T = TypeVar("T")


class Registry(dict[str, T]):
    """Entries of one kind by name.

    Attributes:
        kind: what an entry is called in messages, such as `stage`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def add(self, name: str, entry: T) -> T:
        """Add an entry, and return it.

        Raises:
            ValueError: another one has the name.
        """
        if name in self:
            raise ValueError(f"there is a {self.kind} {name!r} already; choose another name")
        self[name] = entry
        return entry


# Registries that plug-ins fill, by what an entry is called. A plug-in's entries are found by
# comparing them before and after its import, so that registering needs to know of no plug-in.
_REGISTRIES: dict[str, Registry[Any]] = {}
_CONTRACTS: dict[str, str] = {}
"""Contracts that do not lie in `gigatok.contracts`, by kind."""
_log = logging.getLogger(__name__)
_broken: set[str] = set()
"""Installed plug-ins that were warned of."""


@dataclass(frozen=True)
class Plugin:
    """Plug-in after its import.

    Attributes:
        name: as a sweep names it.
        identity: version of its distribution, or hash of its code.
        package: its modules are this one and those below it.
        file: its Python file, or the folder of its package; None: an importable module.
        entries: kind -> names that it has registered.
    """

    name: str
    identity: str
    package: str
    file: Path | None = None
    # Left out of comparisons: a dict has no hash.
    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


class PluginError(ValueError):
    """Plug-in that is missing or cannot be imported, and why."""


LOADED: dict[str, Plugin] = {}
"""Every plug-in of this process, by its package."""


def registry(kind: str, contract: str | None = None) -> Registry[Any]:
    """Make the registry of a kind, which plug-ins may fill; later calls return the same one.

    Args:
        kind: what an entry is called in messages, such as `stage`.
        contract: module that checks an entry; None: the one in `gigatok.contracts` that is called
            like the kind.
    """
    if contract is not None:
        _CONTRACTS[kind] = contract
    return _REGISTRIES.setdefault(kind, Registry(kind))


def kinds() -> tuple[str, ...]:
    """Name the kinds of things that plug-ins may register, as far as they are imported."""
    return tuple(_REGISTRIES)


def contract_of(kind: str) -> str:
    """Name the module that checks an entry of a kind (`gigatok.contracts.base`)."""
    return _CONTRACTS.get(kind, f"gigatok.contracts.{kind.replace(' ', '_')}")


def load(names: Sequence[str], folder: Path) -> tuple[Plugin, ...]:
    """Import plug-ins; those that are loaded already are only looked up.

    Args:
        names: modules such as `my_lab.tokenizers`, or paths such as `./fsq.py`.
        folder: relative paths begin here, and not in the folder where a command was typed.

    Raises:
        PluginError: one is missing, or its import failed; nothing that it registered is left.
    """
    return tuple(load_file(n, folder / n) if is_path(n) else load_module(n) for n in names)


def is_path(name: str) -> bool:
    """Tell whether a plug-in is given by its file or folder, and not as a module."""
    return "/" in name or name.endswith(".py")


def load_installed(group: str = GROUP) -> None:
    """Import the plug-ins that installed distributions offer, once; warn of broken ones.

    A broken one is no error: a command may have nothing to do with it. What it would have
    registered is missing, and whoever asks for that hears of it.
    """
    for name in installed(group):
        try:
            load_module(name)
        except PluginError as error:
            if name not in _broken:
                _log.warning("%s", error)
            _broken.add(name)


@cache  # reading the metadata of all distributions takes tens of milliseconds
def installed(group: str = GROUP) -> tuple[str, ...]:
    """Name the modules that installed distributions offer as plug-ins."""
    from importlib.metadata import entry_points

    return tuple(sorted({point.module for point in entry_points(group=group)}))


def owner(module: str) -> Plugin | None:
    """Find the plug-in that a module belongs to; None: it is a part of this program."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((LOADED[prefix] for prefix in prefixes if prefix in LOADED), None)


def owner_of(kind: str, name: str) -> Plugin | None:
    """Find the plug-in that registered an entry; None: it is a part of this program."""
    found = (plugin for plugin in LOADED.values() if name in plugin.entries.get(kind, ()))
    return next(found, None)


def place_in_plugin(error: BaseException) -> str | None:
    """Say in which plug-in, file and line an exception arose; None: in no code of a plug-in."""
    found = None
    # Outermost first, so that the last one is the closest to the fault.
    for frame, line in traceback.walk_tb(error.__traceback__):
        plugin = owner(str(frame.f_globals.get("__name__", "")))
        if plugin is not None:
            found = f"plug-in {plugin.name}: {frame.f_code.co_filename}, line {line}"
    if found is None and error.__cause__ is not None:
        return place_in_plugin(error.__cause__)
    return found


def entries_of(plugin: Plugin) -> dict[str, tuple[str, ...]]:
    """Collect what a plug-in and the plug-ins below its package have registered, by kind.

    A distribution names the module with its figures apart from the others.
    """
    inside = (p for name, p in LOADED.items() if f"{name}.".startswith(f"{plugin.package}."))
    found: dict[str, tuple[str, ...]] = {}
    for one in inside:
        found |= {kind: found.get(kind, ()) + names for kind, names in one.entries.items()}
    return found


# Modules


def load_module(name: str) -> Plugin:
    """Import a plug-in that Python finds by its dotted name.

    Raises:
        PluginError: it is missing, or its import failed.
    """
    if name in LOADED:
        return LOADED[name]
    with _registering(name) as entries:
        module = importlib.import_module(name)
    plugin = Plugin(name, _version(module), name, entries=entries)
    LOADED[name] = plugin
    return plugin


def _version(module: ModuleType) -> str:
    """Return name and version of a module's distribution; without one, a hash of its code."""
    from importlib.metadata import packages_distributions, version

    top = module.__name__.partition(".")[0]
    distributions = packages_distributions().get(top, [])
    if distributions:
        # Sorted: a namespace package may be of several distributions, in no fixed order.
        return ", ".join(f"{name} {version(name)}" for name in sorted(set(distributions)))
    # On PYTHONPATH and not installed: nobody has given this code a number.
    file = module.__file__
    if file is None:
        raise PluginError(f"plug-in {module.__name__}: a namespace without code; name a module")
    path = Path(file)
    return code_hash(path.parent if path.name == "__init__.py" else path)


# Files and folders


def load_file(name: str, path: Path) -> Plugin:
    """Import a plug-in from a Python file, or from a folder with `__init__.py`.

    Args:
        name: as a sweep names it, for messages; a copy keeps the name of its original.
        path: the file or folder.

    Raises:
        PluginError: it is missing, or its import failed.
    """
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file():
        what = "no __init__.py in it" if path.is_dir() else "no such file"
        raise PluginError(
            f"plug-in {name}: {what} ({path}); a plug-in is a Python file, a folder with "
            "__init__.py, or a module that can be imported"
        )
    identity = code_hash(path)
    # With the hash: two files of one name are two plug-ins, and so is a file after an edit.
    package = f"gigatok_plugin_{path.stem}_{identity.removeprefix('sha256:')}"
    if package in LOADED:
        return LOADED[package]
    _forget_file(path.resolve())
    with _registering(name) as entries:
        _import_as(package, source, path)
    plugin = Plugin(name, identity, package, path.resolve(), entries)
    LOADED[package] = plugin
    return plugin


def code_hash(path: Path) -> str:
    """Hash the code of a file, or of a folder with the names of its files."""
    if path.is_file():
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        whole.update(f"{file.relative_to(path).as_posix()} {content}\n".encode())
    return "sha256:" + whole.hexdigest()[:DIGITS]


def _import_as(package: str, source: Path, path: Path) -> None:
    """Import a file under a name that no installed module has."""
    inside = [str(path)] if path.is_dir() else None
    spec = importlib.util.spec_from_file_location(
        package, source, submodule_search_locations=inside
    )
    assert spec is not None, source
    assert spec.loader is not None, source
    module = importlib.util.module_from_spec(spec)
    # Before it runs: its stages name their module, which `import_module` then finds.
    sys.modules[package] = module
    # Compiled files are told by size and by seconds: an edit that keeps the size, made within the
    # second of the last import, would run the code before it.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise
    finally:
        sys.dont_write_bytecode = before


def _forget_file(path: Path) -> None:
    """Undo what an earlier content of the file has registered, as after an edit in a notebook."""
    for package, plugin in list(LOADED.items()):
        if plugin.file == path:
            del LOADED[package]
            for kind, names in plugin.entries.items():
                for name in names:
                    _REGISTRIES[kind].pop(name, None)


# Registering


@contextmanager
def _registering(name: str) -> Iterator[dict[str, tuple[str, ...]]]:
    """Collect what an import registers; leave nothing of it where the import fails."""
    before = {kind: dict(entries) for kind, entries in _REGISTRIES.items()}
    entries: dict[str, tuple[str, ...]] = {}
    try:
        yield entries
    except Exception as error:
        _restore(before)
        raise PluginError(_failure(name, error)) from error
    entries |= {kind: names for kind, names in _added(before) if names}


def _added(before: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind, now in _REGISTRIES.items():
        known = before.get(kind, {})
        # By identity: a figure that a plug-in completes is another object under the same name.
        yield kind, tuple(name for name in now if now[name] is not known.get(name))


def _restore(before: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, now in _REGISTRIES.items():
        now.clear()
        now.update(before.get(kind, {}))


def _failure(name: str, error: Exception) -> str:
    if isinstance(error, PluginError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        missing = error.name
        if name == missing or name.startswith(missing + "."):
            return (
                f"plug-in {name}: no module {missing!r} can be imported here; install its "
                "distribution, or name the file as ./FILE.py"
            )
    return f"plug-in {name}: {type(error).__name__}: {error}{_line_of(error)}"


def _line_of(error: Exception) -> str:
    """Say where the plug-in failed: the last line of the traceback that is not this program's."""
    root = Path(__file__).parents[1]
    ours = tuple(f"{root / package}{os.sep}" for package in PACKAGES)
    # Python's import machinery says nothing to the plug-in's author either.
    own = [
        f"{frame.filename}, line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*ours, "<frozen"))
    ]
    return f" ({own[-1]})" if own else ""
