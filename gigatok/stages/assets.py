"""Data and pretrained networks that stages read, for fetching them before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from gigatok.config import TrialConfig
from gigatok.data.asset_table import find_asset
from gigatok.stages.registry import STAGES


def required_assets(stages: Iterable[tuple[str, TrialConfig]]) -> tuple[str, ...]:
    """Name the assets that some stages read, each given with a trial that has it.

    Data that are made or that the user has to supply are not among them.
    """
    # A set: many stages read the same data set.
    names = {name for stage, trial in stages for name in STAGES[stage].assets(trial)}
    return tuple(sorted(name for name in names if find_asset(name) is not None))
