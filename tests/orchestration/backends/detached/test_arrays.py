"""Any graph becomes arrays that hold every stage once and wait for exactly what it needs."""

from __future__ import annotations

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.backends.base import Dependency
from orchestration.backends.detached.arrays import Array, Lanes, QueuePlace, form_arrays, shares

Queued = dict[str, frozenset[QueuePlace]]


def waits_for(array: Array) -> list[frozenset[QueuePlace]]:
    """Find what each element waits for to complete, as a scheduler reads it."""
    assert array.after.over == ()
    fixed = {QueuePlace.of(handle) for handle in array.after.complete}
    return [
        frozenset(fixed | {QueuePlace(job, index) for job in array.after.aligned})
        for index in range(len(array.keys))
    ]


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, list[str]]]:
    """Levels of stages, key -> keys of the parents in any earlier levels, one of each at most."""
    levels: list[dict[str, list[str]]] = []
    for level in range(draw(st.integers(1, 4))):
        stages = {}
        for index in range(draw(st.integers(1, 12))):
            chosen = [lv for lv in levels if draw(st.booleans())]
            stages[f"{level}.{index}"] = [draw(st.sampled_from(sorted(lv))) for lv in chosen]
        levels.append(stages)
    return levels


@settings(max_examples=200, deadline=None)
@given(graphs(), st.integers(1, 7))
def test_every_stage_is_queued_once_behind_its_own_parents(
    levels: list[dict[str, list[str]]], largest: int
) -> None:
    ids = count(100)
    places: dict[str, QueuePlace] = {}
    for level in levels:
        parents = {key: frozenset(places[p] for p in above) for key, above in level.items()}
        arrays = form_arrays(parents, largest)
        assert sorted(key for array in arrays for key in array.keys) == sorted(level)
        for array in arrays:
            assert 1 <= len(array.keys) <= largest
            assert waits_for(array) == [parents[key] for key in array.keys]
            job, alone = str(next(ids)), len(array.keys) == 1
            if alone:
                assert array.after.aligned == ()
            for index, key in enumerate(array.keys):
                places[key] = QueuePlace(job, -1 if alone else index)


def queued(*jobs: str, size: int) -> list[frozenset[QueuePlace]]:
    return [frozenset(QueuePlace(job, index) for job in jobs) for index in range(size)]


def test_a_pipeline_is_one_aligned_array_per_stage() -> None:
    shared = QueuePlace("9")
    parents = {f"e{i}": above | {shared} for i, above in enumerate(queued("7", "8", size=50))}
    (array,) = form_arrays(parents, 1000)
    assert array == Array(tuple(parents), Dependency(("9",), ("7", "8")))


def test_children_of_one_parent_form_one_array_and_siblings_several_aligned_ones() -> None:
    three = [frozenset([QueuePlace("7", i % 3)]) for i in range(300)]
    arrays = form_arrays({f"c{i}": above for i, above in enumerate(three)}, 1000)
    assert [(len(a.keys), a.after) for a in arrays] == [
        (100, Dependency(complete=(f"7_{i}",))) for i in range(3)
    ]
    many = [frozenset([QueuePlace("7", i // 3)]) for i in range(300)]
    arrays = form_arrays({f"c{i}": above for i, above in enumerate(many)}, 1000)
    assert [(len(a.keys), a.after) for a in arrays] == [(100, Dependency(aligned=("7",)))] * 3


def test_arrays_are_no_larger_than_the_scheduler_allows() -> None:
    parents = {str(i): frozenset[QueuePlace]() for i in range(2500)}
    assert [len(array.keys) for array in form_arrays(parents, 1001)] == [1001, 1001, 498]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8)), min_size=1))
def test_what_can_run_at_the_same_time_never_exceeds_the_cap(
    cap: int, stages: list[tuple[int, int]]
) -> None:
    """Arrays that no `afterany` separates may overlap: the widest such set keeps to the cap."""
    counts = {f"s{i}": max(size, arrays) for i, (size, arrays) in enumerate(stages)}
    lanes = Lanes(cap, counts, dict.fromkeys(counts, 1.0), ["old"])
    ids = count()
    width: dict[str, int] = {}
    behind: dict[str, set[str]] = {"old": set()}
    for stage, (_, arrays) in zip(counts, stages, strict=True):
        opened = lanes.open(stage, arrays)
        for number in range(arrays):
            lane = opened[number % len(opened)]
            job = str(next(ids))
            assert lane.width is not None
            width[job] = lane.width
            behind[job] = set(lane.last).union(*(behind[last] for last in lane.last))
            lane.last = [job]
        lanes.close(stage, opened)
    assert all("old" in behind[job] for job in width)
    for job in width:
        together = [o for o in width if o not in behind[job] and job not in behind[o]]
        # Of those that overlap with this one, the ones that overlap with each other.
        chain_free = [o for o in together if not any(o in behind[other] for other in together)]
        assert sum(width[o] for o in chain_free) <= cap


def widths(cap: int, trials: int) -> list[int | None]:
    """Of three kinds of stages in a pipeline, of which the middle one is short."""
    counts = dict.fromkeys("abc", trials)
    lanes = Lanes(cap, counts, {"a": 40.0 * trials, "b": 4.0 * trials, "c": 40.0 * trials})
    found = []
    for stage in counts:
        (lane,) = lanes.open(stage, 1)
        found.append(lane.width)
        lane.last = [stage]
        lanes.close(stage, [lane])
        assert bool(lanes.open(stage, 1)[0].last) is True
    return found


def test_a_long_pipeline_shares_the_cap_and_a_short_one_uses_all_of_it_in_turn() -> None:
    assert widths(cap=20, trials=1000) == [10, 1, 9]
    # Side by side, with 2 + 1 + 1, the four would take twice as long.
    assert widths(cap=4, trials=4) == [4, 4, 4]
    # There is no share for everybody.
    assert widths(cap=2, trials=1000) == [2, 2, 2]


def test_a_launch_that_finds_everything_queued_shares_nothing() -> None:
    Lanes(4, {}, {})


def test_shares_go_by_work_and_use_no_more_than_there_is() -> None:
    assert shares(10, {"a": 100, "b": 100}, {"a": 4.0, "b": 1.0}) == {"a": 8, "b": 2}
    assert shares(10, {"a": 2, "b": 100}, {"a": 4.0, "b": 1.0}) == {"a": 2, "b": 8}
    assert shares(50, {"a": 2, "b": 3}, {"a": 1.0, "b": 1.0}) == {"a": 2, "b": 3}
    assert shares(2, {"a": 2, "b": 3}, {"a": 1.0, "b": 1e9}) == {"a": 1, "b": 1}
