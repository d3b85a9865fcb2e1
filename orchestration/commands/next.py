"""`python -m orchestration next SWEEP --gpu-hours H`: what to run next, and what it would tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gigatok.text.fitting import FittingTable
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.options import AsJson, Overrides, PlannedScale, SweepFile
from orchestration.costs.amounts import hours_text
from orchestration.study.proposing import Proposal
from orchestration.study.study import Study
from orchestration.sweep.candidates import entry_line
from orchestration.terminal import plain_console


def next_runs(
    sweep: SweepFile,
    gpu_hours: Annotated[float, typer.Option(min=1e-6, help="To spend; core hours on CPUs.")],
    scale: PlannedScale = None,
    set_: Overrides = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="Ask about this as well; a sentence as in `claims`.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Where it would run.")] = "local",
    jobs: Annotated[int | None, typer.Option(min=1, help="Stages at a time.")] = None,
    profile: Annotated[Path | None, typer.Option(help="What stages ask for.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Propose the runs that narrow a prediction or decide claims, per GPU hour."""
    study = Study(sweep, scale, runs=runs_dir, overrides=set_ or ())
    found = study.next(gpu_hours, claims=claim or (), backend=backend, jobs=jobs, profile=profile)
    if as_json:
        print(json.dumps(found.data()))
    else:
        show_proposal(plain_console(), found)


def show_proposal(console: Console, found: Proposal) -> None:
    """Print the runs in their order, what they change, and how to run them."""
    for prospect in found.prospects:
        console.print(f"{prospect.goal.claim.name}: {prospect.goal.claim.text}")
    for note in found.notes:
        console.print(note)
    if not found.prospects:
        # The notes have said why of each claim.
        return
    if not found.steps:
        console.print(f"no run within {found.budget:g} {found.unit} tells more about them")
        return
    console.print(_table(found))
    text = (
        "greedy: each run gains most per hour behind those above it; ± is half of a 95 % interval"
    )
    if not all(prospect.measured for prospect in found.prospects):
        text += ", in standard deviations of one run, as no results tell how large they are"
    console.print(text, style="dim")
    for line in _ways(found):
        console.print(line, soft_wrap=True)


def _table(found: Proposal) -> FittingTable:
    hours = found.unit.removesuffix("ours")
    table = FittingTable(("run", "seeds", hours, "expected"), (hours,), wraps=("run", "expected"))
    for step in found.steps:
        seeds = (", ".join(map(str, seeds)) for seeds in step.runs.values())
        cells = ("\n".join(step.runs), "\n".join(seeds), hours_text(step.hours))
        table.add_row(*cells, _changes(found, step.before, step.after))
    spent = f"{hours_text(found.hours)} of {found.budget:g}"
    whole = _changes(found, found.steps[0].before, found.steps[-1].after)
    table.add_row("all", "", spent, whole, style="bold")
    return table


def _changes(found: Proposal, before: tuple[float, ...], after: tuple[float, ...]) -> str:
    changes = (
        prospect.change(*states)
        for prospect, *states in zip(found.prospects, before, after, strict=True)
    )
    return "\n".join(filter(None, changes))


def _ways(found: Proposal) -> list[str]:
    """Name the runs that the sweep has, and write the lines that its file needs for the others."""
    lines = ["in the sweep already; a launch runs them, with all else that it lists:"]
    lines = [*lines, *(f"  {entry_line(entry)}" for entry in found.own)] if found.own else []
    if found.include:
        lines.append(f"below `include:` of {found.sweep.path.name}, then launch it again:")
    return [*lines, *(f"  {entry_line(entry)}" for entry in found.include)]
