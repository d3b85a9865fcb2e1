"""Check that the stages of a search's trials measure its objectives and its pruner's curve."""

from __future__ import annotations

from collections.abc import Sequence

from gigatok.stages import STAGES
from orchestration.sweep.grid.expansion import Trial
from orchestration.sweep.grid.stage_graph import stage_graphs
from orchestration.sweep.search.block import GPU_HOURS, Search
from orchestration.yaml.parts import Part
from orchestration.yaml.source import Problem, did_you_mean, listed


def check_targets(search: Search, stages: Sequence[str], block: Part) -> None:
    """Check every kind of trial that the search can make for what is searched for.

    Args:
        search: the checked block.
        stages: stages that the sweep asks for.
        block: the block as it was written; receives each target that nothing measures, once.
    """
    graphs = stage_graphs(stages)
    found: list[Problem] = []
    reports = Part(block.node, found, block.key)
    # A value may remove a stage, so one example would not show every kind of trial.
    for trial in search.examples().trials:
        mine = [stage.name for stage, _ in graphs(trial.config)]
        _check_objectives(search, trial, mine, reports.part("objectives"))
        _check_pruner(search, trial, mine, reports.part("pruner"))
    # By the text before the advice, which differs between trials with different stages.
    first = {problem.text.partition(";")[0]: problem for problem in reversed(found)}
    block.problems.extend(reversed(first.values()))


def _check_objectives(search: Search, trial: Trial, stages: Sequence[str], part: Part) -> None:
    # GPU hours are known of every trial, without a stage that measures them.
    measured = [GPU_HOURS, *(name for s in stages for name in STAGES[s].scores(trial.config))]
    for name in search.objectives:
        if name not in measured:
            others = [s.name for s in STAGES.values() if name in s.scores(trial.config)]
            text = f"no stage of the trials measures {name}; "
            text += f"{' and '.join(others)} would, add it to `stages`; " if others else ""
            part.report(f"{text}measured are {listed(measured)}{did_you_mean(name, measured)}")


def _check_pruner(search: Search, trial: Trial, stages: Sequence[str], part: Part) -> None:
    pruner = search.pruner
    if pruner.name == "none":
        return
    if pruner.stage not in stages:
        text = f"the trials have no stage {pruner.stage}; they have {listed(stages)}"
        part.part("stage").report(text)
        return
    # Curves depend on the trial: a loss of weight 0 has none.
    curves = STAGES[pruner.stage].curves(trial.config)
    if pruner.metric not in curves:
        text = f"{pruner.stage} logs no curve {pruner.metric}; it logs {listed(curves)}"
        part.part("metric").report(text + did_you_mean(pruner.metric, curves))
