"""Plug-ins on a real SLURM cluster: installed, given by a file, and missing on the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.runs.state import StageFolder
from tests.orchestration.backends.slurm.slurm_cluster import Cluster, preempting, wait_until
from tests.orchestration.backends.slurm.slurm_cluster import run as slurm
from tests.orchestration.test_from_outside import MODULE
from tests.wheel import install_example, installed_python, outcome, remove_example, run

pytestmark = pytest.mark.cluster
SECONDS = 400.0
PROFILE = "default: {time_minutes: 30, slurm: {partition: main}}\nmax_parallel: 4\n"
SMALL = "tokenizer.decoder=S"
# Other names than the installed one has, which would be refused.
LIGHT = MODULE.replace("measure_brightness", "measure_light").replace('"brightness"', '"light"')
FILE = """
question: Are reconstructions as bright as their originals?
scale: smoke
plugins: [./light.py]
set: {tokenizer.encoder: S, tokenizer.decoder: S, measure_light.gamma: 2.2}
stages: [measure_light]
"""
OTHERWISE_BUILT_IN = """
question: Does everything else go on?
scale: smoke
plugins: [gigatok_example]
set: {tokenizer.encoder: S, tokenizer.decoder: S}
stages: [extract_codes, measure_brightness]
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and the example plug-in, which nodes see as well."""
    top = tmp_path_factory.mktemp("wheel")
    python = installed_python(top)
    install_example(python, top)
    return python


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Path:
    """A folder that is no checkout, with sweeps, a plug-in and a profile."""
    example = Path(__file__).resolve().parents[4] / "examples" / "plugin"
    files = {
        "profile.yaml": PROFILE,
        "file.yaml": FILE,
        "light.py": LIGHT,
        "built_in.yaml": OTHERWISE_BUILT_IN,
        "ternary.yaml": (example / "ternary.yaml").read_text(),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def launch(python: Path, place: Path, sweep: str, runs: str = "runs", *options: str) -> str:
    command = ("-m", "orchestration.launch", sweep, "--runs-dir", runs, *options)
    return run(python, *command, folder=place)


def queue(python: Path, place: Path, sweep: str, *options: str) -> None:
    where = ("--backend", "slurm", "--profile", "profile.yaml", "--yes")
    launch(python, place, sweep, "runs", *where, *options)


def wait_until_empty() -> None:
    wait_until(lambda: not slurm("squeue", "--me", "--noheader"), "an empty queue", SECONDS)


def test_an_installed_plugin_gives_the_same_weights_as_on_this_machine(
    python: Path, place: Path
) -> None:
    queue(python, place, "ternary.yaml", "--set", SMALL)
    launch(python, place, "ternary.yaml", "here", "--set", SMALL)
    wait_until_empty()
    there = outcome(place / "runs")
    assert len(there) == 8
    assert there == outcome(place / "here")
    table = run(python, "-m", "analysis", "table", "ternary", folder=place)
    assert "brightness (of originals)" in table


def test_nodes_load_a_file_as_it_was_launched_and_name_a_package_that_they_lack(
    python: Path, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with preempting():  # nothing starts before both are gone
        queue(python, place, "file.yaml")
        queue(python, place, "built_in.yaml")
        (place / "light.py").unlink()
        remove_example(python, place)
    try:
        wait_until_empty()
        status = run(python, "-m", "orchestration", "status", "built_in", folder=place)
        table = run(python, "-m", "analysis", "table", "file", "--format", "csv", folder=place)
    finally:
        install_example(python, tmp_path_factory.mktemp("again"))
    complete = {stage.partition("/")[0] for stage in outcome(place / "runs")}
    assert {"measure_light", "extract_codes"} <= complete
    assert any(",light," in row for row in table.splitlines())
    (measured,) = place.glob("runs/stages/measure_brightness/[!.]*")
    failure = StageFolder.at(measured).failure()
    assert failure is not None
    assert "no module 'gigatok_example' can be imported here" in failure.message
    assert "the launch used gigatok-example 1.0" in failure.message
    assert failure.message in " ".join(status.split())
    assert "5 complete, 1 failed" in status
