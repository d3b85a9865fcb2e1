"""A stage that does nothing, to measure what everything around a stage costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gigatok.config import Config
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages import Costs, Disk, Stage, register

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


register(
    Stage(
        name=NAME,
        version=1,
        config=IdleConfig,
        read=lambda trial: IdleConfig(number=0),
        module=__name__,
        label=NAME,
        costs=Costs(lambda trial: 0, lambda trial: Disk(0), lambda trial: ()),
    )
)
