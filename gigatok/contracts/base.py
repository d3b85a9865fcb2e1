"""Contracts: what the program relies on of each kind of thing, checked on one thing at a time.

A contract is a module with `CHECKS` and `broken_promises(entry)`, and where a trial can use the
thing with `smoke(entry)`. `gigatok.plugins.registry` says which module it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from gigatok.plugins import contract_of, registry

Check = Callable[[Any], Iterator[str]]
"""Function of a registered thing that yields a sentence for each promise that it breaks."""


@dataclass(frozen=True)
class SmokeTrial:
    """Smallest use of a thing: what a sweep at scale `smoke` says besides.

    Attributes:
        stages: last stages; their inputs run as well.
        settings: config keys with their values.
        backend: where the stages run.
    """

    stages: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "local"


@dataclass(frozen=True)
class Examination:
    """Result of the contract of one thing.

    Attributes:
        checks: number of checks.
        passed: number of those that found nothing.
        seconds: duration of all of them.
        broken: a sentence for each broken promise.
    """

    kind: str
    name: str
    checks: int
    passed: int
    seconds: float
    broken: tuple[str, ...]


def examine(kind: str, name: str) -> Examination:
    """Run the contract of a kind on a registered thing."""
    contract, entry, started = (
        import_module(contract_of(kind)),
        registry(kind)[name],
        time.monotonic(),
    )
    found = [list(results(check, entry)) for check in contract.CHECKS]
    return Examination(
        kind,
        name,
        checks=len(found),
        passed=found.count([]),
        seconds=time.monotonic() - started,
        broken=tuple(sentence for sentences in found for sentence in sentences),
    )


def smoke_trial(kind: str, name: str) -> SmokeTrial | None:
    """Find the smallest trial that uses a registered thing; None: no trial can."""
    smoke = getattr(import_module(contract_of(kind)), "smoke", None)
    trial: SmokeTrial | None = None if smoke is None else smoke(registry(kind)[name])
    return trial


def broken(checks: Sequence[Check], entry: Any, title: str) -> list[str]:
    """List what all checks find, each sentence behind the title of the thing."""
    return [f"{title}: {text}" for check in checks for text in results(check, entry)]


def results(check: Check, entry: Any) -> Iterator[str]:
    """Run one check. One that raises is a broken promise as well."""
    try:
        yield from check(entry)
    # Whatever it is, the other checks still say something.
    except Exception as error:
        yield f"{check.__name__}: {type(error).__name__}: {error}"
