"""`explain` and `diff` on stage folders as workers leave them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestration.__main__ import app
from orchestration.commands.explain import _compared
from orchestration.execution.progress import survey
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.launching.test_runner import Recorded, fail, ignore, quick

__all__ = ["quick"]


def launch(store: Store, work: dict[str, Any], *overrides: str) -> Plan:
    sweep = load_sweep("decoder_scaling", "smoke", overrides)
    plan = make_plan(sweep, expand(sweep))
    request = LaunchRequest(sweep="decoder_scaling", scale="smoke", overrides=list(overrides))
    record_launch(plan, store, request)
    Runner(survey(plan, store), store, Recorded(work), Profile()).run(ignore)
    return plan


def command(store: Store, *words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "--runs-dir", str(store.root), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def verdicts(store: Store, *words: str) -> dict[str, tuple[str, list[str]]]:
    found = command(store, "explain", "decoder_scaling", *words)
    return {one["stage"]: (one["verdict"], one["because"]) for one in found}


def test_a_failure_and_what_it_blocks_are_explained(tmp_path: Path) -> None:
    store = Store(tmp_path)
    launch(store, {"extract_codes": fail})
    found = verdicts(store, "S-B")
    assert found["train_tokenizer"][0] == "reused"
    assert found["extract_codes"][0] == "failed"
    assert "cannot read" in found["extract_codes"][1][0]
    assert found["train_generator"] == ("blocked", ["extract_codes S-B failed"])
    assert set(verdicts(store, "S-B", "train_generator")) == {"train_generator"}


def test_a_changed_value_is_named_as_the_reason_to_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    launch(store, {}, "tokenizer.decoder=S")
    found = verdicts(
        store, "--scale", "smoke", "--set", "tokenizer.decoder=S", "--set", "generator.lr=0.5"
    )
    assert found["train_tokenizer"][0] == "reused"
    verdict, because = found["train_generator"]
    assert verdict == "will run"
    assert "generator.lr 0.5 instead of " in because[1]
    assert found["linear_probe"][1][0] == "waits for train_generator S-S"


def test_reuse_names_the_launch_that_made_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = launch(store, {}, "tokenizer.decoder=S")
    launch(store, {})
    _, because = verdicts(store, "S-S", "train_tokenizer")["train_tokenizer"]
    assert f"made for decoder_scaling at scale smoke (plan {first.key})" in because


def test_diff_of_trials_keys_and_folders(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = launch(store, {})
    trials = command(store, "diff", "S-S", "S-L")["stages"]
    assert trials["extract_reference_features"] == {}
    sizes = trials["train_tokenizer"]
    assert sizes["tokenizer.decoder.name"] == ["S", "L"]
    assert not any(name.startswith("tokenizer.encoder") for name in sizes)
    assert "input train_tokenizer" in trials["extract_codes"]
    keys = [k for k, s in plan.stages.items() if s.stage == "train_tokenizer"][::2]
    by_key = command(store, "diff", keys[0][:8], keys[1][:8])["stages"]
    assert by_key == {"train_tokenizer": sizes}
    folders = [str(store.index("train_tokenizer")[key].path) for key in keys]
    assert command(store, "diff", *folders)["stages"] == {"train_tokenizer": sizes}


def test_results_that_differ_have_their_units_and_no_negative_zero() -> None:
    rows = {
        "result psnr": (9.5, 10.25),
        "result unigram_entropy": (0.5, -0.0),
        "result of_a_plug_in": (1.0, 2.0),
        "tokenizer.width": (32, 64),
    }
    console = Console(width=80)
    with console.capture() as printed:
        console.print(_compared(rows, "one", "other"))
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed.get().splitlines()]
    assert lines[1:] == [
        ["result psnr (dB)", "9.5", "10.25"],
        ["result unigram_entropy (nats/token)", "0.5", "0"],
        ["result of_a_plug_in", "1", "2"],
        ["tokenizer.width", "32", "64"],
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("explain", "decoder_scaling", "S-X"),
            r"nothing is called 'S-X'; trials and stages: S-S",
        ),
        (("diff", "S-S", "S-X"), "S-X: no trial, key or stage folder in"),
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    store = Store(tmp_path)
    launch(store, {})
    result = CliRunner().invoke(app, [*words, "--runs-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")
