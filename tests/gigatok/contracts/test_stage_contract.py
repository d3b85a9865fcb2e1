"""The built-in stages keep the contract, and it tells what a broken one says or does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gigatok.config import Config, TrialConfig
from gigatok.contracts.running import broken_by_running
from gigatok.contracts.stage import TRIAL, broken_promises, smoke
from gigatok.runtime.context import Interrupted, Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages import STAGES, Costs, Disk, Stage


@pytest.mark.parametrize("name", STAGES)
def test_the_built_in_stages_keep_it(name: str) -> None:
    assert broken_promises(STAGES[name]) == []


def test_a_stage_that_a_trial_lacks_by_default_has_no_smoke_trial() -> None:
    assert smoke(STAGES["adopt_tokenizer"]) is None
    assert smoke(STAGES["train_tokenizer"]) is not None


class CountConfig(Config):
    steps: int
    place: str = ""


PROTOCOL = {"psnr": "no images at all"}
Run = Callable[..., Scores]


def run(
    config: CountConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Count to the number of steps, going on where it was stopped."""
    saved = runtime.checkpoint_dir / "number"
    number = int(saved.read_text()) if saved.exists() else 0
    while number < config.steps:
        if runtime.should_stop():
            saved.write_text(str(number))
            raise Interrupted("stopped")
        number += 1
    (output_dir / "number").write_text(str(number))
    return Scores({"psnr": float(number)}, PROTOCOL)


sound = run
"""Itself, since a test puts other functions in the place of `run`."""


def stage(**changes: Any) -> Stage:
    usual = Stage(
        name="count_steps",
        version=1,
        config=CountConfig,
        read=lambda t: CountConfig(steps=t.tokenizer.steps),
        module=__name__,
        label="count",
        costs=Costs(lambda t: 0, lambda t: Disk(0), lambda t: ()),
        scores=lambda t: ("psnr",),
    )
    return replace(usual, **changes)


_calls = itertools.count()


def reading(config: Callable[[TrialConfig], Config]) -> dict[str, Any]:
    return {"read": config}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "Count"}, "its name is 'Count'"),
        ({"label": ""}, "its label is empty"),
        ({"version": 0}, "version is 0"),
        (reading(lambda t: t.data), "read returns DataConfig, not a CountConfig"),
        (reading(lambda t: CountConfig(steps=next(_calls))), "read returns another config"),
        (reading(lambda t: CountConfig(steps=1, place="/tmp")), "its key holds the path /tmp"),
        ({"scores": lambda t: ("colour",)}, "scores are colour without a description"),
        ({"judges": {"psnr": "nothing"}}, "what psnr judges is no stage"),
        ({"trains": True}, "it trains, and leaves no model"),
        ({"costs": Costs(lambda t: -1, lambda t: Disk(0), lambda t: ())}, "costs.flops is -1"),
        ({"costs": Costs(lambda t: 1, lambda t: Disk(-1), lambda t: ())}, "costs.disk is"),
        ({"module": "gigatok.names"}, "module gigatok.names has no function run"),
    ],
)
def test_what_a_broken_one_says_is_told(changes: dict[str, Any], text: str) -> None:
    found = broken_promises(stage(**changes))
    assert any(text in line for line in found), found


def forgetful(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    scores = sound(config, inputs, out, tracker, runtime)
    if (runtime.checkpoint_dir / "number").exists():
        (out / "number").write_text("begun again")
    return scores


def fickle(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    (out / "number").write_text(str(next(_calls)))
    return Scores({"psnr": float(next(_calls))}, PROTOCOL)


def silent(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    return Scores()


def unexplained(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    return Scores({"psnr": 1.0})


def undefined(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    return Scores({"psnr": float("nan")}, PROTOCOL)


def straying(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    Path("notes.txt").write_text("here")
    return Scores({"psnr": 1.0}, PROTOCOL)


def meddling(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    (inputs["train_tokenizer"] / "model").write_text("mine now")
    return Scores({"psnr": 1.0}, PROTOCOL)


def chatty(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    tracker.metrics({"train/loss": 1.0}, 1)
    return Scores({"psnr": 1.0}, PROTOCOL)


def failing(config: Any, inputs: Any, out: Path, tracker: Tracker, runtime: Runtime) -> Scores:
    raise RuntimeError("no such kernel")


BROKEN: dict[Run, str] = {
    forgetful: "stopped half-way and gone on with, it leaves another number",
    fickle: "run again, it leaves another number",
    silent: "it reports nothing; its `scores` names psnr",
    unexplained: "psnr has no protocol",
    undefined: "psnr nan: leave out what has no value",
    straying: "it writes notes.txt outside of its output folder",
    meddling: "it changes the outputs of other stages",
    chatty: "it logs train/loss; its `curves` names nothing",
    failing: "running it: RuntimeError: no such kernel",
}


def ran(place: Path) -> list[str]:
    inputs = {"train_tokenizer": place / "model"}
    inputs["train_tokenizer"].mkdir()
    return broken_by_running(stage(), TRIAL, stage().read(TRIAL), inputs, place / "runs")


def test_one_that_goes_on_where_it_was_stopped_keeps_it(tmp_path: Path) -> None:
    assert ran(tmp_path) == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one.__name__)
def test_what_a_broken_one_does_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Run
) -> None:
    monkeypatch.setattr(f"{__name__}.run", broken)
    found = ran(tmp_path)
    assert any(BROKEN[broken] in line for line in found), found
