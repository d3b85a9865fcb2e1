"""`python -m orchestration doctor`: look at what this machine and its cluster can do."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from gigatok import plugins
from gigatok.config import DataConfig
from gigatok.startup import hiding
from gigatok.text.command_lines import command
from gigatok.text.options import RunsDir, TrackingUri
from gigatok.text.places import DEFAULT_RUNS
from orchestration.backends import BACKENDS, find_backend, profile_options
from orchestration.backends.base import Checkup, Finding, Level
from orchestration.commands.completion import sweep_files
from orchestration.exits import EXIT_REFUSED
from orchestration.launching.history import newest_launches
from orchestration.launching.readiness import check_writable
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs import provenance
from orchestration.runs.logins import with_login
from orchestration.runs.state import Store
from orchestration.sweep.definition import SweepError, load_sweep
from orchestration.terminal import plain_console
from orchestration.tracking import sqlite_file
from orchestration.tracking.ledger import Destination, parse_uri
from orchestration.tracking.shipping import default_uri

ANSWER_SECONDS = 10.0
CLOCK_SECONDS = 5.0
"""A file system whose clock differs by more makes the ages of files and records misleading."""
# As /proc/mounts calls them; compared by their beginnings, such as `nfs` for `nfs4`.
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

STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "missing": "bold red"}


def doctor(
    sweep: Annotated[
        str | None,
        typer.Argument(help="Also look at the plug-ins of a sweep.", autocompletion=sweep_files),
    ] = None,
    backend: Annotated[str, typer.Option(help=f"One of: {', '.join(BACKENDS)}.")] = "local",
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster.")
    ] = None,
    profile_file: Annotated[
        Path | None, typer.Option("--profile", help="How to ask the cluster for a node.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Your own images: what `data.path` will name.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hash the outputs of all complete stages.")
    ] = False,
) -> None:
    """Look at plug-ins, files, MLflow, GPUs, SLURM, Ray; exits with 3 if what is needed misses."""
    store = Store(runs_dir)
    uri = with_login(store, tracking_uri or default_uri(store))
    spec = find_backend(backend)
    destination = parse_uri(uri)
    profile = load_profile(profile_file, profile_options())
    profile = profile.model_copy(update={"ray_address": ray_address or profile.ray_address})
    # Functions and not findings: none is asked before its turn, and the slow ones come last.
    groups: list[Callable[[], Iterator[Finding]]] = [
        code,
        lambda: plug_ins(sweep),
        lambda: files(store, here=spec.runs_here(profile)),
        lambda: mlflow(destination, detached=spec.detached),
        gpus,
        lambda: backends(backend, store, destination, profile),
    ]
    if data is not None:
        groups.insert(1, lambda: images(data))
    if verify:
        groups.append(lambda: outputs(store))
    findings = [finding for group in groups for finding in group()]
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        level = Text(finding.level, style=STYLES[finding.level])
        table.add_row(level, Text(finding.name), Text(finding.text))
    plain_console().print(table)
    # What another backend misses is said, but does not fail the check of this one.
    if any(f.level == "missing" and f.needed_by in ("", backend) for f in findings):
        raise typer.Exit(EXIT_REFUSED)


def code() -> Iterator[Finding]:
    """Name the commit that runs are recorded with, and what here hides the code."""
    state = provenance.git_state()
    if state.get("git_sha") is None:
        text = "no commit is known, runs are recorded without one: git is missing or this no clone"
        yield Finding("code", "warning", text)
    else:
        yield Finding("code", "ok", provenance.code_version(state))
    for name in hiding(os.getcwd()):
        module = name.removesuffix(".py")
        text = (
            f"{name} here hides a package of this program: type gigatok … or python -P -m {module}"
        )
        yield Finding("working folder", "warning", text)


def plug_ins(sweep: str | None) -> Iterator[Finding]:
    """List the plug-ins that are installed, and those of a sweep: identity, what they register."""
    for name in dict.fromkeys([*plugins.installed(), *plugins.installed(plugins.FIGURES)]):
        try:
            yield _plug_in(plugins.load_module(name))
        except plugins.PluginError as error:
            # No more than a warning: who needs nothing of it can go on.
            yield Finding(f"plug-in {name}", "warning", str(error))
    if sweep is not None:
        try:
            yield from map(_plug_in, load_sweep(sweep).plugins)
        except SweepError as error:
            yield Finding(f"sweep {sweep}", "missing", str(error))


def _plug_in(plugin: plugins.Plugin) -> Finding:
    things = (f"{kind} {', '.join(names)}" for kind, names in plugin.entries.items())
    text = f"{plugin.identity} registers {'; '.join(things) or 'nothing'}"
    return Finding(f"plug-in {plugin.name}", "ok", text)


def files(store: Store, *, here: bool) -> Iterator[Finding]:
    """Look at the runs directory: writable, seen by all nodes, on the clock of this host.

    Args:
        store: the runs directory.
        here: stages run on this host alone.
    """
    try:
        # `check_writable` makes the folder: a doctor leaves nothing behind.
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
    if shared or here:
        yield Finding("file system", "ok", kind)
    else:
        text = f"{kind}: looks local to this host; name a --runs-dir that all nodes see"
        yield Finding("file system", "warning", text)
    if not existed:
        store.root.rmdir()


def images(path: Path) -> Iterator[Finding]:
    """Look at a user's own images: number, classes, and those that cannot be read."""
    try:
        # As a trial of the smallest size would: no scale is known here.
        config = DataConfig(
            name="folder", path=str(path), image_size=1, train_images=1, val_images=1
        )
    except ValidationError as error:
        yield Finding("images", "missing", str(error.errors()[0]["ctx"]["error"]))
        return
    for line in config.lines():
        yield Finding("images", "warning" if line.startswith("  ") else "ok", line.strip())


