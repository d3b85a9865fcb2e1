"""Power cuts at random moments: relaunching finishes, bit by bit and point by point the same.

The runs directory lies on a file system of its own that is shut down without a flush, so that
only what was flushed survives, with real journals and their order of writes. More cuts:
`GIGATOK_POWER_CUTS=20 pytest -m slow tests/orchestration/test_power_cut.py`.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from gigatok.files.durable import write_durably
from tests.loop_disk import LoopDisk, kill_session, loop_disk

ROOT = Path(__file__).resolve().parents[2]
CUTS = int(os.environ.get("GIGATOK_POWER_CUTS", "2"))
SEED = int(os.environ.get("GIGATOK_POWER_CUT_SEED", "0"))
SECONDS = 300.0
SWEEP = """
question: What survives?
scale: smoke
set:
  {tokenizer.encoder: S, tokenizer.decoder: S, tokenizer.steps: 80, tokenizer.checkpoint_every: 1}
axes: {tokenizer.semantic_weight: [0]}
stages: [train_tokenizer, extract_codes]
"""
Result = tuple[dict[str, str], set[tuple[str, str, int]]]
pytestmark = pytest.mark.slow


def begin(folder: Path, database: Path) -> Path:
    """Make a folder to launch in, with the tracking store that an earlier launch left."""
    write_durably(folder / "runs" / "mlflow.db", partial(shutil.copy, database))
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Launch the sweep in a folder; its log lies beside the disk, or it would be cut too."""
    (folder / "one.yaml").write_text(SWEEP)
    with log_of(folder).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestration.launch", "one.yaml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def log_of(folder: Path) -> Path:
    return folder.parent.parent / f"{folder.parent.name}-{folder.name}.log"


def finish(folder: Path) -> Result:
    """Launch until all is done; what came out."""
    process = start(folder)
    try:
        assert process.wait(SECONDS) == 0, log_of(folder).read_text()[-5000:]
    finally:
        kill_session(process)
    outputs = (folder / "runs" / "stages").glob("*/*/out/*.safetensors")
    hashes = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in outputs
    }
    assert len(hashes) == 2
    return hashes, points(folder)


def points(folder: Path) -> set[tuple[str, str, int]]:
    """(run, metric, step) of all curves but the machine's own, each required to be there once."""
    with closing(sqlite3.connect(folder / "runs" / "mlflow.db")) as store:
        rows = store.execute(
            "select r.name, m.key, m.step, count(*) from metrics m join runs r "
            "on r.run_uuid = m.run_uuid where m.key not like 'system/%' "
            "group by m.run_uuid, m.key, m.step"
        ).fetchall()
    assert {row[3] for row in rows} == {1}, [row for row in rows if row[3] != 1]
    return {(row[0], row[1], row[2]) for row in rows}


def names(folder: Path) -> set[str]:
    """Names of all files and folders below `runs`, some of which may be going just now."""
    return {name for _, folders, files in os.walk(folder / "runs") for name in folders + files}


def newest_step(folder: Path) -> int:
    steps = (name.removeprefix("step-") for name in names(folder) if name.startswith("step-"))
    return max((int(step) for step in steps if step.isdigit()), default=0)


def moment(folder: Path, draw: random.Random) -> tuple[Callable[[], bool], float]:
    """Draw what to wait for, and how long after it the power goes.

    A launch begins to work, makes the next checkpoints, or ends; by then much is in memory.
    """
    before = names(folder)
    after = newest_step(folder) + draw.randint(1, 30)

    def begins() -> bool:
        return any(name.endswith(".json") for name in names(folder) - before)

    def ends() -> bool:
        return bool({"model.json", "codes.safetensors", "DONE"} & (names(folder) - before))

    def goes_on() -> bool:
        return newest_step(folder) >= after or ends()

    signs: list[tuple[Callable[[], bool], float]] = [
        (begins, 2.0),
        (goes_on, 0.3),
        (goes_on, 0.3),
        (ends, 1.0),
    ]
    sign, most = draw.choice(signs)
    return sign, draw.uniform(0.0, most)


def run_until_the_cut(disk: LoopDisk, folder: Path, draw: random.Random) -> bool:
    """Launch, and cut the power; tells whether the sweep was done before."""
    process = start(folder)
    try:
        sign, pause = moment(folder, draw)
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and not sign():
            assert time.monotonic() < deadline, log_of(folder).read_text()[-5000:]
            time.sleep(0.002)
        time.sleep(pause)
        ended = process.poll()
        assert ended in (None, 0), log_of(folder).read_text()[-5000:]
        disk.cut_power()
    finally:
        kill_session(process)
    disk.unmount()
    disk.mount()
    return ended == 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Result:
    return finish(begin(tmp_path_factory.mktemp("undisturbed") / "disk" / "0", empty_database))


@pytest.fixture(params=["ext4", pytest.param("xfs", marks=pytest.mark.exhaustive)])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LoopDisk]:
    with loop_disk(tmp_path, request.param) as made:
        yield made


def test_power_cuts_change_nothing(
    disk: LoopDisk, undisturbed: Result, empty_database: Path
) -> None:
    """Each launch but the last is cut; what is done stays so, and a new sweep begins."""
    draw = random.Random(SEED)
    folder = begin(disk.root / "0", empty_database)
    for cut in range(CUTS):
        done = run_until_the_cut(disk, folder, draw)
        print(f"cut {cut}: {folder.name}, at step {newest_step(folder)}, done: {done}", flush=True)
        if done:
            assert finish(folder) == undisturbed
            folder = begin(disk.root / str(cut + 1), empty_database)
    assert finish(folder) == undisturbed
