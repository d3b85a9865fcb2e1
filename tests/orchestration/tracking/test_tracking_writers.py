"""64 stages that write at the same time, and several launchers that send them to one server."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gigatok import names
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import StageFolder, Store
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.shipping import Tracking
from orchestration.tracking.spool import MetricPoint, read_spool
from tests.orchestration.tracking.tracking_helpers import MlflowServer, Run

pytestmark = pytest.mark.slow
WRITERS, LINES = 64, 25
Points = Counter[tuple[str, str, int, float, int]]
"""(stage key, name, step, value, time) -> how often."""


def plan_of_rates(folder: Path, name: str) -> Plan:
    """One tokenizer per learning rate; sweeps of any name share all of them."""
    rates = ", ".join(f"{1e-4 * (1 + index):.4f}" for index in range(WRITERS))
    file = folder / f"{name}.yaml"
    file.write_text(
        "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S, "
        "tokenizer.semantic_weight: 0}\n"
        f"axes: {{tokenizer.lr: [{rates}]}}\nstages: [train_tokenizer]\n"
    )
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def fork(work: Callable[[], None]) -> int:
    """A process of its own, without the seconds that imports take."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def write(store: Store, plan: Plan, key: str) -> None:
    """A stage that logs with pauses of its own, so that all overlap."""
    draw = random.Random(key)
    run = Run(store, plan, key)
    for step in range(LINES):
        run.log([step], **{"train/grad_norm": draw.random()})
        time.sleep(draw.uniform(0.0, 0.2))
    run.complete(params_total=1.0)


def launch(store: Store, plan: Plan, uri: str) -> None:
    """Send until every stage is complete, as launchers do, then what is left."""
    tracking = Tracking(uri, store, plan)
    assert tracking.prepare(120), tracking.error
    deadline = time.monotonic() + 240
    folders = store.folders((s.stage, key, s.readable) for key, s in plan.stages.items())
    while not all(folder.is_complete() for folder in folders.values()):
        assert time.monotonic() < deadline
        tracking.notify(plan.stages)
        time.sleep(0.2)
    unsent = tracking.finish(240)
    assert not unsent, str(unsent)


def spooled(folders: list[StageFolder]) -> Points:
    return Counter(
        (folder.spec().key, item.name, item.step, item.value, item.time)
        for folder in folders
        for item in read_spool(folder)
        if isinstance(item, MetricPoint)
    )


def stored(database: Path) -> tuple[Points, Counter[str]]:
    """What the server has of all curves, and how many runs of each stage."""
    with sqlite3.connect(database) as store:
        rows = store.execute(
            "select t.value, m.key, m.step, m.value, m.timestamp from metrics m "
            "join tags t on t.run_uuid = m.run_uuid and t.key = ? where m.key like 'train/%'",
            (names.TAG_STAGE_KEY,),
        ).fetchall()
        keys = store.execute("select value from tags where key = ?", (names.TAG_STAGE_KEY,))
        runs = Counter(key for (key,) in keys.fetchall())
    return Counter(rows), runs


def test_64_writers_and_three_launchers_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plans = [plan_of_rates(tmp_path, name) for name in ("one", "two", "three")]
    assert all(plan.stages.keys() == plans[0].stages.keys() for plan in plans)
    server = MlflowServer(tmp_path)
    server.start()
    try:
        children = [
            *(fork(lambda k=key: write(store, plans[0], k)) for key in plans[0].stages),
            *(fork(lambda p=plan: launch(store, p, server.uri)) for plan in plans),
        ]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    finally:
        server.stop()
    index = store.index("train_tokenizer")
    expected = spooled(list(index.values()))
    assert expected.total() == WRITERS * LINES * 2
    found, runs = stored(tmp_path / "server.db")
    assert found == expected
    assert runs == dict.fromkeys(index, 1)
