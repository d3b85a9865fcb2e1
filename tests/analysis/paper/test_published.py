from __future__ import annotations

from collections import Counter
from importlib.resources import files

import pytest

from analysis import RequestError
from analysis.paper.published import (
    Fact,
    absent,
    facts,
    leaderboard,
    notes,
    one,
    read_rows,
    select,
    sources,
)

SAMPLE = [
    ("gigatok/table-1/25", "B", "params_transformer", 86),
    ("gigatok/table-8/07", "", "blocks", 36),
    ("gigatok/table-9/03", "S-S", "batch_size", 128),
    ("gigatok/figure-3/05", "S-B", "ar_val_loss", 8.3563),
    ("gigatok/figure-7/17", "S-B", "ar_val_loss", 8.107),
    ("gigatok/figure-9/16", "S-S", "probe_accuracy", 61.85),
    ("gigatok/figure-5/26", "XL-XXL", "codebook_usage", 0.904),
    ("gigatok/figure-6/02", "S-S,S-L,B-L", "r2_probe_accuracy", 0.8),
    ("gigatok/table-2/16", "B-L", "probe_accuracy", 66.9),
    ("gigatok/table-4/06", "", "decode_share", 3.4),
    ("gigatok/table-5/10", "S-S", "lpips", 0.223),
    ("gigatok/table-6/04", "S-B", "probe_accuracy", 61.4),
    ("gigatok/table-7/05", "S-S", "rfid", 1.22),
    ("gigatok/table-10/19", "S-B", "psnr", 20.93),
    ("gigatok/readme/01", "B-L", "gfid", 2.13),
    ("gigatok/table-3/07", "SD-VAE", "probe_accuracy", 74.6),
    ("gigatok/sections-3.1-4.2-b/05", "", "cfg_search_step", 0.25),
    ("atoken/reconstruction-table/09", "GigaTok-XL-XXL", "psnr", 22.42),
    ("visual-languages/table-3/18", "UniTok single-codebook", "vqav2", 57.21),
    ("vitok/table-3/03", "ViTok S-B/16", "psnr", 24.36),
    ("vitok/table-6/02", "ViTok S-B/16", "gfid", 3.41),
    ("vitok/table-1/01", "ViTok part S", "gflops", 11.6),
    ("vtp/table-3/06", "RAE-Large", "gfid", 6.09),
    ("crt/ablation/02", "VQGAN baseline", "gfid", 4.9),
    ("crt/scaling-fit/02", "CRT", "compute_exponent", -0.73),
    ("titok/readme/08", "TiTok-BL-128 VQ8k", "rfid", 1.49),
    ("llamagen/readme/05", "vq_ds16_c2i", "gfid", 2.62),
    ("llamagen/issue-8/02", "", "train_time", 2),
    ("gigatok/table-10/23", "S-B", "inception_score", 233.31),
    ("gigatok/table-10/44", "B-L (DINO disc)", "gfid", 3.33),
    ("gigatok/table-10/12", "S-S", "gfid", 4.05),
    ("gigatok/table-3/28", "VQGAN [Taming]", "gfid", 15.78),
    ("gigatok/table-3/35", "IBQ", "rfid", 1.37),
    ("gigatok/figure-9/17", "S-B", "probe_accuracy", 62.4),
    ("gigatok/table-3/13", "VQGAN [MaskGIT]", "rfid", 2.28),
    ("gigatok/table-10/55", "XL-XXL", "inception_score", 224.28),
    ("gigatok/table-10/46", "B-L (DINO disc)", "inception_score", 265.43),
    ("gigatok/table-3/04", "SD-VAE", "gfid", 2.27),
    ("gigatok/table-2/13", "B-L", "rfid", 0.81),
    ("gigatok/figure-7/08", "S-B", "lpips", 0.2097),
]
"""Id, tokenizer, metric and value as they were published."""


@pytest.mark.parametrize(("key", "tokenizer", "metric", "value"), SAMPLE)
def test_values_are_as_published(key: str, tokenizer: str, metric: str, value: float) -> None:
    (fact,) = [fact for fact in facts() if fact.id == key]
    assert (fact.tokenizer, fact.metric, fact.value) == (tokenizer, metric, value)


def test_every_table_and_figure_with_numbers_is_there() -> None:
    places = Counter(fact.place for fact in facts() if fact.work == "gigatok")
    assert {f"Table {n}" for n in range(1, 11)} <= places.keys()
    assert {f"Figure {n}" for n in (3, 5, 6, 7, 9)} <= places.keys()
    assert (places["Figure 7"], places["Table 10"], places["Table 3"]) == (30, 62, 42)


def test_what_was_not_found_is_listed_and_has_no_value() -> None:
    gone = {row.place for row in absent()}
    assert {"Figure 1", "Figure 12", "Figure 13"} <= gone
    assert gone & {fact.place for fact in facts() if fact.work == "gigatok"} == {
        "Figure 6",
        "Table 2",
    }, "partly absent"
    sizes = {fact.params_m for fact in select("Table 2", tokenizer="B-S")}
    assert sizes == {None}, "a missing size is null"


def test_digitised_values_carry_their_error_and_file() -> None:
    digitised = [fact for fact in facts() if fact.reading == "digitised"]
    assert {fact.place for fact in digitised} == {"Figure 3", "Figure 5", "Figure 7", "Figure 9"}
    assert {fact.error for fact in digitised} == {0.002, 0.0001, 0.05, 0.02}
    assert all(fact.detail.endswith(".png") for fact in digitised)


def test_every_number_has_a_source() -> None:
    assert {fact.source for fact in facts()} <= sources().keys()
    assert one("Table 2", "gfid", tokenizer="B-L").citation.endswith(
        "arXiv 2504.08736v2 (2025): Table 2"
    )


def test_three_rows_of_one_tokenizer_stay_apart() -> None:
    """Confound 2: S-B differs between Table 2, Figure 7 and Table 6."""
    found = [
        one("Table 2", "rfid", tokenizer="S-B"),
        one("Figure 7", "rfid", tokenizer="S-B", semantic=True),
        one("Table 6", "rfid", setting="teacher=DINOv2-B"),
    ]
    assert [fact.value for fact in found] == [0.94, 0.8932, 0.85]
    assert "three rows" in notes()[2].short


def test_the_leaderboards_value_is_not_among_the_papers() -> None:
    (listed,) = [row for row in leaderboard() if row.metric == "inception_score"]
    assert listed.value == 261.2
    assert 261.2 not in {fact.value for fact in facts()}


def test_an_ambiguous_question_is_refused() -> None:
    with pytest.raises(RequestError, match="4 published values of gfid in Table 2"):
        one("Table 2", "gfid")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",26,M,", ",twenty,M,", "valid number"),
        (",printed,", ",guessed,", "'printed', 'digitised' or 'secondary'"),
        (",printed,,", ",digitised,,", "belongs to digitised values"),
        (",1d,", ",3d,", "'1d', '2d'"),
        (",26,M,", ",nan,M,", "finite"),
    ],
)
def test_a_row_that_breaks_the_schema_is_refused(old: str, new: str, said: str) -> None:
    text = (files("analysis.paper") / "data" / "facts.csv").read_text(encoding="utf-8")
    head, first, *_ = text.splitlines()
    assert old in first
    with pytest.raises(ValueError, match=r"facts.csv, line 2(.|\n)*" + said):
        read_rows(Fact, "facts.csv", [head, first.replace(old, new)])
