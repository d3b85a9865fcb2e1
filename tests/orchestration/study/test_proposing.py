"""What to run next: by results in a runs directory, at the costs that a plan shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from orchestration import Study
from orchestration.__main__ import app
from orchestration.costs.calibration import Observation, append_observations
from orchestration.costs.cost import predict
from orchestration.execution.progress import stage_spec, survey
from orchestration.forecast.devices import machines
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Done
from orchestration.runs.state import Store
from orchestration.sweep.candidates import entry_line
from orchestration.sweep.definition import expand, load_sweep

pytestmark = pytest.mark.heavy

LAW = "psnr of the largest tokenizer.steps is predicted by the smaller ones"
SWEEP = f"""question: Does it pay to train longer?
scale: smoke
axes: {{tokenizer.steps: [8, 16, 32, 128]}}
set: {{tokenizer.encoder: S, tokenizer.decoder: S}}
seeds: [0, 1]
stages: [evaluate_reconstruction]
claims:
  law: {LAW} within 1 %
  longer: psnr at tokenizer.steps=16 is higher than at 8
"""


def planned(file: Path, *overrides: str) -> Plan:
    sweep = load_sweep(file, None, overrides)
    return make_plan(sweep, expand(sweep))


def timed(plan: Plan, store: Store) -> None:
    """Record what every stage of a plan took here: time in proportion to its FLOPs."""
    machine = machines("local", None, Profile())
    observations = []
    for (key, stage), cost in zip(plan.stages.items(), predict(plan).values(), strict=True):
        site, flops = machine(stage.stage).site, cost.flops
        observations.append(
            Observation(
                stage=stage.stage,
                key=key,
                readable=stage.readable,
                family=cost.work.family,
                unit_flops=cost.work.unit_flops,
                flops=flops,
                seconds=0.01 + (flops or 0.0) / 1e7,
                device=site.device,
                threads=site.threads,
                finished=0.0,
            )
        )
    append_observations(store, observations)


def score(plan: Plan, store: Store, most_steps: int = 32) -> None:
    """Complete the short trials: a power law of steps, with noise of sizes and of seeds."""
    progress, rng = survey(plan, store), np.random.default_rng(3)
    for trial in plan.trials:
        noise = 0.02 * rng.normal()
        config = trial.trial.config
        for stage, key in trial.stages.items():
            if config.tokenizer.steps > most_steps or progress.folders[key].is_complete():
                continue
            holder = acquire(store.create(stage_spec(plan.stages[key], progress)))
            assert holder is not None
            value = 10 * config.tokenizer.steps ** (0.1 + noise)
            scores = {"psnr": value} if stage == "evaluate_reconstruction" else {}
            protocol = dict.fromkeys(scores, "some way")
            rest = {"artifacts": {}, "finished": 1.0, "seconds": 1.0, "attempt": 1}
            holder.complete(Done(metrics=scores, protocol=protocol, **rest))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Three of four lengths of training are complete, with two seeds each."""
    file, store = tmp_path / "longer.yaml", Store(tmp_path / "runs")
    file.write_text(SWEEP)
    timed(planned(file), store)
    score(planned(file), store)
    return Study(file, runs=store.root)


def keys_to_run(study: Study) -> set[str]:
    progress = study.plan().progress
    return {key for key in progress.plan.stages if progress.will_run(key)}


def test_the_runs_cost_what_a_plan_of_the_proposed_lines_shows(study: Study) -> None:
    found = study.next(3.0)
    assert 0 < found.hours <= 3.0
    assert found.hours == pytest.approx(sum(step.hours for step in found.steps))
    file = Path(study.sweep)
    before = keys_to_run(study)
    file.write_text(SWEEP + "include:\n" + "\n".join(map(entry_line, found.include)))
    more = keys_to_run(study) - before
    costs = {row["key"]: row["hours"] for row in study.costs()}
    assert found.hours == pytest.approx(sum(costs[key] for key in more))
    named = {s for step in found.steps for s in step.runs}
    assert {"steps=11", "steps=23", "steps=64"} <= named
    # The largest is what is predicted: it is not bought to predict it, nor is anything beyond.
    assert "steps=128" not in named
    assert found.own == ()


def test_gains_are_of_the_claims_that_are_undecided(study: Study) -> None:
    found = study.next(3.0)
    law, longer = found.prospects
    assert (law.goal.narrows, longer.goal.narrows) == (True, False)
    first, last = found.steps[0].before, found.steps[-1].after
    assert last[0] < first[0]
    assert last[1] > first[1]
    assert law.predicted == pytest.approx(10 * 128**0.1, rel=0.2)
    assert law.change(0.05, 0.02) == (
        f"law: psnr at steps=128 ±{law.predicted * np.expm1(0.05):.3f} dB -> "
        f"±{law.predicted * np.expm1(0.02):.3f} dB"
    )
    assert longer.change(0.35, 0.81) == "longer: decided with 0.35 -> 0.81"


