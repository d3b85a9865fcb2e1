"""When claims were made: the first launch with them, and what was known by then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestration.launching.claimed import claims_found, read_claimed, record_claims
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import SweepError, expand, load_sweep

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


def test_a_claim_has_the_moment_of_its_first_launch(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = planned(tmp_path, helps=HELPS)
    (first,) = record_claims(plan, store, ())
    # A relaunch, when everything is there.
    (again,) = record_claims(plan, store, plan.stages)
    assert again == first
    assert first.results == 0


def test_more_seeds_and_another_name_are_the_same_claim(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    (first,) = record_claims(planned(tmp_path, helps=HELPS), store, ())
    more = planned(tmp_path, "[0, 1, 2]", decoder_helps=HELPS)
    (again,) = record_claims(more, store, more.stages)
    assert (again.identity, again.at, again.results) == (first.identity, first.at, 0)
    assert again.claim.name == "decoder_helps"


def test_a_claim_made_afterwards_says_what_was_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    record_claims(planned(tmp_path, helps=HELPS), store, ())
    plan = planned(tmp_path, helps=HELPS, same=SAME)
    scored = [key for key, one in plan.stages.items() if one.stage == "evaluate_reconstruction"]
    early, late = record_claims(plan, store, scored[:3])
    assert (early.results, late.results) == (0, 3)


def test_claims_go_to_mlflow_as_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = planned(tmp_path, helps=HELPS)
    claimed = record_claims(plan, store, ())
    (content,) = claims_found(claimed).files.values()
    (sent,) = json.loads(content)
    assert sent["claim"]["families"][0][1] == {"setting": "S-B", "x": None}
    assert not claims_found(()).files


def test_a_line_that_was_cut_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = planned(tmp_path, helps=HELPS)
    record_claims(plan, store, ())
    file = store.sweeps / "study" / "claims.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    (claimed,) = record_claims(plan, store, ())
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
