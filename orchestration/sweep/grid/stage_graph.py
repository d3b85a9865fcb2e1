"""Stages of a trial: those that a sweep asks for, and all that these need."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gigatok.config import TrialConfig
from gigatok.config.once import OncePerSections
from gigatok.stages import STAGES, Stage

StageGraph = tuple[tuple[Stage, tuple[str, ...]], ...]
"""Stages in an order in which they can run, each with the names of its inputs."""
StageGraphs = Callable[[TrialConfig], StageGraph]
"""Function that finds the stages of a trial; trials with the same stages share one graph."""


def stage_graphs(requested: Iterable[str]) -> StageGraphs:
    """Make a function that finds the requested stages of a trial and all that they need."""
    wanted = frozenset(requested)
    # Each condition once: many stages read the same inputs under the same few conditions.
    conditions = tuple(
        dict.fromkeys(c for s in STAGES.values() for c in (s.applies, *s.inputs.values()))
    )
    known: dict[tuple[bool, ...], StageGraph] = {}

    def find(trial: TrialConfig) -> StageGraph:
        answers = tuple([holds(trial) for holds in conditions])
        if answers not in known:
            known[answers] = _stage_graph(wanted, trial)
        return known[answers]

    return OncePerSections(find)


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
