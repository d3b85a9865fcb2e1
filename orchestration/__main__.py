"""`python -m orchestration plan|status|logs`: look at a sweep without running it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestration.display import progress_details, states_table
from orchestration.launch import launch
from orchestration.launched import LaunchedPlan, newest_launch
from orchestration.progress import pass_failure_downstream
from orchestration.state import StageFolder, State, Store
from orchestration.study import fail

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Folders = Mapping[str, StageFolder]
Json = dict[str, Any]
RunsDir = Annotated[Path, typer.Option(help="Where everything is kept.")]


@app.command()
def plan(
    sweep: str,
    scale: str | None = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show what a launch would run and what it would reuse."""
    launch(sweep, scale, set_, runs_dir=runs_dir, dry_run=True, as_json=as_json)


@app.command()
def status(
    sweep: str,
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show the state of every stage of the newest launch of a sweep."""
    store = Store(runs_dir)
    launched = find_launch(store, sweep)
    folders = launched.folders(store)
    states = stage_states(launched, folders)
    if as_json:
        print(json.dumps(status_json(launched, folders, states)))
        return
    console = Console(markup=False, highlight=False)
    console.print(launched.question, style="bold")
    console.print(states_table(launched.trials, states))
    counts = Counter(states.values())
    console.print(", ".join(f"{count} {state.lower()}" for state, count in counts.items()))
    for key, state in states.items():
        if state in ("RUNNING", "FAILED"):
            stage = launched.stages[key].stage
            console.print(f"{stage} {folders[key].name}: {why(folders[key], state)}")


@app.command()
def logs(
    sweep: str,
    trial: Annotated[str | None, typer.Argument(help="Default: what runs or failed.")] = None,
    stage: Annotated[str | None, typer.Argument(help="Default: all stages.")] = None,
    all_attempts: Annotated[bool, typer.Option("--all", help="Not only the newest.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Print what the attempts of some stages of the newest launch printed."""
    store = Store(runs_dir)
    launched = find_launch(store, sweep)
    folders = launched.folders(store)
    try:
        keys = stage_keys(launched, folders, trial, stage)
    except ValueError as error:
        fail(error)
    for key in keys:
        files = folders[key].logs()
        name = launched.stages[key].stage
        for file in files if all_attempts else files[-1:]:
            print(f"== {name} {file}")
            sys.stdout.write(file.read_text(errors="replace"))
        if not files:
            print(f"== {name} {folders[key].name} has not started")


def find_launch(store: Store, sweep: str) -> LaunchedPlan:
    """The newest launch of a sweep; exits with 2 and a message where there is none."""
    try:
        return newest_launch(store, sweep)
    except ValueError as error:
        fail(error)
        raise


def stage_keys(
    launched: LaunchedPlan, folders: Folders, trial: str | None, stage: str | None
) -> list[str]:
    """Keys of the stages asked for; without a trial, of those that run or have failed.

    Raises:
        ValueError: no such trial or stage.
    """
    if trial is None:
        states = {key: folders[key].state() for key in launched.stages}
        return [key for key, state in states.items() if state in ("RUNNING", "FAILED")]
    if trial not in launched.trials:
        raise ValueError(f"no trial {trial!r}; trials: {', '.join(launched.trials)}")
    stages = launched.trials[trial]
    if stage is None:
        return list(stages.values())
    if stage not in stages:
        raise ValueError(f"no stage {stage!r}; stages of {trial}: {', '.join(stages)}")
    return [stages[stage]]


def stage_states(launched: LaunchedPlan, folders: Folders) -> dict[str, State]:
    """The state of every stage, failures passed downstream."""
    states: dict[str, State] = {key: folders[key].state() for key in launched.stages}
    inputs = {key: stage.inputs for key, stage in launched.stages.items()}
    return states | dict.fromkeys(pass_failure_downstream(inputs, states), "UPSTREAM_FAILED")


def why(folder: StageFolder, state: State) -> str:
    """What a running stage is doing, or why one failed."""
    if state == "FAILED":
        failure = folder.failure()
        return failure.message if failure else "failed"
    lease = folder.lease()
    if lease is None:
        return "just ended"
    where = f"on {lease.host}, attempt {lease.attempt}"
    return ", ".join([where, *progress_details(lease.progress)])


def status_json(launched: LaunchedPlan, folders: Folders, states: dict[str, State]) -> Json:
    """Status as data."""
    return {
        "sweep": launched.sweep,
        "scale": launched.scale,
        "plan": launched.key,
        "trials": launched.trials,
        "stages": {
            key: {
                "stage": launched.stages[key].stage,
                "state": state,
                "folder": str(folders[key].path),
                "attempts": len(folders[key].attempts()),
                "why": why(folders[key], state) if state in ("RUNNING", "FAILED") else None,
            }
            for key, state in states.items()
        },
    }


if __name__ == "__main__":
    app()
