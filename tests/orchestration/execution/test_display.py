"""What the user sees: rows that fit, times that can be trusted, text that is never markup."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gigatok.names import METRICS
from gigatok.stages import STAGES
from orchestration.execution.display import (
    Display,
    plain_line,
    progress_details,
    seconds_left,
    states_table,
)
from orchestration.execution.progress import Progress, stage_names, survey
from orchestration.execution.results import format_metric, launch_json, result_table, trial_facts
from orchestration.forecast.devices import machines
from orchestration.heart import with_origin
from orchestration.launching.preview import other_code_line, print_plan
from orchestration.plan.graph import make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done, Failure, Spec
from orchestration.runs.state import State, Store
from orchestration.sweep.definition import expand, load_sweep


def surveyed(tmp_path: Path) -> Progress:
    sweep = load_sweep("tokenizer_scaling", "smoke")
    return survey(make_plan(sweep, expand(sweep)), Store(tmp_path))


def printed(thing: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_time_left_goes_by_the_speed_of_this_attempt() -> None:
    running = {"done": 950, "total": 1000, "unit": "step", "first_done": 900, "first_time": 100.0}
    assert seconds_left(running, now=110.0) == pytest.approx(10.0)
    assert seconds_left({**running, "done": 900}, now=110.0) is None
    assert seconds_left({}) is None


def test_details_in_words() -> None:
    running = {"done": 5, "total": 10, "unit": "step", "first_done": 5, "first_time": 0.0}
    assert progress_details({**running, "loss": 0.25, "images_per_second": 99.6}) == [
        "step 5/10",
        "loss 0.250",
        "100 images/s",
    ]
    assert progress_details({}) == []


def test_failure_texts_are_printed_as_they_are(tmp_path: Path) -> None:
    progress = surveyed(tmp_path)
    key = next(iter(progress.states))
    message = "RuntimeError: cannot mmap [/data/cifar] on [cpu]"
    progress.failures[key] = Failure(
        kind="exception", message=message, traceback=None, attempt=1, time=0.0
    )
    progress.set(key, "FAILED")
    output = io.StringIO()
    display = Display(Console(file=output, width=200, markup=False), progress)
    display.update([key])
    assert message in output.getvalue()
    assert message in plain_line(progress, key)


def test_a_log_has_one_line_for_each_event_with_the_time(tmp_path: Path) -> None:
    sweep = load_sweep("quantizers", "smoke")
    progress = survey(make_plan(sweep, expand(sweep)), Store(tmp_path))
    output = io.StringIO()
    display = Display(Console(file=output, width=80, markup=False), progress)
    keys = [key for key, s in progress.plan.stages.items() if s.stage == "train_tokenizer"]
    for key in keys:
        progress.set(key, "RUNNING")
        # A second look at the same state is no event.
        display.update([key])
        display.update([key])
    message = "RuntimeError: out of disk\n  " + "while writing " * 20
    progress.failures[keys[0]] = Failure(
        kind="exception", message=message, traceback=None, attempt=1, time=0.0
    )
    progress.set(keys[0], "FAILED")
    display.update([keys[0]])
    display.close()
    lines = output.getvalue().splitlines()
    assert len(lines) == len(keys) + 1
    assert len({line.partition("train_tokenizer ")[2] for line in lines}) == len(lines)
    assert "\x1b" not in output.getvalue()
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d train_tokenizer quantizer=", line)


def test_a_stage_is_named_by_what_its_trials_share() -> None:
    trials = {
        "S-B lr=0.1 seed=0": {"teach": "t", "train": "a", "score": "c"},
        "S-B lr=0.2 seed=0": {"teach": "t", "train": "a", "score": "d"},
        "S-L lr=0.1 seed=1": {"teach": "t", "train": "b", "score": "e"},
    }
    names = stage_names(trials, dict.fromkeys("tabcde", "digits"))
    assert names["t"] == "digits", "of nothing in common, the stage's own name"
    assert names["a"] == "S-B seed=0"
    assert names["c"] == "S-B lr=0.1 seed=0"


def test_complete_trials_are_collapsed_at_the_end(tmp_path: Path) -> None:
    progress = surveyed(tmp_path)
    output = io.StringIO()
    display = Display(Console(file=output, width=80, markup=False, force_terminal=True), progress)
    first, *_ = progress.plan.trials
    for key in progress.states:
        progress.set(key, "COMPLETE")
    progress.set(first.stages["train_tokenizer"], "FAILED")
    output.truncate(0)
    display.close()
    last = output.getvalue()
    assert first.trial.name in last
    assert progress.plan.trials[-1].trial.name not in last


def test_the_most_urgent_trials_are_shown_where_not_all_fit() -> None:
    trials = {f"t{i}": {"train_tokenizer": f"k{i}"} for i in range(50)}
    states: dict[str, State] = dict.fromkeys((f"k{i}" for i in range(50)), "COMPLETE")
    states["k41"], states["k30"] = "FAILED", "RUNNING"
    text = printed(states_table(trials, states, 80, most_rows=3))
    assert "t41" in text
    assert "t30" in text
    assert "47 more trials" in text


def test_every_stage_and_trial_is_named_in_full_however_narrow_the_terminal() -> None:
    names = ["semantic_weight=0.25", "semantic_weight=0.5"]
    states: dict[str, State] = dict.fromkeys(STAGES, "COMPLETE")
    states["extract_codes"] = "FAILED"
    trials = {name: {stage: stage for stage in STAGES} for name in names}
    for width in (60, 80, 300):
        lines = printed(states_table(trials, states, width), width).splitlines()
        assert max(map(len, lines)) <= width
        for text in (*names, *(spec.label for spec in STAGES.values())):
            assert any(text in line for line in lines), text
        heads, row = lines[: -len(names)], lines[-1]
        assert len(heads) == (1 if width == 300 else len(STAGES))
        (head,) = [line for line in heads if STAGES["extract_codes"].label in line]
        start = head.index(STAGES["extract_codes"].label)
        under = row[start : start + (len(STAGES["extract_codes"].label) if width == 300 else 1)]
        assert under.strip() == "✗"


def test_results_have_a_row_per_setting_and_show_what_is_missing() -> None:
    values = {"psnr": 18.123, "rkid": 5.25, "rkid_se": 0.5, "params_tokenizer": 1.5e6}
    metrics = {"S-S seed=0": values, "S-S seed=1": {**values, "psnr": 19.123}, "S-B seed=0": {}}
    lines = printed(result_table({**metrics, "S-L seed=0": values})).splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line for line in lines}
    assert rows["S-S"].split() == ["S-S", "2", "1.50", "5.2", "18.62"]
    assert rows["S-B"].split() == ["S-B", "1", "–", "–", "–"]
    assert "5.2 ± 0.5" in rows["S-L"]
    assert "18.12" in rows["S-L"]


def test_what_follows_from_a_trial_stands_above_its_scores(tmp_path: Path) -> None:
    (trial,) = {t.trial.name: t for t in surveyed(tmp_path).plan.trials[:1]}.values()
    named = replace(trial, trial=replace(trial.trial, derived={"bits": 24, "half": 12.5}))
    plan = replace(surveyed(tmp_path).plan, trials=(named,))
    bits = trial.trial.config.tokenizer.bits_per_image(trial.trial.config.data.image_size)
    facts = trial_facts(plan)
    assert facts == {trial.trial.name: {"bits": 24, "half": 12.5, "bits/image (bits)": bits}}
    text = printed(result_table({trial.trial.name: {"psnr": 19.0}}, facts))
    assert text.index("12.5") < text.index("19.00")
    # Once, under the sweep's own name for it.
    named = replace(trial, trial=replace(trial.trial, derived={"bits": bits}))
    assert trial_facts(replace(plan, trials=(named,))) == {trial.trial.name: {"bits": bits}}


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_many_settings_are_in_one_table_with_no_value_cut(width: int) -> None:
    metrics = {
        f"S-L semantic_weight={i}.5 seed=0": {"psnr": i + 0.25, "rkid": 190.25, "rkid_se": 7.5}
        for i in range(60)
    }
    text = printed(result_table(metrics), width=width)
    assert max(map(len, text.splitlines())) <= width
    for number in range(40):
        assert f"semantic_weight={number}.5 " in text
    assert text.count("190.2 ± 7.5") == 40
    assert "semantic_weight=40.5" not in text
    assert "… 20 more" in text


def test_a_missing_value_is_no_zero() -> None:
    assert format_metric(METRICS["psnr"], {}) == "–"


def test_json_is_valid_and_says_null_for_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = surveyed(tmp_path)
    names = [trial.trial.name for trial in progress.plan.trials]
    metrics = {names[0]: {"psnr": math.nan, "ssim": 0.5}, **{name: {} for name in names[1:]}}
    monkeypatch.setattr("orchestration.execution.results.trial_metrics", lambda _: metrics)
    data = json.loads(json.dumps(launch_json(progress), allow_nan=False))
    assert data["trials"][names[0]] == {"psnr": None, "ssim": 0.5}
    assert data["trials"][names[1]] == {"psnr": None, "ssim": None}


def test_reuse_across_code_versions_is_said(tmp_path: Path) -> None:
    progress = surveyed(tmp_path)
    store = Store(tmp_path)
    key, planned = next(iter(progress.plan.stages.items()))
    spec = Spec(stage=planned.stage, version=1, key=key, readable="x", config={}, inputs={})
    folder = store.create(spec)
    provenance = {"git_sha": "f" * 40, "git_dirty": True}
    folder.write_attempt(Attempt(number=1, host="h", pid=1, started=0.0, provenance=provenance))
    holder = acquire(folder)
    assert holder is not None
    holder.complete(
        Done(metrics={}, protocol={}, artifacts={}, finished=1.0, seconds=1.0, attempt=1)
    )
    line = other_code_line(surveyed(tmp_path))
    assert line is not None
    assert "1 by fffffffff+" in line


def test_the_plan_counts_what_is_shared(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100, markup=False)
    print_plan(console, surveyed(tmp_path), machines("local", 1, Profile()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "6 trials" in text
    assert "more are shared" in text
    assert "paper Figures 3 and 7" in text


def test_time_left_is_that_of_the_phase() -> None:
    def images(done: int) -> dict[str, Any]:
        return {"done": done, "total": 100, "unit": "image"}

    first = with_origin({}, images(10), now=1.0)
    assert with_origin(first, images(60), now=11.0)["first_time"] == 1.0
    assert seconds_left(with_origin(first, images(60), 11.0), now=11.0) == pytest.approx(8.0)
    again = with_origin(with_origin(first, images(100), 20.0), images(10), now=22.0)
    assert (again["first_done"], again["first_time"]) == (10, 22.0)
    other = with_origin(first, {"done": 20, "total": 500, "unit": "step"}, now=5.0)
    assert other["first_time"] == 5.0
