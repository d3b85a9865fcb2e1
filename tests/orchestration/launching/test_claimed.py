"""When claims were made: the first launch with them, and what was known by then."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from gigatok.claims.claim import Claimed
from orchestration.execution.progress import survey
from orchestration.launching.claimed import (
    claims_found,
    has_news,
    read_claimed,
    record_claims,
)
from orchestration.launching.outlook import verdict_lines
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import StageFolder, Store
from orchestration.sweep.definition import SweepError, expand, load_sweep
from tests.orchestration.execution.test_gates import plan_of
from tests.orchestration.launching.test_runner import Recorded, complete, quick

__all__ = ["quick"]

HEAD = """question: Does it?
scale: smoke
axes: {tokenizer.decoder: [S, B]}
set: {tokenizer.encoder: S}
seeds: [0, 1]
stages: [evaluate_reconstruction]
"""
HELPS = "psnr at tokenizer.decoder=B is higher than at S"
SAME = "lpips at tokenizer.decoder=B is within 0.1 of S"


def planned(folder: Path, seeds: str = "[0, 1]", **claims: str) -> Plan:
    file = folder / "study.yaml"
    lines = [f"  {name}: {text}" for name, text in claims.items()]
    text = HEAD.replace("[0, 1]", seeds) + "\n".join(["claims:", *lines])
    file.write_text(text.replace("lpips", "ssim"))
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def recorded(plan: Plan, store: Store, complete: Iterable[str] = ()) -> tuple[Claimed, ...]:
    """Launch a plan of which some stages are complete."""
    return record_claims(replace(survey(plan, store), reused=frozenset(complete)))


def test_a_claim_has_the_moment_of_its_first_launch(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = planned(tmp_path, helps=HELPS)
    (first,) = recorded(plan, store)
    # A relaunch, when everything is there.
    (again,) = recorded(plan, store, plan.stages)
    assert again == first
    assert first.results == 0


def test_more_seeds_and_another_name_are_the_same_claim(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    (first,) = recorded(planned(tmp_path, helps=HELPS), store)
    more = planned(tmp_path, "[0, 1, 2]", decoder_helps=HELPS)
    (again,) = recorded(more, store, more.stages)
    assert (again.identity, again.at, again.results) == (first.identity, first.at, 0)
    assert again.claim.name == "decoder_helps"


def test_a_claim_made_afterwards_says_what_was_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    recorded(planned(tmp_path, helps=HELPS), store)
    plan = planned(tmp_path, helps=HELPS, same=SAME)
    scored = [key for key, one in plan.stages.items() if one.stage == "evaluate_reconstruction"]
    early, late = recorded(plan, store, scored[:3])
    assert (early.results, late.results) == (0, 3)


def test_claims_go_to_mlflow_as_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = planned(tmp_path, helps=HELPS)
    claimed = recorded(plan, store)
    (content,) = claims_found(claimed).files.values()
    (sent,) = json.loads(content)
    assert sent["claim"]["families"][0][1] == {"setting": "S-B", "x": None}
    assert not claims_found(()).files


def test_a_line_that_was_cut_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = planned(tmp_path, helps=HELPS)
    recorded(plan, store)
    file = store.sweeps / "study" / "claims.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    (claimed,) = recorded(plan, store)
    assert read_claimed(plan, store) == (claimed,)
    assert len(file.read_text().splitlines()) == 1


def test_a_search_has_no_claims(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "question: Which?\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
        "search: {space: {tokenizer.lr: [1e-3, 2e-3]}, objectives: [rfid], budget: {trials: 2}}\n"
        "claims: {helps: psnr at tokenizer.lr=1e-3 is higher than at 2e-3}\n"
    )
    with pytest.raises(SweepError, match="a search has no claims"):
        load_sweep(file)


# Predictions


TOKENS = 8
LAW = """axes: {tokenizer.codebook_size: [64, 128, 256, 512]}
set: {tokenizer.encoder: S, tokenizer.decoder: S}
stages: [evaluate_reconstruction]
derive: {bits: bits_per_image}
claims: {law: psnr of the largest bits is predicted by the smaller ones within 5 %}
"""


def psnr_of(bits: float) -> float:
    """A power law."""
    return 10 * bits**0.25


def launched(store: Store, plan: Plan, profile: Profile) -> list[tuple[int, bool]]:
    """Run a plan; returns of each training its codes, and whether there was a prediction."""
    began: list[tuple[int, bool]] = []

    codes_of = {
        key: trial.trial.config.tokenizer.codebook_size
        for trial in plan.trials
        for key in trial.stages.values()
    }

    def train(folder: StageFolder) -> int:
        codes = codes_of[folder.spec().key]
        began.append((codes, read_claimed(plan, store)[0].prediction is not None))
        return complete(folder)

    def score(folder: StageFolder) -> int:
        return complete(folder, psnr=psnr_of(TOKENS * math.log2(codes_of[folder.spec().key])))

    progress = survey(plan, store)
    record_claims(progress)
    backend = Recorded({"train_tokenizer": train, "evaluate_reconstruction": score})

    def observe(keys: Iterable[str]) -> None:
        if has_news(progress, keys):
            record_claims(progress)

    Runner(progress, store, backend, profile).run(observe)
    assert progress.count("COMPLETE") == len(plan.stages)
    return began


def test_the_largest_starts_when_it_is_predicted(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), plan_of(tmp_path, LAW)
    began = launched(store, plan, Profile())
    assert sorted(began) == [(64, False), (128, False), (256, False), (512, True)]
    (claimed,) = read_claimed(plan, store)
    assert claimed.prediction is not None
    assert claimed.prediction.value == pytest.approx(psnr_of(TOKENS * 9))
    assert not claimed.prediction.begun
    assert claimed.results == 0
    assert "predicted" in (said := verdict_lines(survey(plan, store))[0])
    assert "before it began" in said
    # Whoever launches it again predicts nothing anew.
    (again,) = record_claims(survey(plan, store))
    assert again == claimed


def test_a_largest_model_that_passed_the_gates_is_predicted_afterwards(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), plan_of(tmp_path, LAW)
    began = launched(store, plan, Profile(predict_first=False))
    assert (512, False) in began
    (claimed,) = read_claimed(plan, store)
    assert claimed.prediction is not None
    assert claimed.prediction.begun
    assert "after it had begun" in verdict_lines(survey(plan, store))[0]
