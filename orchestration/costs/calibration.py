"""Calibration: measured times of stages, and predictions from them (`calibration.jsonl`).

The file has one line per whole run of a stage: of the small ones of `calibrate`, and of every
stage that finished. Lines are appended under a lock, so workers of all backends can write to the
one file. It lies in the runs directory because it is about the devices and threads that this study
uses.

Seconds are a fixed part (imports, data, a matrix's square root) plus FLOPs over a rate. Both are
fitted to the records of the nearest configuration on the same device and threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

from gigatok.config.fields.base import UnixTime
from orchestration.runs.records import Record, append_lines, read_lines
from orchestration.runs.stage_records import Attempt, Spec
from orchestration.runs.state import Store

NEWEST = 60
"""Records of a stage on a device that are fitted; older ones say less about today."""
PRIOR_SD, PRIOR_WEIGHT = 0.15, 4
"""Assumed spread of log(actual / predicted), and the number of residuals that it counts as."""
SAME = 0.02
"""Relative difference in FLOPs per unit of work below which configurations are the same."""
OTHER_FAMILY = 3.0
"""Distance between two families, in the measure log(FLOPs / FLOPs)."""
FARTHEST = 2.0
"""Ratio of FLOPs up to which records of a single amount of work tell the time of another."""
DISTANCE_SD = 0.2
"""Spread of a prediction's log per unit of that distance."""
# Two standard deviations: about 95 % of predictions, if their logs are normal.
RANGE_SDS = 2.0


@dataclass(frozen=True)
class Site:
    """Device and threads of a stage: only records of the same site are comparable."""

    device: str
    threads: int
    processes: int = 1


class Observation(Record):
    """Record of one whole run of a stage.

    `seconds` run from the worker's start to its end, without `waited_seconds`, in which it found
    no free processor: the time on a machine of its own. `family` must agree for times to be
    comparable; it names variant, precision and the like. `unit_flops` tells sizes apart.
    `memory_bytes` is the closed form's value for the tensors. What has no closed form is None.
    """

    stage: str
    key: str
    readable: str
    family: str
    unit_flops: float | None
    flops: float | None
    seconds: float
    waited_seconds: float | None = None
    device: str
    threads: int
    processes: int = 1
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    calibrated: bool = False
    """True if `calibrate` made it, and not a study."""
    finished: UnixTime

    @property
    def name(self) -> str:
        """Name of the record in predictions."""
        source = "calibrate" if self.calibrated else self.key
        return f"{self.readable} {self.stage} ({source})"

    @property
    def site(self) -> Site:
        """Site of the run."""
        return Site(self.device, self.threads, self.processes)


@dataclass(frozen=True)
class Need:
    """Part of a stage's cost that time depends on; see `Observation`."""

    stage: str
    family: str
    unit_flops: float | None
    flops: float | None


@dataclass(frozen=True)
class TimeEstimate:
    """Predicted seconds with a range, and the record that they rest on.

    `measured`: records of the same network at amounts of work that tell the time of this one.
    """

    seconds: float
    low: float
    high: float
    record: str
    peak_memory: int | None
    """Bytes beyond the tensors of the closed form: the process, its libraries, waste.

    For a stage without closed form, all bytes. None: not measured.
    """
    measured: bool


@dataclass(frozen=True)
class TimeFit:
    """Linear model: seconds = fixed + flops / rate."""

    fixed: float
    seconds_per_flop: float

    def seconds(self, flops: float) -> float:
        """Predict the seconds of a stage with so many FLOPs."""
        return self.fixed + flops * self.seconds_per_flop


def fit(observations: Sequence[Observation], usual_fixed: float = 0.0) -> TimeFit:
    """Fit by least squares of relative errors; neither part is negative.

    Args:
        observations: at least one.
        usual_fixed: the fixed part if all have the same FLOPs, at most half of the time.
    """
    # Runs of unknown FLOPs count as the same amount of work: their time is the mean. A millisecond
    # at least: the weights below divide by the square.
    points = [(o.flops or 0.0, max(o.seconds, 1e-3)) for o in observations]
    most = max(flops for flops, _ in points)
    # One amount of work cannot tell the fixed part from the rate.
    if most - min(flops for flops, _ in points) <= SAME * most:
        mean = sum(seconds for _, seconds in points) / len(points)
        fixed = mean if most == 0 else min(usual_fixed, mean / 2)
        return TimeFit(fixed, (mean - fixed) / most if most else 0.0)
    # Normal equations with weights 1/s², which make errors relative: sums of 1, x and y.
    w = sum(1 / s**2 for _, s in points)
    x = sum(f / s**2 for f, s in points)
    xx = sum(f * f / s**2 for f, s in points)
    y = sum(1 / s for _, s in points)
    xy = sum(f / s for f, s in points)
    determinant = w * xx - x * x
    slope, fixed = (w * xy - x * y) / determinant, (xx * y - x * xy) / determinant
    # More work never takes less time: noise of small runs. Then all time counts as fixed.
    if slope <= 0:
        return TimeFit(y / w, 0.0)
    # No time before zero: the line goes through the origin.
    return TimeFit(fixed, slope) if fixed >= 0 else TimeFit(0.0, xy / xx)


