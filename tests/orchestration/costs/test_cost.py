"""Costs of whole plans: from the trials' own configs, refused where they cannot fit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gigatok.stages import STAGES
from orchestration.costs.accuracy import accuracy_line, compare
from orchestration.costs.amounts import bytes_text, flops_text, hours_text, seconds_text
from orchestration.costs.calibration import Observation, Site, append_observations
from orchestration.costs.cost import STANDARD, predict, stage_work, with_amounts
from orchestration.execution.progress import Progress, stage_spec, survey
from orchestration.forecast.budget import Budget, newest_refusal, reasons, record_refusal
from orchestration.forecast.cost_table import kinds_table
from orchestration.forecast.devices import GB, Machine, Machines, machines, utilisation
from orchestration.forecast.totals import add_up, makespan, to_run
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
MACHINE = Machine("CPU", 1, 1, 0.0, GB, 2)


def plan_of(*overrides: str, sweep: str = "decoder_scaling", scale: str = "smoke") -> Plan:
    loaded = load_sweep(sweep, scale, list(overrides))
    return make_plan(loaded, expand(loaded))


def calibrated(store: Store, plan: Plan, seconds: float = 36.0) -> None:
    """A record of every stage of a plan, all equally long."""
    append_observations(
        store,
        [
            Observation(
                **{"stage": stage.stage, "key": key, "readable": stage.readable},  # type: ignore[arg-type]
                **{"family": cost.work.family, "unit_flops": cost.work.unit_flops},  # type: ignore[arg-type]
                **{"flops": cost.flops, "seconds": seconds, "device": "CPU", "threads": 1},  # type: ignore[arg-type]
                finished=0.0,
            )
            for (key, stage), cost in zip(plan.stages.items(), predict(plan).values(), strict=True)
        ],
    )


def surveyed(store: Store, plan: Plan, machine: Machines = lambda stage: MACHINE) -> Progress:
    return survey(plan, store, lambda stage: machine(stage).site)


@pytest.mark.parametrize("sweep", SHIPPED)
@pytest.mark.parametrize("scale", ["smoke", "micro", "mini", "paper"])
def test_every_stage_of_every_sweep_has_a_cost(sweep: str, scale: str) -> None:
    plan = plan_of(sweep=sweep, scale=scale)
    for key, cost in predict(plan).items():
        stage = plan.stages[key]
        costs = STAGES[stage.stage].costs
        assert cost.flops == float(costs.flops(stage.trial))
        assert cost.memory_bytes == costs.memory(stage.trial, 1)
        disk = costs.disk(stage.trial)
        assert cost.disk_bytes == disk.outputs + disk.working
        assert cost.seconds is cost.low is cost.high is cost.record is None
        assert cost.ordering_seconds > 0


def test_configs_that_differ_in_what_costs_are_not_taken_for_the_same() -> None:
    """Costs are remembered by what matters of a config, which must hold all of it."""
    changed = {
        "tokenizer.semantic_weight=0.0": "train_tokenizer",
        "tokenizer.steps=24": "train_tokenizer",
        "tokenizer.codebook_size=128": "extract_codes",
        "generator.batch_size=16": "train_generator",
        "sampling.cfg_scale=1.0": "evaluate_generation",
        "data.train_images=64": "extract_codes",
        "evaluation.num_images=32": "evaluate_reconstruction",
        "probe.epochs=4": "linear_probe",
    }
    base = costs_by_stage(plan_of("tokenizer.decoder=S"))
    for override, stage in changed.items():
        assert costs_by_stage(plan_of("tokenizer.decoder=S", override))[stage] != base[stage], (
            stage
        )
    same = costs_by_stage(plan_of("tokenizer.decoder=S", "tokenizer.lr=1e-3", "generator.lr=1e-3"))
    assert same == base


def costs_by_stage(plan: Plan) -> dict[str, float]:
    costs = predict(plan)
    return {stage.stage: costs[key].flops for key, stage in plan.stages.items()}


@pytest.mark.parametrize(
    ("override", "stage"),
    [
        ("tokenizer.steps", "train_tokenizer"),
        ("tokenizer.batch_size", "train_tokenizer"),
        ("generator.steps", "train_generator"),
        ("data.train_images", "extract_codes"),
        ("sampling.num_images", "evaluate_generation"),
    ],
)
def test_more_work_costs_more(tmp_path: Path, override: str, stage: str) -> None:
    store = Store(tmp_path)
    calibrated(store, plan_of("tokenizer.decoder=S"))
    found = []
    for amount in (8, 16, 64, 1024):
        plan = plan_of("tokenizer.decoder=S", f"{override}={amount}")
        progress = surveyed(store, plan)
        found += [
            (c.flops, c.seconds, c.high)
            for key, c in progress.costs.items()
            if plan.stages[key].stage == stage
        ]
    assert found == sorted(found)
    assert len(set(found)) == 4


def test_a_unit_of_work_is_the_same_whatever_the_amount() -> None:
    for trial in plan_of(sweep="tokenizer_scaling", scale="paper").trials:
        config = trial.trial.config
        fewer = with_amounts(config, replace(STANDARD, steps=7, train_images=300))
        for stage in trial.stages:
            assert stage_work(stage, fewer).unit_flops == pytest.approx(
                stage_work(stage, config).unit_flops, rel=0.05
            )


@pytest.mark.heavy
def test_ten_thousand_trials_are_predicted_at_once_without_torch(tmp_path: Path) -> None:
    rates = [round(1e-4 * (1 + i / 10), 8) for i in range(100)]
    weights = [round(0.1 + i / 100, 4) for i in range(100)]
    sweep = tmp_path / "large.yaml"
    sweep.write_text(
        "question: How long?\nscale: micro\n"
        "set: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
        f"axes: {{tokenizer.semantic_weight: {weights}, generator.lr: {rates}}}\n"
    )
    program = (
        "import sys, time\n"
        "from orchestration.sweep.definition import load_sweep, expand\n"
        "from orchestration.plan.graph import make_plan\n"
        "from orchestration.costs.cost import predict\n"
        f"sweep = load_sweep({str(sweep)!r})\nplan = make_plan(sweep, expand(sweep))\n"
        "start = time.process_time()\ncosts = predict(plan)\n"
        "print(len(plan.trials), len(costs), time.process_time() - start, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    trials, stages, seconds, torch = done.stdout.split()
    assert (trials, torch) == ("10000", "False")
    assert int(stages) > 30_000
    assert float(seconds) < 1.5  # measured: 0.15 s; the bound is for busy CI


# Totals


def test_totals_add_up_and_what_is_reused_is_free(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of()
    calibrated(store, plan)
    progress = surveyed(store, plan)
    total = add_up(lambda stage: MACHINE, to_run(progress))
    assert total.seconds == pytest.approx(36.0 * len(plan.stages))
    assert total.hours == pytest.approx(0.01 * len(plan.stages))
    assert total.uncalibrated == 0
    longest = makespan(progress, lambda stage: MACHINE)
    assert longest == pytest.approx(18.0 * len(plan.stages)), "two at a time"
    wide = makespan(progress, lambda stage: replace(MACHINE, slots=99))
    trainings = sum("train_" in stage.stage for stage in plan.stages.values())
    mixed = makespan(progress, lambda stage: replace(MACHINE, slots=4 if "train_" in stage else 2))
    assert mixed == pytest.approx(18.0 * len(plan.stages) - 9.0 * trainings), "each fills a share"
    assert wide == pytest.approx(5 * 36.0), "teacher, tokenizer, codes, generator, probe"
    for key in list(plan.stages)[:-1]:
        progress.set(key, "COMPLETE")
    assert makespan(progress, lambda stage: MACHINE) == pytest.approx(36.0)


def test_one_uncalibrated_stage_makes_the_total_unknown(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of("tokenizer.decoder=S")
    progress = surveyed(store, plan)
    total = add_up(lambda stage: MACHINE, to_run(progress))
    assert (total.seconds, total.hours, total.uncalibrated) == (None, None, len(plan.stages))
    assert makespan(progress, lambda stage: MACHINE) is None


# Refusals


def refused(store: Store, plan: Plan, budget: Budget, machine: Machine = MACHINE) -> list[str]:
    return reasons(surveyed(store, plan), lambda stage: machine, budget, store.root)


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of()
    calibrated(store, plan)
    assert refused(store, plan, Budget(max_gpu_hours=1, max_disk=1)) == []


def test_too_many_hours_are_refused_with_the_sum(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of("tokenizer.decoder=S")
    calibrated(store, plan, seconds=3600.0)
    (text,) = refused(store, plan, Budget(max_gpu_hours=7.5))
    assert text.startswith("--max-gpu-hours 7.5: 1 extract_teacher_features 1 + 1 ")
    assert "+ 1 linear_probe 1 = 8 core hours (" in text
    gpu = replace(MACHINE, gpus=2.0)
    (text,) = refused(store, plan, Budget(max_gpu_hours=15), gpu)
    assert " = 16 GPU hours (" in text


def test_hours_that_nobody_knows_are_refused_with_what_to_do(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of("tokenizer.decoder=S")
    (text,) = refused(store, plan, Budget(max_gpu_hours=1000))
    assert "nobody knows what 8 of 8 stages take on CPU: uncalibrated" in text
    assert "python -m orchestration calibrate decoder_scaling --scale smoke" in text
    assert refused(store, plan, Budget()) == []


def test_a_disk_that_is_too_small_is_refused_with_the_sum(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of()
    (text,) = refused(store, plan, Budget(max_disk=1e-4))
    assert text.startswith("--max-disk 0.0001 GiB: ")
    assert " of outputs + " in text
    imagenet = plan_of(sweep="tokenizer_scaling", scale="paper")
    found = refused(store, imagenet, Budget(), replace(MACHINE, memory_bytes=None, slots=10**6))
    assert any(text.startswith("disk: ") and text.endswith(" free") for text in found)


def test_memory_that_is_not_there_is_refused_with_the_micro_batch_that_fits(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    plan = plan_of("tokenizer.decoder=S", "tokenizer.batch_size=512")
    (key,) = [k for k, s in plan.stages.items() if s.stage == "train_tokenizer"]
    need = predict(plan)[key].memory_bytes
    assert need is not None
    small = replace(MACHINE, memory_bytes=need // 3)
    (text,) = refused(store, plan, Budget(), small)
    assert text.startswith(f"memory: train_tokenizer S-S needs {bytes_text(need)} = ")
    assert f"CPU has {bytes_text(need // 3)} per process" in text
    size = int(text.split("tokenizer.micro_batch=")[1].split()[0])
    fits = plan_of(
        "tokenizer.decoder=S", "tokenizer.batch_size=512", f"tokenizer.micro_batch={size}"
    )
    assert refused(store, fits, Budget(), small) == []
    twice = plan_of(
        "tokenizer.decoder=S", "tokenizer.batch_size=512", f"tokenizer.micro_batch={2 * size}"
    )
    assert refused(store, twice, Budget(), small)
    assert refused(store, plan, Budget(), replace(MACHINE, memory_bytes=need)) == []


def test_a_refusal_is_remembered_until_the_next_launch(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of()
    assert newest_refusal(store, "decoder_scaling") is None
    (store.sweeps / "decoder_scaling").mkdir(parents=True)
    record_refusal(store, "decoder_scaling", plan.key, "smoke", ["first"])
    record_refusal(store, "decoder_scaling", plan.key, "smoke", ["second"])
    found = newest_refusal(store, "decoder_scaling")
    assert found is not None
    assert found.reasons == ["second"]
    assert newest_refusal(store, "decoder_scaling", since=time.time()) is None


# Predicted against actual


def test_predicted_against_actual(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of("tokenizer.decoder=S")
    calibrated(store, plan)
    progress = surveyed(store, plan)
    key = next(iter(plan.stages))
    folder = store.create(stage_spec(plan.stages[key], progress))
    assert compare(folder) is None, "it did not run"
    holder = acquire(folder)
    assert holder is not None
    facts: dict[str, Any] = {"number": 1, "host": "h", "pid": 1, "started": 0.0, "ended": 48.0}
    holder.record(Attempt(**facts, outcome="complete", threads=1, peak_memory_bytes=7))
    assert compare(folder) is None, "it was killed before it could say DONE"
    empty: dict[str, Any] = {"metrics": {}, "protocol": {}, "artifacts": {}}
    holder.complete(Done(**empty, finished=48.0, seconds=48.0, attempt=1))
    found = compare(folder)
    assert found is not None
    assert found.ratio == pytest.approx(36 / 48)
    assert (found.actual, found.actual_memory) == (48.0, 7)
    assert accuracy_line([found]) == "predicted against actual: 1 of 1 times within 25%"
    late = replace(found, actual=60.0)
    assert "1 of 2 times" in accuracy_line([found, late])


# Devices and amounts


def test_a_profile_says_on_what_stages_run() -> None:
    profile = Profile.model_validate(
        {
            "default": {"cpus": 4, "memory_gb": 2},
            "stages": {"train_tokenizer": {"gpus": 1, "processes": 8, "device": "NVIDIA H100"}},
        }
    )
    machine = machines("slurm", None, profile)
    trained, other = machine("train_tokenizer"), machine("extract_codes")
    assert trained.site == Site("NVIDIA H100", 4, 8)
    assert (trained.gpus, trained.units, trained.memory_bytes) == (8, 8, 80 * GB)
    assert (other.device, other.units, other.memory_bytes) == ("", 4, 2 * GB)


def test_this_machine_is_shared_out_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    machine = machines("local", None, Profile().with_gpus(4))
    trained, other = machine("train_tokenizer"), machine("extract_codes")
    assert (trained.gpus, trained.processes, trained.threads) == (4, 4, 2)
    assert (trained.slots, trained.width) == (2, 4)
    assert (other.gpus, other.processes, other.slots, other.width) == (1, 1, 8, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    stages = {"train_tokenizer": {"processes": 2}}
    machine = machines("local", 1, Profile(stages=stages))
    trained, other = machine("train_tokenizer"), machine("extract_codes")
    assert (trained.gpus, trained.units, other.units) == (0, 16, 16)
    assert trained.memory_bytes is not None
    assert other.memory_bytes is not None
    assert trained.memory_bytes == other.memory_bytes // 2


def test_a_plan_shows_the_devices_of_a_stage_and_the_memory_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    plan, shown = plan_of("tokenizer.decoder=S"), {}
    for gpus in (1, 4):
        machine = machines("local", None, Profile().with_gpus(gpus))
        progress = surveyed(Store(tmp_path), plan, machine)
        table = kinds_table(progress, machine)
        (row,) = [cells for cells, _ in table.rows if cells[0] == "tokenizer"]
        shown[gpus] = dict(zip(table.heads, row, strict=True))
    trial = plan.trials[0].trial.config
    one, four = (stage_work("train_tokenizer", trial, n).memory_bytes for n in (1, 4))
    assert one is not None
    assert four is not None
    assert four < one
    assert "GPUs" not in shown[1]
    assert shown[1]["memory"] == bytes_text(one)
    assert (shown[4]["GPUs"], shown[4]["memory of each"]) == ("4", bytes_text(four))


def test_utilisation_is_of_the_precision_that_was_used() -> None:
    assert utilisation(98.9e12, "NVIDIA H100 80GB HBM3", "1d bf16") == pytest.approx(0.1)
    assert utilisation(6.7e12, "NVIDIA H100 80GB HBM3", "1d fp32") == pytest.approx(0.1)
    assert utilisation(1e9, "AMD EPYC", "1d fp32") is None


def test_amounts_as_text() -> None:
    assert [flops_text(f) for f in (0, 3.4e6, 2.5e12, 1.5e21)] == [
        *("0 MFLOP", "3.4 MFLOP", "2.5 TFLOP", "1,500 EFLOP"),
    ]
    assert [bytes_text(b) for b in (None, 2**19, 3 * 2**30, 5 * 2**40)] == [
        *("–", "0.5 MiB", "3 GiB", "5 TiB"),
    ]
    assert [seconds_text(s) for s in (None, 4.23, 95, 600, 7200, 9e5)] == [
        *("–", "4.2 s", "95 s", "10 min", "2 h", "10 d"),
    ]
    assert [hours_text(h) for h in (None, 0.1234, 10880)] == ["–", "0.12", "10,880"]


@pytest.mark.slow
def test_calibrate_runs_real_stages_and_plans_know_their_time_then(tmp_path: Path) -> None:
    runs = ["--scale", "smoke", "--runs-dir", str(tmp_path)]
    command = [sys.executable, "-m", "orchestration"]
    done = subprocess.run(
        [*command, "calibrate", "decoder_scaling", *runs],
        **{"capture_output": True, "text": True, "cwd": ROOT, "check": False},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [], "scratch is gone"
    shown = subprocess.run(
        [*command, "plan", "decoder_scaling", *runs, "--json"],
        **{"capture_output": True, "text": True, "cwd": ROOT, "check": True},
    )
    plan = json.loads(shown.stdout)
    assert plan["totals"]["uncalibrated"] == 0
    for stage in plan["stages"].values():
        cost = stage["cost"]
        assert cost["low"] < cost["seconds"] < cost["high"]
        assert cost["record"].endswith("(calibrate)")
        assert cost["memory_bytes"] > (cost["tensor_bytes"] or 0)
