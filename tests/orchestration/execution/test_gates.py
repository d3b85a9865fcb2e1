"""Gates between model sizes: who waits for whom, what opens them, and where it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestration.backends import profile_options
from orchestration.execution.display import held_lines
from orchestration.execution.gates import Gatekeeper, Gates, ladder, stage_spec, worse
from orchestration.execution.progress import Progress, survey
from orchestration.execution.scheduler import Scheduler, cheapest_first
from orchestration.launching.history import newest_launch
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.launching.report import outcome
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done
from orchestration.runs.state import StageFolder, Store
from orchestration.study.status import look, status_json
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.launching.test_runner import Recorded, ignore, quick

__all__ = ["quick"]


def plan_of(tmp_path: Path, text: str) -> Plan:
    file = tmp_path / "sweep.yaml"
    file.write_text("question: which?\nscale: smoke\n" + text)
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def names(plan: Plan, gates: Gates) -> dict[str, set[str]]:
    """Who waits for whom, in words."""

    def name(key: str) -> str:
        stage = plan.stages[key]
        return f"{stage.stage} {stage.readable}"

    found = ladder(plan, gates).guards
    return {name(key): set(map(name, guards)) for key, guards in found.items()}


def scoring(**metrics: dict[str, float]) -> Any:
    """Work that completes a stage with the metrics given for its model, by readable name."""

    def work(folder: StageFolder) -> int:
        holder = acquire(folder)
        assert holder is not None
        mine = metrics.get(folder.spec().readable.replace("-", "_"), {})
        done = Done(metrics=mine, protocol={}, artifacts={}, finished=1, seconds=1, attempt=1)
        holder.complete(done)
        return 0

    return work


def run(store: Store, plan: Plan, profile: Profile, work: dict[str, Any]) -> tuple[Progress, Any]:
    backend = Recorded(work)
    return Runner(survey(plan, store), store, backend, profile).run(ignore), backend


DECODERS = "axes: {tokenizer.encoder: [S], tokenizer.decoder: [S, B, L]}\n"


def test_each_size_waits_for_the_next_smaller_one(tmp_path: Path) -> None:
    found = names(plan_of(tmp_path, DECODERS), Gates(better={"lpips": 0.1}))
    assert found == {
        f"train_tokenizer S-{large}": {
            f"train_tokenizer S-{small}",
            f"evaluate_reconstruction S-{small}",
        }
        for small, large in (("S", "B"), ("B", "L"))
    }


def test_a_sibling_is_smaller_in_no_part_larger(tmp_path: Path) -> None:
    text = "axes: {tokenizer.encoder: [S, B], tokenizer.decoder: [S, L]}\n"
    found = names(plan_of(tmp_path, text), Gates())
    assert found["train_tokenizer S-L"] == {"train_tokenizer S-S"}
    assert found["train_tokenizer B-S"] == {"train_tokenizer S-S"}
    assert "train_tokenizer S-S" not in found
    assert found["train_tokenizer B-L"] <= {"train_tokenizer S-L", "train_tokenizer B-S"}


def test_other_settings_and_seeds_are_no_siblings(tmp_path: Path) -> None:
    text = DECODERS.replace("}", ", tokenizer.lr: [1e-3, 2e-3]}") + "seeds: [0, 1]\n"
    plan = plan_of(tmp_path, text)
    found = ladder(plan, Gates())
    configs = {key: stage.config for key, stage in plan.stages.items()}
    assert len(found.guards) == 8
    for key, guards in found.guards.items():
        for guard in guards:
            assert configs[key].seed == configs[guard].seed
            assert configs[key].tokenizer.lr == configs[guard].tokenizer.lr


def test_generators_wait_on_one_tokenizer_only_and_zipped_keys_belong_to_the_size(
    tmp_path: Path,
) -> None:
    text = (
        "axes: {tokenizer.encoder: [S], tokenizer.decoder: [S, B]}\n"
        "zip: [{generator.size: [S, B], generator.lr: [2e-3, 1e-3]}]\n"
    )
    plan = plan_of(tmp_path, text)
    found = ladder(plan, Gates(better={"ar_val_loss": 0.1})).guards
    generators = {k: g for k, g in found.items() if plan.stages[k].stage == "train_generator"}
    assert len(generators) == 2
    for key, guards in generators.items():
        inputs = plan.stages[key].inputs
        assert all(plan.stages[guard].inputs == inputs for guard in guards)


def test_a_gate_whose_stage_is_not_asked_for_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, DECODERS + "stages: [train_tokenizer]\n")
    with pytest.raises(ValueError, match=r"has no stage evaluate_reconstruction, which measures"):
        ladder(plan, Gates(better={"lpips": 0.1}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gates: {better: {lpip: 0.1}}", r"no gate for 'lpip'; metrics: psnr"),
        ("gates: {throughput: 2}", r"less than or equal to 1"),
        ("gates: {finite: true}", r"gates.finite: no such key; keys: better, throughput"),
    ],
)
def test_wrong_gates_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_profile(file, profile_options())
    with pytest.raises(ValidationError):
        Gates(better={"lpips": -1.0})


def test_worse_says_by_how_much() -> None:
    assert worse("lpips", 0.05, "S-B", 0.52, "S-S", 0.50) is None
    assert worse("psnr", 0.05, "S-B", 25.0, "S-S", 20.0) is None
    text = worse("lpips", 0.05, "S-B", 0.60, "S-S", 0.50)
    assert text == "lpips of S-B is 0.6, 20.0% worse than 0.5 of the smaller S-S; 5.0% is allowed"
    assert "10.0% worse" in str(worse("psnr", 0.05, "S-B", 18.0, "S-S", 20.0))
    assert worse("lpips", 0.05, "S-B", None, "S-S", 0.5) == "lpips of S-B is missing"
    assert worse("lpips", 0.05, "S-B", float("nan"), "S-S", 0.5) == "lpips of S-B is nan"


def test_open_gates_let_everything_run_small_before_large(tmp_path: Path) -> None:
    plan, store = plan_of(tmp_path, DECODERS), Store(tmp_path / "runs")
    work = scoring(S_S={"lpips": 0.5}, S_B={"lpips": 0.51}, S_L={"lpips": 0.4})
    profile = Profile(gates=Gates(better={"lpips": 0.05}))
    progress, _ = run(store, plan, profile, {"evaluate_reconstruction": work})
    assert progress.count("COMPLETE") == len(plan.stages)
    assert outcome(progress) == "done"


def test_a_gate_that_fails_holds_what_is_above_and_is_shown(tmp_path: Path) -> None:
    plan, store = plan_of(tmp_path, DECODERS), Store(tmp_path / "runs")
    record_launch(plan, store, LaunchRequest(sweep="sweep"))
    work = {
        "evaluate_reconstruction": scoring(
            S_S={"lpips": 0.5}, S_B={"lpips": 0.6}, S_L={"lpips": 0.4}
        )
    }
    profile = Profile(gates=Gates(better={"lpips": 0.05}))
    progress, _ = run(store, plan, profile, work)
    large = {key for key, stage in plan.stages.items() if stage.readable == "S-L"}
    why = "held: lpips of S-B is 0.6, 20.0% worse than 0.5 of the smaller S-S; 5.0% is allowed"
    assert progress.held_stages == dict.fromkeys(large, why)
    assert progress.finished
    assert progress.count("FAILED") == 0
    assert progress.count("COMPLETE") == len(plan.stages) - len(large)
    assert outcome(progress) == "held"
    assert held_lines(progress) == [f"{why} ({len(large)} stages)"]
    found = look(store, newest_launch(store, "sweep"))
    assert found.finished
    shown = status_json(found)["stages"]
    assert {k for k, s in shown.items() if s["held"] and s["why"] == why} == large
    again, second = run(store, plan, profile, work)
    assert second.submitted == []
    assert again.held_stages == progress.held_stages
    free, third = run(store, plan, Profile(), work)
    assert len(third.submitted) == len(large)
    assert free.count("COMPLETE") == len(plan.stages)
    assert not any(s.held for s in look(store, newest_launch(store, "sweep")).stages.values())


def test_a_larger_model_that_was_complete_before_is_judged_when_the_smaller_one_is(
    tmp_path: Path,
) -> None:
    """Such as one of another sweep."""
    plan, store = plan_of(tmp_path, DECODERS), Store(tmp_path / "runs")
    alone = plan_of(tmp_path, DECODERS.replace("[S, B, L]", "[B]"))
    lpips = scoring(S_S={"lpips": 0.5}, S_B={"lpips": 0.6}, S_L={"lpips": 0.4})
    work = {"evaluate_reconstruction": lpips}
    before, _ = run(store, alone, Profile(), work)
    assert before.count("COMPLETE") == len(alone.stages)
    progress, _ = run(store, plan, Profile(gates=Gates(better={"lpips": 0.05})), work)
    assert {plan.stages[key].readable for key in progress.held_stages} == {"S-L"}
    assert "20.0% worse than 0.5 of the smaller S-S" in set(progress.held_stages.values()).pop()
    assert progress.finished


def test_a_smaller_sibling_that_fails_holds_the_larger_ones(tmp_path: Path) -> None:
    plan, store = plan_of(tmp_path, DECODERS), Store(tmp_path / "runs")
    plain = scoring()

    def diverge(folder: StageFolder) -> int:
        if folder.spec().readable != "S-S":
            return int(plain(folder))
        holder = acquire(folder)
        assert holder is not None
        holder.release()
        return -9

    progress, _ = run(store, plan, Profile(gates=Gates()), {"train_tokenizer": diverge})
    reasons = set(progress.held_stages.values())
    assert len(reasons) == 1
    assert "held: train_tokenizer of the smaller S-S failed: " in reasons.pop()
    assert {plan.stages[key].readable for key in progress.held_stages} == {"S-B", "S-L"}
    assert outcome(progress) == "failed"


@pytest.mark.parametrize(("waited", "held"), [(0.0, {"S-B", "S-L"}), (0.6, set())])
def test_throughput_far_from_the_prediction_holds(
    tmp_path: Path, waited: float, held: set[str]
) -> None:
    """But for what others had of the processor meanwhile."""
    plan, store = plan_of(tmp_path, DECODERS), Store(tmp_path / "runs")
    progress = survey(plan, store)
    smallest = next(k for k, s in plan.stages.items() if s.stage == "train_tokenizer")
    folder = store.create(stage_spec(plan.stages[smallest], progress))
    progress.folders[smallest] = folder
    scoring()(folder)  # took 1 s
    folder.write_attempt(
        Attempt(number=1, host="", pid=1, started=0.0, ended=1.0, waited_seconds=waited)
    )
    progress.set(smallest, "COMPLETE")
    keeper = Gatekeeper(progress, store, Gates(throughput=0.5), {smallest: 0.25})
    seconds = dict.fromkeys(plan.stages, 1.0)
    ranks = cheapest_first(progress.graph, [plan.stages], seconds)
    scheduler = Scheduler(progress.graph, ranks, gates=keeper.guards())
    shut = keeper.judge(smallest, scheduler)
    assert {plan.stages[key].readable for key in shut} == held
    assert len(progress.held_stages) >= len(held)
    for why in progress.held_stages.values():
        assert why.endswith("25% of the throughput, 50% is asked for")


def test_predictions_of_each_other_do_not_wait_for_ever(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """axes: {tokenizer.codebook_size: [64, 128, 256, 512]}
set: {tokenizer.encoder: S, tokenizer.decoder: S}
stages: [evaluate_reconstruction]
derive: {bits: bits_per_image, spare: 1 / bits_per_image}
claims:
  up: psnr of the largest bits is predicted by the smaller ones
  down: psnr of the largest spare is predicted by the smaller ones
""",
    )
    guards = ladder(plan, None, predict_first=True).guards
    (key,) = guards
    codes = plan.stages[key].config.tokenizer.codebook_size
    assert codes == 512, "the first claim is served"
    assert len(guards[key]) == 3
    assert ladder(plan, None).guards == {}
