"""Protocol of the readers of a tracking store, `databases.py` and `servers.py`.

All return the same `Records`, of which `runs.py` makes the table. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from analysis.store.records import Records
from gigatok.names import TAG_LAUNCHED

PARENT_TAG = "mlflow.parentRunId"
Stamp = tuple[str, str]
"""A store, and the state that its contents are in."""


@dataclass(frozen=True)
class SweepRun:
    """Sweep run: one plan of one sweep.

    Attributes:
        params: those that its trials share; a trial's own win.
        experiment: id of its experiment.
    """

    run_id: str
    sweep: str
    started: int
    """Milliseconds since 1970."""
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    experiment: str = ""

    @property
    def launched(self) -> float:
        """UNIX seconds of its newest launch: a relaunch keeps its run and renews the tag."""
        return float(self.tags.get(TAG_LAUNCHED, self.started / 1000))


class TrackingStore(Protocol):
    """Reader of a tracking store. Deleted runs and experiments do not exist."""

    def sweeps(self) -> list[str]:
        """List the names of the experiments."""

    def launches(self, sweep: str | None) -> list[SweepRun]:
        """Read the sweep runs of one experiment or of all, one per plan that was launched."""

    def trials(self, launches: Sequence[SweepRun]) -> tuple[Records, Records]:
        """Read the trial runs below some sweep runs, and the stage runs that those link to."""

    def stages(self, run_ids: pl.Series) -> Records:
        """Read runs of any experiment by id: their times and tags."""

    def curves(self, run_ids: Sequence[str], metric: str | None = None) -> pl.DataFrame:
        """Read every logged point of one or all metrics, repeated steps too: `CURVE_SCHEMA`."""

    def artifact_root(self, run_id: str) -> str | None:
        """Find a run's files, as a URI; None where there is no such run."""

    def stamp(self) -> Stamp | None:
        """Name the state of the contents; None where that cannot be told without reading."""
