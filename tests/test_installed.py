"""Installed from a wheel, without the checkout: the main job, and a plug-in beside it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.wheel import install_example, installed_python, outcome, remove_example, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel."""
    return installed_python(tmp_path_factory.mktemp("wheel"))


def test_the_main_job_runs_outside_any_checkout(python: Path, tmp_path: Path) -> None:
    where = run(python, "-P", "-c", "import gigatok; print(gigatok.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    gigatok = python.with_name("gigatok")
    shown = run(gigatok, "init", folder=tmp_path)
    assert "gigatok launch sweeps/decoder_scaling.yaml --scale smoke" in shown
    # Nothing of this folder is run, though `python -m analysis` would.
    (tmp_path / "analysis.py").write_text("raise SystemExit('of the user')")
    shown = run(
        *(gigatok, "launch", "decoder_scaling", "--scale", "smoke"),
        *("--set", "tokenizer.decoder=S"),
        folder=tmp_path,
    )
    assert "0 failed" in shown
    assert "COMPLETE" in run(gigatok, "status", "decoder_scaling", "--json", folder=tmp_path)
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    for command in ("figures", "report", "table"):
        run(gigatok, "analysis", command, "decoder_scaling", folder=tmp_path)
    run(python, "-P", "-m", "analysis", "figures", "figure7", folder=tmp_path)
    run(gigatok, "dashboards", "export", "decoder_scaling", folder=tmp_path)


def test_a_plugin_is_installed_beside_it_and_its_results_outlive_it(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # a table of 80 columns leaves columns out
    example = install_example(python, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    shutil.copyfile(example / "ternary.yaml", work / "ternary.yaml")
    shown = run(python, "-m", "orchestration", "plan", "ternary.yaml", "--stages", folder=work)
    assert "brightness" in shown
    shown = run(python, "-m", "orchestration.launch", "ternary.yaml", folder=work)
    assert "0 failed" in shown
    assert "brightness (of originals)" in shown
    drawn = run(
        *(python, "-m", "analysis", "figures", "brightness", "--source", "runs"), folder=work
    )
    assert "brightness-runs.png" in drawn
    before = run(python, "-m", "analysis", "table", "ternary", folder=work)
    assert "brightness (of originals)" in before
    run(python, "-m", "dashboards", "export", "ternary", folder=work)
    assert "brightness (of originals)" in (work / "reports" / "ternary.html").read_text()
    with sqlite3.connect(work / "runs" / "mlflow.db") as store:
        logged = store.execute("select count(*) from metrics where key like '%brightness'")
        assert logged.fetchone() > (0,)
    here = outcome(work / "runs")
    on_ray = tmp_path / "ray"
    on_ray.mkdir()
    sweep = ("orchestration.launch", work / "ternary.yaml", "--set", "tokenizer.decoder=S")
    run(python, "-m", *sweep, "--backend", "ray", folder=on_ray)
    there = outcome(on_ray / "runs")
    assert len(there) == 8
    assert {stage: here[stage] for stage in there} == there
    # A command that has nothing to do with the plug-in is as it was.
    run(python, "-m", "orchestration", "plan", "decoder_scaling", "--scale", "smoke", folder=work)
    remove_example(python, work)
    status = run(python, "-m", "orchestration", "status", "ternary", folder=work)
    # A terminal of a test is narrow: the message may be on two lines.
    said = " ".join(status.split())
    assert "no module 'gigatok_example' can be imported here" in said
    assert "the launch used gigatok-example 1.0" in said
    assert run(python, "-m", "analysis", "table", "ternary", folder=work) == before


def test_a_new_plugin_is_installed_and_checked(python: Path, tmp_path: Path) -> None:
    run(python, "-m", "gigatok", "new-plugin", "my_lab", folder=tmp_path)
    pip = (python, "-m", "pip")
    run(*pip, "install", "--no-deps", tmp_path / "my_lab", folder=tmp_path)
    # The figure shows what its other things do, so its smoke trial runs all of them.
    shown = run(python, "-m", "gigatok", "check", "my_lab", "--kind", "figure", folder=tmp_path)
    assert "all promises are kept" in shown
    sweep = tmp_path / "my_lab" / "my_lab_ternary.yaml"
    planned = run(python, "-m", "orchestration", "plan", sweep, "--stages", folder=tmp_path)
    assert "my_lab_brightness" in planned
    run(*pip, "uninstall", "--yes", "my-lab", folder=tmp_path)
