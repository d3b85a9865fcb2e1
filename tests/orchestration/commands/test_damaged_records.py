"""Damages the files of a runs directory in every way, and asks all commands that read it."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from analysis.__main__ import app as analysis_app
from orchestration.__main__ import app
from orchestration.backends.detached.journal import Journal
from orchestration.costs import ceilings
from orchestration.costs.calibration import append_observations, observe
from orchestration.execution.progress import stage_spec, survey
from orchestration.forecast.budget import record_refusal
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.runs import records
from orchestration.runs.files import write_atomic
from orchestration.runs.records import to_json
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.tracking.tracking_helpers import Run, send

ROOT = Path(__file__).resolve().parents[3]
SWEEP = "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
SEED = 12
SAMPLE = 8
"""Damages of a default run: about half a second each."""
EACH = int(os.environ.get("GIGATOK_DAMAGES", "2"))
"""Ways in which each kind of file is damaged in the slow run, in turns; 5: in all."""
OTHERS = re.compile(r"mlflow\.db")
"""The database, which MLflow reads: the tests of tracking damage it."""
NAMED = re.compile(r"runs/stages/.*/(spec|attempts/001)\.json|runs/sweeps/study/\w+\.json")
"""Records that an answer lacks when they are gone: the answer names them."""

Damage = Callable[[Path, random.Random], None]


# Damages


def truncate(file: Path, chance: random.Random) -> None:
    size = file.stat().st_size
    os.truncate(file, chance.randrange(size) if size else 0)


def empty(file: Path, chance: random.Random) -> None:
    os.truncate(file, 0)


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        file.write_bytes(content)


def turn_into_folder(file: Path, chance: random.Random) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_text("x")


def delete(file: Path, chance: random.Random) -> None:
    file.unlink()


DAMAGES: tuple[Damage, ...] = (truncate, empty, flip, turn_into_folder, delete)


@contextmanager
def damaged(file: Path, damage: Damage, chance: random.Random) -> Iterator[None]:
    content, found = file.read_bytes(), file.stat()
    damage(file, chance)
    try:
        yield
    finally:
        if file.is_dir():
            shutil.rmtree(file)
        file.write_bytes(content)
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


# A runs directory with a file of every kind


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Iterator[tuple[Path, Plan]]:
    """A working directory with a finished sweep, as its workers would have left it."""
    place = tmp_path_factory.mktemp("small")
    plan = _plan(place)
    store = Store(place / "runs")
    store.root.mkdir()
    shutil.copy(empty_database, store.root / "mlflow.db")
    for key in plan.stages:
        run = Run(store, plan, key).log([0, 1]).picture("samples", 1)
        run.folder.log(1).write_text("said something\n")
        write_atomic(run.complete().path / "spec.json", to_json(_spec(plan, store, key)))
    record_launch(plan, store, LaunchRequest(sweep="study.yaml"))
    send(store, plan)
    yield from _furnished(place, plan, store)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Plan]]:
    """A working directory in which a sweep was really launched."""
    place = tmp_path_factory.mktemp("launched")
    plan = _plan(place)
    command = [sys.executable, "-m", "orchestration.launch", "study.yaml", "--jobs", "2"]
    code = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=place, env=code, check=True, capture_output=True, timeout=300)
    yield from _furnished(place, plan, Store(place / "runs"))


def _plan(place: Path) -> Plan:
    (place / "study.yaml").write_text(SWEEP)
    sweep = load_sweep(place / "study.yaml")
    return make_plan(sweep, expand(sweep))


def _spec(plan: Plan, store: Store, key: str):
    return stage_spec(plan.stages[key], survey(plan, store))


def _furnished(place: Path, plan: Plan, store: Store) -> Iterator[tuple[Path, Plan]]:
    """Add records that no finished sweep on one machine has; then work there."""
    stages = list(
        store.folders((s.stage, key, s.readable) for key, s in plan.stages.items()).values()
    )
    trained = next(stage for stage in stages if stage.path.parent.name == "train_tokenizer")
    record_refusal(store, plan.sweep.name, plan.key, plan.sweep.scale, ["too large"])
    ceilings.learn(trained, "cpu", 4)
    faults._note_host(trained, Ended(None, "node_lost"), "node_lost")
    attempt = trained.attempts()[0].model_copy(update={"threads": 1})
    found = observe(trained.spec(), attempt)
    assert found is not None
    append_observations(store, [found])
    Journal(store, "slurm").intend("train_tokenizer", "study", plan.key, [trained])
    before = Path.cwd()
    os.chdir(place)
    try:
        yield place, plan
    finally:
        os.chdir(before)


# Questions


def commands(plan: Plan) -> list[list[str]]:
    (trial,) = (planned.trial.name for planned in plan.trials)
    first, second = list(plan.stages)[:2]
    lines = (
        "status study",
        "status study --json",
        "explain study",
        f"logs study {trial}",
        f"diff {first} {second}",
        "gc --dry-run",
        "plan study.yaml",
        "resume study --dry-run",
        f"retry study {trial} --dry-run",
        "doctor",
        "cancel study",
        "table study --tracking-uri sqlite:///runs/mlflow.db",
    )
    return [line.split() for line in lines]


def ask(command: list[str]) -> Result:
    records._reported.clear()  # each command is a process of its own otherwise
    return CliRunner().invoke(analysis_app if command[0] == "table" else app, command)


def contents(root: Path) -> dict[str, tuple[int, int, int]]:
    """Path -> inode, size and time of change of everything but folders."""
    found = ((os.path.join(at, name)) for at, _, names in os.walk(root) for name in names)
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path in found for s in [os.lstat(path)]}


def check(
    plan: Plan, file: Path, damage: Damage, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage a file, and ask everything."""
    what = f"{damage.__name__} {file} with seed {seed}"
    with damaged(file, damage, random.Random(seed)):
        caplog.clear()
        before, said = contents(Path("runs")), ""
        complete = all(f.is_complete() for f in Store(Path("runs")).stage_folders())
        for command in commands(plan):
            if command[0] == "cancel" and not complete:
                continue  # a stage whose DONE is gone can be cancelled, which leaves a marker
            result = ask(command)
            said += result.output
            shown = f"{what}: {' '.join(command)}\n{result.output}"
            assert result.exception is None or isinstance(result.exception, SystemExit), shown
            assert result.exit_code <= 3, shown
            assert contents(Path("runs")) == before, shown
        if NAMED.fullmatch(str(file)) and damage in (empty, turn_into_folder):
            assert str(file) in said + caplog.text, what


def files() -> list[Path]:
    found = (path for path in sorted(Path("runs").rglob("*")) if path.is_file())
    return [path for path in found if not OTHERS.search(f"/{path}")]


@pytest.mark.heavy
def test_readers_answer_whatever_is_damaged(
    folder: tuple[Path, Plan], caplog: pytest.LogCaptureFixture
) -> None:
    cases = [(file, damage) for file in files() for damage in DAMAGES]
    for number, (file, damage) in enumerate(random.Random(SEED).sample(cases, SAMPLE)):
        check(folder[1], file, damage, SEED + number, caplog)


@pytest.mark.slow
def test_readers_answer_whatever_is_damaged_of_a_real_launch(
    launched: tuple[Path, Plan], caplog: pytest.LogCaptureFixture
) -> None:
    """One file of every kind: those of two stages, or of two plans, differ in their keys only."""
    kinds = {re.sub(r"[0-9a-f]{10,}|(?<=stages/)\w+", "*", str(file)): file for file in files()}
    ways = cycle(DAMAGES)
    for number, file in enumerate(kinds.values()):
        for damage in islice(ways, EACH):
            check(launched[1], file, damage, SEED + number, caplog)
