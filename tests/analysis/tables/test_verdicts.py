"""Verdicts on many claims, a line each."""

from __future__ import annotations

import io
from collections.abc import Mapping

import polars as pl
import pytest
from rich.console import Console

from analysis.studies.answer import counted, ranked
from analysis.studies.summary import Summary, print_summary
from analysis.tables.results import ResultTable
from analysis.tables.verdicts import verdict_table
from gigatok.claims.claim import Arm, Claim
from gigatok.claims.evidence import Results
from gigatok.claims.verdicts import verdicts
from gigatok.claims.words import JudgedClaim

MEASURED: Mapping[str, tuple[float, ...]] = {
    "helps": (1.0, 1.01, 0.99, 1.02),
    "harms": (-1.0, -1.01, -0.99, -1.02),
    "unclear": (0.5, -0.4, 0.1, -0.3),
    "too_early": (),
}
"""Differences in dB of each seed; all are claimed to be positive."""


def judged() -> list[JudgedClaim]:
    claims = [
        Claim(
            name=name, text="it does", kind="difference", metric="psnr", rises=True, margin=0.0,
            families=((Arm(setting=f"{name} off"), Arm(setting=f"{name} on")),),
        )
        for name in MEASURED
    ]  # fmt: skip
    results: Results = {}
    for name, differences in MEASURED.items():
        results[f"{name} off"] = dict.fromkeys(range(len(differences)), 20.0)
        results[f"{name} on"] = {seed: 20.0 + d for seed, d in enumerate(differences)}
    return [JudgedClaim(verdict, 0.0, 0) for verdict in verdicts(claims, {"psnr": results})]


def lines(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(verdict_table(ranked(judged())))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_what_is_decided_comes_first_with_its_numbers() -> None:
    assert counted(judged()) == "4 claims: 1 contradicted, 1 supported, 2 undecided."
    head, first, second, third, *rest = (line.split() for line in lines(200))
    assert head[:4] == ["claim", "verdict", "metric", "effect"]
    assert first[:5] == ["harms", "contradicted", "PSNR", "−1.005", "dB"]
    assert second[:5] == ["helps", "supported", "PSNR", "+1.005", "dB"]
    assert first[5:7] == ["[−1.026,", "−0.984]"]
    assert third[:2] == ["unclear", "undecided"]
    assert " ".join(third).endswith(
        "No sensible number of seeds decides it if the effect is what it seems."
    )
    assert rest == [["too_early", "undecided", "PSNR", "no", "result", "yet"]]


def test_a_narrow_terminal_keeps_numbers_whole_and_says_what_it_leaves_out() -> None:
    shown = lines(60)
    assert max(map(len, shown)) <= 60
    assert any(line.startswith("harms") and "−1.005 dB" in line for line in shown)
    assert "left out at 60 columns: 95 % interval, seeds, what would" in "\n".join(shown)


def test_few_claims_have_sentences_and_many_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    every = judged()
    table = ResultTable("title", ("PSNR",), (("20",),), (True,), (), names=("psnr",))
    few, many = (
        Summary(tuple(one.sentence for one in part), table, pl.DataFrame(), tuple(part))
        for part in (every[:3], every)
    )
    print_summary(few)
    assert "helps: supported, +1.005 dB" in capsys.readouterr().out
    print_summary(many)
    printed = capsys.readouterr().out
    assert printed.startswith("4 claims: 1 contradicted, 1 supported, 2 undecided.\nclaim ")
    assert "--format markdown say what was claimed" in printed.replace("\n", " ")
