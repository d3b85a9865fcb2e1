"""Functions of a trial that are computed once for all trials that agree in what these read.

Ten thousand trials of a sweep are made of some hundred sections, which they share as objects, and
what planning asks of a trial mostly depends on two or three of these.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import FunctionType
from typing import Any, Generic, TypeVar, cast

from gigatok.config.trial import SECTIONS, TrialConfig

T = TypeVar("T")

_SEED = "seed"
_WHOLE = "whole trial"
"""Noted where a function asks a trial for something else than sections and its own methods."""


class OncePerSections(Generic[T]):
    """Function of a trial that finds out which sections it reads, and remembers results by them.

    Args:
        function: of nothing but the trial.
    """

    def __init__(self, function: Callable[[TrialConfig], T]) -> None:
        self._function = function
        self._reads: dict[str, None] = {}
        self._sections = _getter(())
        self._known: dict[tuple[int, ...], tuple[T, TrialConfig]] = {}

    def __call__(self, trial: TrialConfig) -> T:
        """Return the function's value, computed now or for a trial with the same sections."""
        # By identity: hashing sections takes longer than most of the functions do.
        found = self._known.get(tuple(map(id, self._sections(trial))))
        return self._compute(trial) if found is None else found[0]

    def _compute(self, trial: TrialConfig) -> T:
        noted = _NotedTrial(trial)
        value = self._function(cast(TrialConfig, noted))
        if not noted._reads.keys() <= self._reads.keys():
            # Other trials made the function read less. From now on all that any trial made it read
            # must agree, so that the values found so far have no place.
            self._reads |= noted._reads
            self._sections = _getter(tuple(self._reads))
            self._known.clear()
        # With its trial, which keeps the sections: another object could get the id of one that is
        # gone.
        self._known[tuple(map(id, self._sections(trial)))] = value, trial
        return value


def _getter(names: tuple[str, ...]) -> Callable[[TrialConfig], tuple[Any, ...]]:
    """Make a function that returns these sections of a trial."""
    if not names:
        return lambda trial: ()
    if _WHOLE in names:
        return lambda trial: (trial,)
    # A single name twice, for which it returns a tuple as well.
    return attrgetter(*names) if len(names) > 1 else attrgetter(*names, *names)


class _NotedTrial:
    """Trial that notes which of its sections are read."""

    # For functions that ask whether they were given a trial.
    __class__ = TrialConfig  # type: ignore[assignment]

    # Underscores: the name of a section begins with a letter.
    def __init__(self, trial: TrialConfig) -> None:
        self._trial = trial
        self._reads: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in SECTIONS or name == _SEED:
            self._reads[name] = None
            return getattr(self._trial, name)
        found = vars(TrialConfig).get(name)
        # A trial's own methods read sections, too, and are to read them of this object.
        if isinstance(found, property | FunctionType):
            return found.__get__(self)
        self._reads[_WHOLE] = None
        return getattr(self._trial, name)
