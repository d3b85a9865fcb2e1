"""Settings that no trial reads are refused, with what makes them so and what applies instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.sweep.definition import SweepError, load_sweep

HEAD = """question: Is it read?
scale: micro
set: {tokenizer.encoder: S, tokenizer.decoder: S}
"""


def read(folder: Path, scale: str | None = None, *overrides: str, more: str = "") -> int:
    file = folder / "asked.yaml"
    file.write_text(HEAD + more)
    return len(load_sweep(file, scale, overrides).expansion.trials)


def test_a_setting_of_another_method_is_refused(tmp_path: Path) -> None:
    wrong = (
        r"--set probe.epochs=3: probe.epochs: no trial reads it where probe.method is lbfgs: of "
        r"probe only method, layer, reference_dropout_quirk apply then; leave it out, or choose "
        r"another probe.method"
    )
    with pytest.raises(SweepError, match=wrong):
        read(tmp_path, None, "probe.epochs=3")
    assert read(tmp_path, None, "probe.method=lars", "probe.epochs=3") == 1
    # Of the scale, whoever wrote it: it is for those that choose the other method.
    assert read(tmp_path, "smoke", "probe.method=lbfgs") == 1


def test_an_axis_that_no_trial_reads_is_refused_at_its_line(tmp_path: Path) -> None:
    axes = "axes:\n  guidance.search: [{}]\n  guidance.coarse: [4, 8]\n"
    with pytest.raises(SweepError, match=r"guidance.coarse: no trial reads it .* hill_climb") as e:
        read(tmp_path, more=axes.format("none, hill_climb"))
    assert {problem.place.line for problem in e.value.problems} == {6}
    # One that reads it is enough.
    assert read(tmp_path, more=axes.format("none, grid")) == 4


def test_settings_that_a_quantizer_lacks_are_refused(tmp_path: Path) -> None:
    more = "axes:\n  tokenizer.quantizer: [{name: fsq, levels: [4, 4]}]\n"
    with pytest.raises(SweepError, match=r"where .*tokenizer.quantizer is fsq; leave it out"):
        read(tmp_path, None, "tokenizer.codebook_size=64", more=more)
    # What is off is not read either, and some of it has to be off.
    assert read(tmp_path, None, "tokenizer.entropy_weight=0", more=more) == 1
