"""A figure counts as drawn when all its files are there, new and of the plan; MLflow keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gigatok import names
from orchestration.launching import drawn
from orchestration.launching.drawn import SUFFIXES, draw, drawn_plan, keep, prepare
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan
from orchestration.runs.state import Store
from orchestration.study.syncing import send_all, set_databases_aside
from orchestration.tracking.shipping import default_uri
from tests.orchestration.tracking.tracking_helpers import Reader, Run, keys_of, send


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    for suffix in SUFFIXES:
        (tmp_path / f"study-smoke{suffix}").write_text("content", encoding="utf-8")
    (tmp_path / "study-smoke.json").write_text(
        '{"sources": {"1": {"plan": "abc"}}}', encoding="utf-8"
    )
    return tmp_path / "study-smoke.png"


def test_a_whole_figure_tells_its_plan(figure: Path) -> None:
    assert drawn_plan(figure) == "abc"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_figure_of_which_a_file_is_missing_or_empty_is_none(figure: Path, suffix: str) -> None:
    figure.with_suffix(suffix).write_text("", encoding="utf-8")
    assert drawn_plan(figure) is None
    figure.with_suffix(suffix).unlink()
    assert drawn_plan(figure) is None


OTHERS = [
    *("[]", "{}", "3", "\0", '{"sources": 3}', '{"sources": {}}'),
    '{"sources": {"1": {"plan": "a"}, "2": {"plan": "b"}}}',
]


@pytest.mark.parametrize("text", OTHERS)
def test_another_file_of_that_name_is_no_figure(figure: Path, text: str) -> None:
    figure.with_suffix(".json").write_text(text, encoding="utf-8")
    assert drawn_plan(figure) is None


@pytest.mark.heavy
def test_an_older_figure_does_not_pass_as_the_new_one(
    store: Store, plan: Plan, tmp_path: Path
) -> None:
    uri = default_uri(store)
    for key, psnr in zip(keys_of(plan), (18.0, 19.0), strict=True):
        Run(store, plan, key).complete(params_tokenizer=12.0, psnr=psnr)
    send(store, plan)
    drawing = draw(plan, store, uri, tmp_path / "study-smoke.png", ["--answer"])
    assert drawing.is_whole, drawing.problem
    assert "PSNR" in str(drawing.answer)
    # Files of the same plan under a name to which nothing is written now.
    for suffix in SUFFIXES:
        (tmp_path / f"study-smoke{suffix}").rename(tmp_path / f"other{suffix}")
    assert drawn_plan(tmp_path / "other.png") == plan.key
    assert not draw(plan, store, uri, tmp_path / "other.png").is_whole


@pytest.mark.heavy
@pytest.mark.parametrize("has_ended", [False, True])
def test_a_process_that_was_prepared_draws_unless_it_has_ended(
    store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ended: bool
) -> None:
    for key, psnr in zip(keys_of(plan), (18.0, 19.0), strict=True):
        Run(store, plan, key).complete(params_tokenizer=12.0, psnr=psnr)
    send(store, plan)
    monkeypatch.setattr(drawn, "_prepared", [])
    before = set(psutil.Process().children())
    prepare()
    (process,) = set(psutil.Process().children()) - before
    if has_ended:
        process.kill()  # as by Ctrl-C, which a process in the background does not get
        psutil.wait_procs([process], timeout=60)
    monkeypatch.chdir(tmp_path)
    drawing = draw(plan, store, default_uri(store), Path("study-smoke.png"), ["--answer"])
    assert drawing.is_whole, drawing.problem
    assert "PSNR" in str(drawing.answer)
    assert not set(psutil.Process().children()) - before


@pytest.mark.heavy
def test_a_process_that_was_prepared_ends_without_a_word_when_its_launcher_does() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "analysis.waiting"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == (b"", b"")


@pytest.mark.heavy
def test_report_and_figure_are_sent_once_and_again_to_a_new_database(
    store: Store, plan: Plan
) -> None:
    uri = default_uri(store)
    for key, psnr in zip(keys_of(plan), (18.0, 19.0), strict=True):
        Run(store, plan, key).complete(params_tokenizer=12.0, psnr=psnr)
    record_launch(plan, store, LaunchRequest(sweep=str(plan.sweep.path)))
    send(store, plan)
    assert keep(plan, store, uri) is None
    sent = [*(f"figure{end}" for end in SUFFIXES if end != ".html"), "report.html"]
    reader = Reader(uri)
    assert set(sent) <= set(reader.files(reader.one(names.KIND_SWEEP)))
    set_databases_aside(store)
    (whole,) = send_all(store)
    assert whole.text == f"all is in {uri}"
    reader = Reader(uri)
    assert set(sent) <= set(reader.files(reader.one(names.KIND_SWEEP)))
