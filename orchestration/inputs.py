"""Data and networks that the stages of a plan will read: on this machine, or to be fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gigatok.assets import ASSETS, READ_IMAGES, is_here, required_assets
from gigatok.config import TrialConfig
from orchestration.progress import Progress

SUPPLIED = {"imagenet": "GIGATOK_IMAGENET", "adm_imagenet256": "GIGATOK_ADM_IMAGENET256"}
"""What only the user can supply -> environment variable that names it."""


@dataclass(frozen=True)
class Inputs:
    """What a plan reads.

    Attributes:
        here: names of what this machine has.
        fetched: names of what a launch will fetch first.
        absent: a sentence each about what the user has to supply.
    """

    here: tuple[str, ...]
    fetched: tuple[str, ...]
    absent: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say it in words, as a plan shows it."""
        if self.here:
            yield f"data and networks here: {', '.join(self.here)}"
        if self.fetched:
            size = sum(ASSETS[name].size_mb for name in self.fetched)
            yield f"a launch fetches first: {', '.join(self.fetched)} ({size} MB at most)"
        yield from (f"missing here: {text}" for text in self.absent)


def find_inputs(progress: Progress) -> Inputs:
    """Look for what the stages that are left will read; files are not opened."""
    assets: dict[str, None] = {}
    absent: dict[str, None] = {}
    supplied: dict[str, None] = {}
    for planned in progress.plan.trials:
        config = planned.trial.config
        open_ = [s for s, key in planned.stages.items() if progress.states[key] != "COMPLETE"]
        if open_:
            assets |= dict.fromkeys(required_assets(config, open_))
            for name in _supplied_by_user(config, open_):
                fault = _fault(name)
                (supplied if fault is None else absent)[fault or name] = None
    here = [name for name in assets if is_here(name)]
    fetched = tuple(sorted(assets.keys() - set(here)))
    return Inputs(tuple(sorted([*here, *supplied])), fetched, tuple(absent))


def _supplied_by_user(config: TrialConfig, stages: list[str]) -> Iterator[str]:
    if config.data.name in SUPPLIED and READ_IMAGES.intersection(stages):
        yield config.data.name
    sampled = {"evaluate_generation", "search_guidance"}.intersection(stages)
    if sampled and config.evaluation.reference in SUPPLIED:
        yield config.evaluation.reference


def _fault(name: str) -> str | None:
    """Say what is wrong with the variable that names an input; None: nothing that shows."""
    variable = SUPPLIED[name]
    given = os.environ.get(variable)
    if not given:
        return f"{name}: set {variable} to where it is"
    if not Path(given).expanduser().exists():
        return f"{name}: {variable} is {given}, which does not exist"
    return None
