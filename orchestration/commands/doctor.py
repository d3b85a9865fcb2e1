"""`python -m orchestration doctor`: what this machine and its cluster can do, what is amiss."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from gigatok.startup import for_children, hiding
from orchestration.backends import BACKENDS
from orchestration.exits import EXIT_REFUSED, fail
from orchestration.launching.foreground import check_writable
from orchestration.launching.launched import newest_launches
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs import provenance
from orchestration.runs.logins import with_login
from orchestration.runs.state import Store
from orchestration.tracking import sqlite_file
from orchestration.tracking.ledger import Destination, parse_uri
from orchestration.tracking.shipping import default_uri

ANSWER_SECONDS = 10.0
NODE_SECONDS = 60
"""How long a node is waited for."""
CLOCK_SECONDS = 5.0
"""A file system whose clock differs by more makes the ages of files and records misleading."""
NETWORK_FILE_SYSTEMS = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "cephfs",
    "ceph",
    "afs",
    "panfs",
    "weka",
)

Level = Literal["ok", "warning", "missing"]
STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "missing": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        needed_by: backend that cannot do without; empty: all of them.
        text: what was found, and what to do where it is not ok.
    """

    name: str
    level: Level
    text: str
    needed_by: str = ""


def doctor(
    backend: Annotated[str, typer.Option(help=f"One of: {', '.join(BACKENDS)}.")] = "local",
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow; default: mlflow.db in the runs directory.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster.")
    ] = None,
    profile_file: Annotated[
        Path | None, typer.Option("--profile", help="What to ask SLURM for a node by.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hash the outputs of all complete stages.")
    ] = False,
) -> None:
    """Look at files, MLflow, GPUs, SLURM, Ray; exits with 3 if what a backend needs is missing."""
    if backend not in BACKENDS:
        fail(ValueError(f"--backend {backend}: not one of {', '.join(BACKENDS)}"))
    store = Store(runs_dir)
    uri = with_login(store, tracking_uri or default_uri(store))
    try:
        destination = parse_uri(uri)
        profile = load_profile(profile_file)
    except ValueError as error:
        fail(error)
    groups: list[Callable[[], Iterator[Finding]]] = [
        code,
        lambda: files(store, backend),
        lambda: mlflow(destination, backend),
        gpus,
        slurm,
        lambda: ray(ray_address),
    ]
    if backend == "slurm":
        groups.append(lambda: node(store, destination, profile))
    if verify:
        groups.append(lambda: outputs(store))
    findings = [finding for group in groups for finding in group()]
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        level = Text(finding.level, style=STYLES[finding.level])
        table.add_row(level, Text(finding.name), Text(finding.text))
    Console(markup=False, highlight=False).print(table)
    if any(f.level == "missing" and f.needed_by in ("", backend) for f in findings):
        raise typer.Exit(EXIT_REFUSED)


def code() -> Iterator[Finding]:
    """The commit that runs are recorded with, and whether the working folder hides the code."""
    state = provenance.git_state()
    if state.get("git_sha") is None:
        text = "no commit is known, runs are recorded without one: git is missing or this no clone"
        yield Finding("code", "warning", text)
    else:
        yield Finding("code", "ok", provenance.code_version(state))
    for name in hiding(os.getcwd()):
        module = name.removesuffix(".py")
        text = f"{name} here hides a package of this program: type python -P -m {module} …"
        yield Finding("working folder", "warning", text)


def files(store: Store, backend: str) -> Iterator[Finding]:
    """The runs directory: writable, seen by all nodes, on the clock of this host."""
    try:
        existed = store.root.exists()
        check_writable(store.root)
    except ValueError as error:
        yield Finding("runs directory", "missing", str(error))
        return
    free = shutil.disk_usage(store.root).free / 2**30
    yield Finding("runs directory", "ok", f"{store.root.resolve()}, {free:.1f} GiB free")
    yield clock(store.root)
    kind = file_system(store.root.resolve())
    shared = any(kind.startswith(name) for name in NETWORK_FILE_SYSTEMS)
    if shared or backend == "local":
        yield Finding("file system", "ok", kind)
    else:
        text = f"{kind}: looks local to this host; name a --runs-dir that all nodes see"
        yield Finding("file system", "warning", text)
    if not existed:
        store.root.rmdir()


