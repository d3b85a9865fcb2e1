"""Simulator of a plan on a cluster: duration, idle time, and the cost of failures.

It runs discrete events on the decisions of `orchestration.execution.scheduler`, as the real runner
does. A device fails or is preempted at exponentially distributed times. A failed stage resumes
from its last checkpoint; a preempted one saves a checkpoint first. Checkpoints that are written at
the same time share the bandwidth of the file system. A lost device is replaced at once.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestration.execution.scheduler import Scheduler

Blow = Literal["node_lost", "preempted"]
"""Loss of a device; the kinds of failure are those of `orchestration.policy.faults`."""
_ROUNDING = 1e-9
"""Share of an interval by which a last segment may exceed it and still count as one."""


@dataclass(frozen=True)
class Work:
    """Load of one stage.

    Attributes:
        seconds: duration without failures and checkpoints.
        devices: devices used at the same time.
        checkpoint_bytes: size of a checkpoint; None: it saves none and starts again from zero.
    """

    seconds: float
    devices: int = 1
    checkpoint_bytes: float | None = 0.0


@dataclass(frozen=True)
class Cluster:
    """Cluster to simulate; times in seconds, rates per device and second of use.

    Attributes:
        devices: number of devices.
        failure_rate: one over the mean time between failures of a device.
        preemption_rate: rate at which others take a device away.
        queue_limit: most stages queued or running at the same time; None: any number.
        bandwidth: bytes per second of the file system, for all together; None: never the limit.
        checkpoint_seconds: duration of a checkpoint in addition to the writing.
        restart_seconds: time before a stage that is tried again computes anything.
    """

    devices: int
    failure_rate: float = 0.0
    preemption_rate: float = 0.0
    queue_limit: int | None = None
    bandwidth: float | None = None
    checkpoint_seconds: float = 0.0
    restart_seconds: float = 0.0


@dataclass
class Outcome:
    """Result of a simulation; sums are in device-seconds and add up to devices x makespan.

    Attributes:
        makespan: seconds from the first start to the last end.
        useful: computed and kept.
        writing: spent on checkpoints.
        lost: computed again after failures, restarts, and everything of stages that failed.
        idle: devices without a stage.
        blows: failures and preemptions of devices.
        complete: number of complete stages.
        failed: number of stages that failed after too many attempts without progress.
        ends: stage key -> seconds at which it was complete.
    """

    makespan: float = 0.0
    useful: float = 0.0
    writing: float = 0.0
    lost: float = 0.0
    idle: float = 0.0
    blows: Counter[Blow] = field(default_factory=Counter)
    complete: int = 0
    failed: int = 0
    ends: dict[str, float] = field(default_factory=dict)

    @property
    def busy(self) -> float:
        """Device-seconds that are paid for stages."""
        return self.useful + self.writing + self.lost


@dataclass
class _Run:
    """Attempt that is under way.

    Attributes:
        saved: seconds of work in the newest checkpoint.
        since: time at which the present phase began, or will begin.
        strike: time at which its device is lost.
        blow: kind of that loss.
        length: seconds of work until the next checkpoint or the end.
        last: true if the end comes before the next checkpoint.
        segment: seconds of work that the checkpoint being written adds; None while computing.
        leaving: true if it is preempted, and writes its last checkpoint.
        over: true if events that were foreseen for it are void.
    """

    key: str
    work: Work
    saved: float
    since: float = 0.0
    strike: float = math.inf
    blow: Blow = "node_lost"
    length: float = 0.0
    last: bool = False
    segment: float | None = None
    leaving: bool = False
    over: bool = False


class _Channel:
    """File system whose bandwidth is shared evenly by all writers (processor sharing).

    The served bytes per writer grow alike for all, so the writer that ends first is the top of a
    heap, and a writer that comes or goes changes no other entry.
    """

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._served = self._now = 0.0
        self._heap: list[tuple[float, int, _Run]] = []
        self._gone: set[int] = set()
        self._tickets: dict[int, int] = {}
        self._serial = 0

    def add(self, now: float, run: _Run, size: float) -> None:
        self._advance(now)
        # Ids of objects are used again, serial numbers are not.
        self._serial += 1
        self._tickets[id(run)] = self._serial
        heapq.heappush(self._heap, (self._served + size, self._serial, run))

    def remove(self, now: float, run: _Run) -> None:
        """Remove a writer before its end."""
        self._advance(now)
        # The heap entry is dropped when it comes to the top.
        self._gone.add(self._tickets.pop(id(run)))

    def holds(self, run: _Run) -> bool:
        """Tell whether an attempt is writing bytes."""
        return id(run) in self._tickets

    def next_end(self) -> float:
        """Return the time at which the next writer ends, if none comes or goes before."""
        self._drop_gone()
        if not self._heap:
            return math.inf
        left = max(0.0, self._heap[0][0] - self._served)
        return self._now + left * len(self._tickets) / self._bandwidth

    def take(self, now: float) -> _Run:
        """Remove and return the writer that ends now."""
        self._drop_gone()
        target, _, run = heapq.heappop(self._heap)
        del self._tickets[id(run)]
        # Set to the target, and not summed up: rounding would leave it short of its end.
        self._served, self._now = target, now
        return run

    def _advance(self, now: float) -> None:
        if self._tickets:
            self._served += (now - self._now) * self._bandwidth / len(self._tickets)
        self._now = now

    def _drop_gone(self) -> None:
        while self._heap and self._heap[0][1] in self._gone:
            self._gone.remove(heapq.heappop(self._heap)[1])


class Simulation:
    """Simulation of one plan, run once."""

    def __init__(
        self,
        scheduler: Scheduler,
        works: Mapping[str, Work],
        cluster: Cluster,
        *,
        interval: float = math.inf,
        attempts: Mapping[Blow, int] | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare a simulation.

        Args:
            scheduler: scheduler of the plan, as the real runner would have it; it is used up.
            works: stage key -> its load.
            cluster: the cluster.
            interval: seconds of work between checkpoints.
            attempts: attempts in a row without progress until a stage has failed; None: no limit.
            seed: seed of the failures.

        Raises:
            ValueError: a stage needs more devices than there are.
        """
        largest = max((work.devices for work in works.values()), default=0)
        if largest > cluster.devices:
            raise ValueError(f"a stage asks for {largest} devices; there are {cluster.devices}")
        self._scheduler = scheduler
        self._works = works
        self._cluster = cluster
        self._interval = interval
        self._attempts = attempts
        self._random = random.Random(seed)
        self._rate = cluster.failure_rate + cluster.preemption_rate
        self._channel = None if cluster.bandwidth is None else _Channel(cluster.bandwidth)
        self._events: list[tuple[float, int, Callable[[_Run], None] | None, _Run | None]] = []
        # Breaks ties of time in the order of creation, so that a seed gives one result.
        self._serial = 0
        self._now = 0.0
        self._free = cluster.devices
        self._running = 0
        self._saved: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Run to the end: until nothing runs and nothing is ready."""
        self._start_ready()
        while self._events:
            time, _, handle, run = heapq.heappop(self._events)
            # The event was foreseen for an attempt that has ended otherwise since.
            if run is not None and run.over:
                continue
            if handle is None:
                self._channel_event(time)
                continue
            self._move(time)
            assert run is not None
            handle(run)
        self._outcome.makespan = self._now
        return self._outcome

    # Time

    def _move(self, time: float) -> None:
        self._outcome.idle += self._free * (time - self._now)
        self._now = time

    def _at(self, time: float, handle: Callable[[_Run], None] | None, run: _Run | None) -> None:
        self._serial += 1
        heapq.heappush(self._events, (time, self._serial, handle, run))

    # Attempts

    def _start_ready(self) -> None:
        limit = self._cluster.queue_limit or math.inf
        # Peek first: if the next stage does not fit, no later one may overtake it.
        while self._running < limit and (key := self._scheduler.peek()) is not None:
            if self._works[key].devices > self._free:
                return
            self._scheduler.take()
            self._start(key)

    def _start(self, key: str) -> None:
        work = self._works[key]
        self._free -= work.devices
        self._running += 1
        run = _Run(key, work, self._saved.get(key, 0.0))
        # A stage is struck when any of its devices is: the minimum of exponential times has the
        # sum of their rates.
        rate = self._rate * work.devices
        if rate:
            run.strike = self._now + self._random.expovariate(rate)
            preempts = self._random.random() * self._rate < self._cluster.preemption_rate
            run.blow = "preempted" if preempts else "node_lost"
            self._at(run.strike, self._struck, run)
        restart = self._cluster.restart_seconds if key in self._tries else 0.0
        self._outcome.lost += restart * work.devices
        self._compute(run, self._now + restart)

    def _compute(self, run: _Run, begin: float) -> None:
        """Compute the next segment; skip at once all segments that end before the next blow."""
        left = run.work.seconds - run.saved
        interval = math.inf if run.work.checkpoint_bytes is None else self._interval
        # Writers that share a channel depend on each other, so then no segment can be skipped.
        if self._channel is None and math.isfinite(interval):
            pause = self._cluster.checkpoint_seconds
            # The last segment is never skipped: its end completes the stage.
            whole = math.ceil(left / interval - _ROUNDING) - 1
            if math.isfinite(run.strike):
                whole = min(whole, int((run.strike - begin) / (interval + pause)))
            whole = max(0, whole)
            begin += whole * (interval + pause)
            left -= whole * interval
            run.saved += whole * interval
            self._outcome.writing += whole * pause * run.work.devices
        run.since, run.segment = begin, None
        run.last = left <= interval * (1 + _ROUNDING)
        run.length = left if run.last else interval
        self._at(begin + run.length, self._computed, run)

    def _computed(self, run: _Run) -> None:
        if run.last:
            run.over = True
            self._outcome.useful += run.work.seconds * run.work.devices
            self._outcome.complete += 1
            self._outcome.ends[run.key] = self._now
            self._scheduler.complete(run.key)
            self._release(run)
        else:
            self._write(run, run.length)

    def _write(self, run: _Run, segment: float) -> None:
        run.since, run.segment = self._now, segment
        size = run.work.checkpoint_bytes
        if self._channel is not None and size:
            self._channel.add(self._now, run, size)
            self._at(self._channel.next_end(), None, None)
        else:
            self._at(self._now + self._cluster.checkpoint_seconds, self._written, run)

    def _channel_event(self, time: float) -> None:
        """Let the next writer end, unless writers came or went since that was foreseen."""
        assert self._channel is not None
        end = self._channel.next_end()
        if end > time:
            return
        self._move(time)
        run = self._channel.take(time)
        self._at(time + self._cluster.checkpoint_seconds, self._written, run)
        if (after := self._channel.next_end()) < math.inf:
            self._at(after, None, None)

    def _written(self, run: _Run) -> None:
        assert run.segment is not None
        self._outcome.writing += (self._now - run.since) * run.work.devices
        run.saved += run.segment
        if run.leaving:
            self._end(run)
        else:
            self._compute(run, self._now)

    def _struck(self, run: _Run) -> None:
        """Handle the loss of a device."""
        # The last checkpoint is under way already; another loss changes nothing.
        if run.leaving:
            return
        self._outcome.blows[run.blow] += 1
        saves = run.blow == "preempted" and run.work.checkpoint_bytes is not None
        if run.since > self._now:  # Still starting: the rest of the restart is not spent.
            self._outcome.lost -= (run.since - self._now) * run.work.devices
            self._end(run)
        elif saves and run.segment is not None:
            run.leaving = True
        elif saves:
            self._supersede(run)
        else:
            # Work since the last checkpoint is lost, also work whose checkpoint is half written.
            unsaved = self._now - run.since + (run.segment or 0.0)
            self._outcome.lost += unsaved * run.work.devices
            if run.segment is not None and self._channel is not None:
                self._stop_writing(run)
            self._end(run)

    def _supersede(self, run: _Run) -> None:
        """Save a checkpoint before leaving; the foreseen end of the segment is void."""
        run.over = True
        last = _Run(run.key, run.work, run.saved, blow=run.blow, leaving=True)
        self._write(last, self._now - run.since)

    def _stop_writing(self, run: _Run) -> None:
        assert self._channel is not None
        if self._channel.holds(run):
            self._channel.remove(self._now, run)
            if (after := self._channel.next_end()) < math.inf:
                self._at(after, None, None)

    def _end(self, run: _Run) -> None:
        """End an attempt without a result."""
        run.over = True
        before = self._saved.get(run.key, 0.0)
        self._saved[run.key] = run.saved
        # As the real runner counts (`Tries`): progress resets the count.
        tries = 1 if run.saved > before else self._tries.get(run.key, 0) + 1
        self._tries[run.key] = tries
        if self._attempts is not None and tries >= self._attempts[run.blow]:
            self._outcome.lost += run.saved * run.work.devices
            self._outcome.failed += 1
            self._scheduler.fail(run.key)
        else:
            self._scheduler.again(run.key)
        self._release(run)

    def _release(self, run: _Run) -> None:
        self._free += run.work.devices
        self._running -= 1
        self._start_ready()


# Checkpoints


def young_interval(checkpoint_seconds: float, mtbf_seconds: float) -> float:
    """Compute the interval that loses least, to first order: √(2 C M), in seconds.

    C is the time of a checkpoint and M the mean time between failures (Young, "A first order
    approximation to the optimum checkpoint interval", 1974).
    """
    return math.sqrt(2 * checkpoint_seconds * mtbf_seconds)


def daly_interval(checkpoint_seconds: float, mtbf_seconds: float) -> float:
    """Compute the interval that loses least, to higher order, in seconds.

    Source: Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    2006, equation 37.
    """
    share = checkpoint_seconds / (2 * mtbf_seconds)
    if share >= 1:
        return mtbf_seconds
    young = young_interval(checkpoint_seconds, mtbf_seconds)
    return young * (1 + math.sqrt(share) / 3 + share / 9) - checkpoint_seconds


OCTAVES, STEPS = 3, 2
"""Octaves around the first guess, and steps per doubling, in which an interval is sought."""


def best_interval(
    cost: Callable[[float], float], guess: float
) -> tuple[float, dict[float, float]]:
    """Find the interval with the least cost among multiples of a guess, and the cost of each.

    Args:
        cost: cost of an interval; with the same random failures for all, or noise would decide.
        guess: a first guess, such as Young's.
    """
    exponents = range(-OCTAVES * STEPS, OCTAVES * STEPS + 1)
    costs = {
        interval: cost(interval) for interval in (guess * 2 ** (e / STEPS) for e in exponents)
    }
    return min(costs, key=costs.__getitem__), costs
