"""A stage that does nothing, to measure what everything around a stage costs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from gigatok.config import Config
from gigatok.costs.stage_costs import STAGE_DISK, STAGE_FLOPS, Disk
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages import STAGES, StageSpec
from orchestration.costs.cost import FAMILIES

NAME = "idle"


class IdleConfig(Config):
    """Tells one from the other."""

    number: int


def run(
    config: IdleConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    return Scores()


FAMILIES[NAME] = lambda trial: ()
STAGE_FLOPS[NAME] = lambda trial: 0
STAGE_DISK[NAME] = lambda trial: Disk(0)
STAGES[NAME] = StageSpec(1, IdleConfig, lambda trial: IdleConfig(number=0), lambda t: (), NAME)
sys.modules[f"gigatok.stages.{NAME}"] = sys.modules[__name__]
