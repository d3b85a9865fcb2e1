"""Plug-ins that a stage needs, as the runs directory remembers them.

A plug-in given by its file is copied into the runs directory. So a queued job runs the code that
was launched even if the file has been edited since, and every node finds it, wherever it mounts
the folder that the sweep lies in. An installed one is only named: each node has its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from gigatok.files.durable import sync, sync_tree
from gigatok.plugins import Plugin, PluginError, load_file, load_module
from orchestration.runs.files import locked
from orchestration.runs.records import UsedPlugin
from orchestration.runs.state import Store


def remember(plugin: Plugin, store: Store) -> UsedPlugin:
    """Describe a plug-in for another process, and copy the code of one that is not installed."""
    if plugin.file is None:
        return UsedPlugin(name=plugin.name, identity=plugin.identity)
    # By hash, so that a copy is never changed once it is there.
    place = store.plugins / plugin.identity.partition(":")[2] / plugin.file.name
    with locked(store.plugins / ".lock"):
        if not place.exists():
            _copy(plugin.file, place)
    copied = place.relative_to(store.root).as_posix()
    return UsedPlugin(name=plugin.name, identity=plugin.identity, copied=copied)


def _copy(source: Path, place: Path) -> None:
    # Beside its place first: a kill half-way leaves a folder of another name, not half a plug-in.
    draft = place.parent.with_name(f".{place.parent.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, draft / place.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, draft / place.name)
    sync_tree(draft)
    draft.rename(place.parent)
    sync(place.parent.parent)


def load_used(used: Iterable[UsedPlugin], store: Store) -> tuple[Plugin, ...]:
    """Load plug-ins, and make sure that they are the ones that a launch used.

    Raises:
        PluginError: one is missing here, cannot be imported, or is of another version.
    """
    found = []
    for one in used:
        here = _load(one, store)
        if here.identity != one.identity:
            raise PluginError(
                f"plug-in {one.name}: {here.identity} is here, and the launch used "
                f"{one.identity}; install that one, or launch the sweep again"
            )
        found.append(here)
    return tuple(found)


def _load(one: UsedPlugin, store: Store) -> Plugin:
    if one.copied is not None:
        return load_file(one.name, store.root / one.copied)
    try:
        return load_module(one.name)
    except PluginError as error:
        # Of a file the copy is the version; a package has to be installed in the right one.
        raise PluginError(f"{error} (the launch used {one.identity})") from error


def problems(used: Iterable[UsedPlugin], store: Store) -> list[str]:
    """Load plug-ins where that is possible; returns what is wrong with the others."""
    found = []
    for one in used:
        try:
            load_used([one], store)
        except PluginError as error:
            found.append(str(error))
    return found
