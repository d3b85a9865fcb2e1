"""Stages of a trial: those that a sweep asks for, and all that these need."""

from __future__ import annotations

from collections.abc import Iterable

from gigatok.config import TrialConfig
from gigatok.stages import STAGES, Stage

StageGraph = tuple[tuple[Stage, tuple[str, ...]], ...]
"""Stages in an order in which they can run, each with the names of its inputs."""


class StageGraphs:
    """Stage graphs of the trials of a sweep; trials that answer all conditions alike share one."""

    def __init__(self, requested: Iterable[str]) -> None:
        self._requested = tuple(requested)
        # Each condition once: many stages read the same inputs under the same few conditions.
        self._conditions = tuple(
            dict.fromkeys(c for s in STAGES.values() for c in (s.applies, *s.inputs.values()))
        )
        self._known: dict[tuple[bool, ...], StageGraph] = {}

    def of(self, trial: TrialConfig) -> StageGraph:
        """Find the requested stages of a trial and all that they need."""
        answers = tuple([holds(trial) for holds in self._conditions])
        found = self._known.get(answers)
        if found is None:
            found = self._known[answers] = _stage_graph(self._requested, trial)
        return found


def _stage_graph(requested: Iterable[str], trial: TrialConfig) -> StageGraph:
    needed = {name for name in requested if STAGES[name].applies(trial)}
    found = []
    # Backwards: whatever needs a stage is met before it.
    for name, stage in reversed(STAGES.items()):
        if name in needed:
            inputs = stage.inputs_of(trial)
            needed.update(inputs)
            found.append((stage, inputs))
    # Found from the end of the graph, wanted from its start.
    return tuple(reversed(found))
