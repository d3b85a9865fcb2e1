"""Launchers killed with SIGKILL where it hurts, and a real server that comes and goes."""

import math
import shutil
import signal
import socket
import time
from collections import Counter

import pytest

from gigatok import names
from orchestration.runs.state import Store
from orchestration.tracking.shipping import Tracking, default_uri
from tests.orchestration.tracking.tracking_helpers import (
    MlflowServer,
    Reader,
    Run,
    assert_sent_exactly,
    keys_of,
    nursery,
    plan_of,
    send,
    wait_for,
)

pytestmark = pytest.mark.heavy

# Killed launchers


def test_runs_of_a_killed_launcher_are_closed_by_the_next(store, plan, tmp_path):
    key = keys_of(plan)[1]
    Run(store, plan, key).log(range(10)).die()
    launch_and_die = f"""
    import os, signal
    tracking = Tracking(default_uri(store), store, plan)
    Run(store, plan, {keys_of(plan)[0]!r}).log(range(10))
    assert tracking.prepare(60)
    time.sleep(2.5)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert nursery(store, tmp_path, launch_and_die).returncode == -signal.SIGKILL
    reader = Reader(default_uri(store))

    def statuses() -> Counter[str]:
        kinds = (names.KIND_SWEEP, names.KIND_TRIAL, names.KIND_STAGE)
        return Counter(run.info.status for kind in kinds for run in reader.runs(kind))

    assert statuses()["RUNNING"] >= 3
    send(store, plan_of(tmp_path, "unrelated", decoders="[L]"))
    assert statuses() == {"KILLED": 5}


@pytest.mark.slow
def test_killed_at_every_write_of_a_ledger(store, plan, tmp_path):
    """SIGKILL after MLflow was told, before the ledger says so: at each such place in turn."""
    folders = [
        Run(store, plan, key).log(range(2500)).picture("a", 3).complete() for key in plan.stages
    ]
    body = """
    def launch(calls):
        def counting(save):
            def replaced(self, key, entry):
                nonlocal calls
                calls -= 1
                if calls < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                save(self, key, entry)
            return replaced
        Ledgers.save_stage = counting(Ledgers.save_stage)
        Ledgers.save_plan = counting(Ledgers.save_plan)
        send(store, plan)

    kills = 0
    for calls in (0, 1, 2, 3, 0, 1, 2, 1, 2, 1, 0, 3, 1, 2, 0):
        _, status = os.waitpid(child(lambda: launch(calls)), 0)
        kills += os.WIFSIGNALED(status)
    assert kills >= 12, kills
    _, status = os.waitpid(child(lambda: send(store, plan)), 0)
    assert status == 0
    """
    assert nursery(store, tmp_path, body).returncode == 0
    reader = Reader(default_uri(store))
    assert len(reader.runs(names.KIND_SWEEP)) == 1
    assert len(reader.runs(names.KIND_TRIAL)) == 2
    assert len(reader.runs(names.KIND_STAGE)) == len(folders)
    for folder in folders:
        assert_sent_exactly(reader, folder)
    assert Tracking(default_uri(store), store, plan).is_current()


@pytest.mark.slow
def test_killed_at_random_moments(store, plan, tmp_path):
    folders = [Run(store, plan, key).log(range(20_000)).complete() for key in plan.stages]
    body = """
    random.seed(0)
    finished = 0
    for _ in range(25):
        pid = child(lambda: send(store, plan))
        time.sleep(random.uniform(0.02, 0.8))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        finished += not os.WIFSIGNALED(status)
    assert finished < 15, finished
    _, status = os.waitpid(child(lambda: send(store, plan)), 0)
    assert status == 0
    """
    assert nursery(store, tmp_path, body).returncode == 0
    reader = Reader(default_uri(store))
    assert len(reader.runs(names.KIND_STAGE)) == len(folders)
    for folder in folders:
        assert_sent_exactly(reader, folder)


def test_killed_while_the_database_is_made(store, plan, tmp_path):
    """MLflow would refuse half a schema for ever."""
    body = """
    def grown(folder):
        sizes = [0]
        for name in ("mlflow.db", ".mlflow.db.new"):
            try:
                sizes.append((folder / name).stat().st_size)
            except FileNotFoundError:
                pass
        return max(sizes)

    for size in (40_000, 300_000):
        fresh = Store(store.root.with_name(f"fresh-{size}"))
        pid = child(lambda: send(fresh, plan))
        while grown(fresh.root) < size:
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _, status = os.waitpid(child(lambda: send(fresh, plan)), 0)
        assert status == 0
        assert not list(fresh.root.glob(".mlflow.db.new*"))
    """
    assert nursery(store, tmp_path, body).returncode == 0


@pytest.mark.slow
def test_six_at_once_on_a_fresh_database(tmp_path, plan):
    """Six launchers, then six processes that open what was prepared, then a lost database."""
    store = Store(tmp_path / "fresh")
    folder = Run(store, plan, keys_of(plan)[0]).log(range(100)).complete()
    body = """
    def six(work):
        return [os.waitpid(pid, 0)[1] for pid in [child(work) for _ in range(6)]]

    def visit():
        client = mlflow.tracking.MlflowClient(default_uri(store))
        run = Reader(default_uri(store)).one("sweep").info.run_id
        client.set_tag(run, f"visitor.{os.getpid()}", "was here")

    assert six(lambda: send(store, plan)) == [0] * 6
    assert six(visit) == [0] * 6
    shutil.copy(store.root / "mlflow.db", store.root / "visited.db")
    (store.root / "mlflow.db").unlink()
    assert not Tracking(default_uri(store), store, plan).is_current()
    assert six(lambda: send(store, plan)) == [0] * 6
    """
    assert nursery(store, tmp_path, body).returncode == 0
    tags = Reader(f"sqlite:///{store.root}/visited.db").one(names.KIND_SWEEP).data.tags
    assert sum(tag.startswith("visitor.") for tag in tags) == 6
    for uri in (default_uri(store), f"sqlite:///{store.root}/visited.db"):
        reader = Reader(uri)
        assert len(reader.runs(names.KIND_SWEEP)) == 1
        assert len(reader.runs(names.KIND_TRIAL)) == 2
        assert_sent_exactly(reader, folder)


# A server


@pytest.fixture
def server(tmp_path, empty_database):
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "server.db")
    server = MlflowServer(folder)
    yield server
    server.stop()


@pytest.mark.slow
def test_server_that_is_down_at_launch_and_later(server, store, plan):
    first, second = keys_of(plan)
    run = Run(store, plan, first).log(range(1000)).picture("a", 1)
    tracking = Tracking(server.uri, store, plan)
    started = time.monotonic()
    assert not tracking.prepare(60)
    assert time.monotonic() - started < 60  # it does not use up its time
    assert server.uri in tracking.note()
    assert "refused" in tracking.note()
    assert tracking.behind == 1001

    server.start()
    wait_for(lambda: tracking.error is None)
    assert (tracking.behind, tracking.note()) == (0, "")

    server.stop()
    run.log(range(1000, 2500)).picture("a", 2)
    tracking.notify([first])
    wait_for(lambda: tracking.error is not None)
    assert tracking.behind == 1501
    other = Run(store, plan, second).log(range(10)).complete()
    folder = run.complete()
    started = time.monotonic()
    unsent = tracking.finish(3)
    assert time.monotonic() - started < 60  # MLflow alone would try for minutes
    assert (unsent.points, unsent.pictures, unsent.stages) == (1510, 1, 2)
    assert "1510 points and 1 pictures" in str(unsent)
    assert "launch again" in str(unsent)

    server.start()
    assert not Tracking(server.uri, store, plan).is_current()
    send(store, plan, server.uri)
    reader = Reader(server.uri)
    assert len(reader.runs(names.KIND_SWEEP)) == 1
    assert_sent_exactly(reader, folder)
    assert_sent_exactly(reader, other)
    stage = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=first)
    assert len(reader.files(stage, "pictures/a")) == 2
    assert stage.info.status == "FINISHED"


@pytest.mark.slow
def test_server_killed_again_and_again_while_sending(server, store, plan):
    runs = [Run(store, plan, key) for key in plan.stages]
    server.start()
    tracking = Tracking(server.uri, store, plan)
    assert tracking.prepare(60)
    for part in range(4):
        for run in runs:
            run.log(range(part * 4000, (part + 1) * 4000), **{"train/inf": math.inf})
        time.sleep(2.2 + 0.3 * part)
        server.stop()
        time.sleep(0.5)
        server.start()
    folders = [run.complete() for run in runs]
    assert not tracking.finish(120)
    reader = Reader(server.uri)
    for folder in folders:
        run = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=folder.spec().key)
        assert [s for s, _ in reader.history(run, "train/loss")] == list(range(16_000))
        assert [s for s, _ in reader.history(run, "train/inf")] == list(range(16_000))


def test_server_that_never_answers_does_not_block(store, plan):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        tracking = Tracking(f"http://127.0.0.1:{deaf.getsockname()[1]}", store, plan)
        assert not tracking.prepare(0.5)
        assert "no answer" in tracking.note()
        started = time.monotonic()
        unsent = tracking.finish(0.5)
        assert time.monotonic() - started < 60  # MLflow alone would wait for minutes
        assert unsent
