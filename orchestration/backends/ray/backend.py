"""Stages as tasks of Ray: one supervisor per stage, or per node where a stage takes several.

Ray finds the place and says which GPUs are free; it retries nothing. A running cluster must see
the runs directory; without an address, Ray starts on this machine and ends with the launch.
Workers whose launcher or node is gone save a checkpoint and stop.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gigatok.startup import for_children
from orchestration.backends.base import Capabilities, Infeasible, Job, NoAnswer
from orchestration.backends.ray.head import Head, knock, wait_longer
from orchestration.backends.snapshot import take_snapshot
from orchestration.backends.sockets import short_folder
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request
from orchestration.runs.stage_records import Kind
from orchestration.runs.state import StageFolder, Store
from orchestration.worker import EXIT_INTERRUPTED

OBJECT_STORE_BYTES = 100 * 2**20
"""Size of the object store of Ray on this machine; only exit codes go through it."""
LOOK_SECONDS = 5.0
"""How often a cluster is asked for its size: it may grow."""
QUEUE_PER_CPU = 2
"""Submitted stages per CPU: all are busy, and the runner decides late which stage is next."""
REST_SECONDS = 60.0
"""How long the other nodes of a stage may go on after one of them failed or was lost."""
CLOSE_SECONDS = 10.0
_BELOW = len("/ray-01234567/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0")
"""Bytes that Ray's longest socket has below the temporary folder."""
GIB = 2**30

SupervisorEnd = tuple[int, Kind | None, str]
"""Exit code of a supervisor, why if the host knows, and the host."""


@dataclass(eq=False)
class Tasks:
    """Supervisors of a stage, the one with rank 0 first.

    Attributes:
        references: Ray's names of them.
        futures: their outcomes.
        group: the nodes that they are on, where they are several.
        lost: whether a supervisor's node was lost, by Ray's word.
        cancels: how often they were cancelled; the second time kills.
        torn_since: when some of them ended badly while others went on.
    """

    references: list[Any]
    futures: list[Future[SupervisorEnd]]
    group: PlacementGroup | None
    lost: bool = False
    cancels: int = 0
    torn_since: float | None = None

    def cancel(self) -> None:
        """Have the workers save a checkpoint and stop; again: kill them."""
        self.cancels += 1
        for reference in self.references:
            ray.cancel(reference)


