"""Contract of a backend: what runner, planner and `doctor` rely on.

A smoke trial runs a sweep on it. How it treats stages that are killed, preempted or out of memory
is in `tests/orchestration/backends/test_backend_contract.py`, which needs minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from gigatok.contracts.base import Check, SmokeTrial, broken
from orchestration.backends import BACKENDS
from orchestration.backends.base import (
    Backend,
    BackendSpec,
    DetachedBackend,
    Infeasible,
    is_detached,
)
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import Store

IMPOSSIBLE = Request(nodes=1000, processes=1000)


def broken_promises(module: str) -> list[str]:
    """List what the backend of a module does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, module, f"backend {name_of(module)}")


def smoke(module: str) -> SmokeTrial:
    """Train a tokenizer and encode images on it."""
    return SmokeTrial(stages=("extract_codes",), backend=name_of(module))


def name_of(module: str) -> str:
    """Find the name under which a module is registered."""
    return next(name for name, known in BACKENDS.items() if known == module)


@contextmanager
def connected(module: str) -> Iterator[Backend]:
    """Connect to a backend with one place, in a runs directory of its own."""
    spec: BackendSpec = import_module(module).BACKEND
    with tempfile.TemporaryDirectory() as folder:
        backend = spec.connect(1, Profile(), Store(Path(folder)))
        try:
            yield backend
        finally:
            backend.close()


def description(module: str) -> Iterator[str]:
    """Check what the registry knows of it."""
    spec = getattr(import_module(module), "BACKEND", None)
    if not isinstance(spec, BackendSpec):
        yield f"{module}.BACKEND is {type(spec).__name__}; it must be a BackendSpec"


def protocol(module: str) -> Iterator[str]:
    """Check that what `connect` makes has all of the protocol, and is what its spec says."""
    spec: BackendSpec = import_module(module).BACKEND
    with connected(module) as backend:
        kind = DetachedBackend if is_detached(backend) else Backend
        needed = {name for base in kind.__mro__ for name in vars(base) if name[:1] != "_"}
        if lacking := sorted(name for name in needed if not hasattr(backend, name)):
            yield f"it lacks {', '.join(lacking)} of {kind.__name__}"
        if is_detached(backend) != spec.detached:
            yield f"it says detached {is_detached(backend)}, and its spec {spec.detached}"
        if is_detached(backend) and backend.name != name_of(module):
            yield f"its name is {backend.name}, and it is registered as {name_of(module)}"


def places(module: str) -> Iterator[str]:
    """Check that there is a place, and that what can never be had is refused at once."""
    with connected(module) as backend:
        if backend.free_slots() < 1:
            yield "a new connection with one place has none that is free"
        backend.check(Request())
        try:
            backend.check(IMPOSSIBLE)
        except Infeasible:
            return
        yield "it takes 1000 nodes with 1000 processes each; raise Infeasible"


CHECKS: tuple[Check, ...] = (description, protocol, places)
