"""Claims of a sweep: which settings each sentence is about, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.claims.claim import Claim
from orchestration.sweep.definition import SweepError, load_sweep

HEAD = """question: Does it?
scale: smoke
axes:
  tokenizer.decoder: [S, B, L]
  tokenizer.semantic_weight: [0, 0.5]
set: {tokenizer.encoder: S}
seeds: [0, 1]
stages: [evaluate_reconstruction, linear_probe]
derive: {millions: params.decoder / 1e6}
"""


def read(folder: Path, *claims: str, head: str = HEAD) -> tuple[Claim, ...]:
    path = folder / "claimed.yaml"
    lines = [f"  c{index}: {claim}" for index, claim in enumerate(claims)]
    path.write_text(head + "\n".join(["claims:", *lines]) + "\n")
    return load_sweep(path).claims


def one(folder: Path, claim: str, head: str = HEAD) -> Claim:
    (found,) = read(folder, claim, head=head)
    return found


def families(claim: Claim) -> list[list[str]]:
    return [[arm.setting for arm in family] for family in claim.families]


def test_a_trend_has_a_family_for_each_other_setting(tmp_path: Path) -> None:
    found = one(tmp_path, "psnr rises with params.decoder")
    assert (found.kind, found.metric, found.rises, found.margin) == ("trend", "psnr", True, 0.0)
    # The head of regularisation belongs to the decoder's keys and not to its parameters.
    assert families(found) == [
        [f"S-{size} semantic_weight={weight}" for size in "SBL"] for weight in ("0", "0.5")
    ]
    xs = [arm.x for arm in found.families[0]]
    assert xs == sorted(xs, key=lambda x: x or 0)
    assert None not in xs


def test_a_trend_may_be_over_a_derived_name_and_fall(tmp_path: Path) -> None:
    found = one(tmp_path, "ar_val_loss falls with millions by at least 0.01")
    by_parameters = one(tmp_path, "ar_val_loss falls with params.decoder by at least 0.01")
    assert (found.rises, found.margin) == (False, 0.01)
    assert families(found) == families(by_parameters)


def test_where_chooses_settings(tmp_path: Path) -> None:
    found = one(tmp_path, "psnr rises over tokenizer.decoder where tokenizer.semantic_weight == 0")
    assert families(found) == [[f"S-{size} semantic_weight=0" for size in "SBL"]]


def test_a_difference_pairs_settings_that_differ_in_nothing_else(tmp_path: Path) -> None:
    text = "ar_val_loss at tokenizer.semantic_weight=0.50 is lower than at 0 by at least 0.1"
    found = one(tmp_path, text)
    assert (found.kind, found.rises, found.margin) == ("difference", False, 0.1)
    assert families(found) == [
        [f"S-{size} semantic_weight=0", f"S-{size} semantic_weight=0.5"] for size in "SBL"
    ]


def test_an_equivalence_compares_with_the_second_value(tmp_path: Path) -> None:
    found = one(tmp_path, "probe_accuracy at tokenizer.decoder=L is within 0.01 of B")
    assert (found.kind, found.margin) == ("equivalence", 0.01)
    assert families(found)[0] == ["S-B semantic_weight=0", "S-L semantic_weight=0"]


def test_one_of_several_kinds_is_named(tmp_path: Path) -> None:
    head = HEAD.replace(
        "tokenizer.semantic_weight: [0, 0.5]",
        "tokenizer.optimizer: [{name: adamw}, {name: muon, momentum: 0.9}]",
    )
    found = one(tmp_path, "psnr at tokenizer.optimizer=muon is higher than at adamw", head)
    assert [family[0] for family in families(found)] == [
        f"S-{decoder} optimizer=adamw" for decoder in "SBL"
    ]
    assert [family[1] for family in families(found)] == [
        f"S-{decoder} optimizer=muon-momentum=0.9" for decoder in "SBL"
    ]


def test_keys_of_a_zip_group_change_together(tmp_path: Path) -> None:
    head = HEAD.replace(
        "axes:\n  tokenizer.decoder: [S, B, L]\n  tokenizer.semantic_weight: [0, 0.5]",
        "zip:\n  - tokenizer.decoder: [S, L]\n    tokenizer.codebook_size: [16, 32]",
    )
    found = one(tmp_path, "psnr at tokenizer.decoder=L is higher than at S", head)
    assert families(found) == [["S-S codebook_size=16", "S-L codebook_size=32"]]


def test_a_prediction_needs_four_sizes_and_has_an_error(tmp_path: Path) -> None:
    sizes = "{width: 40, layers: 2, heads: 2}"
    head = HEAD.replace("[S, B, L]", f"[S, B, L, {sizes}]")
    text = "ar_val_loss of the largest params.decoder is predicted by the smaller ones"
    assert one(tmp_path, text, head).margin == 0.05
    assert one(tmp_path, f"{text} within 3 %", head).margin == 0.03
    with pytest.raises(SweepError, match="a prediction needs 4 settings"):
        one(tmp_path, text)


def test_the_seed_is_in_no_setting(tmp_path: Path) -> None:
    alone = "question: Does it?\nscale: smoke\nseeds: [0, 1]\nset: {tokenizer.encoder: S}\n"
    head = alone + "axes: {tokenizer.decoder: [S, B]}\nstages: [evaluate_reconstruction]\n"
    found = one(tmp_path, "psnr at tokenizer.decoder=B is higher than at S", head)
    assert families(found) == [["S-S", "S-B"]]


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("psn rises with params.decoder", "no result is called 'psn'; did you mean 'psnr'"),
        ("psnr goes up", "must be a claim of one of these forms"),
        ("psnr at tokenizer.decoder=M is higher than at S", "no setting has tokenizer.decoder"),
        ("psnr at tokenizer.encoder=S is higher than at B", "tokenizer.encoder does not vary"),
        ("psnr rises with params.decodr", "did you mean 'params.decoder'"),
        ("psnr at tokenizer.decoder=B is within x of S", "must be a number above 0"),
        ("psnr at tokenizer.decoder=B is within 0 of S", "must be a number above 0"),
        ("gfid rises over tokenizer.decoder", "no stage of this sweep reports gfid"),
        ("psnr rises over tokenizer.decoder where tokenizer.steps > 1e9", "no setting meets"),
        ("psnr rises with tokenizer.semantic_weight", "is not above 0 everywhere"),
        ("psnr rises with tokenizer.codebook_size", "a trend needs 3 settings"),
    ],
)
def test_wrong_claims_are_reported_with_their_line(
    tmp_path: Path, claim: str, message: str
) -> None:
    with pytest.raises(SweepError, match=r"claimed\.yaml:11: claims\.c0: ") as found:
        read(tmp_path, claim)
    assert message in str(found.value)


def test_claims_are_a_mapping_of_sentences(tmp_path: Path) -> None:
    path = tmp_path / "listed.yaml"
    path.write_text(HEAD + "claims: [psnr rises with params.decoder]\n")
    with pytest.raises(SweepError, match="must be a mapping; write `decoder_helps: "):
        load_sweep(path)
