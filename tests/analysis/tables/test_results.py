from __future__ import annotations

import csv
import io

import polars as pl
import pytest

from analysis import load_runs, result_table
from analysis.statistics.groups import groups, identity_columns
from analysis.store.requests import RequestError
from analysis.tables.notes import incomplete
from analysis.tables.render import TEXT_FORMATS
from analysis.tables.results import ResultTable
from gigatok.names import METRICS


@pytest.fixture(scope="session")
def runs(uri: str) -> pl.DataFrame:
    return load_runs("decoder_scaling", uri)


@pytest.fixture(scope="session")
def troubled(uri: str) -> pl.DataFrame:
    return load_runs("tokenizer_scaling", uri)


def cells(table: ResultTable, first: int = 0) -> dict[str, str]:
    return dict(zip(table.head, table.rows[first], strict=True))


def test_seeds_are_merged_and_never_a_bare_mean(runs: pl.DataFrame) -> None:
    table = result_table(runs)
    assert cells(table) == {
        "tokenizer": "S-S",
        "semantic_weight": "0",
        "seeds": "2",
        "params at inference (M)": "0.68",
        "rKID (x1000) ↓": "3349.5 ± 136.5",
        "PSNR (dB) ↑": "17.91 ± 0.01",
        "LPIPS ↓": "0.356 ± 0.005",
        "codebook usage (%) ↑": "100.0 ± 0.0",
        "AR val loss (nats/token) ↓": "3.980 ± 0.050",
        "AR bits/image (bits) ↓": "183.5 ± 2.5",
        "gKID (x1000) ↓": "3536.5 ± 147.5",
        "probe acc. (%) ↑": "30.0 ± 0.8",
    }
    assert table.notes[0] == "±: half the range over seeds (too few for a confidence interval)."
    assert cells(table, 3)["PSNR (dB) ↑"] == "18.10 ± <0.01", "a small spread is not none"
    assert cells(table, 2)["PSNR (dB) ↑"] == "18.65"
    assert "No ±: one seed, so nothing is known about the spread." in table.notes


def test_three_seeds_get_a_confidence_interval(runs: pl.DataFrame) -> None:
    pair = runs.filter(pl.col("tokenizer") == "S-S", pl.col("tokenizer.semantic_weight") == 0)
    third = pair.head(1).with_columns(
        pl.lit(2, pl.Int64).alias("seed"), pl.lit(17.92).alias("psnr")
    )
    table = result_table(pl.concat([pair, third]))
    assert cells(table)["PSNR (dB) ↑"] == "17.91 ± 0.02"
    assert (
        table.notes[0]
        == "±: 95 % confidence interval over seeds (Student t; of shares on the logit scale)."
    )


def test_only_what_varies_identifies_a_row(runs: pl.DataFrame, uri: str) -> None:
    assert identity_columns(runs) == ["tokenizer", "tokenizer.semantic_weight"]
    labels = [group.label for group in groups(runs)]
    assert labels == ["S-S", "S-S +reg", "S-B", "S-L", "S-L +reg"]
    both = load_runs("decoder_scaling", uri, plan="all")
    assert identity_columns(both)[-1] == "scale"


def test_absent_values_are_shown_and_explained(troubled: pl.DataFrame) -> None:
    table = result_table(troubled)
    small, nan, failed = (cells(table, i) for i in range(3))
    assert small["gKID (x1000) ↓"] == "3684.0 ± 75.0 s.e."
    assert (nan["AR val loss (nats/token) ↓"], nan["gKID (x1000) ↓"], nan["rKID (x1000) ↓"]) == (
        "NaN",
        "∞",
        "—",
    )
    assert (failed["seeds"], failed["AR val loss (nats/token) ↓"], failed["PSNR (dB) ↑"]) == (
        "0 of 1",
        "—",
        "18.10",
    )
    notes = "\n".join(table.notes)
    assert "S-B seed=0: COMPLETE; no rKID; AR val loss is NaN; gKID is ∞." in notes
    assert "S-L seed=0: FAILED (train_tokenizer: out of memory); no rKID" in notes
    assert "Measured in no trial: rFID, gFID." in notes
    assert "only the metric's own sampling error, not that of seeds" in notes


def test_a_seed_that_lacks_a_value_shows_in_the_cell(runs: pl.DataFrame) -> None:
    gone = pl.when(pl.col("seed") == 1).then(None).otherwise(pl.col("psnr")).alias("psnr")
    assert cells(result_table(runs.with_columns(gone)))["PSNR (dB) ↑"] == "17.90 (n=1)"


def test_two_protocols_are_marked(troubled: pl.DataFrame) -> None:
    mixed = troubled.with_columns(pl.Series("protocol.psnr", ["100 images", None, "2000 images"]))
    table = result_table(mixed)
    marked = [row[table.head.index("PSNR (dB) ↑")] for row in table.rows]
    assert marked == ["17.90 [a]", "18.65 [b]", "18.10 [c]"]
    (note,) = [n for n in table.notes if n.startswith("PSNR was measured in 3 ways")]
    assert "[a] 100 images; [b] protocol not recorded; [c] 2000 images." in note


def test_two_protocols_are_never_averaged(runs: pl.DataFrame) -> None:
    by_seed = pl.when(pl.col("seed") == 0).then(pl.lit("A")).otherwise(pl.lit("B"))
    table = result_table(runs.with_columns(by_seed.alias("protocol.psnr")))
    assert cells(table)["PSNR (dB) ↑"] == "mixed [a,b]"
    assert not any(
        record["y_key"] == "psnr" and record["series"] == "S-S" for record in table.records
    )


