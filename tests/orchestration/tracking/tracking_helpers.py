"""What the tests of tracking share: stages run by hand, and a look into MLflow."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np

from gigatok import names
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done, Failure, Spec
from orchestration.runs.state import StageFolder, Store
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.shipping import Tracking, default_uri
from orchestration.tracking.spool import MetricPoint, SpoolWriter, read_spool

ROOT = Path(__file__).resolve().parents[3]
SERVER_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def plan_of(tmp_path: Path, name: str, decoders: str = "[S, B]", stages: str = "") -> Plan:
    file = tmp_path / f"{name}.yaml"
    file.write_text(
        textwrap.dedent(f"""\
        question: What does a larger decoder buy?
        paper: Table 2
        scale: smoke
        axes:
          tokenizer.decoder: {decoders}
        set:
          tokenizer.encoder: S
          generator.size: S
        seeds: [0]
        stages: {stages or "[train_tokenizer]"}
        """)
    )
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def keys_of(plan: Plan, stage: str = "train_tokenizer") -> list[str]:
    return [key for key, planned in plan.stages.items() if planned.stage == stage]


class Run:
    """A stage run by hand, as a worker would."""

    def __init__(self, store: Store, plan: Plan, key: str) -> None:
        planned = plan.stages[key]
        spec = Spec(
            stage=planned.stage,
            version=1,
            key=key,
            readable=planned.readable,
            config=planned.config.model_dump(mode="json"),
            inputs={},
        )
        self.folder = store.create(spec)
        holder = acquire(self.folder)
        assert holder is not None
        self.holder = holder
        self.attempt = Attempt(
            number=holder.lease.attempt,
            host="node7",
            pid=holder.lease.pid,
            started=time.time() - 100.0,
            provenance={"git_sha": "abc123", "git_dirty": True, "git_patch": "+ a line"},
        )
        self.folder.write_attempt(self.attempt)
        self.spool = SpoolWriter(self.folder, self.attempt.number, lambda progress: None)

    def log(self, steps, **values) -> "Run":
        for step in steps:
            self.spool.metrics({"train/loss": 1.0 / (step + 1), **values}, step)
        return self

    def picture(self, name: str, step: int, shade: int = 0) -> "Run":
        self.spool.image(name, np.full((4, 4, 3), shade, np.uint8), step)
        return self

    def end(self, outcome: str | None) -> StageFolder:
        self.spool.close()
        self.attempt = self.attempt.model_copy(update={"ended": time.time(), "outcome": outcome})
        self.folder.write_attempt(self.attempt)
        return self.folder

    def complete(self, **metrics: float) -> StageFolder:
        self.end("complete")
        done = Done(
            metrics=metrics or {"params_total": 12.0},
            protocol={"params_total": "closed form"},
            artifacts={},
            finished=time.time(),
            seconds=1.0,
            attempt=self.attempt.number,
        )
        self.holder.complete(done)
        return self.folder

    def fail(self, message: str) -> StageFolder:
        log = self.folder.log(self.attempt.number)
        log.write_text("start\n" * 20_000 + message)
        failure = Failure(
            kind="exception",
            message=message,
            traceback=None,
            attempt=self.attempt.number,
            time=time.time(),
        )
        self.folder.write_failure(failure)
        self.end("failed")
        self.holder.release()
        return self.folder

    def die(self) -> StageFolder:
        """End like a worker killed with SIGKILL: the lease stays and names a dead process."""
        self.spool.close()
        child = subprocess.Popen(["true"])
        child.wait()
        file = self.folder.path / "lease.json"
        lease = json.loads(file.read_text())
        file.write_text(json.dumps({**lease, "pid": child.pid}))
        return self.folder


def send(store: Store, plan: Plan, uri: str | None = None, **options) -> None:
    """Launch, send everything, leave."""
    tracking = Tracking(uri or default_uri(store), store, plan, **options)
    tracking.prepare(60)
    unsent = tracking.finish(60)
    assert not unsent, str(unsent)


class Reader:
    """What MLflow has."""

    def __init__(self, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(uri)

    def runs(self, kind: str, name: str = "study"):
        experiment = self.client.get_experiment_by_name(name)
        query = f"tags.`{names.TAG_KIND}` = '{kind}'"
        return self.client.search_runs([experiment.experiment_id], query)

    def one(self, kind: str, **tags: str):
        found = [
            run
            for run in self.runs(kind)
            if all(run.data.tags[getattr(names, tag)] == value for tag, value in tags.items())
        ]
        assert len(found) == 1, found
        return found[0]

    def history(self, run, key: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key)]

    def files(self, run, folder: str = "") -> list[str]:
        return sorted(f.path for f in self.client.list_artifacts(run.info.run_id, folder or None))

    def text(self, run, path: str) -> bytes:
        return Path(self.client.download_artifacts(run.info.run_id, path)).read_bytes()


def assert_sent_exactly(reader: Reader, folder: StageFolder) -> None:
    """Every point of the spool is with the server, once."""
    run = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=folder.spec().key)
    points = [item for item in read_spool(folder) if isinstance(item, MetricPoint)]
    done = folder.done()
    expected = Counter((p.name, p.step, p.value, p.time) for p in points)
    scores = set() if done is None else set(done.metrics)
    found = Counter(
        (key, m.step, m.value, m.timestamp)
        for key in {p.name for p in points}
        for m in reader.client.get_metric_history(run.info.run_id, key)
    )
    assert found == expected
    assert scores <= set(run.data.metrics)


class MlflowServer:
    """A real `mlflow server` on loopback that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "backend-store-uri": f"sqlite:///{self.folder}/server.db",
            "artifacts-destination": str(self.folder / "artifacts"),
            "host": "127.0.0.1",
            "port": str(self.port),
            "workers": "1",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *flags],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **SERVER_ENVIRONMENT},
                start_new_session=True,
            )
        wait_for(self._answers, 90)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def nursery(store: Store, tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with MLflow imported and the plan at hand."""
    head = f"""
    import os, random, shutil, signal, sys, time, traceback
    from pathlib import Path
    import mlflow.tracking
    import mlflow.store.tracking.sqlalchemy_store
    from orchestration.tracking.ledger import Ledgers
    from tests.orchestration.tracking.tracking_helpers import *
    store = Store(Path({str(store.root)!r}))
    sweep = load_sweep({str(tmp_path / "study.yaml")!r})
    plan = make_plan(sweep, expand(sweep))

    def child(work):
        pid = os.fork()
        if pid == 0:
            try:
                work()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return pid
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, timeout=300)
