from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.figures.gallery import open_trials
from gigatok.names import KIND_TRIAL, TAG_KIND, TAG_STATE
from gigatok.text.credentials import shown
from tests.analysis.conftest import Store

pytestmark = pytest.mark.heavy


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_table_prints_markdown_and_findings(uri: str) -> None:
    code, out, _ = run("table", "decoder_scaling", "--tracking-uri", uri)
    assert code == 0
    assert "| S-B | 0 | 1 | 0.95 | — | **18.65** |" in out
    assert "* Exploration, nothing of it claimed beforehand: " in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("csv", "chart,series,label,mark,seed,x_key,"),
        ("latex", r"\begin{tabular}{lrr"),
        ("rich", "17.91 ± 0.01"),
    ],
)
def test_table_formats(
    uri: str, form: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("table", "decoder_scaling", "--tracking-uri", uri, "--format", form)
    assert code == 0
    assert expected in out


@pytest.mark.parametrize("columns", ["200", "100", "60"])
def test_a_narrow_terminal_never_cuts_a_number(
    uri: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run("table", "decoder_scaling", "--tracking-uri", uri, "--format", "rich")
    cells, _, _ = out.partition("±:")  # a protocol below them is shortened
    assert "…" not in cells.replace("--columns NAME,…", "")
    assert "18.10 ± <0.01" in out, "what the answer is about stays longest"
    if columns != "200":
        assert f"left out at {columns} columns:" in out
    assert max(map(len, out.splitlines())) <= int(columns)


def test_the_answer_comes_first(uri: str) -> None:
    _, out, _ = run("table", "decoder_scaling", "--tracking-uri", uri, "--format", "rich")
    first, *_ = out.splitlines()
    assert re.fullmatch(r"\d+ of \d+ comparisons show an effect\.", first)
    assert out.index(first) < out.index("decoder_scaling at scale micro")


def test_results_go_beside_the_runs(database: Path, tmp_path: Path) -> None:
    runs = tmp_path / "place" / "runs"
    runs.mkdir(parents=True)
    shutil.copy(database, runs / "mlflow.db")
    where = ("--runs-dir", str(runs))
    assert run("table", "entropy_loss", *where)[0] == 0
    code, out, err = run("figures", "entropy_loss", *where, "--format", "png")
    assert code == 0, err
    assert out.splitlines()[0] == str(runs.parent / "figures" / "entropy_loss-micro.png")
    code, out, _ = run("tables", "--all", "--source", "runs", *where, "--columns", "psnr")
    assert code == 0
    assert (runs.parent / "tables" / "entropy_loss-micro.tex").is_file()


def test_a_trial_without_a_state_is_counted(database: Path, tmp_path: Path) -> None:
    """As a launch leaves it that was killed between the run of a trial and its first state."""
    store = Store(f"sqlite:///{shutil.copy(database, tmp_path)}")
    trials = store.client.search_runs(
        [store.experiment("semantic_layer")], f"tags.`{TAG_KIND}` = '{KIND_TRIAL}'"
    )
    store.client.delete_tag(trials[0].info.run_id, TAG_STATE)
    code, _, said = run("table", "semantic_layer", "--tracking-uri", store.uri)
    assert code == 2
    assert "no finished trial in 'semantic_layer': " in said
    assert "1 not started" in said


def test_a_sweep_may_be_named_by_its_file(uri: str) -> None:
    code, out, _ = run("table", "sweeps/tokenizer_scaling.yaml", "--tracking-uri", uri)
    assert code == 0
    assert "| S-L | 0 of 1 | 1.74 |" in out


def test_figures_lists_what_it_wrote(uri: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "figures"
    arguments = ["figures", "entropy_loss", "--tracking-uri", uri, "--out", str(out)]
    code, text, _ = run(*arguments, "--format", "png")
    assert code == 0
    names = [f"entropy_loss-micro.{suffix}" for suffix in ("png", "csv", "json")]
    assert text.splitlines() == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "decoder_scalin"], "did you mean 'decoder_scaling'?"),
        (["figures", "semantic_layer"], "1 FAILED, 1 WAITING (train_tokenizer: no disk)"),
        (["figures", "generator_scaling"], "nothing to draw for 'generator_scaling'"),
        (["table", "decoder_scaling", "--scale", "paper"], "it was at micro, smoke"),
    ],
)
def test_wrong_requests_exit_with_2_and_say_why(
    uri: str, arguments: list[str], message: str
) -> None:
    code, out, err = run(*arguments, "--tracking-uri", uri)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_damaged_database_is_named_without_its_query(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"garbage " * 1000)
    code, _, err = run("table", "x", "--tracking-uri", f"sqlite:///{file}")
    assert code == 2
    assert str(file) in err
    assert "sync --rebuild" in err
    assert "SELECT" not in err