def test_metrics_measured_alike_share_a_note(runs: pl.DataFrame) -> None:
    notes = result_table(runs, ("ar_val_loss", "ar_bits_per_image")).notes
    assert (
        "AR val loss, AR bits/image: 2000 validation images, 32 tokens, vocabulary 512." in notes
    )


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("params_total", 0.68e6, "0.68"),
        ("params_total", 51.93e6, "51.9"),
        ("params_total", 621.64e6, "622"),
        ("psnr", 17.905, "17.91"),
        ("unigram_entropy", 5.8203, "5.820"),
    ],
)
def test_numbers_are_formatted_as_the_metric_says(name: str, value: float, text: str) -> None:
    assert METRICS[name].text(value) == text


def test_csv_carries_numbers_intervals_and_protocols(runs: pl.DataFrame) -> None:
    rows = list(csv.DictReader(io.StringIO(TEXT_FORMATS["csv"](result_table(runs)))))
    found = {(row["series"], row["y_key"]): row for row in rows}
    assert float(found["S-S", "ar_val_loss"]["y_low"]) == pytest.approx(3.93)
    assert found["S-S", "psnr"]["y_interval"] == "half_range"
    assert found["S-S", "lpips"]["y_protocol"] == "AlexNet at 64 px, 2000 validation images"
    assert float(found["S-S", "probe_accuracy"]["y"]) == pytest.approx(30.05), "percent"
    assert found["S-S", "psnr"]["n"] == "2"
    assert len(found["S-S", "psnr"]["sources"].split()) == 2
    assert ("S-B", "rkid") not in found
    assert found["S-B", "psnr"]["y_low"] == ""


def test_markdown_and_latex(runs: pl.DataFrame) -> None:
    table = result_table(runs)
    lines = TEXT_FORMATS["markdown"](table).splitlines()
    assert lines[0].startswith("**decoder_scaling at scale micro: At a fixed encoder")
    assert {line.count("|") for line in lines if line.startswith("|")} == {len(table.head) + 1}
    latex = TEXT_FORMATS["latex"](table)
    assert r"18.65 & " not in latex, "the best PSNR is bold"
    assert r"\textbf{18.65}" in latex
    assert r"S-S & 0 & 2 & 0.68 & 3349.5 $\pm$ 136.5" in latex
    assert r"semantic\_weight" in latex
    assert r"95 \%" not in latex
    assert latex.count(r"\\") == len(table.rows) + 1


def test_the_best_of_a_column_is_marked_where_that_says_something(
    runs: pl.DataFrame, troubled: pl.DataFrame
) -> None:
    table = result_table(runs)
    best = {(table.rows[row][0], table.names[column]) for row, column in table.best}
    assert ("S-B", "psnr") in best
    assert not any(name == "params_tokenizer" for _, name in best)
    mixed = troubled.with_columns(pl.Series("protocol.psnr", ["100 images", None, "2000 images"]))
    marked = result_table(mixed)
    assert not any(marked.names[column] == "psnr" for _, column in marked.best)


def test_columns_are_chosen_by_name(runs: pl.DataFrame) -> None:
    table = result_table(runs, ["lpips", "psnr"])
    assert table.head[-2:] == ("LPIPS ↓", "PSNR (dB) ↑")
    with pytest.raises(RequestError, match="key 'pnsr' to show; did you mean 'psnr'"):
        result_table(runs, ["pnsr"])


def test_columns_may_be_config_keys(runs: pl.DataFrame) -> None:
    table = result_table(runs, ["generator.dropout", "psnr", "tokenizer.semantic_weight"])
    # What sets settings apart stands there once, whether asked for or not.
    assert table.names == (
        *("tokenizer", "tokenizer.semantic_weight", "generator.dropout"),
        *("seeds", "psnr"),
    )
    (dropout,) = set(runs["generator.dropout"])
    assert {row[2] for row in table.rows} == {str(dropout)}
    with pytest.raises(RequestError, match=r"did you mean 'generator\.dropout'"):
        result_table(runs, ["generator.dropou"])


def test_a_terminal_shows_the_start_of_a_protocol(runs: pl.DataFrame) -> None:
    table = result_table(runs, ("lpips", "ar_val_loss", "ar_bits_per_image"))
    assert "AR val loss, AR bits/image: 2000 validation images …" in table.brief_notes
    assert "LPIPS: AlexNet at 64 px, 2000 validation images." in table.brief_notes
    assert any("--protocols" in note for note in table.brief_notes)
    assert not any("…" in note for note in table.notes)


def test_what_the_answer_is_about_stays_longest(runs: pl.DataFrame) -> None:
    table = result_table(runs, None, ["lpips"])
    metrics = [table.names[column] for column in table.drops if column > 2]
    assert metrics[-2:] == ["psnr", "lpips"]
    assert metrics[0] == "params_tokenizer"


def test_trials_that_lack_the_same_share_a_note(troubled: pl.DataFrame) -> None:
    failed = troubled.filter(pl.col("state") == "FAILED")
    many = [failed.with_columns(pl.lit(f"S-{n} seed=0").alias("trial")) for n in range(5)]
    (note,) = incomplete(pl.concat(many), ["psnr", "lpips"])
    assert note.startswith("S-0 seed=0, S-1 seed=0, S-2 seed=0 and 2 more: FAILED")
