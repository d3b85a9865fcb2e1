"""Registries as they were before a test registered something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gigatok import plugins


@contextmanager
def restored_registries() -> Iterator[None]:
    """Undo on leaving what was registered inside, and forget plug-ins that were loaded there."""
    entries = {kind: dict(plugins.registry(kind)) for kind in plugins.kinds()}
    loaded = dict(plugins.LOADED)
    try:
        yield
    finally:
        for kind in plugins.kinds():
            plugins.registry(kind).clear()
            plugins.registry(kind).update(entries.get(kind, {}))
        plugins.LOADED.clear()
        plugins.LOADED.update(loaded)
