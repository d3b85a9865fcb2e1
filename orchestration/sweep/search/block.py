"""Search of a sweep: its space, sampler, pruner, objectives and budget, as data.

Imports no Optuna; `orchestration.search.asking` runs the search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from orchestration.sweep.grid.axes import Axes
from orchestration.sweep.grid.expansion import Expansion, Trial
from orchestration.sweep.search.space import Choices, Range, SearchedKey
from orchestration.sweep.settings.scales import Scale
from orchestration.sweep.settings.settings import RANK_AXIS, Setting
from orchestration.yaml.source import Problem

GPU_HOURS = "gpu_hours"
"""Objective that no stage measures: hours times devices of the trial's stages.

A stage that ran without a GPU counts as if it had one.
"""
TRANSFER_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors of the best learning rate that are tried where it is transferred to."""

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Pruner:
    """Rule for ending trials that are not worth continuing.

    Attributes:
        name: one of `PRUNERS`.
        stage: the training stage whose curve is watched.
        metric: name of the curve, such as `train/loss`.
        direction: the better direction.
        every: steps between two looks.
        min_steps: steps before the first look.
        factor: for `asha` and `hyperband`: one in so many trials is promoted from rung to rung.
    """

    name: str = "none"
    stage: str = "train_generator"
    metric: str = "train/loss"
    direction: Direction = "minimize"
    every: int = 1
    min_steps: int = 1
    factor: int = 3


@dataclass(frozen=True)
class Search:
    """Checked `search` block.

    Attributes:
        space: key -> its range or list of values.
        sampler: one of `SAMPLERS`.
        pruner: rule for stopping a trial early.
        objectives: metric or `gpu_hours` -> the better direction.
        trials: number of trials to ask for.
        hours: device hours after which no further trial starts; None: no limit.
        seed: seed of the sampler; the seed of the trials is the sweep's.
        at_once: trials that run at the same time. With one, the sequence of suggestions is the
            same on every backend.
        storage: Optuna's URL; None: a journal file in the runs directory.
        transfer: keys and values under which the best learning rate is checked; empty: it is not.
        written: parts of the sweep at its scale as plain data; with the scale, they decide which
            trial a suggestion means.
    """

    space: Mapping[str, SearchedKey]
    sampler: str
    pruner: Pruner
    objectives: Mapping[str, Direction]
    trials: int
    hours: float | None
    seed: int
    at_once: int
    storage: str | None
    transfer: Mapping[str, Setting]
    # Kept whole: a suggestion becomes a trial by the same expansion as a grid cell.
    axes: Axes = field(repr=False)
    scale: Scale = field(repr=False)
    seeds: tuple[int, ...] = field(repr=False)
    written: Mapping[str, Any] = field(repr=False)

    @property
    def identity(self) -> str:
        """Text that differs between different searches: all but budget, storage and `at_once`."""
        parts = self.as_json()
        # A larger budget goes on with the same search, so it is no part of its identity.
        return json.dumps({key: parts[key] for key in sorted(parts) if key != "budget"})

    def as_json(self) -> dict[str, Any]:
        """Return the block as data, with defaults filled in."""
        return {
            "space": {key: d.domain.as_json() for key, d in self.space.items()},
            "sampler": self.sampler,
            "pruner": asdict(self.pruner),
            "objectives": dict(self.objectives),
            "budget": {"trials": self.trials, "hours": self.hours},
            "seed": self.seed,
            "transfer": {key: setting.written for key, setting in self.transfer.items()},
        }

    def trial(self, name: str, suggestion: Mapping[str, Any]) -> Trial:
        """Build the trial of a suggestion.

        Raises:
            ValueError: the values do not fit together, or the sweep drops them; says which.
        """
        problems: list[Problem] = []
        chosen = {k: self.space[k].setting(k, value) for k, value in suggestion.items()}
        trials = self._expand(chosen, problems).trials
        if problems:
            raise ValueError("; ".join(f"{p.key}: {p.text}" for p in problems))
        if not trials:
            raise ValueError("this combination is excluded by the sweep")
        # One cell, as the check of the block made sure, so one trial.
        (trial,) = trials
        parts = [f"{key.rpartition('.')[2]}={_label(s.written)}" for key, s in chosen.items()]
        written = {key: setting.written for key, setting in chosen.items()}
        return Trial(" ".join([name, *parts]), trial.config, {**trial.axes, **written})

    def example(self, problems: list[Problem]) -> Expansion:
        """Expand one possible trial, which stands for all of them in the plan."""
        first = {key: d.setting(key, d.first()) for key, d in self.space.items()}
        return self._expand(first, problems)

    def examples(self) -> Expansion:
        """Expand trials that together use every value of every list, if they can combine."""
        first = {key: d.first() for key, d in self.space.items()}
        lists = {k: d.domain for k, d in self.space.items() if isinstance(d.domain, Choices)}
        suggestions = [first]
        suggestions += [{**first, k: v} for k, d in lists.items() for v in d.labels[1:]]
        trials: list[Trial] = []
        for number, suggestion in enumerate(suggestions):
            # One list varies at a time, from the first values of the others; a combination that
            # the sweep excludes is skipped.
            with suppress(ValueError):
                trials.append(self.trial(f"{number:03d}", suggestion))
        return Expansion(tuple(trials), ())

    def _expand(self, chosen: Mapping[str, Setting], problems: list[Problem]) -> Expansion:
        rows = {key: (setting,) for key, setting in chosen.items()}
        axes = replace(self.axes, axes={**self.axes.axes, **rows})
        return axes.expand(self.seeds, self.scale, problems)

    def learning_rate(self) -> str:
        """Return the key of `transfer`'s learning rate: the first searched over a log range."""
        return log_ranges(self.space)[0]

    def transferred(self, best: float) -> Search:
        """Build the search that checks the best learning rate under the keys of `transfer`."""
        key = self.learning_rate()
        place = self.space[key].place
        rates = tuple(factor * best for factor in TRANSFER_FACTORS)
        where = f"search.space.{key}"
        settings = tuple(Setting(rate, rate, place, where, RANK_AXIS) for rate in rates)
        fixed = {**self.axes.fixed, **self.transfer}
        return replace(
            self,
            space={key: SearchedKey(Choices(rates, settings), place)},
            # A grid without pruning: all of the few rates must end, to be compared at their end.
            sampler="grid",
            pruner=Pruner(),
            trials=len(rates),
            transfer={},
            axes=replace(self.axes, fixed=fixed),
        )


def log_ranges(space: Mapping[str, SearchedKey]) -> list[str]:
    """List the keys that are searched over a range in the logarithm."""
    return [k for k, d in space.items() if isinstance(d.domain, Range) and d.domain.log]


def _label(written: Any) -> str:
    if isinstance(written, float):
        return f"{written:.4g}"
    return written if isinstance(written, str) else json.dumps(written)