def clock(folder: Path) -> Finding:
    """Compare the dates of files with the clock of this host."""
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        # The date comes from the file server, whose clock may differ from that of this host.
        difference = abs(os.stat(probe.name).st_mtime - time.time())
    if difference > CLOCK_SECONDS:
        text = f"{difference:.0f} s from this host's; synchronise them, or times will mislead you"
        return Finding("clock of the file system", "warning", text)
    return Finding("clock of the file system", "ok", f"{difference:.1f} s from this host's")


def outputs(store: Store) -> Iterator[Finding]:
    """Compare the outputs of all complete stages with the hashes that were taken at their end."""
    complete = [folder for folder in store.stage_folders() if folder.is_complete()]
    trials = {
        key: (launch.sweep, trial)
        for launch in newest_launches(store)
        for trial, stages in launch.trials.items()
        for key in stages.values()
    }
    damaged = 0
    for folder in track(complete, "hashing outputs", console=Console(stderr=True)):
        if (wrong := folder.damage(thorough=True)) is not None:
            damaged += 1
            stage = folder.path.parent.name
            trial = trials.get(folder.key, ("SWEEP", "TRIAL"))
            again = command("orchestration", "retry", *trial, stage)
            yield Finding(f"{stage} {folder.name}", "missing", f"{wrong}; make it again: {again}")
    if not damaged:
        yield Finding("outputs", "ok", f"{len(complete)} stages, every file as it was written")


def file_system(path: Path) -> str:
    """Find the type of the file system that holds a path, by the longest matching mount point."""
    best, kind = "", "unknown"
    mounts = Path("/proc/mounts")
    listed = mounts.read_text(encoding="utf-8", errors="replace") if mounts.exists() else ""
    for line in listed.splitlines():
        _, point, name, *_ = line.split()
        # `>=`: of two mounts at one point, the later hides the earlier.
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind


def mlflow(destination: Destination, *, detached: bool) -> Iterator[Finding]:
    """Look at the tracking server or database.

    Args:
        destination: where runs go.
        detached: jobs on other nodes send runs.
    """
    if destination.database is not None:
        try:
            # No database yet is no damage: the first launch makes it.
            if not sqlite_file.is_missing(destination.database):
                sqlite_file.check(destination.database)
        except sqlite_file.DamagedDatabase as error:
            text = f"{error}; `{command('orchestration', 'sync', '--rebuild')}` makes it again"
            yield Finding("MLflow", "warning", text)
            return
        if detached:
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
    """Count the GPUs of this host."""
    names = provenance.gpu_names()
    if names:
        yield Finding("GPUs", "ok", f"{len(names)} × {names[0]}")
    else:
        yield Finding("GPUs", "warning", "none on this host; stages that run here use its CPU")


def backends(
    chosen: str, store: Store, destination: Destination, profile: Profile
) -> Iterator[Finding]:
    """Have every backend look at what it needs, and the chosen one also from a node."""
    for name in BACKENDS:
        spec = find_backend(name)
        if name != chosen or not spec.detached:
            yield from spec.examine(Checkup(store, profile, None))
            continue
        with _token(store.root) as token:
            # The URL without its login: arguments of jobs are everybody's to read.
            place = destination.uri
            # The same interpreter: nodes see the environment over the shared file system, as
            # workers must.
            look = [sys.executable, "-m", "orchestration.commands.upkeep.doctor", token, place]
            yield from spec.examine(Checkup(store, profile, look))


@contextmanager
def _token(folder: Path) -> Iterator[str]:
    """Make a file in the runs directory, for a node to see; nothing of it is left."""
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder.resolve(), prefix=".doctor-") as token:
        yield token.name
    if not existed:
        folder.rmdir()


def on_node(token: Path, uri: str) -> Iterator[Finding]:
    """Look around on a node, for a backend's `examine`.

    Args:
        token: a file that was just made in the runs directory, elsewhere.
        uri: of MLflow.
    """
    if token.exists():
        yield Finding("runs directory", "ok", "is seen")
        yield clock(token.parent)
    else:
        text = f"{token.parent} is not seen there; name a --runs-dir that all nodes see"
        yield Finding("runs directory", "missing", text)
    destination = parse_uri(uri)
    # A database file was judged on this host already.
    if destination.database is None:
        yield from mlflow(destination, detached=True)
    yield from gpus()


if __name__ == "__main__":
    seen = on_node(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps([asdict(finding) for finding in seen]))
