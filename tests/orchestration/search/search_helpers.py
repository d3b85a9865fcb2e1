"""Searches without stages: an objective with a planted optimum takes the place of training."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orchestration.search import asking
from orchestration.sweep.definition import load_sweep
from orchestration.sweep.search.block import Search

HEAD = """question: q
scale: smoke
set: {tokenizer.encoder: S, tokenizer.decoder: S}
stages: [train_generator]
"""
BLOCK = """search:
  space: {generator.lr: {low: 1e-4, high: 1e-1, log: true}}
  objectives: [ar_val_loss]
  budget: {trials: 6}
"""
TRIALS = 16
"""Of a search that runs: enough that four complete, which importances need."""
PRUNED_BLOCK = f"""search:
  space: {{generator.lr: {{low: 1e-4, high: 1e-1, log: true}}}}
  pruner: {{name: asha, every: 2, min_steps: 4, factor: 2}}
  objectives: [ar_val_loss]
  budget: {{trials: {TRIALS}}}
"""
ONE_THREAD = ("--jobs", str(len(os.sched_getaffinity(0))))
"""As many slots as cores: a stage has one thread, as on Ray and SLURM, and the same last bits."""
Json = dict[str, Any]
BEST_RATE, BEST_DROPOUT, STEPS = 10**-2.5, 0.3, 12


def write(folder: Path, block: str = BLOCK, head: str = HEAD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "searched.yaml"
    file.write_text(head + block)
    return file


def load(folder: Path, block: str = BLOCK) -> Search:
    # All stages, so that there is something to search for; nothing of it runs.
    search = load_sweep(write(folder, block, HEAD.replace("[train_generator]", "all"))).search
    assert search is not None
    return search


def memory(search: Search) -> Study:
    return optuna.create_study(
        study_name="planted",
        directions=list(search.objectives.values()),
        sampler=optuna.samplers.RandomSampler(0),
    )


def bowl(params: dict[str, Any]) -> float:
    """0 at the planted optimum; one per decade of the rate, and one per tenth of dropout."""
    rate = math.log10(params["generator.lr"] / BEST_RATE)
    dropout = 10 * (params["generator.dropout"] - BEST_DROPOUT)
    return rate**2 + dropout**2


def carry_out(
    search: Search,
    study: Study,
    objective: Callable[[dict[str, Any]], Sequence[float]],
    most: int | None = None,
) -> list[FrozenTrial]:
    """Ask and tell until the budget, or `most`, trials are told; with curves where it prunes."""
    while len(study.trials) < (most or search.trials):
        trial = asking.ask(search, study)
        values = objective(trial.params)
        step = None
        if search.pruner.name != "none":
            step = pruned_at(search, study, trial.number, values[0])
        if step is None:
            asking.tell(study, trial.number, TrialState.COMPLETE, values)
        else:
            asking.tell(study, trial.number, TrialState.PRUNED, None)
    return study.trials


def pruned_at(search: Search, study: Study, number: int, value: float) -> int | None:
    """The curve of a trial falls towards its value like 1/step."""
    for step in range(search.pruner.every, STEPS, search.pruner.every):
        if asking.report(search, study, number, step, value + 1 / step, STEPS):
            return step
    return None


def story(found: Json) -> list[tuple[Any, ...]]:
    """What must not differ: suggestions, ends and values of all trials, in order."""
    (study,) = found["studies"]
    return [
        (t["number"], t["state"], t["params"], t["values"], t.get("pruned_at_step"))
        for t in study["trials"]
    ]
