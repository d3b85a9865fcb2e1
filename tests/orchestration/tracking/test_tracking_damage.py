"""Files that are damaged, deleted, moved or copied: nothing of a sweep is lost or doubled."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from rich.console import ConsoleDimensions
from typer.testing import CliRunner

from analysis.store import artifacts
from analysis.store.runs import load_runs
from gigatok import names
from orchestration.__main__ import app
from orchestration.commands.status import render
from orchestration.launching.history import newest_launch
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.runs.state import Store
from orchestration.study.status import look, status_json
from orchestration.tracking.ledger import Ledgers, parse_uri
from orchestration.tracking.mlflow_server import Server
from orchestration.tracking.shipping import Tracking, default_uri, uri_to_record
from orchestration.tracking.spool import MetricPoint, SpoolReader, SpoolWriter, read_spool
from tests.orchestration.tracking.tracking_helpers import (
    Reader,
    Run,
    assert_sent_exactly,
    keys_of,
    plan_of,
    send,
    wait_for,
)

pytestmark = pytest.mark.heavy
KINDS = (names.KIND_SWEEP, names.KIND_TRIAL, names.KIND_STAGE)


def complete_others(store, plan) -> None:
    for key, planned in plan.stages.items():
        if planned.stage != "train_tokenizer":
            Run(store, plan, key).complete(other=1.0)


# Lines

BAD_LINES = {
    b"garbage": "no JSON",
    b"": "no JSON",
    b"\0\0\0\0": "no JSON",
    b'{"t": 1, "s": 1, "m": {"\xff": 1.0}}': "no JSON",
    b"[" * 5000: "no JSON",
    b"7": "object",
    b'{"s": 1, "m": {"bad": 1.0}}': "'t'",
    b'{"t": -1, "s": 1, "m": {"bad": 1.0}}': "'t'",
    b'{"t": 1, "s": 1.5, "m": {"bad": 1.0}}': "'s'",
    b'{"t": 1, "s": 9223372036854775808, "m": {"bad": 1.0}}': "'s'",
    b'{"t": 1, "s": 1, "m": [1.0]}': "'m'",
    b'{"t": 1, "s": 1, "m": {"bad": "high"}}': "bad",
    b'{"t": 1, "s": 1, "m": {"bad": null}}': "bad",
    b'{"t": 1, "s": 1, "m": {"bad": true}}': "bad",
    b'{"t": 1, "s": 1, "m": {"bad": 1' + b"0" * 400 + b"}}": "bad",
    b'{"t": 1, "s": 1, "image": "a", "file": "../../DONE"}': "no file of the spool",
    b'{"t": 1, "s": 1, "image": "a"}': "no file of the spool",
}


@pytest.fixture
def spoiled(store, plan):
    """A stage that is complete, with every bad line between two good ones."""
    run = Run(store, plan, keys_of(plan)[0])
    (spool,) = run.folder.spool.glob("*.jsonl")
    for step, line in enumerate(BAD_LINES):
        run.log([step])
        with spool.open("ab") as file:
            file.write(line + b"\n")
    return run.log([len(BAD_LINES)]).complete()


def test_a_bad_line_costs_that_line(spoiled):
    lines = list(SpoolReader(spoiled).lines())
    steps = [item.step for line in lines for item in line.items if isinstance(item, MetricPoint)]
    assert steps == list(range(len(BAD_LINES) + 1))
    problems = [line.problem for line in lines if line.problem]
    assert len(problems) == len(BAD_LINES)
    for number, (problem, reason) in enumerate(zip(problems, BAD_LINES.values(), strict=True)):
        assert problem.startswith(f"{spoiled.spool / '001.jsonl'} line {2 * number + 2}: ")
        assert reason in problem


def test_a_bad_value_costs_none_of_the_others(store, plan):
    run = Run(store, plan, keys_of(plan)[0])
    (spool,) = run.folder.spool.glob("*.jsonl")
    spool.write_text('{"t": 1, "s": 2, "m": {"a": 1, "b": "x", "c": 1e999, "d": NaN}}\n')
    assert [item.name for item in read_spool(run.folder)] == ["a", "c", "d"]


def test_bad_lines_are_named_counted_and_end_nothing(store, plan, spoiled):
    other = Run(store, plan, keys_of(plan)[1]).log(range(2)).picture("gone", 1)
    (other.folder.spool / "gone-00000001.png").unlink()
    other.log([2], **{"no[good]name": 1.0, "train/lr": 2.0}).complete(**{"bad]": 1.0, "rfid": 2.0})
    complete_others(store, plan)
    record_launch(plan, store, LaunchRequest(sweep="study"))
    for _ in range(2):  # The count stays the same, and nothing is left to be sent.
        send(store, plan)
        found = look(store, newest_launch(store, "study"))
        keys = keys_of(plan)
        assert status_json(found)["skipped"] == {keys[0]: len(BAD_LINES), keys[1]: 3}
        assert Tracking(default_uri(store), store, plan).is_current()
    shown = "".join(str(part) for part in render(found, ConsoleDimensions(100, 40)).renderables)
    assert f"{len(BAD_LINES) + 3} lines or values of 2 stages could not be sent" in shown
    assert "line 2: no JSON" in shown
    reader = Reader(default_uri(store))
    assert_sent_exactly(reader, spoiled)
    second = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=keys[1])
    assert reader.history(second, "train/lr") == [(2, 2.0)]
    assert second.data.metrics["rfid"] == 2.0
    assert {r.info.status for r in reader.runs(names.KIND_STAGE)} == {"FINISHED"}


def test_a_second_writer_of_a_number_begins_a_line_of_its_own(store, plan):
    """After a power cut an attempt may get the number of one that left half a line."""
    run = Run(store, plan, keys_of(plan)[0]).log([0])
    (spool,) = run.folder.spool.glob("*.jsonl")
    with spool.open("a") as file:
        file.write('{"t": 1, "s"')
    writer = SpoolWriter(run.folder, 1, lambda progress: None)
    writer.metrics({"train/loss": 1.0}, 1)
    assert [item.step for item in read_spool(run.folder)] == [0, 1]


def test_only_what_is_durable_is_sent(store, plan, monkeypatch):
    """What a power cut takes back is logged again, with another time: a second point."""
    run = Run(store, plan, keys_of(plan)[0]).log(range(5))
    (spool,) = run.folder.spool.glob("*.jsonl")
    inode, synced, sync = spool.stat().st_ino, [0], os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        if os.fstat(descriptor).st_ino == inode:
            synced.append(os.fstat(descriptor).st_size)
            run.log([100 + len(synced)])  # The stage goes on while the disk is waited for.

    sent = []
    log = Server.log

    def watched(server, run_id, points=(), *others, **named):
        points = list(points)
        sent.extend((synced[-1], p.step) for p in points if p.name == "train/loss")
        return log(server, run_id, points, *others, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Server, "log", watched)
    send(store, plan)
    ends = {}
    for line in spool.read_bytes().splitlines(keepends=True):
        ends[json.loads(line)["s"]] = max(ends.values(), default=0) + len(line)
    assert {step for _, step in sent} >= set(range(5))
    assert all(ends[step] <= durable for durable, step in sent)


# The database


def damage_head(file: Path) -> None:
    file.write_bytes(b"garbage " * 1000)


def damage_middle(file: Path) -> None:
    """The tables are listed, their pages are not what they should be."""
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [damage_head, damage_middle, replace_by_folder])
def test_a_damaged_database_is_named_at_once(store, plan, spoil):
    send(store, plan)
    spoil(store.root / "mlflow.db")
    tracking = Tracking(default_uri(store), store, plan)
    assert not tracking.prepare(60)
    assert tracking.error is not None
    assert tracking.error.startswith(f"{store.root / 'mlflow.db'} is damaged (")
    said = str(tracking.finish(3600))  # It could wait for so long.
    assert tracking.error in said
    assert f"orchestration sync --rebuild --runs-dir {store.root}" in said
    assert "SELECT" not in said


KILLED_WRITER = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 2")  # so that pages reach the disk before the end
database.execute("BEGIN IMMEDIATE")
database.execute("CREATE TABLE rubbish (text TEXT)")
for _ in range(500):
    database.execute("INSERT INTO rubbish VALUES (?)", ("x" * 5000,))
os._exit(0)
"""