def test_a_trial_of_the_sweep_that_is_missing_is_proposed_as_its_own(tmp_path: Path) -> None:
    file, store = tmp_path / "longer.yaml", Store(tmp_path / "runs")
    file.write_text(SWEEP)
    timed(planned(file), store)
    score(planned(file), store, most_steps=16)
    study = Study(file, runs=store.root)
    found = study.next(1e3)
    assert {"tokenizer.steps": 32, "seed": [0, 1]} in found.own
    words = ["next", str(file), "--gpu-hours", "1e3", "--runs-dir", str(store.root)]
    lines = CliRunner().invoke(app, words).output.splitlines()
    at = lines.index("in the sweep already; a launch runs them, with all else that it lists:")
    assert lines[at + 1] == "  - {tokenizer.steps: 32, seed: [0, 1]}"
    assert not any("steps: 32, seed: [0" in one for one in lines[at + 2 :])


def test_results_count_whoever_ran_them(study: Study) -> None:
    before = study.next(3.0)
    # Of another sweep, at a length between: the same stages.
    other = Path(study.sweep).with_name("other.yaml")
    text = SWEEP.partition("claims:")[0]
    other.write_text(text.replace("[8, 16, 32, 128]", "[64]").replace("[0, 1]", "[0]"))
    score(planned(other), study.store, most_steps=64)
    after = study.next(3.0)
    assert after.steps[0].before[0] < before.steps[0].before[0]
    seeds = [seed for step in after.steps for seed in step.runs.get("steps=64", ())]
    assert 0 not in seeds


def test_without_results_the_design_alone_speaks(tmp_path: Path) -> None:
    file, store = tmp_path / "longer.yaml", Store(tmp_path / "runs")
    file.write_text(SWEEP)
    timed(planned(file), store)
    words = ["next", str(file), "--gpu-hours", "4", "--runs-dir", str(store.root)]
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    (law,) = found["claims"]
    assert (law["name"], law["measured"], law["predicted"]) == ("law", False, None)
    first = found["steps"][0]
    assert len(first["runs"]) == 3
    assert first["before"] == [None]
    assert first["after"][0] > found["steps"][-1]["after"][0] > 0
    assert "longer: no results tell how much seeds differ" in found["notes"][0]
    shown = CliRunner().invoke(app, words).output
    assert "law: psnr at steps=128 none -> ±" in shown
    assert "in standard deviations of one run" in shown
    lines = shown.splitlines()
    table = lines[next(n for n, one in enumerate(lines) if one.startswith("run ")) :]
    # Sentences wrap by themselves, a table would not.
    assert max(map(len, table[: len(first["runs"]) + 2])) <= 80


def test_what_is_asked_besides_the_file_counts_too(study: Study) -> None:
    trend = "psnr rises with tokenizer.steps"
    found = study.next(20.0, claims=[trend])
    assert [prospect.goal.claim.name for prospect in found.prospects] == ["law", "longer", "asked"]
    with pytest.raises(ValueError, match="a claim of one of these forms"):
        study.next(1.0, claims=["it gets better"])


def test_seeds_until_decided_are_left_to_a_launch(study: Study) -> None:
    file = Path(study.sweep)
    text = SWEEP.replace("[0, 1]", "{start: 2, until: decided, at_most: 6}")
    file.write_text(text)
    found = study.next(3.0)
    assert [prospect.goal.claim.name for prospect in found.prospects] == ["law"]
    assert found.notes[0] == "longer: a launch adds the seeds that it needs by itself"
    assert all(set(seeds) <= {0, 1} for step in found.steps for seeds in step.runs.values())


@pytest.mark.slow
def test_what_was_proposed_and_run_is_not_proposed_again(tmp_path: Path) -> None:
    """Run a study, ask what next, do the first of it, and ask again; every stage really runs."""
    file, few = tmp_path / "longer.yaml", {"data.train_images": 32, "data.val_images": 16}
    few |= {"evaluation.num_images": 16, "tokenizer.semantic_weight": 0}
    file.write_text(SWEEP.replace("[8, 16, 32, 128]", "[2, 4, 8, 16]"))
    study = Study(file, runs=tmp_path / "runs", overrides=few)
    assert study.run().exit_code == 0
    first = study.next(1.0)
    assert first.prospects[0].goal.claim.name == "law"
    assert first.own == (), "all of the sweep's own trials have run"
    entry = first.include[0]
    file.write_text(file.read_text() + "include:\n" + entry_line(entry))
    assert study.run().exit_code == 0
    second = study.next(1.0)
    seeds = {seed for one in second.include if one["tokenizer.steps"] == entry["tokenizer.steps"]
             for seed in one["seed"]}  # fmt: skip
    assert entry["seed"]
    assert not seeds & set(entry["seed"])


def test_what_cannot_be_answered_is_refused(study: Study, tmp_path: Path) -> None:
    file = Path(study.sweep)
    with pytest.raises(ValueError, match="nobody knows what runs of longer take here: uncalibr"):
        Study(file, runs=tmp_path / "elsewhere").next(1.0)
    file.write_text(SWEEP.partition("claims:")[0])
    with pytest.raises(ValueError, match="longer claims nothing that runs could settle; write"):
        study.next(1.0)
    with pytest.raises(ValueError, match="learning_rate is a search, which chooses"):
        Study("learning_rate", "smoke", runs=tmp_path).next(1.0)
    file.write_text(SWEEP)
    assert study.next(1e-6).steps == ()
