"""Settings that a sweep might have as well: between its own, of the scale's names, beyond."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.names import setting_name
from orchestration.sweep.candidates import Entry, entry_line, entry_of, more_text, with_candidates
from orchestration.sweep.definition import Sweep, SweepError, load_sweep

TREND = "psnr rises with {}"
LAW = "psnr of the largest {} is predicted by the smaller ones"
STEPS = """question: q
scale: smoke
axes: {tokenizer.steps: [10, 20, 40, 80], tokenizer.semantic_weight: [0, 0.5]}
set: {tokenizer.encoder: S, tokenizer.decoder: S}
"""


def added(file: Path | str, claim: str, scale: str | None = None) -> list[Entry]:
    """List the candidates of a sweep for a claim."""
    claims = {"asked": claim}

    def read(entries: list[Entry]) -> Sweep:
        return load_sweep(file, scale, (), more_text(claims, entries))

    sweep = read([])
    own = {setting_name(trial.name) for trial in sweep.expansion.trials}
    wider = with_candidates(sweep, sweep.claims, read)
    return [entry_of(t) for t in wider.expansion.trials if setting_name(t.name) not in own]


def test_durations_are_tried_between_and_for_a_trend_beyond(tmp_path: Path) -> None:
    file = tmp_path / "longer.yaml"
    file.write_text(STEPS)
    where = " where tokenizer.semantic_weight == 0"
    law = added(file, LAW.format("tokenizer.steps") + where)
    assert [entry["tokenizer.steps"] for entry in law] == [14, 28, 57]
    assert all(entry["tokenizer.semantic_weight"] == 0 for entry in law)
    trend = added(file, TREND.format("tokenizer.steps"))
    # In both families, each of which the trend is about.
    steps = [entry["tokenizer.steps"] for entry in trend]
    assert sorted(steps) == sorted([14, 28, 57, 160] * 2)


def test_sizes_are_of_whole_heads_and_keep_what_goes_together(tmp_path: Path) -> None:
    sizes = added("tokenizer_scaling", TREND.format("params.tokenizer"), "micro")
    plain = [entry for entry in sizes if entry["tokenizer.semantic_weight"] == 0]
    between, both, beyond = plain
    # S has 2 heads of 32 and 2 layers, B 3 and 3.
    assert between["tokenizer.encoder"] == "S"
    assert between["tokenizer.decoder"] == {"width": 96, "layers": 2, "heads": 3}
    assert isinstance(both["tokenizer.encoder"], dict)
    assert beyond["tokenizer.decoder"]["width"] > 128


def test_names_of_the_scale_are_tried_where_one_size_varies() -> None:
    sizes = added("decoder_scaling", TREND.format("params.decoder"), "paper")
    decoders = [entry["tokenizer.decoder"] for entry in sizes]
    assert {name for name in decoders if isinstance(name, str)} == {"XL", "XXL"}


def test_candidates_that_the_sweep_would_not_have_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "longer.yaml"
    file.write_text(STEPS + "where: [tokenizer.steps != 28]\n")
    law = LAW.format("tokenizer.steps") + " where tokenizer.semantic_weight == 0"
    assert [entry["tokenizer.steps"] for entry in added(file, law)] == [14, 57]


def test_a_claim_of_words_that_mean_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"added to the file: claims\.asked"):
        added("decoder_scaling", "it helps")


def test_an_entry_is_written_as_in_a_file() -> None:
    entry = {"tokenizer.decoder": {"width": 96, "layers": 2, "heads": 3}, "tokenizer.lr": 1e-5}
    line = entry_line({**entry, "seed": [0]})
    assert line == (
        "- {tokenizer.decoder: {width: 96, layers: 2, heads: 3}, tokenizer.lr: 1.0e-05, seed: [0]}"
    )