def clock(folder: Path) -> Finding:
    """Whether files are dated as this host would."""
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        difference = abs(os.stat(probe.name).st_mtime - time.time())
    if difference > CLOCK_SECONDS:
        text = f"{difference:.0f} s from this host's; synchronise them, or times will mislead you"
        return Finding("clock of the file system", "warning", text)
    return Finding("clock of the file system", "ok", f"{difference:.1f} s from this host's")


def outputs(store: Store) -> Iterator[Finding]:
    """Compare the outputs of all complete stages with the hashes that were taken at their end."""
    complete = [folder for folder in store.stage_folders() if folder.is_complete()]
    trials = {
        key: f"{quote(launch.sweep)} {quote(trial)}"
        for launch in newest_launches(store)
        for trial, stages in launch.trials.items()
        for key in stages.values()
    }
    damaged = 0
    for folder in track(complete, "hashing outputs", console=Console(stderr=True)):
        if (wrong := folder.damage(thorough=True)) is not None:
            damaged += 1
            stage = folder.path.parent.name
            trial = trials.get(folder.key, "SWEEP TRIAL")
            again = f"python -m orchestration retry {trial} {stage}"
            yield Finding(f"{stage} {folder.name}", "missing", f"{wrong}; make it again: {again}")
    if not damaged:
        yield Finding("outputs", "ok", f"{len(complete)} stages, every file as it was written")


def file_system(path: Path) -> str:
    """Type of the file system that holds a path, by the longest matching mount point."""
    best, kind = "", "unknown"
    mounts = Path("/proc/mounts")
    listed = mounts.read_text(encoding="utf-8", errors="replace") if mounts.exists() else ""
    for line in listed.splitlines():
        _, point, name, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind


def mlflow(destination: Destination, backend: str) -> Iterator[Finding]:
    """The tracking server or database."""
    if destination.database is not None:
        try:
            if not sqlite_file.is_missing(destination.database):
                sqlite_file.check(destination.database)
        except sqlite_file.DamagedDatabase as error:
            text = f"{error}; `python -m orchestration sync --rebuild` makes it again"
            yield Finding("MLflow", "warning", text)
            return
        if backend == "slurm":
            text = "a file, which controller jobs on other nodes write to as well; take a server"
            yield Finding("MLflow", "warning", f"{destination.shown}: {text}")
        else:
            yield Finding("MLflow", "ok", f"{destination.shown}, for launches from this host")
        return
    try:
        with urllib.request.urlopen(f"{destination.uri}/health", timeout=ANSWER_SECONDS):
            yield Finding("MLflow", "ok", f"{destination.shown} answers")
    except urllib.error.HTTPError as answer:
        # It is asked without a login, which this check does not need to hand around.
        yield Finding("MLflow", "ok", f"{destination.shown} answers, with {answer.code}")
    except (urllib.error.URLError, OSError) as error:
        text = f"{destination.shown}: {error}; metrics wait on disk until it answers"
        yield Finding("MLflow", "warning", text)


def gpus() -> Iterator[Finding]:
    """GPUs of this host."""
    names = provenance.gpu_names()
    if names:
        yield Finding("GPUs", "ok", f"{len(names)} × {names[0]}")
    else:
        yield Finding("GPUs", "warning", "none on this host; stages that run here use its CPU")


def slurm() -> Iterator[Finding]:
    """The commands of SLURM and what its configuration means for a sweep."""
    missing = [name for name in ("sbatch", "srun", "scontrol", "squeue") if not shutil.which(name)]
    if missing:
        text = f"no {', '.join(missing)} on this host; log in where jobs are submitted"
        yield Finding("SLURM", "missing", text, "slurm")
        return
    said = _ask("scontrol", "show", "config")
    if said is None:
        yield Finding("SLURM", "missing", "scontrol gets no answer from slurmctld", "slurm")
        return
    config = dict(re.findall(r"^(\S+)\s*=\s*(.*?)\s*$", said, re.M))
    yield Finding("SLURM", "ok", f"{config.get('SLURM_VERSION')}, {config.get('ClusterName')}")
    size = int(config.get("MaxArraySize", "0"))
    text = f"{size}: arrays have at most so many stages, larger sweeps are split"
    yield Finding("MaxArraySize", "ok" if size > 1 else "warning", text)
    yield _preemption(config)
    if _ask("sacct", "-n", "-X", "-S", "now-1minutes") is None:
        text = "does not answer; ends of old jobs are read from stage folders and squeue only"
        yield Finding("sacct", "warning", text)
    else:
        yield Finding("sacct", "ok", "answers")


