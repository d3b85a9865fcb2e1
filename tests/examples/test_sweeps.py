"""Sweeps of the examples over axes that the paper does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import explore, load, result_table
from analysis.claims.confounds import find_confounds
from gigatok.names import SIZES
from orchestration import Study
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.trial_facts import fact_params

SWEEPS = Path(__file__).resolve().parents[2] / "examples" / "sweeps"
CROSSED = str(SWEEPS / "codes_and_tokens.yaml")


def test_claims_find_their_settings() -> None:
    crossed = {claim.name: claim for claim in load_sweep(CROSSED).claims}
    # Bits are set by codes and tokens, regularisation makes two families of four sizes.
    assert [len(f) for f in crossed["bits_help"].families] == [4, 4]
    assert [[arm.x for arm in f] for f in crossed["bits_help"].families] == [[16, 24, 32, 48]] * 2
    assert [len(f) for f in crossed["codes_help"].families] == [2] * 4
    single = load_sweep(str(SWEEPS / "codebook_size.yaml"))
    assert {claim.kind for claim in single.claims} == {"trend", "order", "prediction"}


def test_claims_of_the_study_are_about_what_they_say() -> None:
    claims = {claim.name: claim for claim in load_sweep(str(SWEEPS / "laptop_study.yaml")).claims}
    (sizes,) = claims["decoder_reconstructs"].families
    assert len(sizes) == 5
    assert sizes[-1].x is not None
    assert sizes[0].x is not None
    assert sizes[-1].x > 10 * sizes[0].x
    ((encoder_large, decoder_large),) = claims["decoder_first"].families
    assert encoder_large.setting.startswith("L-S ")
    assert decoder_large.setting.startswith("S-L ")
    assert [len(f) for f in claims["cure_simplifies"].families] == [2] * 4
    for name in ("entropy_loss_uses_codes", "queries_reconstruct", "queries_generate"):
        assert [len(f) for f in claims[name].families] == [2], name


def test_a_trial_is_logged_with_what_follows_from_it() -> None:
    sweep = load_sweep(CROSSED)
    first = make_plan(sweep, expand(sweep)).trials[0]
    facts = {name: json.loads(text) for name, text in fact_params(first).items()}
    assert facts["derived.bits"] == facts["computed.bits_per_image"] == 16
    assert facts["computed.tokens"] == 4
    assert facts["computed.flops.total"] > facts["computed.flops.train"] > 0
    logged = {c for size in SIZES.values() for c in size.reads if c.startswith("computed.")}
    assert logged <= facts.keys(), "every size can be read from a trial"


@pytest.mark.slow
def test_any_axis_is_compared_crossed_and_followed(tmp_path: Path) -> None:
    """Tokenizers of two steps, and nothing behind their reconstruction."""
    few = {"tokenizer.steps": 2, "data.train_images": 32, "data.val_images": 16}
    few |= {"evaluation.num_images": 16, "tokenizer.semantic_weight": 0}
    study = Study(_reconstructing(tmp_path), runs=tmp_path / "runs", overrides=few)
    assert study.run().exit_code == 0
    runs = load("codes_and_tokens", f"sqlite:///{tmp_path}/runs/mlflow.db")
    table = result_table(runs)
    assert table.head[:5] == ("tokenizer", "codebook_size", "num_latent_tokens", "bits", "seeds")
    assert [row[3] for row in table.rows] == ["16", "32", "24", "48"]
    found = explore(runs)
    assert {c.metric for c in found.comparisons} >= {"psnr", "rkid"}
    assert {(i.first, i.second) for i in found.interactions} == {
        ("codebook_size 16 → 64", "num_latent_tokens 4 → 8")
    }
    assert {t.over for t in found.trends} == {"derived.bits"}
    assert all(t.settings == 4 for t in found.trends)
    assert not any("bits" in sentence for sentence in find_confounds(runs))


def _reconstructing(folder: Path) -> Path:
    file = folder / "codes_and_tokens.yaml"
    text = Path(CROSSED).read_text().replace("  simpler_codes:", "  # simpler_codes:")
    file.write_text(text + "stages: [evaluate_reconstruction]\n")
    return file
