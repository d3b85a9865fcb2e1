"""Stages of a trial: those that a sweep asks for, and all that these need."""

from __future__ import annotations

from collections.abc import Iterable

from gigatok.config import TrialConfig
from gigatok.stages import STAGES

# `STAGES` lists every stage after its inputs; backwards, a stage's need is known in time.
_BACKWARDS = tuple(reversed(STAGES))


def wanted_stages(
    requested: Iterable[str], trial: TrialConfig
) -> list[tuple[str, tuple[str, ...]]]:
    """List the requested stages of a trial and all they need, in graph order, with inputs."""
    needed = {stage for stage in requested if STAGES[stage].applies(trial)}
    found = []
    for stage in _BACKWARDS:
        if stage in needed:
            inputs = STAGES[stage].inputs(trial)
            needed.update(inputs)
            found.append((stage, inputs))
    return found[::-1]