def test_no_database(tmp_path: Path) -> None:
    code, _, err = run("table", "x", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    assert code == 2
    assert str(tmp_path / "mlflow.db") in err
    assert "python -m orchestration.launch" in err


def test_help_and_the_package_import_nothing_heavy() -> None:
    heavy = "{'matplotlib', 'mlflow', 'polars', 'pandas', 'torch'} & set(sys.modules)"
    code = f"import sys, analysis, analysis.__main__; print(sorted({heavy}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_the_table_needs_neither_mlflow_nor_matplotlib(uri: str) -> None:
    code = (
        "import sys; from analysis import load_runs, result_table;"
        f"result_table(load_runs('decoder_scaling', {uri!r}));"
        "print(sorted({'matplotlib', 'mlflow', 'pandas', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_a_published_figure_needs_no_store(tmp_path: Path) -> None:
    arguments = ["figures", "figure7", "--source", "published", "--out", str(tmp_path)]
    code, out, _ = run(*arguments, "--format", "png,svg", "--venue", "cvpr")
    assert code == 0
    names = [f"cure.{suffix}" for suffix in ("png", "svg", "tex", "csv", "json")]
    assert out.splitlines() == [str(tmp_path / name) for name in names]


def test_check_says_what_changed_and_writes_nothing(tmp_path: Path) -> None:
    arguments = ["figures", "dilemma", "--source", "published", "--format", "png"]
    arguments += ["--out", str(tmp_path)]
    assert run(*arguments)[0] == 0
    assert run(*arguments, "--check")[:2] == (0, "")
    data = tmp_path / "dilemma.csv"
    data.write_text(data.read_text(encoding="utf-8").replace("9.641", "9.642"), encoding="utf-8")
    code, out, err = run(*arguments, "--check")
    assert code == 1
    before, after = out.splitlines()
    assert before.startswith(f"{data}: -gFID")
    assert "9.642" in before
    assert "9.641" in after
    assert err == "2 changes in 3 files\n"
    assert "9.642" in data.read_text(encoding="utf-8")


def test_all_makes_what_it_can_and_names_the_rest(uri: str, tmp_path: Path) -> None:
    arguments = ["figures", "--all", "--source", "runs", "--scale", "micro", "--format", "png"]
    code, out, err = run(*arguments, "--tracking-uri", uri, "--out", str(tmp_path))
    assert code == 0
    assert str(tmp_path / "cure-runs.png") in out
    assert "not made: 1d-2d: no runs for it in the store" in err
    assert "orchestration.launch training_duration" in err


def test_tables_of_the_paper_and_of_runs(uri: str, tmp_path: Path) -> None:
    arguments = ["tables", "--all", "--scale", "micro", "--tracking-uri", uri]
    code, _, err = run(*arguments, "--format", "markdown", "--out", str(tmp_path))
    assert code == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert {"table1.md", "table10.json", "readme.md", "decoder_scaling-micro.md"} <= written
    assert "decoder_scaling-smoke.md" not in written
    assert "not made: decoder_scaling at scale smoke: another scale than --scale micro" in err
    assert run(*arguments, "--format", "markdown", "--out", str(tmp_path), "--check")[0] == 0


def test_tables_of_both_sources_and_a_scale_that_is_not_the_newest(
    uri: str, tmp_path: Path
) -> None:
    options = ("--tracking-uri", uri, "--out", str(tmp_path), "--format", "csv")
    code, out, err = run("tables", "--all", "--source", "both", *options)
    assert code == 0
    assert "table1.csv" in out
    assert "decoder_scaling-micro.csv" in out
    assert "decoder_scaling-smoke.csv" in out, "every scale"
    assert "not made: semantic_layer at scale micro: no finished trial" in err


def test_a_figure_that_the_store_lacks_is_said(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store
    store.trial("other", store.sweep("other", "p", 1.0), "S-S", {"psnr": 1.0})
    options = ("--tracking-uri", store.uri, "--out", str(tmp_path), "--format", "png")
    code, out, err = run("figures", "cure", *options)
    assert code == 0
    assert "cure.png" in out
    assert "not made: cure: no runs for it in the store; they come from" in err


def test_older_launches_at_the_newest_scale_are_there(empty_store: Store) -> None:
    store = empty_store
    for sweep, scale, when in (("a", "micro", 1.0), ("a", "smoke", 2.0), ("b", "micro", 3.0)):
        parent = store.sweep(sweep, f"{sweep}{when}", when, scale=scale)
        store.trial(sweep, parent, "S-S", {"psnr": when})
    assert open_trials(store.uri, None).table["sweep"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql+psycopg2://me:geheim@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("https://me:geheim@host:5000", "https://me:***@host:5000"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_passwords_are_not_shown(uri: str, expected: str) -> None:
    assert shown(uri) == expected


def test_lists_say_what_could_not_be_found() -> None:
    code, out, _ = run("figures", "--list")
    assert code == 0
    assert "training-duration" in out
    for place in ("Figure 1 ", "Figure 12", "Figure 13"):
        assert place in out
    assert "table10" in run("tables", "--list")[1]


def test_a_sweeps_figure_in_every_format_and_its_check(uri: str, tmp_path: Path) -> None:
    arguments = ["figures", "entropy_loss", "--tracking-uri", uri, "--out", str(tmp_path)]
    code, out, _ = run(*arguments, "--format", "png,svg")
    assert code == 0
    suffixes = [line.rpartition(".")[2] for line in out.splitlines()]
    assert suffixes == ["png", "svg", "csv", "json"]
    assert run(*arguments, "--format", "png", "--check")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figures"], "give the name of a figure or sweep, or --all"),
        (["figures", "cure", "--all"], "give the name of a figure or sweep, or --all"),
        (["figures", "cure", "--format", "gif"], "unknown format gif; allowed: pdf, png, svg"),
        (["figures", "cure", "--venue", "icmm"], "unknown venue 'icmm'; known: plain, neurips"),
        (["figures", "latent-complexity", "--source", "published"], "no numbers are published"),
        (["tables", "table11"], "no published table 'table11'"),
    ],
)
def test_wrong_requests_for_published_numbers(arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
