"""Job arrays of a plan: how stages are put into them, what each waits for, how wide it runs.

Pure logic: it asks nobody and submits nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from orchestration.backends.base import Dependency


@dataclass(frozen=True, order=True)
class QueuePlace:
    """Place of a stage in the queue: an element of an array, or a job of its own (index -1)."""

    job: str
    index: int = -1

    def __str__(self) -> str:
        return self.job if self.index < 0 else f"{self.job}_{self.index}"

    @staticmethod
    def of(handle: str) -> QueuePlace:
        """Read a handle such as `17_3` or `17`."""
        job, _, index = handle.partition("_")
        return QueuePlace(job, int(index) if index else -1)


Parents = Mapping[str, frozenset[QueuePlace]]
"""Stage key -> where the stages are that it waits for; empty: it may start at once."""


@dataclass(frozen=True)
class Array:
    """Stages that are queued together; element i is `keys[i]`.

    Attributes:
        keys: stages by index.
        after: what they wait for.
    """

    keys: tuple[str, ...]
    after: Dependency


def form_arrays(parents: Parents, largest: int) -> list[Array]:
    """Form as few arrays as can be found in which each element waits for its own parents only.

    Elements that wait for the same form one array. Elements that wait for elements 0, 1, 2, … of
    another array form an array aligned to it.

    Args:
        parents: of stages that ask for the same resources, in the order of preference.
        largest: elements that an array can have.
    """
    # Only stages that wait for the same jobs can share an array: a dependency names whole jobs.
    by_jobs: dict[frozenset[str], list[str]] = defaultdict(list)
    for key, places in parents.items():
        by_jobs[frozenset(place.job for place in places)].append(key)
    arrays: list[Array] = []
    for keys in by_jobs.values():
        arrays_of_jobs = {place.job for place in parents[keys[0]] if place.index >= 0}
        # A stage has few kinds of inputs, so that all subsets of them can be tried.
        # All elements of these keys wait for the same jobs, so that the first key speaks for the
        # rest.
        ways: list[list[Array]] = [
            list(_form(keys, parents, frozenset(aligned), largest))
            for count in range(len(arrays_of_jobs) + 1)
            for aligned in combinations(sorted(arrays_of_jobs), count)
        ]
        # `sorted` is stable and the empty subset comes first: with equal counts, no alignment
        # wins, which leaves elements the order of preference.
        arrays += sorted(ways, key=len)[0]
    return arrays


def _form(
    keys: Sequence[str], parents: Parents, aligned: frozenset[str], largest: int
) -> Iterator[Array]:
    """Form the arrays of some stages, aligned to certain jobs where that is possible."""
    groups: dict[frozenset[QueuePlace], list[str]] = defaultdict(list)
    for key in keys:
        groups[_fixed(parents[key], aligned)].append(key)
    others: dict[frozenset[QueuePlace], list[str]] = defaultdict(list)
    for fixed, members in groups.items():
        rest = members
        if aligned:
            layers, rest = _layers(members, parents, aligned, largest)
            yield from (Array(layer, _dependency(fixed, aligned)) for layer in layers)
        for key in rest:
            # By exact parents: an element waits for every job that its array waits for, so that a
            # mixed array would start its elements later than necessary.
            others[parents[key]].append(key)
    for places, members in others.items():
        for start in range(0, len(members), largest):
            chunk = tuple(members[start : start + largest])
            yield Array(chunk, _dependency(places, frozenset()))


def _layers(
    members: Sequence[str], parents: Parents, aligned: frozenset[str], largest: int
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Find arrays whose element i waits for elements i of the aligned jobs, and what is left."""
    layers: list[dict[int, str]] = []
    rest = []
    filled: dict[int, int] = defaultdict(int)
    for key in members:
        indices = {place.index for place in parents[key] if place.job in aligned}
        if len(indices) > 1:  # element i can wait for elements i alone
            rest.append(key)
            continue
        (index,) = indices
        # Several children of one element go into layers of their own: an array has each index
        # once.
        if filled[index] == len(layers):
            layers.append({})
        layers[filled[index]][index] = key
        filled[index] += 1
    whole = []
    for layer in layers:
        # Elements are numbered without gaps: up to the first index that nobody has.
        # `aftercorr` pairs equal indices. An array from 0 to n without gaps is also what a
        # submission without explicit indices gives.
        length = next(i for i in range(largest + 1) if i == largest or i not in layer)
        # A job on its own has no index that could correspond.
        length = length if length > 1 else 0
        if length:
            whole.append(tuple(layer[index] for index in range(length)))
        rest += [key for index, key in layer.items() if index >= length]
    return whole, rest


