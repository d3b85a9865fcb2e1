"""What the user sees: rows that fit, times that can be trusted, text that is never markup."""

from __future__ import annotations

import io
import json
import math
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
from orchestration.execution.progress import Progress, survey
from orchestration.execution.results import format_metric, launch_json, result_tables, trial_facts
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


def test_result_table_fits_eighty_characters_and_shows_what_is_missing() -> None:
    values = {"psnr": 18.123, "rkid": 5.25, "rkid_se": 0.5, "params_tokenizer": 1.5e6}
    text = printed(result_tables({"S-S": values, "S-B": {"psnr": 19.0}, "S-L": values}, 80))
    assert max(map(len, text.splitlines())) <= 80
    assert "18.12" in text
    assert "5.2 ± 0.5" in text
    assert "params at inference (M)" in text
    assert "1.50" in text
    assert "–" in text


def test_what_follows_from_a_trial_stands_above_its_scores(tmp_path: Path) -> None:
    (trial,) = {t.trial.name: t for t in surveyed(tmp_path).plan.trials[:1]}.values()
    named = replace(trial, trial=replace(trial.trial, derived={"bits": 24, "half": 12.5}))
    plan = replace(surveyed(tmp_path).plan, trials=(named,))
    bits = trial.trial.config.tokenizer.bits_per_image(trial.trial.config.data.image_size)
    facts = trial_facts(plan)
    assert facts == {trial.trial.name: {"bits": 24, "half": 12.5, "bits/image (bits)": bits}}
    text = printed(result_tables({trial.trial.name: {"psnr": 19.0}}, 80, facts))
    assert text.index("12.5") < text.index("19.00")
    # Once, under the sweep's own name for it.
    named = replace(trial, trial=replace(trial.trial, derived={"bits": bits}))
    assert trial_facts(replace(plan, trials=(named,))) == {trial.trial.name: {"bits": bits}}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_many_trials_are_in_tables_that_fit_with_no_value_cut(width: int) -> None:
    long = "S-L semantic_weight=0.5 seed={}"
    metrics = {
        long.format(i): {"psnr": i + 0.25, "rkid": 190.25, "rkid_se": 7.5} for i in range(60)
    }
    text = printed(result_tables(metrics, width), width=width)
    assert max(map(len, text.splitlines())) <= width
    for seed in range(40):
        assert f" seed={seed} " in text
        assert f" {seed}.25 " in text
    assert text.count("190.2 ± 7.5") == 40
    assert "seed=40" not in text
    assert "… 20 more trials" in text
    assert "…" not in text.replace("… 20", "")


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