def _preemption(config: dict[str, str]) -> Finding:
    if config.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        return Finding("preemption", "ok", "off")
    mode = config.get("PreemptMode") or "on"
    if "preempt_send_user_signal" in config.get("SlurmctldParameters", ""):
        return Finding("preemption", "ok", f"{mode}; jobs are told in time to save a checkpoint")
    wait = re.search(r"\d+", config.get("KillWait", "30"))
    seconds = wait.group() if wait else "30"
    text = f"{mode}; SIGTERM only, KillWait {seconds} s: checkpoints must be quicker than that"
    return Finding("preemption", "warning", text)


def ray(address: str | None) -> Iterator[Finding]:
    """Ray's package and a cluster, if one is named."""
    version = provenance.package_version("ray")
    if version is None:
        yield Finding("Ray", "missing", "not installed: pip install ray", "ray")
        return
    if not address:
        yield Finding("Ray", "ok", f"{version}; no --ray-address: it is started on this host")
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS):
            yield Finding("Ray", "ok", f"{version}; {address} answers")
    except (OSError, ValueError) as error:
        text = f"{address}: {error}; start the cluster, or name no address"
        yield Finding("Ray", "missing", text, "ray")


def node(store: Store, destination: Destination, profile: Profile) -> Iterator[Finding]:
    """What a node sees: a short job looks at the runs directory, MLflow and GPUs from there."""
    if shutil.which("srun") is None:
        return
    from orchestration.backends.slurm import SlurmBackend, words

    alone = {"processes": 1, "nodes": 1, "time_minutes": 2}
    options = SlurmBackend(None, profile, store).options(profile.default.model_copy(update=alone))
    options |= {"requeue": None, "immediate": NODE_SECONDS}
    asked = words({name: value for name, value in options.items() if value is not None})
    existed = store.root.exists()
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=store.root.resolve(), prefix=".doctor-") as token:
        # The URL without its login: arguments of jobs are everybody's to read.
        place = destination.uri
        look = [sys.executable, "-m", "orchestration.commands.doctor", token.name, place]
        variables = {**os.environ, **for_children(str(Path(__file__).resolve().parents[2]))}
        said = subprocess.run(
            ["srun", *asked, *look],
            env=variables,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    if not existed:
        store.root.rmdir()
    if said.returncode:
        text = " ".join(said.stderr.split()[-40:]) or f"exit code {said.returncode}"
        yield Finding("a node", "missing", f"srun {' '.join(asked)}: {text}", "slurm")
        return
    for finding in json.loads(said.stdout.splitlines()[-1]):
        yield Finding(**finding)


def on_node(token: Path, uri: str) -> Iterator[Finding]:
    """What this node sees, for `node`.

    Args:
        token: a file that was just made in the runs directory, elsewhere.
        uri: of MLflow.
    """
    name = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    found = []
    if token.exists():
        found += [Finding("runs directory", "ok", "is seen"), clock(token.parent)]
    else:
        text = f"{token.parent} is not seen there; name a --runs-dir that all nodes see"
        found.append(Finding("runs directory", "missing", text))
    destination = parse_uri(uri)
    if destination.database is None:
        found += mlflow(destination, "slurm")
    found += gpus()
    if shutil.which("scontrol") is None:
        text = "not there: a stage that is preempted cannot queue itself again, `resume` does it"
        found.append(Finding("scontrol", "warning", text))
    for finding in found:
        yield replace(finding, name=f"node {name}: {finding.name}", needed_by="slurm")


def _ask(*command: str) -> str | None:
    """What a command prints; None if it is not there, fails or does not answer."""
    try:
        said = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=ANSWER_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout


if __name__ == "__main__":
    seen = on_node(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps([asdict(finding) for finding in seen]))
