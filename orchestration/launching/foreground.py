"""What a launch does, in order: prefetch, run with a live display, report, draw the figure."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console

from gigatok.data.assets import fetch
from gigatok.stages.assets import required_assets
from gigatok.startup import for_children, hiding
from gigatok.text.credentials import mlflow_variables, shown, without_login
from orchestration.backends.base import Backend
from orchestration.command_lines import same_command, steering
from orchestration.execution.display import Display, held_lines
from orchestration.execution.progress import Progress
from orchestration.execution.results import launch_json, result_tables, trial_metrics
from orchestration.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED
from orchestration.forecast.forecast import Meter
from orchestration.launching.runner import Observe
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile
from orchestration.tracking.shipping import Tracking

SMALLEST_FREE_BYTES = 64 * 2**20
FIGURE_SUFFIXES = (".png", ".pdf", ".csv", ".json")
FINISH_SECONDS, INTERRUPTED_FINISH_SECONDS = 60.0, 10.0
"""How long the end of a launch waits for the tracking server."""


def check_writable(runs_dir: Path) -> None:
    """Refuse a runs directory that cannot be written, before anything is planned around it.

    Raises:
        ValueError: cannot be created or written, or has no space.
    """
    advice = "name a folder that you can write to and that has space"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir) as probe:
            probe.write(b" ")
        free = shutil.disk_usage(runs_dir).free
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--runs-dir {runs_dir}: {reason}; {advice}") from error
    if free < SMALLEST_FREE_BYTES:
        raise ValueError(
            f"--runs-dir {runs_dir}: No space left on device: {free / 2**20:.0f} MiB free, "
            f"{SMALLEST_FREE_BYTES / 2**20:.0f} MiB needed at least; {advice}"
        )


def make_ready(plan: Plan, progress: Progress, backend: Backend, profile: Profile) -> None:
    """Fetch what a plan needs, warm the backend up, and refuse what it could never give.

    Raises:
        Infeasible: says what was asked and what there is. The backend is closed.
        ValueError: something cannot be fetched, or the backend does not answer. It is closed.
    """
    try:
        prefetch(plan)
        backend.warm_up()
        check_requests(progress, backend, profile)
    except BaseException:
        backend.close()
        raise


def check_requests(progress: Progress, backend: Backend, profile: Profile) -> None:
    """Refuse what the backend could never give to the stages that are left.

    Raises:
        Infeasible: says what was asked and what there is.
        ValueError: the backend does not answer.
    """
    states = progress.states.items()
    stages = {progress.plan.stages[key].stage for key, state in states if state == "WAITING"}
    for request in {repr(request): request for request in map(profile.request, stages)}.values():
        backend.check(request)


def prefetch(plan: Plan) -> None:
    """Fetch data and networks before any worker starts.

    Raises:
        ValueError: something cannot be fetched; says how to supply it by hand.
    """
    for name in required_assets((stage.stage, stage.trial) for stage in plan.stages.values()):
        fetch(name)


class Driver(Protocol):
    """Brings a plan forward, or follows it."""

    progress: Progress
    stopping: str
    """What it says when it is interrupted."""

    @property
    def goes_on(self) -> bool:
        """Whether jobs are queued or running when it has returned."""

    def interrupt(self) -> None:
        """Stop; a second call stops at once."""

    def run(self, observe: Observe) -> Progress:
        """Until nothing is left to do, or it is interrupted."""


def run(runner: Driver, tracking: Tracking, console: Console) -> None:
    """Run with a live display; Ctrl-C lets running stages save a checkpoint first."""
    progress = runner.progress
    console.print("preparing the tracking store …", style="dim")
    with on_interrupt(runner, console):
        if not tracking.prepare():
            console.print(f"MLflow: {tracking.error}; everything is kept on disk", style="yellow")
        display = Display(console, progress)
        meter = Meter(progress)

        def observe(keys: Iterable[str]) -> None:
            keys = list(keys)
            tracking.notify(keys)
            display.note = tracking.note()
            display.forecast = meter.line()
            display.update(keys)

        try:
            runner.run(observe)
        finally:
            display.close()
            patience = INTERRUPTED_FINISH_SECONDS if progress.interrupted else FINISH_SECONDS
            unsent = tracking.finish(patience, queued=runner.goes_on)
    if unsent:
        console.print(str(unsent), style="yellow")


class on_interrupt:
    """While active, Ctrl-C, SIGTERM or a closed terminal stop the runner; twice kills workers."""

    def __init__(self, runner: Driver, console: Console) -> None:
        self._runner = runner
        self._console = console
        self._count = 0

    def __enter__(self) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._runner.interrupt()
        if self._count == 1:
            self._console.print(self._runner.stopping, style="yellow")


def report(progress: Progress, uri: str, console: Console, *, as_json: bool) -> None:
    """Print what ran, the result table, and where figure and runs are."""
    if as_json:
        print(json.dumps(launch_json(progress), allow_nan=False))
        return
    print_counts(progress, console)
    metrics = trial_metrics(progress)
    if any(metrics.values()):
        console.print(result_tables(metrics, console.width))
    if progress.held is not None:
        name = shlex.quote(progress.plan.sweep.name)
        held = progress.held.replace("resume SWEEP", f"resume {name}")
        console.print(held, style="red", soft_wrap=True)
    for line in held_lines(progress):
        console.print(line, style="red")
    if progress.held_stages:
        name = progress.plan.sweep.name
        go_on = steering("resume", name, progress.store, "--ignore-gates")
        console.print(f"Larger models wait; {go_on}", soft_wrap=True)
    if progress.interrupted:
        console.print("Interrupted. The same command continues:")
        console.print(f"  {same_command()}", soft_wrap=True)
    elif progress.count("COMPLETE"):
        changed = bool(progress.ran or progress.done_elsewhere)
        print_paths(progress.plan, uri, console, redraw=changed)


def print_counts(progress: Progress, console: Console) -> None:
    """How many stages ran, were reused and failed; and why they failed."""
    parts = [f"{len(progress.ran)} stages run", f"{len(progress.reused)} reused"]
    if progress.done_elsewhere:
        parts.append(f"{len(progress.done_elsewhere)} completed by another launch")
    parts.append(f"{progress.count('FAILED')} failed")
    if progress.count("UPSTREAM_FAILED"):
        parts.append(f"{progress.count('UPSTREAM_FAILED')} behind them")
    console.print(", ".join(parts))
    for key, failure in progress.failures.items():
        folder = progress.folders[key]
        stage = progress.plan.stages[key]
        console.print(f"{stage.stage} {folder.name}", style="red")
        console.print(f"  {failure.message}")
        for log in folder.logs()[-1:]:
            console.print(f"  log: {log}", soft_wrap=True)


def print_paths(plan: Plan, uri: str, console: Console, *, redraw: bool) -> None:
    """Draw the figure where it is missing or of another plan, and say where everything is."""
    figure = Path("figures") / f"{plan.sweep.name}-{plan.sweep.scale}.png"
    current = not redraw and drawn_plan(figure) == plan.key
    if current or draw(plan, uri, figure):
        console.print(f"figure    {figure} (and .pdf, .csv, .json)", soft_wrap=True)
    else:
        command = ["python", "-m", "analysis", "figures", plan.sweep.name]
        options = ["--tracking-uri", shown(uri), "--plan", plan.key, "--out", "FOLDER"]
        console.print("figure    not drawn; this tries again:", style="yellow")
        console.print(f"          {shlex.join([*command, *options])}", soft_wrap=True)
    console.print(f"runs      {shown(uri)}", soft_wrap=True)
    for name in hiding(os.getcwd()):
        module = name.removesuffix(".py")
        text = f"{name} here hides a package of this program: type python -P -m {module} …"
        console.print(text, style="yellow", soft_wrap=True)
    if uri.startswith("sqlite:"):
        server = shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
        console.print(f"MLflow UI {server}", soft_wrap=True)


def draw(plan: Plan, uri: str, figure: Path) -> bool:
    """Have `analysis` draw the figure; whether it did. It says itself why not."""
    command = [sys.executable, "-m", "analysis", "figures", plan.sweep.name]
    # Everybody on the machine sees the arguments of a process; its environment, only the user.
    where = ["--tracking-uri", without_login(uri)]
    options = [*where, "--plan", plan.key, "--out", str(figure.parent)]
    # Of the code that runs here: the working folder may hold an analysis.py of the user.
    code = for_children(str(Path(__file__).resolve().parents[2]))
    drawing = subprocess.run(
        [*command, *options],
        env={**os.environ, **code, **mlflow_variables(uri)},
        check=False,
        stdout=subprocess.DEVNULL,
    )
    return drawing.returncode == 0 and drawn_plan(figure) == plan.key


def drawn_plan(figure: Path) -> str | None:
    """Key of the plan that a figure on disk shows; None where one of its files is missing."""
    try:
        origin = json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
        plans = origin["plans"]
        only = plans[0] if len(plans) == 1 else None
        whole = all(figure.with_suffix(suffix).stat().st_size > 0 for suffix in FIGURE_SUFFIXES)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # no figure, or files of the same name that are none of ours
    return only if whole else None


def exit_code(progress: Progress) -> int:
    """The launch as a number."""
    kinds = {failure.kind for failure in progress.failures.values()}
    if progress.interrupted or kinds == {"cancelled"}:
        return EXIT_INTERRUPTED
    if progress.count("FAILED"):
        return EXIT_FAILED
    if not progress.finished:
        return EXIT_INTERRUPTED  # nothing is queued any more, but not everything is over
    return EXIT_REFUSED if progress.held_stages else 0
