"""Records of what stages took: fits with known answers, and which record a prediction takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.costs.calibration import (
    Calibration,
    Need,
    Observation,
    Site,
    append_observations,
    fit,
    load_calibration,
    observe,
)
from orchestration.runs.records import Prediction
from orchestration.runs.stage_records import Attempt, Spec
from orchestration.runs.state import Store

HERE = Site("CPU", 1)


def record(flops: float, seconds: float, **more: object) -> Observation:
    facts = {
        **{"stage": "train_tokenizer", "key": "k", "readable": "S-S", "family": "1d fp32"},
        **{"unit_flops": 1e9, "device": "CPU", "threads": 1, "finished": 0.0},
    }
    return Observation.model_validate({**facts, "flops": flops, "seconds": seconds, **more})


def need(flops: float, unit_flops: float = 1e9, family: str = "1d fp32") -> Need:
    return Need("train_tokenizer", family, unit_flops, flops)


def test_two_amounts_tell_the_fixed_part_from_the_rate() -> None:
    found = fit([record(1e9, 3.0), record(5e9, 7.0)])
    assert found.fixed == pytest.approx(2.0)
    assert found.seconds(100e9) == pytest.approx(102.0)


def test_one_amount_is_a_rate_beside_the_usual_fixed_part() -> None:
    assert fit([record(2e9, 4.0)]).seconds(4e9) == pytest.approx(8.0)
    assert fit([record(2e9, 4.0)], usual_fixed=1.0).seconds(4e9) == pytest.approx(7.0)
    assert fit([record(2e9, 4.0)], usual_fixed=9.0).fixed == 2.0, "at most half"


def test_neither_part_is_negative() -> None:
    faster_than_linear = fit([record(1e9, 1.0), record(2e9, 4.0)])
    assert faster_than_linear.fixed == 0
    assert faster_than_linear.seconds(3e9) > 0
    falling = fit([record(1e9, 4.0), record(2e9, 3.0)])
    assert falling.seconds_per_flop == 0
    assert 3.0 < falling.fixed < 4.0


def test_a_stage_that_computes_nothing_takes_its_mean_time() -> None:
    assert fit([record(0, 2.0), record(0, 4.0)]).seconds(0) == 3.0


def test_long_runs_outweigh_short_ones_only_by_their_relative_error() -> None:
    """Ten small runs that say twice the rate do not spoil a long one's own prediction much."""
    small = [record(1e9, 1.0)] * 5
    assert fit([*small, record(1e12, 500.0)]).seconds(1e12) == pytest.approx(500.0, rel=0.01)


def test_the_nearest_configuration_is_taken() -> None:
    small = [record(1e9, 1.0), record(2e9, 2.0)]
    large = [
        record(1e10, 20.0, unit_flops=1e10, readable="L-L", key="l"),
        record(2e10, 40.0, unit_flops=1e10, readable="L-L", key="l"),
    ]
    known = Calibration((*small, *large))
    near_small, near_large = (
        known.estimate(need(4e9, 2e9), HERE),
        known.estimate(need(4e10, 8e9), HERE),
    )
    assert near_small is not None
    assert near_large is not None
    assert near_small.seconds == pytest.approx(4.0)
    assert near_large.seconds == pytest.approx(80.0)
    assert near_large.record == "L-L train_tokenizer (l)"


def test_the_same_family_goes_before_the_same_size() -> None:
    known = Calibration((record(1e9, 9.0, family="2d-vit fp32"), record(2e9, 2.0, unit_flops=2e9)))
    found = known.estimate(need(1e9), HERE)
    assert found is not None
    assert found.seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    "site",
    [Site("other", 1), Site("CPU", 2), Site("CPU", 1, 2)],
    ids=["device", "threads", "ranks"],
)
def test_another_site_is_uncalibrated(site: Site) -> None:
    assert Calibration((record(1e9, 1.0),)).estimate(need(1e9), site) is None


def test_the_range_holds_the_time_and_grows_with_disagreement_and_distance() -> None:
    def width(observations: list[Observation], wanted: Need) -> float:
        found = Calibration(tuple(observations)).estimate(wanted, HERE)
        assert found is not None
        assert found.low < found.seconds < found.high
        return found.high / found.low

    agreeing = [record(flops, flops / 1e9) for flops in (1e9, 2e9, 3e9, 4e9)]
    noisy = [
        record(flops, flops / 1e9 * noise)
        for flops, noise in ((1e9, 0.5), (2e9, 1.5), (3e9, 0.6), (4e9, 1.8))
    ]
    assert width(agreeing, need(2e9)) < width(noisy, need(2e9))
    assert width(agreeing, need(2e9)) < width(agreeing, need(2e9, unit_flops=8e9))


