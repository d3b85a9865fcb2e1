"""What stages took, and from it what others will take: `<runs>/calibration.jsonl`.

One line per whole run of a stage: of `calibrate`'s small ones and of every stage that finished.
Lines are appended under a lock, so that workers of all backends can write to the one file, and
lie beside the stages because they are about the devices and threads that this study runs on.

Seconds are a fixed part, such as imports, data and a matrix's square root, and FLOPs over a rate.
Both are fitted to the records of the nearest configuration on the same device and threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

from orchestration.runs.records import Record, UnixTime, append_lines, read_lines
from orchestration.runs.stage_records import Attempt, Spec
from orchestration.runs.state import Store

NEWEST = 60
"""Records of a stage on a device that are fitted: older ones say less about today."""
PRIOR_SD, PRIOR_WEIGHT = 0.15, 4
"""What is taken for the spread of log(actual / predicted) before there are residuals, and as how
many of them that counts."""
SAME = 0.02
"""Relative difference of the FLOPs of a unit of work below which configurations are the same."""
OTHER_FAMILY = 3.0
"""How far apart families are, in the measure log(FLOPs / FLOPs)."""
DISTANCE_SD = 0.2
"""Spread of a prediction's log per unit of that distance."""
RANGE_SDS = 2.0


class Observation(Record):
    """One whole run of a stage.

    `seconds` are from the worker's start to its end, less `waited_seconds`, in which it wanted to
    compute and others had the processor: what it takes on a machine that is its own.
    `family` is what must agree for times to be comparable, such as variant and precision;
    `unit_flops` tells sizes apart; `memory_bytes` is what the closed form says of its tensors.
    """

    stage: str
    key: str
    readable: str
    family: str
    unit_flops: float
    flops: float
    seconds: float
    waited_seconds: float | None = None
    device: str
    threads: int
    processes: int = 1
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    calibrated: bool = False
    """Whether `calibrate` made it, not a study."""
    finished: UnixTime

    @property
    def name(self) -> str:
        """How predictions call it."""
        source = "calibrate" if self.calibrated else self.key
        return f"{self.readable} {self.stage} ({source})"


@dataclass(frozen=True)
class Site:
    """On what a stage runs: only records of the same are comparable."""

    device: str
    threads: int
    processes: int = 1


@dataclass(frozen=True)
class Need:
    """What of a stage's cost time depends on; see `Observation`."""

    stage: str
    family: str
    unit_flops: float
    flops: float


@dataclass(frozen=True)
class Estimate:
    """Seconds with a range, and the record that it rests on."""

    seconds: float
    low: float
    high: float
    record: str
    peak_memory: int | None
    """Bytes beyond what the closed form says of tensors: the process, its libraries, waste; of a
    stage without closed form, the whole. None: not measured."""


@dataclass(frozen=True)
class Fit:
    """seconds = fixed + flops / rate."""

    fixed: float
    seconds_per_flop: float

    def seconds(self, flops: float) -> float:
        """Of a stage that computes so much."""
        return self.fixed + flops * self.seconds_per_flop


def fit(observations: Sequence[Observation], usual_fixed: float = 0.0) -> Fit:
    """Least squares of relative errors; neither part is negative.

    Args:
        observations: at least one.
        usual_fixed: the fixed part where all have the same FLOPs, at most half of the time.
    """
    points = [(o.flops, max(o.seconds, 1e-3)) for o in observations]
    most = max(flops for flops, _ in points)
    if most - min(flops for flops, _ in points) <= SAME * most:
        mean = sum(seconds for _, seconds in points) / len(points)
        fixed = mean if most == 0 else min(usual_fixed, mean / 2)
        return Fit(fixed, (mean - fixed) / most if most else 0.0)
    # Weights 1/s²; sums of 1, x and y.
    w = sum(1 / s**2 for _, s in points)
    x = sum(f / s**2 for f, s in points)
    xx = sum(f * f / s**2 for f, s in points)
    y = sum(1 / s for _, s in points)
    xy = sum(f / s for f, s in points)
    determinant = w * xx - x * x
    slope, fixed = (w * xy - x * y) / determinant, (xx * y - x * xy) / determinant
    if slope <= 0:
        return Fit(y / w, 0.0)
    return Fit(fixed, slope) if fixed >= 0 else Fit(0.0, xy / xx)


@dataclass(frozen=True)
class Calibration:
    """All records of a runs directory."""

    observations: tuple[Observation, ...] = ()
    _groups: dict[tuple[str, Site], _Group] = field(default_factory=dict, compare=False)

    def estimate(self, need: Need, site: Site) -> Estimate | None:
        """What a stage will take; None where no record is comparable: "uncalibrated"."""
        at = (need.stage, site)
        if at not in self._groups:
            mine = [o for o in self.observations if o.stage == need.stage and _site(o) == site]
            self._groups[at] = _Group(tuple(mine[-NEWEST:]))
        return self._groups[at].estimate(need) if self._groups[at].observations else None

    def newest_site(self, stage: str) -> Site:
        """Where a kind of stage was measured last; nowhere in particular if it never was."""
        mine = [o for o in self.observations if o.stage == stage]
        return _site(max(mine, key=lambda o: o.finished)) if mine else Site("", 1)

    def sites(self) -> set[Site]:
        """Where anything was measured."""
        return {_site(o) for o in self.observations}


