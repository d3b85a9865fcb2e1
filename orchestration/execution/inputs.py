"""Data and networks that the stages of a plan will read: on this machine, or to be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gigatok.data.asset_table import find_asset
from gigatok.data.assets import is_here
from gigatok.data.supplies import absent
from gigatok.stages.assets import required_assets
from orchestration.execution.progress import Progress


@dataclass(frozen=True)
class Inputs:
    """Data and networks that a plan reads.

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
            assets = [find_asset(name) for name in self.fetched]
            sizes = [asset.size_mb for asset in assets if asset and asset.size_mb is not None]
            size = f"{sum(sizes)} MB at most" if len(sizes) == len(assets) else "size unknown"
            yield f"a launch fetches first: {', '.join(self.fetched)} ({size})"
        yield from (f"not on this machine: {text}" for text in self.absent)


def find_inputs(progress: Progress) -> Inputs:
    """Look for what the stages that are left will read; assets are not opened."""
    stages = progress.plan.stages.items()
    # Assets of stages left alone count as well: `prefetch` fetches those of the whole plan. What
    # the user must supply is asked for only where this launch will run the stage.
    left = (stage for key, stage in stages if progress.states[key] != "COMPLETE")
    assets = required_assets((stage.stage, stage.trial) for stage in left)
    here = [name for name in assets if is_here(name)]
    missing = absent(stage.config for key, stage in stages if progress.will_run(key))
    return Inputs(tuple(here), tuple(n for n in assets if n not in here), tuple(missing))