def _fixed(places: frozenset[QueuePlace], aligned: frozenset[str]) -> frozenset[QueuePlace]:
    return frozenset(place for place in places if place.job not in aligned)


def _dependency(fixed: frozenset[QueuePlace], aligned: frozenset[str]) -> Dependency:
    return Dependency(tuple(map(str, sorted(fixed))), tuple(sorted(aligned)))


# How wide arrays may run

MUCH_SOONER = 1.5
"""By this factor, kinds of stages in turn must be over sooner than kinds side by side: those give
the first results early."""


@dataclass
class Lane:
    """Share of the cap: arrays in it run one after the other.

    Attributes:
        width: elements at the same time; None: any number.
        last: the jobs that whatever comes next in this lane waits for to end.
    """

    width: int | None
    last: list[str] = field(default_factory=list)

    def after(self, array: Array) -> Dependency:
        """Let an array in this lane also wait for those before it."""
        # `over` and not `complete`: the lane limits how many run, and a failed stage must not
        # cancel those that only wait for its place.
        return replace(array.after, over=tuple(self.last))


class Lanes:
    """Shares the cap of a sweep among all arrays that could run at the same time.

    A scheduler caps each array by itself, so that only fixed shares keep their sum below the cap.
    Either every kind of stage has a share by its work, which in a long pipeline are all busy; or
    each has the whole cap, once the kind before it is over. The latter where it is much sooner.
    """

    def __init__(
        self,
        cap: int | None,
        counts: Mapping[str, int],
        work: Mapping[str, float],
        behind: Sequence[str] = (),
    ) -> None:
        """Divide.

        Args:
            cap: stages that may run at the same time at most; None: any number.
            counts: kind of stage -> how many are to be queued.
            work: kind of stage -> their cost, in any unit.
            behind: jobs that use up the cap until they end.
        """
        # Kinds that share a column run one after the other, since they share its `last`.
        self._columns: dict[str, Lane] = {}
        if cap is None:
            self._columns = {stage: Lane(None) for stage in counts}
        elif (widths := _pipeline(cap, counts, work)) is not None:
            self._columns = {stage: Lane(widths[stage], list(behind)) for stage in counts}
        else:
            self._columns = dict.fromkeys(counts, Lane(cap, list(behind)))

    def open(self, stage: str, arrays: int) -> list[Lane]:
        """Make lanes for the arrays of a kind of stage, to be used in turn; then `close` them."""
        column = self._columns[stage]
        if column.width is None:
            return [Lane(None) for _ in range(arrays)]
        # More lanes than the width would give some of them a width of 0.
        count = min(column.width, arrays)
        width, wider = divmod(column.width, max(1, count))
        return [Lane(width + (i < wider), list(column.last)) for i in range(count)]

    def close(self, stage: str, lanes: Sequence[Lane]) -> None:
        """Queue what shares the column of this stage behind its arrays."""
        # Without a cap nothing shares a column, and a dependency would only delay.
        if lanes and lanes[0].width is not None:
            self._columns[stage].last = sorted({job for lane in lanes for job in lane.last})


def _pipeline(
    cap: int, counts: Mapping[str, int], work: Mapping[str, float]
) -> dict[str, int] | None:
    """Give all kinds of stages shares at once; None where one kind after the other is better."""
    if len(counts) > cap:
        return None  # there is no place for everybody
    widths = shares(cap, counts, work)
    each = {stage: work[stage] / count for stage, count in counts.items()}
    rounds = {stage: math.ceil(count / widths[stage]) for stage, count in counts.items()}
    # A pipeline takes what its slowest kind takes, plus one stage of each to fill and to empty it.
    slowest = max((each[stage] * (rounds[stage] - 1) for stage in counts), default=0.0)
    together = slowest + sum(each.values())
    in_turn = sum(each[stage] * math.ceil(counts[stage] / cap) for stage in counts)
    return None if together > MUCH_SOONER * in_turn else widths


def shares(cap: int, counts: Mapping[str, int], work: Mapping[str, float]) -> dict[str, int]:
    """Divide a cap by work: at least 1 each, never more than there are stages of a kind.

    Args:
        cap: at least the number of kinds.
        counts: kind of stage -> how many.
        work: kind of stage -> their cost.
    """
    # Nobody at 0: an array without a share would never start.
    widths = dict.fromkeys(counts, 1)
    for _ in range(cap - len(counts)):
        open_ = [stage for stage in counts if widths[stage] < counts[stage]]
        if not open_:
            break
        # One place at a time to whoever has the most work per place; so the slowest kind, which a
        # pipeline waits for, becomes faster first.
        widths[max(open_, key=lambda stage: work[stage] / widths[stage])] += 1
    return widths
