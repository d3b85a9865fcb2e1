"""Check that the stages of a search's trials measure its objectives and its pruner's curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gigatok.stages import STAGES
from orchestration.sweep.grid.expansion import Trial
from orchestration.sweep.grid.stage_graph import StageGraphs
from orchestration.sweep.search.block import GPU_HOURS, Search
from orchestration.yaml.source import Node, Problem, did_you_mean, listed


def check_targets(
    search: Search, stages: Sequence[str], block: Node, problems: list[Problem]
) -> None:
    """Check every kind of trial that the search can make for what is searched for.

    Args:
        search: the checked block.
        stages: stages that the sweep asks for.
        block: the block as it was written.
        problems: receives each target that nothing measures, once.
    """
    parts = block.value if isinstance(block.value, dict) else {}
    found: dict[str, Problem] = {}
    graphs = StageGraphs(stages)
    # A value may remove a stage, so one example would not show every kind of trial.
    for trial in search.examples().trials:
        mine = [stage.name for stage, _ in graphs.of(trial.config)]
        for problem in _objectives(search, trial, mine, parts):
            # By the text before the advice, which differs between trials with different stages.
            found.setdefault(problem.text.partition(";")[0], problem)
        for problem in _pruner(search, trial, mine, parts):
            found.setdefault(problem.text.partition(";")[0], problem)
    problems.extend(found.values())


def _objectives(
    search: Search, trial: Trial, stages: Sequence[str], parts: Mapping[str, Node]
) -> Iterator[Problem]:
    # GPU hours are known of every trial, without a stage that measures them.
    measured = [GPU_HOURS, *(name for s in stages for name in STAGES[s].scores(trial.config))]
    for name in search.objectives:
        if name not in measured:
            others = [s.name for s in STAGES.values() if name in s.scores(trial.config)]
            text = f"no stage of the trials measures {name}; "
            text += f"{' and '.join(others)} would, add it to `stages`; " if others else ""
            text += f"measured are {listed(measured)}{did_you_mean(name, measured)}"
            yield Problem(parts["objectives"].place, "search.objectives", text)


def _pruner(
    search: Search, trial: Trial, stages: Sequence[str], parts: Mapping[str, Node]
) -> Iterator[Problem]:
    pruner = search.pruner
    if pruner.name == "none":
        return
    place = parts["pruner"].place
    if pruner.stage not in stages:
        text = f"the trials have no stage {pruner.stage}; they have {listed(stages)}"
        yield Problem(place, "search.pruner.stage", text)
        return
    # Curves depend on the trial: a loss of weight 0 has none.
    curves = STAGES[pruner.stage].curves(trial.config)
    if pruner.metric not in curves:
        text = f"{pruner.stage} logs no curve {pruner.metric}; it logs {listed(curves)}"
        yield Problem(place, "search.pruner.metric", text + did_you_mean(pruner.metric, curves))
