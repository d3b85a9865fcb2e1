"""What a running study has spent, what remains, and when it will be done.

The end is a simulation of what remains, by the scheduler that runs it.
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
"""How often the forecast of a launch is made anew."""


@dataclass(frozen=True)
class Part:
    """A stage as far as its time is concerned.

    Attributes:
        state: as `status` shows it.
        resting: held by a gate, or not to be run now.
        predicted: seconds from start to end; None: uncalibrated.
        spent: seconds that it has run, this attempt included.
        left: seconds that it has left by its own speed; None: not known.
        kind: what stages that are uncalibrated are compared with, once one of it is complete.
        weight: in proportion to the time that stages of a kind take.
        counted: whether its time was spent on this study.
    """

    state: State
    resting: bool
    predicted: float | None
    spent: float
    left: float | None = None
    kind: str = ""
    weight: float = 1.0
    counted: bool = True

    def remaining(self) -> float | None:
        """Seconds until its end; 0 if nothing of it will run; None: nobody knows."""
        if self.resting or self.state not in ("WAITING", "RUNNING"):
            return 0.0
        if self.state == "WAITING":
            return self.predicted
        if self.left is not None:
            return self.left
        return None if self.predicted is None else max(0.0, self.predicted - self.spent)


def look_at(
    folder: StageFolder, state: State, predicted: float | None, *, resting: bool = False
) -> Part:
    """A stage in a state, as its folder tells; time of attempts that were killed is not known."""
    if state == "COMPLETE":
        done = folder.done()
        return Part(state, resting, predicted, done.seconds if done else 0.0)
    lease = folder.lease() if state == "RUNNING" else None
    left = None if lease is None else seconds_left(lease.progress)
    return Part(state, resting, predicted, _attempts_seconds(folder), left)


def _attempts_seconds(folder: StageFolder) -> float:
    ended = ((a.started, a.ended) for a in folder.attempts())
    lease = folder.lease()
    now = time.time() if lease is not None and lease.is_alive() else None
    return sum((end or now or start) - start for start, end in ended)


@dataclass(frozen=True)
class Forecast:
    """Of a study.

    Attributes:
        spent: seconds that stages have run, all together.
        left: seconds that the others will run, as far as known.
        unknown: how many of them are uncalibrated.
        end: seconds until all is done; None: some are uncalibrated.
    """

    spent: float
    left: float
    unknown: int
    end: float | None


def forecast(
    graph: Graph, trials: Collection[Collection[str]], parts: Mapping[str, Part], slots: int
) -> Forecast:
    """Look ahead.

    Args:
        graph: of the plan.
        trials: the stages of each.
        parts: of every stage.
        slots: stages that run at the same time.
    """
    parts = _by_their_like(parts)
    remaining = {key: part.remaining() for key, part in parts.items()}
    unknown = sum(seconds is None for seconds in remaining.values())
    known = {key: seconds or 0.0 for key, seconds in remaining.items()}
    end = None if unknown else _end(graph, trials, parts, known, slots)
    spent = sum(part.spent for part in parts.values() if part.counted)
    return Forecast(spent, sum(known.values()), unknown, end)


def _by_their_like(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Parts without a prediction get one from the complete ones of their kind."""
    spent: dict[str, float] = defaultdict(float)
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
    parts: Mapping[str, Part],
    seconds: Mapping[str, float],
    slots: int,
) -> float:
    ranks = longest_first(graph, trials, seconds)
    ranks |= {key: (-math.inf, 0.0) for key, part in parts.items() if part.state == "RUNNING"}
    scheduler = Scheduler(
        graph,
        ranks,
        complete=[key for key, part in parts.items() if part.state == "COMPLETE"],
        skipped=[k for k, p in parts.items() if p.resting or "FAILED" in p.state],
    )
    works = {key: Work(value) for key, value in seconds.items()}
    return Simulation(scheduler, works, Cluster(slots)).run().makespan


class Meter:
    """The forecast of a launch, made anew every few seconds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._trials = [trial.stages.values() for trial in progress.plan.trials]
        self._known: dict[str, Part] = {}
        self._made = -math.inf
        self._line = ""

    def line(self) -> str:
        """In a sentence; what was complete before this launch is not counted as spent."""
        if time.monotonic() - self._made > METER_SECONDS:
            parts = {key: self._part(key) for key in self._progress.states}
            found = forecast(
                self._progress.graph, self._trials, parts, max(1, self._progress.slots)
            )
            self._line, self._made = forecast_line(found), time.monotonic()
        return self._line

    def _part(self, key: str) -> Part:
        state, cost = self._progress.states[key], self._progress.costs.get(key)
        known = self._known.get(key)
        if known is None or known.state != state or state == "RUNNING":
            known = self._look(key, state, None if cost is None else cost.seconds)
            if cost is not None:
                kind = self._progress.plan.stages[key].stage
                known = replace(known, kind=kind, weight=cost.ordering_seconds)
            self._known[key] = known
        resting = key in self._progress.held_stages or key in self._progress.left
        return replace(known, resting=resting)

    def _look(self, key: str, state: State, predicted: float | None) -> Part:
        if state == "WAITING":
            return Part(state, False, predicted, 0.0)
        found = look_at(self._progress.folders[key], state, predicted)
        return replace(found, counted=key not in self._progress.reused)


def forecast_line(found: Forecast, now: float | None = None) -> str:
    """A forecast in a sentence."""
    text = f"spent {_hours(found.spent)} of stages"
    if found.left or found.unknown:
        text += f", {_hours(found.left)} remain"
    if found.unknown:
        return f"{text} and {found.unknown} stages whose time nobody knows yet"
    if found.end:
        end = datetime.fromtimestamp((now or time.time()) + found.end)
        day = f"{end:%H:%M}" if found.end < 12 * HOUR else f"{end:%a %d %b %H:%M}"
        text += f"; done in {timedelta(seconds=round(found.end))}, at {day}"
    return text


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < HOUR else f"{seconds / HOUR:.1f} h"