def test_a_writer_that_was_killed_in_a_transaction_costs_nothing(store, plan):
    """Sqlite reads a database with such a journal only where it may roll it back."""
    folder = Run(store, plan, keys_of(plan)[0]).log(range(10)).complete()
    record_launch(plan, store, LaunchRequest(sweep="study"))
    send(store, plan)
    database = store.root / "mlflow.db"
    subprocess.run([sys.executable, "-c", KILLED_WRITER, database], check=True)
    left = database.with_name("mlflow.db-journal")
    assert left.stat().st_size > 0
    kept = left.read_bytes(), database.read_bytes()
    assert Ledgers(store.tracking, parse_uri(default_uri(store))).runs_exist([])
    for reader in (lambda: send(store, plan), lambda: load_runs("study", default_uri(store))):
        left.write_bytes(kept[0])
        database.write_bytes(kept[1])
        reader()
        assert not left.exists()
    assert_sent_exactly(Reader(default_uri(store)), folder)


def test_a_damaged_database_is_made_again(store, plan):
    folder = Run(store, plan, keys_of(plan)[0]).log(range(1500)).picture("a", 1).complete()
    record_launch(plan, store, LaunchRequest(sweep="study"))
    send(store, plan)
    damage_head(store.root / "mlflow.db")
    command = ["sync", "--rebuild", "--runs-dir", str(store.root)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    (aside,) = store.root.glob("mlflow.db.aside-*")
    assert aside.name in shown.output
    reader = Reader(default_uri(store))
    assert_sent_exactly(reader, folder)
    assert len(reader.files(reader.one(names.KIND_STAGE), "pictures/a")) == 1
    launched = reader.one(names.KIND_SWEEP).data.tags[names.TAG_LAUNCHED]
    assert launched == repr(newest_launch(store, "study").launched)


def test_a_database_deleted_during_a_run_is_made_again(store, plan):
    run = Run(store, plan, keys_of(plan)[0]).log(range(50))
    tracking = Tracking(default_uri(store), store, plan)
    assert tracking.prepare(60)
    database = store.root / "mlflow.db"
    wait_for(lambda: len(Reader(default_uri(store)).runs(names.KIND_STAGE)) == 1)
    database.unlink()
    wait_for(lambda: database.exists() and database.stat().st_size > 0)
    wait_for(lambda: tracking.error is None)
    folder = run.log(range(50, 80)).complete()
    assert not tracking.finish(60)
    assert_sent_exactly(Reader(default_uri(store)), folder)


# Ledgers


@pytest.mark.parametrize("spoil", ["truncated", "gone"])
def test_lost_ledgers_double_nothing(store, plan, spoil):
    folder = Run(store, plan, keys_of(plan)[0]).log(range(100)).complete()
    send(store, plan)
    reader = Reader(default_uri(store))
    before = {run.info.run_id for kind in KINDS for run in reader.runs(kind)}
    if spoil == "gone":
        shutil.rmtree(store.tracking)
    for file in store.tracking.rglob("*.json"):
        file.write_bytes(b"")
    send(store, plan)
    assert {run.info.run_id for kind in KINDS for run in reader.runs(kind)} == before
    assert_sent_exactly(reader, folder)


def test_ledgers_of_an_earlier_version_are_taken_over(store, plan):
    send(store, plan)
    destination = parse_uri(default_uri(store))
    (own,) = store.tracking.iterdir()
    own.rename(store.tracking / destination.former_name)
    assert Ledgers(store.tracking, destination).plan(plan.key) is not None


# Where a store lies


def symlinked(root: Path) -> Path:
    link = root.with_name("link")
    link.symlink_to(root)
    return link


def roundabout(root: Path) -> Path:
    return root / ".." / root.name


def moved(root: Path) -> Path:
    return Path(shutil.move(root, root.with_name("moved")))


def copied(root: Path) -> Path:
    return Path(shutil.copytree(root, root.with_name("copy")))


def forget_places() -> None:
    """MLflow keeps the places of runs as long as a process lives; this one acts as several."""
    _artifact_repos_cache.clear()


def files_below(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} if folder.exists() else {}


@pytest.mark.parametrize("way", [symlinked, roundabout, moved, copied])
def test_a_store_is_the_same_wherever_it_lies(store, plan, way):
    first, second = keys_of(plan)
    Run(store, plan, first).log(range(20)).picture("a", 1).complete()
    send(store, plan)
    where = Store(way(store.root))
    forget_places()
    before = files_below(store.root)
    reader = Reader(default_uri(where))
    stage = reader.one(names.KIND_STAGE).info.run_id
    picture = ("pictures/a/00000001.png", where.root)
    assert artifacts.read(default_uri(where), stage, *picture) is not None
    assert artifacts.listing(default_uri(where), stage, "pictures/a", where.root)

    Run(where, plan, second).log(range(20)).picture("a", 1).complete()
    complete_others(where, plan)
    send(where, plan)
    assert [len(reader.runs(kind)) for kind in KINDS] == [1, 2, len(plan.stages)]
    for key in (first, second):
        run = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=key)
        assert artifacts.read(default_uri(where), run.info.run_id, *picture) is not None
        assert reader.files(run, "pictures/a"), "as the MLflow UI sees it"
    assert Tracking(default_uri(where), where, plan).is_current()
    if way in (moved, copied):
        assert files_below(store.root) == before, "nothing is written at the old place"


def test_the_own_database_is_recorded_by_no_place(store, tmp_path):
    """`resume` after a move would make a database at the old place otherwise."""
    assert uri_to_record(store, f"sqlite:///{store.root}/../runs/mlflow.db") is None
    other = f"sqlite:///{tmp_path}/other.db"
    assert uri_to_record(store, other) == other


def test_a_sweep_shared_by_two_stores_stays_two_sweeps(store, plan, tmp_path):
    """One database outside both: a store without ledgers takes no run of the other."""
    uri = f"sqlite:///{tmp_path / 'shared.db'}"
    shutil.copy(store.root / "mlflow.db", tmp_path / "shared.db")
    for root in (store.root, tmp_path / "second"):
        send(Store(root), plan_of(tmp_path, "study"), uri)
    assert len(Reader(uri).runs(names.KIND_SWEEP)) == 2
