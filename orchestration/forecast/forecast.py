"""Forecast of a running study: time spent, time that remains, and the end.

The end comes from a simulation of the remaining stages, by the scheduler that runs them.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestration.execution.display import seconds_left
from orchestration.execution.progress import Progress
from orchestration.execution.scheduler import Graph, Scheduler, longest_first
from orchestration.forecast.simulator import Cluster, Simulation, Work
from orchestration.runs.state import StageFolder, State

HOUR = 3600.0
METER_SECONDS = 5.0
"""Seconds between two forecasts of a launch."""


@dataclass(frozen=True)
class StageTime:
    """Stage, as far as its time is concerned.

    Attributes:
        state: state as `status` shows it.
        resting: true if it is held by a gate, or not to be run now.
        predicted: seconds from start to end; None: uncalibrated.
        spent: seconds that it has run, this attempt included.
        left: seconds that remain at its own speed; None: not known.
        kind: kind of stage; an uncalibrated stage is compared with complete ones of its kind.
        weight: proportional to the time that stages of a kind take.
        counted: true if its time was spent on this study.
        width: slots that it takes.
    """

    state: State
    resting: bool
    predicted: float | None
    spent: float
    left: float | None = None
    kind: str = ""
    weight: float = 1.0
    counted: bool = True
    width: int = 1

    def remaining(self) -> float | None:
        """Return the seconds until its end; 0 if none of it will run; None: not known."""
        if self.resting or self.state not in ("WAITING", "RUNNING"):
            return 0.0
        if self.state == "WAITING":
            return self.predicted
        # Its own speed is the best evidence, once it has reported progress.
        if self.left is not None:
            return self.left
        return None if self.predicted is None else max(0.0, self.predicted - self.spent)


def look_at(
    folder: StageFolder, state: State, predicted: float | None, *, resting: bool = False
) -> StageTime:
    """Read the time of a stage in a state off its folder; killed attempts are not counted."""
    if state == "COMPLETE":
        done = folder.done()
        return StageTime(state, resting, predicted, done.seconds if done else 0.0)
    lease = folder.lease() if state == "RUNNING" else None
    left = None if lease is None else seconds_left(lease.progress)
    return StageTime(state, resting, predicted, _attempts_seconds(folder), left)


def _attempts_seconds(folder: StageFolder) -> float:
    ended = ((a.started, a.ended) for a in folder.attempts())
    lease = folder.lease()
    # A killed attempt has no end; only one that still runs counts until now.
    now = time.time() if lease is not None and lease.is_alive() else None
    return sum((end or now or start) - start for start, end in ended)


@dataclass(frozen=True)
class Forecast:
    """Forecast of a study.

    Attributes:
        spent: seconds that stages have run, all together.
        left: seconds that the others will run, as far as known.
        unknown: number of uncalibrated stages among them.
        end: seconds until all is done; None: some are uncalibrated.
    """

    spent: float
    left: float
    unknown: int
    end: float | None


def forecast(
    graph: Graph, trials: Collection[Collection[str]], parts: Mapping[str, StageTime], slots: int
) -> Forecast:
    """Forecast the end of a study.

    Args:
        graph: graph of the plan.
        trials: stage keys of each trial.
        parts: stage key -> its times.
        slots: stages of width 1 that run at the same time.
    """
    parts = _by_their_like(parts)
    remaining = {key: part.remaining() for key, part in parts.items()}
    unknown = sum(seconds is None for seconds in remaining.values())
    known = {key: seconds or 0.0 for key, seconds in remaining.items()}
    end = None if unknown else _end(graph, trials, parts, known, slots)
    spent = sum(part.spent for part in parts.values() if part.counted)
    return Forecast(spent, sum(known.values()), unknown, end)


def _by_their_like(parts: Mapping[str, StageTime]) -> dict[str, StageTime]:
    """Predict stages without a prediction from the complete stages of their kind."""
    spent: dict[str, float] = defaultdict(float)
    # By weight, as a large model takes longer than a small one of the same kind.
    weight: dict[str, float] = defaultdict(float)
    for part in parts.values():
        if part.state == "COMPLETE" and part.spent:
            spent[part.kind] += part.spent
            weight[part.kind] += part.weight
    return {
        key: replace(part, predicted=part.weight * spent[part.kind] / weight[part.kind])
        if part.predicted is None and part.kind in spent
        else part
        for key, part in parts.items()
    }


def _end(
    graph: Graph,
    trials: Collection[Collection[str]],
    parts: Mapping[str, StageTime],
    seconds: Mapping[str, float],
    slots: int,
) -> float:
    ranks = longest_first(graph, trials, seconds)
    # Running stages hold their slots already, so they start first whatever their rank.
    ranks |= {key: (-math.inf, 0.0) for key, part in parts.items() if part.state == "RUNNING"}
    scheduler = Scheduler(
        graph,
        ranks,
        complete=[key for key, part in parts.items() if part.state == "COMPLETE"],
        # Failed and held stages free no slots and end nothing: the rest is planned without them.
        skipped=[k for k, p in parts.items() if p.resting or "FAILED" in p.state],
    )
    # At most all slots: `--jobs 1` on eight GPUs leaves one, of which a stage may take four.
    works = {key: Work(s, min(parts[key].width, slots)) for key, s in seconds.items()}
    return Simulation(scheduler, works, Cluster(slots)).run().makespan


class Meter:
    """Forecast of a launch, renewed every few seconds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._trials = [trial.stages.values() for trial in progress.plan.trials]
        self._known: dict[str, StageTime] = {}
        self._made = -math.inf
        self._line = ""

    def line(self) -> str:
        """Describe the forecast in a sentence; stages complete before this launch cost nothing."""
        if time.monotonic() - self._made > METER_SECONDS:
            parts = {key: self._part(key) for key in self._progress.states}
            found = forecast(
                self._progress.graph, self._trials, parts, max(1, self._progress.slots)
            )
            self._line, self._made = forecast_line(found), time.monotonic()
        return self._line

    def _part(self, key: str) -> StageTime:
        state, cost = self._progress.states[key], self._progress.costs.get(key)
        known = self._known.get(key)
        # Folders are read again only after a change: a thousand stages make a thousand files.
        if known is None or known.state != state or state == "RUNNING":
            known = self._look(key, state, None if cost is None else cost.seconds)
            if cost is not None:
                kind = self._progress.plan.stages[key].stage
                width = self._progress.widths.get(kind, 1)
                known = replace(known, kind=kind, weight=cost.ordering_seconds, width=width)
            self._known[key] = known
        resting = key in self._progress.held_stages or key in self._progress.left
        return replace(known, resting=resting)

    def _look(self, key: str, state: State, predicted: float | None) -> StageTime:
        if state == "WAITING":
            return StageTime(state, False, predicted, 0.0)
        found = look_at(self._progress.folders[key], state, predicted)
        return replace(found, counted=key not in self._progress.reused)


def forecast_line(found: Forecast, now: float | None = None) -> str:
    """Describe a forecast in a sentence."""
    text = f"spent {_hours(found.spent)} of stages"
    if found.left or found.unknown:
        text += f", {_hours(found.left)} remain"
    if found.unknown:
        return f"{text} and {found.unknown} stages whose time nobody knows yet"
    if found.end:
        end = datetime.fromtimestamp((now or time.time()) + found.end)
        # Further away than half a day, the hour alone would be ambiguous.
        day = f"{end:%H:%M}" if found.end < 12 * HOUR else f"{end:%a %d %b %H:%M}"
        text += f"; done in {timedelta(seconds=round(found.end))}, at {day}"
    return text


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < HOUR else f"{seconds / HOUR:.1f} h"