@dataclass(frozen=True)
class Calibration:
    """Records of a runs directory, and predictions from them."""

    observations: tuple[Observation, ...] = ()
    _groups: dict[tuple[str, Site], _Group] = field(default_factory=dict, compare=False)

    def estimate(self, need: Need, site: Site) -> TimeEstimate | None:
        """Predict the seconds of a stage; None if no record is comparable ("uncalibrated")."""
        at = (need.stage, site)
        # Ten thousand stages ask the same few groups, whose spread is costly.
        if at not in self._groups:
            mine = [o for o in self.observations if o.stage == need.stage and o.site == site]
            # Without FLOPs, the small runs of `calibrate` say nothing about a whole one.
            mine = [o for o in mine if not (o.calibrated and o.flops is None)]
            self._groups[at] = _Group(tuple(mine[-NEWEST:]))
        return self._groups[at].estimate(need) if self._groups[at].observations else None

    def newest_site(self, stage: str) -> Site:
        """Return the site where a kind of stage was measured last; an empty one if never."""
        mine = [o for o in self.observations if o.stage == stage]
        return max(mine, key=lambda o: o.finished).site if mine else Site("", 1)

    def sites(self) -> set[Site]:
        """Return all sites where anything was measured."""
        return {o.site for o in self.observations}


@dataclass(frozen=True)
class _Group:
    """Records of one kind of stage on one site, oldest first."""

    observations: tuple[Observation, ...]

    def estimate(self, need: Need) -> TimeEstimate:
        nearest = _nearest(need, self.observations)
        apart = _distance(need, nearest[0])
        seconds = fit(nearest, self.usual_fixed).seconds(need.flops or 0.0)
        # Independent errors: the scatter of runs, and the step from another configuration.
        sd = math.hypot(self.spread, DISTANCE_SD * apart)
        factor = math.exp(RANGE_SDS * sd)
        newest = nearest[-1]
        measured = apart <= SAME and _tell(nearest, need.flops)
        return TimeEstimate(
            seconds, seconds / factor, seconds * factor, newest.name, _beyond(nearest), measured
        )

    @cached_property
    def usual_fixed(self) -> float:
        """Fixed part of configurations that were measured at several amounts of work."""
        fits = [
            fit(alike)
            for alike in alike_groups(self.observations)
            if len({o.flops for o in alike}) > 1
        ]
        return median(f.fixed for f in fits) if fits else 0.0

    @cached_property
    def spread(self) -> float:
        """Standard deviation of log(actual / predicted), each record predicted by the others."""
        # The prior is a few residuals of the usual size, which soon weigh little.
        squares = PRIOR_WEIGHT * PRIOR_SD**2
        count = PRIOR_WEIGHT
        for index, one in enumerate(self.observations):
            others = self.observations[:index] + self.observations[index + 1 :]
            nearest = _nearest(one, others) if others else []
            # At a single amount of work its own configuration says nothing about another amount.
            if len({o.flops for o in nearest}) < 2 and all(o.flops != one.flops for o in nearest):
                continue
            predicted = fit(nearest).seconds(one.flops or 0.0)
            squares += math.log(max(one.seconds, 1e-3) / max(predicted, 1e-3)) ** 2
            count += 1
        return math.sqrt(squares / count)


def alike_groups(observations: Iterable[Observation]) -> Iterator[list[Observation]]:
    """Yield the records of one configuration after the other."""
    left = list(observations)
    while left:
        mine = [o for o in left if o.stage == left[0].stage]
        alike = _nearest(left[0], mine)
        yield alike
        left = [o for o in left if o not in alike]


def _distance(need: Need | Observation, o: Observation) -> float:
    ends = sorted([need.unit_flops or 0.0, o.unit_flops or 0.0])
    # In logs: half and twice the FLOPs are equally far.
    apart = math.log(ends[1] / max(ends[0], 1e-9 * ends[1])) if ends[1] else 0.0
    return apart + (OTHER_FAMILY if need.family != o.family else 0.0)


def _nearest(need: Need | Observation, observations: Sequence[Observation]) -> list[Observation]:
    """Return all records of the nearest configuration, oldest first."""
    distances = [_distance(need, o) for o in observations]
    limit = min(distances) + SAME
    return [o for o, apart in zip(observations, distances, strict=True) if apart <= limit]


def _tell(alike: Sequence[Observation], flops: float | None) -> bool:
    """Tell whether records of one network say what so many FLOPs take."""
    known = [o.flops for o in alike if o.flops]
    # Without FLOPs nothing says how much work a record was: it may be of a thousandth of it.
    if not flops or not known:
        return False
    # Two amounts tell the fixed part from the rate. Of one amount all time may be fixed.
    several = max(known) > (1 + SAME) * min(known)
    return several or max(flops / known[-1], known[-1] / flops) <= FARTHEST


def _beyond(nearest: Sequence[Observation]) -> int | None:
    """Return the largest peak memory beyond the tensors of the closed form; None: not measured."""
    beyond = [
        o.peak_memory_bytes - (o.memory_bytes or 0)
        for o in nearest
        if o.peak_memory_bytes is not None
    ]
    return max(beyond, default=None)


def load_calibration(store: Store) -> Calibration:
    """Load the records of a runs directory; none if nothing was measured."""
    # Older workers also counted the waiting before their attempt, which could exceed it.
    found = (o for o in read_lines(store.calibration, Observation) if o.seconds > 0)
    return Calibration(tuple(found))


def observe(spec: Spec, attempt: Attempt, *, calibrated: bool = False) -> Observation | None:
    """Read the measured time off a run; None if it was interrupted, resumed or not predicted.

    Args:
        spec: spec of the stage.
        attempt: the attempt that completed it.
        calibrated: true if it was run by `calibrate`.
    """
    prediction, ended = spec.prediction, attempt.ended
    # A resumed run has done only a part of the FLOPs.
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
    """Append measured times to the records of a runs directory."""
    append_lines(store.calibration, observations)
