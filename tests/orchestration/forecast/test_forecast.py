"""What a running study has spent and has left."""

from __future__ import annotations

import pytest

from orchestration.execution.scheduler import Graph
from orchestration.forecast.forecast import Forecast, StageTime, forecast, forecast_line

GRAPH = Graph({"data": (), "a": ("data",), "b": ("data",), "a2": ("a",)})
TRIALS = [["data", "a", "a2"], ["data", "b"]]


def test_the_end_is_that_of_what_remains_on_the_slots_there_are() -> None:
    parts = {
        "data": StageTime("COMPLETE", False, 10.0, 12.0, kind="data"),
        "a": StageTime("RUNNING", False, 100.0, 40.0, left=50.0, kind="a"),
        "b": StageTime("WAITING", False, 70.0, 0.0, kind="b"),
        "a2": StageTime("WAITING", False, 30.0, 0.0, kind="a2"),
    }
    assert forecast(GRAPH, TRIALS, parts, 1) == Forecast(52.0, 150.0, 0, pytest.approx(150.0))
    assert forecast(GRAPH, TRIALS, parts, 2) == Forecast(52.0, 150.0, 0, pytest.approx(80.0))


def test_wide_stages_wait_for_all_the_slots_that_they_take() -> None:
    parts = {
        "data": StageTime("COMPLETE", False, 10.0, 10.0),
        "a": StageTime("RUNNING", False, 50.0, 0.0, width=4),
        "b": StageTime("WAITING", False, 70.0, 0.0, width=4),
        "a2": StageTime("WAITING", False, 30.0, 0.0),
    }
    ends = {slots: forecast(GRAPH, TRIALS, parts, slots).end for slots in (1, 4, 8)}
    assert ends == {
        1: pytest.approx(150.0),
        4: pytest.approx(150.0),
        8: pytest.approx(80.0),
    }


def test_what_failed_or_is_held_does_not_remain() -> None:
    parts = {
        "data": StageTime("COMPLETE", False, 10.0, 10.0),
        "a": StageTime("FAILED", False, 100.0, 40.0),
        "a2": StageTime("UPSTREAM_FAILED", False, 30.0, 0.0),
        "b": StageTime("WAITING", True, 70.0, 0.0),
    }
    assert forecast(GRAPH, TRIALS, parts, 1) == Forecast(50.0, 0.0, 0, 0.0)


def test_a_running_stage_without_a_speed_goes_by_its_prediction() -> None:
    assert StageTime("RUNNING", False, 100.0, 30.0).remaining() == 70.0
    assert StageTime("RUNNING", False, 100.0, 130.0).remaining() == 0.0
    assert StageTime("RUNNING", False, None, 30.0).remaining() is None


def test_an_unknown_time_is_said_and_gives_no_end() -> None:
    parts = {
        key: StageTime("WAITING", False, None if key == "b" else 60.0, 0.0) for key in GRAPH.inputs
    }
    found = forecast(GRAPH, TRIALS, parts, 1)
    assert found == Forecast(0.0, 180.0, 1, None)
    line = forecast_line(found)
    assert line == "spent 0 s of stages; at least 3.0 min remain, 1 stage not timed yet"


def test_where_nothing_is_timed_no_time_is_said() -> None:
    line = forecast_line(Forecast(30.0, 0.0, 90, None))
    assert line == "spent 30 s of stages; 90 stages not timed yet"


def test_predictions_are_corrected_by_what_this_launch_takes() -> None:
    parts = {
        "data": StageTime("COMPLETE", False, 10.0, 500.0, kind="train", counted=False),
        "a": StageTime("COMPLETE", False, 10.0, 30.0, kind="train"),
        "a2": StageTime("RUNNING", False, 10.0, 10.0, left=40.0, kind="train"),
        "b": StageTime("WAITING", False, 6.0, 0.0, kind="train"),
    }
    # Twenty predicted seconds became eighty; what an earlier launch took says nothing beside them.
    assert forecast(GRAPH, TRIALS, parts, 1).left == pytest.approx(40.0 + 4 * 6.0)


def test_stages_that_wait_have_still_to_start_their_process() -> None:
    parts = {
        "data": StageTime("COMPLETE", False, 5.0, 5.0, startup=2.0),
        "a": StageTime("RUNNING", False, 50.0, 20.0, left=30.0, startup=4.0),
        "b": StageTime("WAITING", False, 10.0, 0.0),
        "a2": StageTime("WAITING", False, 10.0, 0.0),
    }
    assert forecast(GRAPH, TRIALS, parts, 1) == Forecast(25.0, 56.0, 0, pytest.approx(56.0))


def test_what_is_uncalibrated_goes_by_complete_stages_of_its_kind() -> None:
    parts = {
        "data": StageTime("COMPLETE", False, None, 3.0, kind="data"),
        "a": StageTime("COMPLETE", False, None, 20.0, kind="train", weight=2.0),
        "b": StageTime("WAITING", False, None, 0.0, kind="train", weight=5.0),
        "a2": StageTime("WAITING", False, 7.0, 0.0, kind="train", weight=5.0),
    }
    assert forecast(GRAPH, TRIALS, parts, 1) == Forecast(23.0, 57.0, 0, pytest.approx(57.0))


def test_the_line_says_when() -> None:
    line = forecast_line(Forecast(7200.0, 5400.0, 0, 2700.0))
    assert line.startswith("spent 2.0 h of stages, 1.5 h remain; done in 0:45:00, at ")
