"""Data and pretrained networks that stages read, for fetching them before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from gigatok.config import TrialConfig
from gigatok.data.assets import ASSETS
from gigatok.stages.registry import STAGES


def required_assets(trial: TrialConfig, stages: Iterable[str]) -> tuple[str, ...]:
    """Name the assets that some stages of a trial read.

    The teachers of the paper are not among them: transformers finds or fetches them.
    """
    names = {name for stage in stages for name in STAGES[stage].assets(trial)}
    return tuple(sorted(names & ASSETS.keys()))