class RayBackend:
    """Stages as tasks on a Ray cluster."""

    capabilities = Capabilities(detached=False, time_limits=False)

    def __init__(
        self, jobs: int | None, profile: Profile, store: Store, address: str | None = None
    ) -> None:
        """Prepare; connects at the first use.

        Args:
            jobs: stages that run at the same time at most; None: as the profile says.
            profile: what stages ask for.
            store: the runs directory, on a file system that all nodes see.
            address: of a running cluster; None: Ray on this machine, for this launch.
        """
        self._limit = jobs or profile.max_parallel
        self._store = store
        self._address = address
        self._connected = False
        self._own_folder: tempfile.TemporaryDirectory[str] | None = None
        self._head: Head | None = None
        self._running: set[Tasks] = set()
        # None and not 0: the monotonic clock may be younger than `LOOK_SECONDS` on a machine that
        # just booted.
        self._looked: float | None = None
        self._slots = 0

    # The cluster

    def warm_up(self) -> None:
        """Connect; Ray on this machine takes some seconds to start."""
        self._connect()

    def free_slots(self) -> int:
        """Count what was asked for, or a little more than fits; less what is under way."""
        self._connect()
        now = time.monotonic()
        look = self._looked is None or now - self._looked > LOOK_SECONDS
        # A head that is asked for anything else while it is silent would hold the launch up.
        if not self._there(at_once=look):
            return 0
        if look:
            self._looked = now
            cpus = int(ray.cluster_resources().get("CPU", 0))
            self._slots = self._limit or max(1, QUEUE_PER_CPU * cpus)
        return self._slots - len(self._running)

    def check(self, request: Request) -> None:
        """Refuse what the cluster, as it is now, could never give: Ray would wait in silence.

        Raises:
            Infeasible: says what was asked and what there is.
        """
        self._connect()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        # Compared with single nodes and not with the cluster's total: a supervisor needs all of it
        # in one place.
        asked = _amounts(request)
        able = [
            node
            for node in nodes
            if all(node["Resources"].get(name, 0) >= amount for name, amount in asked.items())
        ]
        if len(able) < request.nodes:
            there = "; ".join(_described(node["Resources"]) for node in nodes)
            raise Infeasible(
                f"{request.nodes} x ({_described(asked)}) for {request.processes} processes: "
                f"this Ray cluster has {len(nodes)} nodes: {there}; ask for less in the profile"
            )

    def _connect(self) -> None:
        """Connect to Ray unless this process is connected already.

        Raises:
            ValueError: no cluster answers at the address, or its versions do not fit.
        """
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Or Ray warns that it will not hide GPUs; the supervisor does.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray's workers would give way to everything else on this machine.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            if self._address is not None:
                knock(self._address)
            wait_longer()
            ray.init(**self._options(), log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"--ray-address {self._address}" if self._address else "--backend ray"
            raise ValueError(f"{where}: {error}") from error
        self._connected = True
        self._head = Head(own=self._address is None)

    def _options(self) -> dict[str, Any]:
        if self._address is not None:
            return {"address": self._address}
        self._own_folder = tempfile.TemporaryDirectory(
            prefix="ray-", dir=short_folder(_BELOW), ignore_cleanup_errors=True
        )
        atexit.register(self.close)  # before Ray's own, which would write into the folder again
        return {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": self._own_folder.name,
        }

    # Jobs

    def submit(self, folder: StageFolder, request: Request) -> Job:
        """Queue the stage's supervisors.

        Raises:
            NoAnswer: the cluster is silent for now; Ray would wait for it without end.
        """
        self._connect()
        if not self._there(at_once=True):
            raise NoAnswer("the Ray cluster does not answer")
        group, places = _places(request)
        run = self._run
        meeting = None
        if group is not None:
            meeting = run.options(num_cpus=0, **places[0]).remote(self._code, "meeting_point")
        part = {
            "stage_dir": str(folder.path.resolve()),
            "output": str(self._output(folder)),
            "threads": request.cpus,
            "processes": request.processes,
            "nodes": request.nodes,
        }
        supervisors = [
            run.options(name=folder.name, **_needs(request), **place).remote(
                self._code, "supervise", {**part, "node": node}, meeting
            )
            for node, place in enumerate(places)
        ]
        tasks = Tasks(supervisors, [reference.future() for reference in supervisors], group)
        self._running.add(tasks)
        return Job(folder, tasks)

    def poll(self, job: Job) -> Ended | None:
        """Return the end of a job; None while any of its supervisors may still run or start.

        Raises:
            OSError: a node cannot run supervisors, such as for want of a package.
            ClusterGone: not this stage was lost, but the whole cluster.
        """
        tasks: Tasks = job.handle
        self._there()
        ended = [future for future in tasks.futures if future.done()]
        if len(ended) < len(tasks.futures):
            # The second Ctrl-C closes the backend, and the runner polls once more.
            if not ray.is_initialized():
                return Ended(None)  # closed before it ended; the worker will see that
            self._end_rest(tasks, [_ended(future) for future in ended])
            return None
        ends = [_ended(future) for future in tasks.futures]
        # A lost node and a lost cluster look alike in the futures; only the head tells them apart,
        # and the policies count a lost node against that node.
        there = self._there(at_once=not tasks.lost)
        tasks.lost = any(end.reason == "node_lost" for end in ends)
        if tasks.lost and not there and not self._is_gone():
            return None  # until it is known whether a node was lost, or the cluster with it
        self._running.discard(tasks)
        if tasks.group is not None and there:
            remove_placement_group(tasks.group)
        # The most telling end: one with a reason, else a failure, else success. A rank that was
        # told to stop because its partner died would hide the cause.
        return min(ends, key=lambda end: (end.reason is None, end.exit_code == 0))

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Return once a supervisor has ended, or after so many seconds."""
        pending: list[Future[SupervisorEnd]] = []
        for job in jobs:
            # A future that is done ends every wait at once.
            others = [future for future in job.handle.futures if not future.done()]
            if not others and not job.handle.lost:
                return  # ended since it was polled
            pending += others
        if pending:
            wait(pending, seconds, FIRST_COMPLETED)
        else:
            time.sleep(seconds)  # `wait` for nothing returns at once

    def cancel(self, job: Job) -> None:
        """Stop a job; its workers save a checkpoint."""
        if job.handle.cancels == 0:
            job.handle.cancel()

    def logs(self, job: Job) -> list[Path]:
        """List what workers printed before they had an attempt's log to print into."""
        return [file for file in [self._output(job.folder)] if file.exists()]

    def close(self) -> None:
        """Kill what is left, and disconnect from what this backend connected to.

        Ray on this machine ends.
        """
        if ray.is_initialized():
            for tasks in self._running:
                while tasks.cancels < 2:
                    tasks.cancel()
            # Before `ray.shutdown`, which kills Ray's processes, and with them supervisors that
            # still have to kill their workers.
            wait([future for tasks in self._running for future in tasks.futures], CLOSE_SECONDS)
        servers = [] if self._own_folder is None else _servers(self._own_folder.name)
        if self._connected:
            ray.shutdown()
            self._connected = False
        if self._own_folder is not None:
            # Until they have ended they write, and make the folder anew.
            _, left = psutil.wait_procs(servers, CLOSE_SECONDS)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            # Ray on this machine is used for one launch: nobody looks into its session later.
            self._own_folder.cleanup()
            self._own_folder = None

    def _there(self, at_once: bool = False) -> bool:
        """Tell whether the cluster answers.

        Raises:
            ClusterGone: it has not for too long; said once.
        """
        if self._head is None or not ray.is_initialized():
            return ray.is_initialized()
        return self._head.answers(at_once=at_once)

    def _is_gone(self) -> bool:
        return not ray.is_initialized() or (self._head is not None and self._head.told)

    def _end_rest(self, tasks: Tasks, ends: list[Ended]) -> None:
        """Do not let nodes wait for ever for one that failed or was lost."""
        if all(end.exit_code == 0 for end in ends):
            return
        now = time.monotonic()
        # Asked to stop at once, killed `REST_SECONDS` later, since `cancels` is then 1.
        tasks.torn_since = tasks.torn_since or now
        patience = REST_SECONDS * tasks.cancels
        if tasks.cancels < 2 and now - tasks.torn_since >= patience:
            tasks.cancel()

    def _output(self, folder: StageFolder) -> Path:
        return self._store.root.resolve() / "ray" / f"{folder.name}.log"

    @cached_property
    def _run(self) -> Any:
        """Make the task that all stages are: Ray sends it once, and keeps workers for the next."""
        return ray.remote(max_retries=0)(_from_snapshot())

    @cached_property
    def _code(self) -> dict[str, str]:
        """Collect the workers' variables: the code as it is now, and the user's settings."""
        # Ray's workers have the environment of the cluster, not of the user who launches.
        settings = {name: text for name, text in os.environ.items() if name.startswith("GIGATOK_")}
        return {**settings, **for_children(str(take_snapshot(self._store)))}


def _servers(folder: str) -> list[psutil.Process]:
    """Find the processes of Ray on this machine, by the folder that it was given."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any(folder in word for word in child.cmdline()):
                found += [*child.children(recursive=True), child]
    return found


def _from_snapshot() -> Callable[..., Any]:
    """Make a call of a function of `ray.job` on a node: a closure, which Ray sends by value.

    Anything else it would import there, from the source that may have been edited since.
    """

    def call(variables: dict[str, str], function: str, *arguments: Any) -> Any:
        os.environ.update(variables)
        code = variables["PYTHONPATH"].split(os.pathsep)[0]
        if code not in sys.path:
            sys.path.insert(0, code)
        return getattr(importlib.import_module("orchestration.backends.ray.job"), function)(
            *arguments
        )

    return call


def _amounts(request: Request) -> dict[str, float]:
    """Add up what a request takes of each node, by Ray's names; memory in bytes."""
    # Requests speak of processes; Ray places one supervisor per node, which forks them all.
    per_node = request.processes // request.nodes
    amounts = {
        "CPU": per_node * request.cpus,
        "GPU": per_node * request.gpus,
        "memory": per_node * int((request.memory_gb or 0) * GIB),
    }
    return {name: amount for name, amount in amounts.items() if amount}


def _needs(request: Request) -> dict[str, Any]:
    """Write what a request takes as options of a task."""
    names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    return {names[name]: amount for name, amount in _amounts(request).items()}


def _described(amounts: dict[str, float]) -> str:
    """Describe amounts in words, such as `16 CPU, 0.5 GPU, 64 GiB memory`."""
    parts = [f"{amounts.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
    if "memory" in amounts:
        parts.append(f"{amounts['memory'] / GIB:.1f} GiB memory")
    return ", ".join(parts)


def _places(request: Request) -> tuple[PlacementGroup | None, list[dict[str, Any]]]:
    """Make options that put each supervisor on a node of its own; one alone goes anywhere."""
    if request.nodes == 1:
        return None, [{}]
    # STRICT_SPREAD: two supervisors of a stage on one node would count their local ranks from 0
    # both, and share GPUs.
    group = placement_group([_amounts(request)] * request.nodes, strategy="STRICT_SPREAD")
    strategies = [
        PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
        for node in range(request.nodes)
    ]
    return group, [{"scheduling_strategy": strategy} for strategy in strategies]


def _ended(future: Future[SupervisorEnd]) -> Ended:
    """Read what a supervisor that is over says, or what its absence means."""
    error = future.exception()
    if error is None:
        return Ended(*future.result())
    # In this order: `OutOfMemoryError` and `TaskCancelledError` are errors of Ray as well, and the
    # last line takes whatever is left.
    if isinstance(error, TaskCancelledError):
        return Ended(EXIT_INTERRUPTED, "preempted")  # before it started
    if isinstance(error, OutOfMemoryError):
        return Ended(None, "out_of_memory")
    if isinstance(error, RayTaskError) or not isinstance(error, RayError):
        raise OSError(f"--backend ray: a node cannot start workers: {error}") from error
    # A supervisor does not die by itself: its node or raylet did, or somebody killed it there.
    return Ended(None, "node_lost")
