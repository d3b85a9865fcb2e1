"""What status and gc say of stage folders as workers leave them."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from rich.console import Console, ConsoleDimensions
from typer.testing import CliRunner

from orchestration.__main__ import app
from orchestration.backends.detached.journal import Journal
from orchestration.commands.status import render
from orchestration.commands.upkeep.cleanup import size_text
from orchestration.launching.history import newest_launch
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan
from orchestration.policy import faults
from orchestration.runs.holder import reopen_damaged
from orchestration.runs.state import Store
from orchestration.study.status import look
from tests.orchestration.tracking.tracking_helpers import Run, keys_of, plan_of

REQUEST = LaunchRequest(sweep="study.yaml")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def plan(tmp_path: Path, store: Store) -> Plan:
    """Three tokenizers and their teacher, launched, none started."""
    plan = plan_of(tmp_path, "study", decoders="[S, B, L]")
    record_launch(plan, store, REQUEST)
    return plan


def call(store: Store, *arguments: str, code: int = 0) -> str:
    environment = {"COLUMNS": "100", "TERM": "dumb"}
    result = CliRunner().invoke(app, [*arguments, "--runs-dir", str(store.root)], env=environment)
    assert result.exit_code == code, result.output
    return result.output


def status_of(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(store, "status", "study", "--json"))
    return found


def test_every_state_with_host_progress_attempts_and_why(store: Store, plan: Plan) -> None:
    first, second, third = keys_of(plan)
    Run(store, plan, first).fail("disk on fire")
    run = Run(store, plan, second)
    progress = {"done": 50, "total": 200, "unit": "step", "first_done": 0}
    run.holder.renew({**progress, "first_time": time.time() - 10, "loss": 0.5})
    stages = status_of(store)["stages"]
    assert [stages[key]["state"] for key in keys_of(plan)] == ["FAILED", "RUNNING", "WAITING"]
    assert stages[first]["why"] == "disk on fire"
    assert stages[first]["attempts"] == 1
    assert stages[first]["host"] == "node7"
    assert (stages[second]["done"], stages[second]["total"]) == (50, 200)
    assert stages[second]["seconds_left"] == pytest.approx(30, abs=10)
    assert stages[third] | {"folder": ""} == {
        "stage": "train_tokenizer",
        "readable": "S-L",
        "state": "WAITING",
        "folder": "",
        "attempts": 0,
        "host": None,
        "done": None,
        "total": None,
        "unit": None,
        "seconds_left": None,
        "job": None,
        "why": None,
        "held": False,
    }
    table = call(store, "status", "study")
    assert "step 50/200" in table
    assert "tokenizer of S-S: disk on fire" in table
    assert "2 waiting, 1 failed, 1 running" in table
    run.complete()
    assert status_of(store)["stages"][second]["state"] == "COMPLETE"


def test_a_killed_stage_waits_and_says_how_it_ended(store: Store, plan: Plan) -> None:
    folder = Run(store, plan, keys_of(plan)[0]).die()
    (folder.work(1).checkpoints / "step-000000040").mkdir(parents=True)
    found = status_of(store)["stages"][keys_of(plan)[0]]
    assert found["state"] == "WAITING"
    assert found["why"] == "stopped, goes on from step 40"


def test_what_only_pruned_trials_need_is_pruned(store: Store, plan: Plan) -> None:
    key = keys_of(plan)[0]
    (name,) = [t.trial.name for t in plan.trials if key in t.stages.values()]
    folder = Run(store, plan, key).die()
    (folder.work(1).checkpoints / "step-000000040").mkdir(parents=True)
    record_launch(plan, store, REQUEST, pruned={name: "asha: train/loss at step 40"})
    found = status_of(store)["stages"][key]
    assert (found["state"], found["why"]) == ("PRUNED", "pruned by asha: train/loss at step 40")
    table = call(store, "status", "study")
    assert "1 pruned" in table
    assert "stopped" not in table


def test_what_is_taken_out_of_the_yaml_is_orphaned_and_nothing_else_happens_to_it(
    store: Store, plan: Plan, tmp_path: Path
) -> None:
    first, second, third = keys_of(plan)
    Run(store, plan, first).complete()
    run = Run(store, plan, second)
    record_launch(plan_of(tmp_path, "study", decoders="[L]"), store, REQUEST)
    found = status_of(store)
    assert list(found["stages"])[1:] == [third]
    states = {key: stage["state"] for key, stage in found["orphaned"].items()}
    assert states == {first: "COMPLETE", second: "RUNNING"}
    table = call(store, "status", "study")
    assert "orphaned, of earlier launches and not in this plan: 1 complete, 1 running" in table
    assert "cancel study --orphaned" in table
    assert run.folder.cancelled_by() is None
    call(store, "cancel", "study", "--orphaned", "--wait", "0.1", code=1)  # it does not listen
    assert run.folder.cancelled_by() is not None


@pytest.mark.parametrize(("last", "code"), [("complete", 0), ("failed", 1)])
def test_watching_ends_with_the_sweep_and_says_how_it_went(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch, last: str, code: int
) -> None:
    monkeypatch.setattr("orchestration.commands.status.WATCH_SECONDS", 0.05)
    others, final = list(plan.stages)[:-1], list(plan.stages)[-1]
    for key in others:
        Run(store, plan, key).complete()
    run = Run(store, plan, final)
    ends = {"complete": run.complete, "failed": lambda: run.fail("disk on fire")}
    end = Timer(0.5, ends[last])
    end.start()
    text = call(store, "status", "study", "-w", code=code)
    end.join()
    assert text.splitlines()[-1] == (
        "4 complete" if last == "complete" else "3 complete, 1 failed"
    )


@pytest.mark.heavy
@pytest.mark.parametrize("height", [20, 24, 50])
def test_what_is_watched_fits_on_the_screen(store: Store, tmp_path: Path, height: int) -> None:
    sizes = ", ".join(f"{{width: {8 * n}, layers: 1, heads: 1}}" for n in range(1, 31))
    plan = plan_of(tmp_path, "study", decoders=f"[{sizes}]", stages="[linear_probe]")
    record_launch(plan, store, REQUEST)
    for number, key in enumerate(keys_of(plan)):
        run = Run(store, plan, key)
        if number % 2:
            run.fail(f"disk {number} is on fire, " + "and nobody knows why " * 9)
    console = Console(file=io.StringIO(), width=80, height=height)
    found = look(store, newest_launch(store, "study"))
    console.print(render(found, ConsoleDimensions(80, height), fit=True))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert 15 <= len(lines) < height
    assert "15 failed" in lines[-1]
    assert sum(line.startswith("✗ tokenizer") for line in lines) >= 3
    assert any("disk 1 is on fire" in line for line in lines)


def test_cancelling_a_trial_leaves_what_others_need(store: Store, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "study", decoders="[S, B]", stages="[evaluate_reconstruction]")
    record_launch(plan, store, REQUEST)
    call(store, "cancel", "study", "S-S")
    stages = status_of(store)["stages"]
    named = {(s["stage"], s["readable"]): s for s in stages.values()}
    assert named["train_tokenizer", "S-S"]["why"].startswith("cancelled by ")
    assert named["evaluate_reconstruction", "S-S"]["state"] == "UPSTREAM_FAILED"
    others = [s for s in stages.values() if s["readable"] != "S-S"]
    assert {s["state"] for s in others} == {"WAITING"}
    assert "extract_reference_features" in {s["stage"] for s in others}


def test_a_sweep_that_was_edited_is_resumed_as_it_was(
    store: Store, plan: Plan, tmp_path: Path
) -> None:
    plan_of(tmp_path, "study", decoders="[L]")  # writes study.yaml anew
    text = call(store, "resume", "study", "--dry-run")
    assert "3 trials, 4 stages" in text


def test_gc_frees_leftovers_and_keeps_results(store: Store, plan: Plan, tmp_path: Path) -> None:
    first, second, _ = keys_of(plan)
    done = Run(store, plan, first).complete()
    going = Run(store, plan, second).die()
    for folder in (done, going):
        (folder.work(1).checkpoints / "step-000000040").mkdir(parents=True)
        (folder.work(1).checkpoints / "step-000000040" / "weights").write_bytes(b"0" * 2048)
    other = plan_of(tmp_path, "other", decoders="[{width: 8, layers: 1, heads: 1}]")
    orphan = Run(store, other, keys_of(other)[0]).complete()
    snapshots = [store.root / "snapshots" / name for name in ("aaaa", "bbbb", "cccc")]
    for age, snapshot in enumerate(snapshots):
        snapshot.mkdir(parents=True)
        (snapshot / "code.py").write_text("x")
        os.utime(snapshot, (age, age))
    job = Journal(store, "slurm").intend("train_tokenizer", "study", plan.key, [going])
    script = store.root / "slurm" / job.name / "submission.sh"
    script.parent.mkdir(parents=True)
    script.write_text("export PYTHONPATH=/runs/snapshots/aaaa")
    said = call(store, "gc", "--dry-run")
    assert "2.0 KiB" in said
    assert "0 folders deleted" in said
    assert done.works()
    said = call(store, "gc")
    assert "2 folders deleted" in said
    assert not done.works()
    assert going.checkpoint_step() == 40
    assert [snapshot.exists() for snapshot in snapshots] == [True, False, True]
    assert orphan.is_complete()
    assert "1 kept" in said
    call(store, "gc", "--yes")
    assert not orphan.path.exists()
    assert done.is_complete()


def test_gc_follows_no_link(store: Store, plan: Plan, tmp_path: Path) -> None:
    """A link of no plan goes, what it leads to stays; behind a link nothing goes."""
    other = plan_of(tmp_path, "other", decoders="[{width: 8, layers: 1, heads: 1}]")
    orphan = Run(store, other, keys_of(other)[0]).complete()
    elsewhere = tmp_path / "elsewhere"
    orphan.path.rename(elsewhere)
    orphan.path.symlink_to(elsewhere)
    call(store, "gc", "--yes")
    assert not orphan.path.is_symlink()
    assert (elsewhere / "DONE").is_file()
    done = Run(store, plan, keys_of(plan)[0]).complete()
    done.work(1).checkpoints.mkdir(parents=True)
    kind = done.path.parent
    kind.rename(tmp_path / "disk")
    kind.symlink_to(tmp_path / "disk")
    (store.root / "snapshots").mkdir()
    for name in ("aaaa", "bbbb"):
        (store.root / "snapshots" / name).symlink_to(tmp_path / "gone")
    assert "1 folders deleted" in call(store, "gc", "--yes")
    assert done.work(1).checkpoints.is_dir()


def test_gc_keeps_what_an_unreadable_record_may_name(
    store: Store, plan: Plan, tmp_path: Path
) -> None:
    other = plan_of(tmp_path, "other", decoders="[{width: 8, layers: 1, heads: 1}]")
    orphan = Run(store, other, keys_of(other)[0]).complete()
    record = store.sweeps / "study" / f"{plan.key}.json"
    record.write_text('{"written_by": "a newer version"')
    said = call(store, "gc", "--yes")
    assert str(record) in said
    assert orphan.is_complete()
    assert str(record) in call(store, "status", "study", code=2)
    record_launch(plan, store, REQUEST)
    call(store, "gc", "--yes")
    assert not orphan.path.exists()


def test_logs_say_why_there_is_no_text(store: Store, plan: Plan) -> None:
    trial = next(iter(newest_launch(store, "study").trials))
    key = newest_launch(store, "study").trials[trial]["train_tokenizer"]
    assert "has not started" in call(store, "logs", "study", trial, "train_tokenizer")
    run = Run(store, plan, key)
    run.folder.log(1).touch()
    assert "printed nothing: running" in call(store, "logs", "study", trial, "train_tokenizer")
    run.complete()
    said = call(store, "logs", "study", trial, "train_tokenizer")
    assert "printed nothing: complete after 1 s, in attempt 1" in said
    run.folder.log(1).write_bytes(b"caf\xc3\xa9 \xff\n")
    assert "café \ufffd" in call(store, "logs", "study", trial, "train_tokenizer")


def test_editing_the_sweep_changes_nothing_for_what_was_launched(
    tmp_path: Path, store: Store, plan: Plan
) -> None:
    for text in ("question: [", "question: other\nscale: smoke\n"):
        plan.sweep.path.write_text(text)
        assert {s["stage"] for s in status_of(store)["stages"].values()} >= {"train_tokenizer"}
        assert "0 complete, 4 to run" in call(store, "resume", "study", "--dry-run")
        assert len(json.loads(call(store, "explain", "study", "--json"))) == len(plan.stages)
    plan.sweep.path.unlink()
    assert "0 complete, 4 to run" in call(store, "resume", "study", "--dry-run")


def test_a_complete_stage_whose_record_cannot_be_read_runs_again(store: Store, plan: Plan) -> None:
    done = Run(store, plan, keys_of(plan)[0]).complete()
    done.done_file.write_text("garbage")
    assert "its DONE cannot be read" in call(store, "resume", "study", "--dry-run")
    assert f"{done.done_file} cannot be read" in call(store, "explain", "study", "--json")
    reopen_damaged(done)
    assert done.state() == "WAITING"


def test_a_file_in_place_of_a_folder_ends_a_command_with_its_name(
    store: Store, plan: Plan
) -> None:
    run = Run(store, plan, keys_of(plan)[0])
    run.end("interrupted")
    run.holder.release()
    attempts = run.folder.path / "attempts"
    shutil.rmtree(attempts)
    attempts.touch()
    assert status_of(store)
    Run(store, plan, keys_of(plan)[0])  # a launch sets it aside
    assert attempts.is_dir()
    other = newest_launch(store, "study").folders(store)[keys_of(plan)[1]].path
    other.parent.mkdir(parents=True, exist_ok=True)
    other.touch()
    assert str(other) in call(store, "cancel", "study", code=2)


def test_sizes_in_words() -> None:
    assert [size_text(n) for n in (5, 2048, 3 * 2**30)] == ["5 B", "2.0 KiB", "3.0 GiB"]


def test_what_keeps_the_forecast_away_is_said_and_nothing_else_is_lost(
    store: Store, plan: Plan
) -> None:
    launched = newest_launch(store, "study")
    other = launched.values_json.replace("codebook_size", "size_of_the_codebook")
    found = look(store, launched.model_copy(update={"values_json": other}))
    assert "this code does not take plan" in str(found.unforeseen)
    assert found.stages.keys() == plan.stages.keys()


def test_the_exit_code_of_watching_is_that_of_a_launch(store: Store, plan: Plan) -> None:
    first, second, third = keys_of(plan)
    for key in (first, second, third):
        Run(store, plan, key).complete()
    for key in plan.stages.keys() - {first, second, third}:
        Run(store, plan, key).complete()
    assert call(store, "status", "study", "-w")
    folder = newest_launch(store, "study").folders(store)[third]
    folder.done_file.unlink()
    folder.write_failure(faults.cancelled("me", 1))
    call(store, "status", "study", "-w", code=130)
    folder.write_failure(faults.from_exception(ValueError("no"), 1))
    call(store, "status", "study", "-w", code=1)


def test_a_stage_of_another_sweep_is_no_orphan(tmp_path: Path, store: Store, plan: Plan) -> None:
    fewer = plan_of(tmp_path, "study", decoders="[S, B]")
    record_launch(fewer, store, REQUEST)
    last = keys_of(plan)[-1]
    Run(store, plan, last)
    assert set(look(store, newest_launch(store, "study")).orphans) == {last}
    other = plan_of(tmp_path, "other", decoders="[L]")
    assert last in other.stages
    record_launch(other, store, LaunchRequest(sweep="other.yaml"))
    assert not look(store, newest_launch(store, "study")).orphans


def test_cancelling_what_another_sweep_needs_is_said(
    tmp_path: Path, store: Store, plan: Plan
) -> None:
    record_launch(plan_of(tmp_path, "other", decoders="[L]"), store, LaunchRequest(sweep="o.yaml"))
    assert "2 of them are also stages of other" in call(store, "cancel", "study")


def test_logs_end_for_what_will_not_run_and_say_when_nothing_does(
    store: Store, plan: Plan
) -> None:
    assert "nothing runs or has failed; name a trial: " in call(store, "logs", "study")
    launched = newest_launch(store, "study")
    trial, stages = next(iter(launched.trials.items()))
    for key in plan.stages:
        if not plan.stages[key].inputs:
            Run(store, plan, key).fail("disk on fire")
    assert set(look(store, launched).states.values()) <= {"FAILED", "UPSTREAM_FAILED"}
    assert "has not started" in call(store, "logs", "study", trial, "-f"), stages