@dataclass(frozen=True)
class _Group:
    """The records of one kind of stage on one site, oldest first."""

    observations: tuple[Observation, ...]

    def estimate(self, need: Need) -> Estimate:
        nearest = _nearest(need, self.observations)
        apart = _distance(need, nearest[0])
        seconds = fit(nearest, self.usual_fixed).seconds(need.flops)
        sd = math.hypot(self.spread, DISTANCE_SD * apart)
        factor = math.exp(RANGE_SDS * sd)
        newest = nearest[-1]
        return Estimate(seconds, seconds / factor, seconds * factor, newest.name, _beyond(nearest))

    @cached_property
    def usual_fixed(self) -> float:
        """The fixed part of configurations that were measured at several amounts of work."""
        fits = [
            fit(alike)
            for alike in alike_groups(self.observations)
            if len({o.flops for o in alike}) > 1
        ]
        return median(f.fixed for f in fits) if fits else 0.0

    @cached_property
    def spread(self) -> float:
        """Standard deviation of log(actual / predicted), each record predicted by the others."""
        squares = PRIOR_WEIGHT * PRIOR_SD**2
        count = PRIOR_WEIGHT
        for index, one in enumerate(self.observations):
            others = self.observations[:index] + self.observations[index + 1 :]
            nearest = _nearest(_need(one), others) if others else []
            # Its own configuration at one amount of work alone says nothing about another.
            if len({o.flops for o in nearest}) < 2 and all(o.flops != one.flops for o in nearest):
                continue
            predicted = fit(nearest).seconds(one.flops)
            squares += math.log(max(one.seconds, 1e-3) / max(predicted, 1e-3)) ** 2
            count += 1
        return math.sqrt(squares / count)


def alike_groups(observations: Iterable[Observation]) -> Iterator[list[Observation]]:
    """Records of one configuration each."""
    left = list(observations)
    while left:
        mine = [o for o in left if o.stage == left[0].stage]
        alike = _nearest(_need(left[0]), mine)
        yield alike
        left = [o for o in left if o not in alike]


def _need(o: Observation) -> Need:
    return Need(o.stage, o.family, o.unit_flops, o.flops)


def _site(o: Observation) -> Site:
    return Site(o.device, o.threads, o.processes)


def _distance(need: Need, o: Observation) -> float:
    larger = max(need.unit_flops, o.unit_flops)
    if larger == 0:
        apart = 0.0
    else:
        apart = math.log(larger / max(min(need.unit_flops, o.unit_flops), 1e-9 * larger))
    return apart + (OTHER_FAMILY if need.family != o.family else 0.0)


def _nearest(need: Need, observations: Sequence[Observation]) -> list[Observation]:
    """All records of the configuration that is nearest, oldest first."""
    distances = [_distance(need, o) for o in observations]
    limit = min(distances) + SAME
    return [o for o, apart in zip(observations, distances, strict=True) if apart <= limit]


def _beyond(nearest: Sequence[Observation]) -> int | None:
    """Largest peak memory beyond the tensors of the closed form; None where not measured."""
    beyond = [
        o.peak_memory_bytes - (o.memory_bytes or 0)
        for o in nearest
        if o.peak_memory_bytes is not None
    ]
    return max(beyond, default=None)


def load_calibration(store: Store) -> Calibration:
    """Load the records of a runs directory; none where nothing was measured."""
    # Records of before a worker counted its waiting from its attempt on may be below zero.
    found = (o for o in read_lines(store.calibration, Observation) if o.seconds > 0)
    return Calibration(tuple(found))


def observe(spec: Spec, attempt: Attempt, *, calibrated: bool = False) -> Observation | None:
    """Read off what a stage took; None where nothing can be: interrupted, resumed, not predicted.

    Args:
        spec: of the stage.
        attempt: the one that completed it.
        calibrated: whether it was run for this.
    """
    prediction, ended = spec.prediction, attempt.ended
    whole = attempt.outcome == "complete" and attempt.first_step == 0
    if not whole or prediction is None or ended is None or attempt.threads is None:
        return None
    seconds = ended - attempt.started - (attempt.waited_seconds or 0.0)
    if seconds <= 0:  # the clock was set back meanwhile, or an older worker counted too much
        return None
    return Observation(
        stage=spec.stage,
        key=spec.key,
        readable=spec.readable,
        family=prediction.family,
        unit_flops=prediction.unit_flops,
        flops=prediction.flops,
        seconds=seconds,
        waited_seconds=attempt.waited_seconds,
        device=str(attempt.provenance.get("device")),
        threads=attempt.threads,
        processes=attempt.processes,
        memory_bytes=prediction.tensor_bytes,
        peak_memory_bytes=attempt.peak_memory_bytes,
        calibrated=calibrated,
        finished=ended,
    )


def append_observations(store: Store, observations: Iterable[Observation]) -> None:
    """Add what stages took to the records of a runs directory."""
    append_lines(store.calibration, observations)
