"""A real SLURM cluster of four nodes on this machine, in a folder of its own.

Starts munge, MariaDB, slurmdbd, slurmctld and one slurmd per node on free ports, and stops exactly
what it started. Needs root and the packages slurmctld, slurmd, slurm-client, slurmdbd, munge and
mariadb-server. Partition `main` preempts partition `scavenge`, whose jobs are requeued.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

NODES = ("n1", "n2", "n3", "n4")
START_SECONDS = 120.0
RELEASE_SECONDS = 4.0
"""A node takes a job back that it has just killed only with a credential of a later second."""
SERVERS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch")


@dataclass(frozen=True)
class Options:
    """What the tests vary; see slurm.conf(5)."""

    max_array_size: int = 1001
    user_signal: bool = True
    """Whether a preempted job gets its user signal, before SIGTERM."""
    grace_seconds: int = 30
    """Between that and the end of a preempted job."""


class Cluster:
    """Servers and nodes, started one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = Options()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(zip(("database", "dbd", "ctld", *NODES), free_ports(7), strict=True))

    # Starting and stopping

    def start(self) -> None:
        """Everything, from the database up."""
        missing = [server for server in SERVERS if shutil.which(server, path=_path()) is None]
        assert not missing, f"install what has {', '.join(missing)}: see {__file__}"
        self._start_munge()
        self._start_database()
        self._write_configuration()
        self.start_accounting()
        run("sacctmgr", "--immediate", "add", "cluster", "test")
        self._start_controller("-c")
        for node in NODES:
            self.power_on(node)
        self.wait_for_nodes()

    def clear(self) -> None:
        """End all jobs, and wait until they have ended."""
        self._cancel_all()
        wait_until(lambda: not run("squeue", "--me", "--noheader"), "an empty queue")

    def _cancel_all(self) -> None:
        run("scancel", "--me", "--signal=KILL", "--full", check=False)
        run("scancel", "--me", check=False)

    def stop(self) -> None:
        """Everything, and the jobs first."""
        self._cancel_all()
        for name in reversed(self._servers):
            end(self._servers[name])
        kill(self._steps())

    def configure(self, **changes: object) -> None:
        """Restart the controller with other options; jobs go on."""
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        if options == self.options:
            return
        self.options = options
        self._write_configuration()
        self._stop_server("slurmctld")
        self._start_controller()
        self.wait_for_nodes()

    def stop_accounting(self) -> None:
        """The accounting database becomes unreachable."""
        self._stop_server("slurmdbd")

    def start_accounting(self) -> None:
        """It comes back."""
        self._start_server("slurmdbd", "slurmdbd", "-D")
        wait_until(lambda: succeeds("sacctmgr", "--noheader", "list", "cluster"), "slurmdbd", 30)

    def _start_controller(self, *options: str) -> None:
        self._start_server("slurmctld", "slurmctld", "-D", *options)
        wait_until(lambda: succeeds("scontrol", "ping"), "slurmctld")

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The controller takes requests and answers none of them meanwhile."""
        controller = psutil.Process(self._servers["slurmctld"].pid)
        controller.suspend()
        try:
            yield
        finally:
            controller.resume()
            wait_until(lambda: succeeds("scontrol", "ping"), "slurmctld")

    # Nodes

    def power_off(self, node: str) -> None:
        """The node dies with everything on it, and the controller finds out."""
        self._servers.pop(node).kill()
        kill(self._steps(node))
        run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def power_on(self, node: str) -> None:
        """The node comes up; after a `power_off` it also needs `wait_for_nodes`."""
        self._start_server(node, "slurmd", "-D", "-N", node)

    def wait_for_nodes(self) -> None:
        """Until all can take jobs."""

        def ready() -> bool:
            states = run("sinfo", "--noheader", "--Node", "--partition=main", "-o", "%N %t")
            by_node = dict(line.split() for line in states.splitlines())
            for node, state in by_node.items():
                if state.startswith("down") and node in self._servers:
                    run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            return all(state in ("idle", "mix", "alloc") for state in by_node.values())

        wait_until(ready, "the nodes")

    def _steps(self, node: str | None = None) -> list[psutil.Process]:
        """Processes of jobs, of one node or all; those that watch over others first."""
        daemons, workers = [], []
        for process in psutil.process_iter():
            try:
                variables, above = process.environ(), process.parents()
            except (psutil.Error, OSError):
                continue
            here = variables.get("SLURM_CONF") == str(self.root / "slurm.conf")
            if here and node in (variables.get("SLURMD_NODENAME"), None):
                if "SLURM_JOB_ID" in variables:
                    workers.append(process)
                daemons += [parent for parent in above if "slurmstepd" in parent.name()]
        return daemons + workers

    # Servers

    def _start_server(self, name: str, program: str, *arguments: str) -> None:
        binary = shutil.which(program, path=_path())
        assert binary is not None, program
        with (self.root / f"{name}.log").open("ab") as log:
            self._servers[name] = subprocess.Popen(
                [binary, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _stop_server(self, name: str) -> None:
        end(self._servers.pop(name))

    def _start_munge(self) -> None:
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = [
            f"--{option}-file={self.root / f'munge.{option}'}"
            for option in ("key", "pid", "log", "seed")
        ]
        socket_file = self.root / "munge.socket"
        self._start_server(
            "munged", "munged", "--foreground", "--force", *files, f"--socket={socket_file}"
        )
        wait_until(socket_file.exists, "munged")

    def _start_database(self) -> None:
        data = self.root / "database"
        run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root",
            "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
        sock = self.root / "database.socket"
        self._start_server(
            "mariadbd", "mariadbd", "--no-defaults", f"--datadir={data}", "--user=root",
            f"--socket={sock}", "--bind-address=127.0.0.1", f"--port={self._ports['database']}",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
        )  # fmt: skip
        client = ("mariadb", "--no-defaults", f"--socket={sock}", "--user=root")
        wait_until(lambda: succeeds(*client, "-e", "select 1"), "MariaDB")
        run(
            *client,
            "-e",
            "create user slurm@'127.0.0.1' identified by 'slurm'; create database accounting;"
            "grant all on accounting.* to slurm@'127.0.0.1'",
        )

    def _write_configuration(self) -> None:
        values = {
            "root": self.root,
            "host": socket.gethostname().partition(".")[0],
            **{f"{name}_port": port for name, port in self._ports.items()},
            "max_array_size": self.options.max_array_size,
            "grace_seconds": self.options.grace_seconds,
            "parameters": "preempt_send_user_signal"
            if self.options.user_signal
            else "enable_rpc_queue",
            "nodes": "\n".join(NODE.format(node=node, port=self._ports[node]) for node in NODES),
        }
        for name, text in (("slurmdbd.conf", SLURMDBD_CONF), ("slurm.conf", SLURM_CONF)):
            file = self.root / name
            file.write_text(text.format(**values))
            file.chmod(0o600)
        for folder in ("state", *(f"spool/{node}" for node in NODES)):
            (self.root / folder).mkdir(parents=True, exist_ok=True)


SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
DbdHost=localhost
DbdPort={dbd_port}
SlurmUser=root
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounting
"""

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
DebugFlags=NO_CONF_HASH
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1500
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStorageEnforce=limits
AccountingStoragePass={root}/munge.socket
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
SlurmctldParameters={parameters}
MaxArraySize={max_array_size}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_seconds}
"""
NODE = (
    "NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=3000"
)


@contextmanager
def slurm_cluster(root: Path) -> Iterator[Cluster]:
    """A cluster that sbatch, squeue and the others of this process and its children talk to."""
    cluster = Cluster(root)
    with ExitStack() as stack:
        stack.enter_context(_variable("SLURM_CONF", str(root / "slurm.conf")))
        stack.callback(cluster.stop)
        cluster.start()
        stack.enter_context(_releasing())
        yield cluster


@contextmanager
def preempting(meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """An exclusive job on all nodes, which jobs of `scavenge` make room for.

    Args:
        meanwhile: called once it is queued.
    """
    options = ["--partition=main", "--exclusive", f"--nodes={len(NODES)}", "--output=/dev/null"]
    job = run("sbatch", "--parsable", *options, "--time=30", "--wrap=sleep 1800").strip()
    try:
        meanwhile()
        wait_until(lambda: job_state(job) == "RUNNING", "the job that preempts")
        yield
    finally:
        run("scancel", job)


def job_state(handle: str) -> str:
    """In SLURM's words; empty if the controller has forgotten it."""
    listing = ["squeue", "--noheader", "--states=all", "--array", "-o", "%T", "-j", handle]
    return run(*listing, check=False).strip()


@contextmanager
def _releasing() -> Iterator[None]:
    """Let requeued jobs start soon, not two minutes later."""
    stop = threading.Event()
    seen: dict[str, float] = {}

    def release() -> None:
        nonlocal seen
        while not stop.wait(0.5):
            waiting = ("squeue", "--noheader", "--states=PENDING", "--array", "-o", "%i %r %j")
            lines = [line.split(" ", 2) for line in run(*waiting, check=False).splitlines()]
            now = time.monotonic()
            seen = {
                handle: seen.get(handle, now)
                for handle, reason, name in lines
                if reason == "BeginTime" and "-controller-" not in name
            }
            for handle, since in seen.items():
                if now - since > RELEASE_SECONDS:
                    run("scontrol", "update", f"JobId={handle}", "StartTime=now", check=False)

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Look until it holds; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)


def run(*command: str, check: bool = True) -> str:
    """What it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def end(server: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    """SIGTERM, and SIGKILL for one that does not follow."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