def test_memory_beyond_the_closed_form_is_added() -> None:
    known = Calibration((record(1e9, 1.0, memory_bytes=100, peak_memory_bytes=350),))
    found = known.estimate(need(1e9), HERE)
    assert found is not None
    assert found.peak_memory == 250


def spec(prediction: Prediction | None) -> Spec:
    return Spec(
        **{"stage": "train_tokenizer", "version": 1, "key": "k", "readable": "S-S"},
        **{"config": {}, "inputs": {}, "prediction": prediction},  # type: ignore[arg-type]
    )


def test_only_whole_attempts_count() -> None:
    expected = Prediction(
        **{"family": "f", "unit_flops": 1.0, "flops": 2.0, "tensor_bytes": 3, "record": None},  # type: ignore[arg-type]
        **{"memory_bytes": 3, "disk_bytes": 4, "seconds": None, "low": None, "high": None},  # type: ignore[arg-type]
    )
    whole = Attempt(
        **{"number": 1, "host": "h", "pid": 1, "started": 10.0, "ended": 14.0, "threads": 2},  # type: ignore[arg-type]
        **{"outcome": "complete", "provenance": {"device": "GPU"}, "peak_memory_bytes": 9},  # type: ignore[arg-type]
    )
    found = observe(spec(expected), whole)
    assert found is not None
    assert (found.seconds, found.device, found.threads, found.flops) == (4.0, "GPU", 2, 2.0)
    assert (found.memory_bytes, found.peak_memory_bytes) == (3, 9)
    for change in ({"first_step": 5}, {"outcome": "interrupted"}, {"ended": None}):
        assert observe(spec(expected), whole.model_copy(update=change)) is None
    assert observe(spec(None), whole) is None
    busy = observe(spec(expected), whole.model_copy(update={"waited_seconds": 1.5}))
    assert busy is not None
    assert busy.seconds == 2.5, "what others had of the processor is not its own time"
    more = whole.model_copy(update={"waited_seconds": 4.5})
    assert observe(spec(expected), more) is None, "no stage takes less than no time"


def test_records_below_zero_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    append_observations(store, [record(1e9, -0.2), record(1e9, 2.0)])
    assert [o.seconds for o in load_calibration(store).observations] == [2.0]


def test_lines_are_kept_in_order_and_a_bad_one_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    assert load_calibration(store).observations == ()
    append_observations(store, [record(1e9, 1.0)])
    append_observations(store, [record(2e9, 2.0), record(3e9, 3.0)])
    assert [o.seconds for o in load_calibration(store).observations] == [1.0, 2.0, 3.0]
    with store.calibration.open("a") as file:
        file.write("{}\nrubbish\n")
    append_observations(store, [record(4e9, 4.0)])
    for _ in range(2):
        assert [o.seconds for o in load_calibration(store).observations] == [1.0, 2.0, 3.0, 4.0]
    (said,) = caplog.messages
    assert "calibration.jsonl:4 cannot be read: 'stage': Field required (and 1 more" in said


def test_a_folder_in_place_of_the_records_is_named_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    store.calibration.mkdir()
    assert load_calibration(store).observations == ()
    assert "calibration.jsonl cannot be read: Is a directory" in caplog.text
    append_observations(store, [record(1e9, 1.0)])
    assert [o.seconds for o in load_calibration(store).observations] == [1.0]


def test_a_line_that_was_not_finished_is_none_and_is_taken_out(tmp_path: Path) -> None:
    """As a power cut leaves it: nothing of what was recorded before is lost for it."""
    store = Store(tmp_path)
    append_observations(store, [record(1e9, 3.0)])
    with store.calibration.open("a") as file:
        file.write('{"stage": "train_tok')
    assert len(load_calibration(store).observations) == 1
    append_observations(store, [record(2e9, 5.0)])
    assert [o.seconds for o in load_calibration(store).observations] == [3.0, 5.0]


@pytest.mark.parametrize(
    ("known", "wanted", "measured"),
    [
        ([record(1e9, 1.0)], need(1.5e9), True),
        ([record(1e9, 1.0)], need(100e9), False),  # all of its time may be fixed
        ([record(1e9, 1.0), record(3e9, 2.0)], need(100e9), True),
        ([record(1e9, 1.0), record(3e9, 2.0)], need(1e9, unit_flops=2e9), False),
        ([record(1e9, 1.0)], need(1e9, family="2d-vit fp32"), False),
        ([record(0.0, 1.0, unit_flops=0.0)], need(0.0, unit_flops=0.0), False),
    ],
    ids=["alike", "one-amount", "two-amounts", "other-size", "other-family", "no-flops"],
)
def test_only_records_of_the_same_network_count_as_measured(
    known: list[Observation], wanted: Need, measured: bool
) -> None:
    found = Calibration(tuple(known)).estimate(wanted, HERE)
    assert found is not None
    assert found.measured == measured
