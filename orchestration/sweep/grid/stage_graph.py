"""Stages of a trial: those that a sweep asks for, and all that these need."""

from __future__ import annotations

from collections.abc import Iterable

from gigatok.config import TrialConfig
from gigatok.stages import STAGES


def wanted_stages(
    requested: Iterable[str], trial: TrialConfig
) -> list[tuple[str, tuple[str, ...]]]:
    """List the requested stages of a trial and all they need, in graph order, with inputs."""
    needed = {stage for stage in requested if STAGES[stage].applies(trial)}
    found = []
    # Backwards: whatever needs a stage is met before it.
    for name, stage in reversed(STAGES.items()):
        if name in needed:
            inputs = stage.inputs_of(trial)
            needed.update(inputs)
            found.append((name, inputs))
    # Found from the end of the graph, wanted from its start.
    return found[::-1]
