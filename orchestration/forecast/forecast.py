"""The estimate of the time left of a study, which terminal, page and `status` all show.

A stage that runs goes on at its speed so far. One that waits takes as long as records of its own
network say, or as those of its kind take in this study, with the start of its process. The end
comes from a simulation of the remaining stages, by the scheduler that runs them.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import median

from orchestration.costs.cost import Cost
from orchestration.execution.display import seconds_left
from orchestration.execution.progress import Progress
from orchestration.execution.scheduler import Graph, Scheduler, longest_first
from orchestration.forecast.simulator import Cluster, Simulation, Work
from orchestration.runs.state import StageFolder, State

MINUTE, HOUR = 60.0, 3600.0
METER_SECONDS = 5.0
"""Seconds between two forecasts of a launch."""


@dataclass(frozen=True)
class StageTime:
    """Stage, as far as its time is concerned.

    Attributes:
        state: state as `status` shows it.
        resting: true if it is held by a gate, or not to be run now.
        predicted: seconds from start to end; None: no record is of its network.
        spent: seconds that it has run, this attempt included.
        left: seconds that remain at its own speed; None: not known.
        kind: kind of stage; those of one kind tell of each other.
        weight: proportional to the time that stages of a kind take.
        startup: seconds that its process took to begin with the stage; None: not known.
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
    startup: float | None = None
    counted: bool = True
    width: int = 1

    @property
    def observed(self) -> float | None:
        """Seconds that the whole stage takes as far as this run of it shows; None: not yet."""
        if self.state == "COMPLETE":
            return self.spent or None
        return None if self.left is None else self.spent + self.left

    def remaining(self, startup: float = 0.0) -> float | None:
        """Return the seconds until its end; 0 if none of it will run; None: not known.

        Args:
            startup: seconds that a process takes before the stage begins.
        """
        if self.resting or self.state not in ("WAITING", "RUNNING"):
            return 0.0
        if self.state == "WAITING":
            return None if self.predicted is None else startup + self.predicted
        # Its own speed is the best evidence, once it has reported progress.
        if self.left is not None:
            return self.left
        return None if self.predicted is None else max(0.0, self.predicted - self.spent)


def look_at(
    folder: StageFolder, kind: str, state: State, cost: Cost, *, resting: bool = False
) -> StageTime:
    """Read the time of a stage in a state off its folder; killed attempts are not counted."""
    # Never from a record of another network: after a smoke run it was wrong by a factor of eight.
    part = StageTime(state, resting, cost.measured_seconds, 0.0, None, kind, cost.nominal_seconds)
    if state == "WAITING" and not folder.path.exists():
        return part
    attempt = folder.last_attempt()
    part = replace(part, startup=None if attempt is None else attempt.startup_seconds)
    if state == "COMPLETE":
        done = folder.done()
        return replace(part, spent=done.seconds if done else 0.0)
    lease = folder.lease() if state == "RUNNING" else None
    left = None if lease is None else seconds_left(lease.progress)
    return replace(part, spent=_attempts_seconds(folder), left=left)


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
        unknown: number of stages among them whose time nothing tells.
        end: seconds until all is done; None: the time of some is not known.
        made: UNIX seconds at which this was true.
    """

    spent: float
    left: float
    unknown: int
    end: float | None
    made: float = field(default_factory=time.time, compare=False)


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
    # The median: a worker that took over a lease has waited for it.
    startup = median([part.startup for part in parts.values() if part.startup is not None] or [0])
    remaining = {key: part.remaining(startup) for key, part in parts.items()}
    unknown = sum(seconds is None for seconds in remaining.values())
    known = {key: seconds or 0.0 for key, seconds in remaining.items()}
    end = None if unknown else _end(graph, trials, parts, known, slots)
    spent = sum(part.spent for part in parts.values() if part.counted)
    return Forecast(spent, sum(known.values()), unknown, end)


def _by_their_like(parts: Mapping[str, StageTime]) -> dict[str, StageTime]:
    """Correct predictions by what stages of the same kind take in this study, or make them so."""
    seen: dict[str, list[StageTime]] = defaultdict(list)
    for part in parts.values():
        if part.observed is not None:
            seen[part.kind].append(part)
    rates = {kind: _rates(alike) for kind, alike in seen.items()}
    found = {}
    for key, part in parts.items():
        slowdown, per_weight = rates.get(part.kind, (None, None))
        if part.predicted is not None:
            part = replace(part, predicted=part.predicted * (slowdown or 1.0))
        elif per_weight is not None:
            part = replace(part, predicted=part.weight * per_weight)
        found[key] = part
    return found


def _rates(seen: Sequence[StageTime]) -> tuple[float | None, float]:
    """Measure the speed of a kind of stage: seconds per predicted second, and per weight."""
    # What this launch ran says most of its speed: earlier ones may have had another machine.
    seen = [part for part in seen if part.counted] or seen
    foreseen = [p for p in seen if p.predicted]
    predicted = sum(p.predicted or 0.0 for p in foreseen)
    slowdown = _observed(foreseen) / predicted if predicted else None
    return slowdown, _observed(seen) / sum(p.weight for p in seen)


def _observed(parts: Iterable[StageTime]) -> float:
    return sum(part.observed or 0.0 for part in parts)


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
        self._made: Forecast | None = None

    def forecast(self) -> Forecast:
        """Forecast the launch, anew after some seconds; what it reused cost nothing."""
        if self._made is None or time.time() - self._made.made > METER_SECONDS:
            parts = {key: self._part(key) for key in self._progress.states}
            self._made = forecast(
                self._progress.graph, self._trials, parts, max(1, self._progress.slots)
            )
        return self._made

    def _part(self, key: str) -> StageTime:
        state = self._progress.states[key]
        known = self._known.get(key)
        # Folders are read again only after a change: a thousand stages make a thousand files.
        if known is None or known.state != state or state == "RUNNING":
            known = self._look(key, state)
            self._known[key] = known
        resting = key in self._progress.held_stages or key in self._progress.left
        return replace(known, resting=resting)

    def _look(self, key: str, state: State) -> StageTime:
        kind = self._progress.plan.stages[key].stage
        found = look_at(self._progress.folders[key], kind, state, self._progress.costs[key])
        width, counted = self._progress.widths.get(kind, 1), key not in self._progress.reused
        return replace(found, width=width, counted=counted)


def forecast_tag(found: Forecast) -> str:
    """Write a forecast for the page, as JSON: `made`, `end`, and the sentence."""
    return json.dumps({"made": found.made, "end": found.end, "line": forecast_line(found)})


def forecast_line(found: Forecast) -> str:
    """Describe a forecast in a sentence."""
    text = f"spent {_hours(found.spent)} of stages"
    if found.unknown:
        # A sum of some stages alone would be read as that of all.
        untimed = f"{found.unknown} stage{'s' * (found.unknown > 1)} not timed yet"
        least = f"at least {_hours(found.left)} remain, " if found.left else ""
        return f"{text}; {least}{untimed}"
    if found.left:
        text += f", {_hours(found.left)} remain"
    if found.end:
        end = datetime.fromtimestamp(found.made + found.end)
        # Further away than half a day, the hour alone would be ambiguous.
        day = f"{end:%H:%M}" if found.end < 12 * HOUR else f"{end:%a %d %b %H:%M}"
        text += f"; done in {timedelta(seconds=round(found.end))}, at {day}"
    return text


def _hours(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.1f} min" if seconds < HOUR else f"{seconds / HOUR:.1f} h"
