"""Report of a launch that is over: counts, reasons, the answer, and where everything is."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gigatok.startup import hiding
from gigatok.text.command_lines import command
from gigatok.text.credentials import shown
from gigatok.text.places import DEFAULT_RUNS, as_seen, beside
from orchestration.command_lines import same_command, steering
from orchestration.execution.display import held_lines
from orchestration.execution.progress import Progress
from orchestration.execution.results import launch_json, result_table, trial_facts, trial_metrics
from orchestration.exits import Outcome
from orchestration.launching.drawn import analyse, draw, drawn_plan, figure_in, keep, send_drawn
from orchestration.plan.graph import Plan
from orchestration.runs.state import Store
from orchestration.tracking.views import link


def report(progress: Progress, uri: str, console: Console, *, as_json: bool) -> None:
    """Print what ran, the answer with its table, and where figure and runs are."""
    # `allow_nan=False`: JSON has no NaN, and `launch_json` turns them into null.
    if as_json:
        print(json.dumps(launch_json(progress), allow_nan=False))
        keep_results(progress, uri, console)
        return
    print_counts(progress, console)
    # A figure of this plan whose stages were all reused shows the same values: drawing it takes
    # seconds.
    redraw = _is_changed(progress)
    if print_answer(progress, uri, console, redraw):
        redraw = False
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
        print_paths(progress.plan, progress.store, uri, console, redraw=redraw)


def keep_results(progress: Progress, uri: str, console: Console) -> None:
    """Add report and figure to the sweep's run in MLflow where they are not shown to anybody."""
    if progress.interrupted or not any(trial_metrics(progress).values()):
        return
    plan, store = progress.plan, progress.store
    if (problem := keep(plan, store, uri, changed=_is_changed(progress))) is not None:
        console.print(f"MLflow lacks report and figure: {problem}", style="yellow", soft_wrap=True)


def _is_changed(progress: Progress) -> bool:
    """Tell whether there are results that no earlier launch of the plan had."""
    return bool(progress.ran or progress.done_elsewhere)


def print_counts(progress: Progress, console: Console) -> None:
    """Print how many stages ran, were reused and failed; and why they failed."""
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


def print_answer(progress: Progress, uri: str, console: Console, changed: bool) -> bool:
    """Print what the results say: the answer first, then a row per setting.

    Args:
        progress: of the launch.
        uri: where its runs are.
        console: to print to.
        changed: there are results that no earlier launch of the plan had.

    Returns:
        Whether report and figure were written on the way.
    """
    if not any(trial_metrics(progress).values()):
        return False
    told, drawn = _print_told(progress, uri, console) if changed else (False, False)
    if progress.plan.sweep.claims:
        # Imported here: statistics take a tenth of a second, which others need not wait for.
        from orchestration.launching.outlook import unpaid_lines, verdict_lines

        # The stages' own records decide claims as well, where MLflow cannot be read.
        verdicts = [] if told else verdict_lines(progress)
        for line in (*verdicts, *unpaid_lines(progress)):
            console.print(line, soft_wrap=True)
    if not told:
        print_results(progress, console)
    return drawn


def _print_told(progress: Progress, uri: str, console: Console) -> tuple[bool, bool]:
    """Print the table of `analysis`, which takes seconds.

    Returns:
        Whether it could be made, and whether report and figure were written on the way.
    """
    plan, store, look = progress.plan, progress.store, _like(console)
    if progress.interrupted:
        table = analyse(plan, store, uri, ["table", "--format", "rich"], look)
        answer = None if table.returncode else table.stdout
        drawn, problem = False, table.stderr.strip()
    else:
        # One process for all: its start takes as long as its table.
        drawing = draw(plan, store, uri, _figure(plan, store), ["--answer"], look)
        answer, drawn, problem = drawing.answer, drawing.is_whole, drawing.problem
    if answer is None:
        console.print(problem, style="yellow", soft_wrap=True)
        return False, False
    # Laid out for this terminal already.
    console.print(Text.from_ansi(answer.rstrip()), soft_wrap=True)
    return True, drawn


def _figure(plan: Plan, store: Store) -> Path:
    return figure_in(beside(store.root, "figures"), plan)


def print_results(progress: Progress, console: Console) -> None:
    """Print the scores of all settings; nothing where there are none."""
    metrics = trial_metrics(progress)
    if any(metrics.values()):
        console.print(result_table(metrics, trial_facts(progress.plan)))


def print_paths(plan: Plan, store: Store, uri: str, console: Console, *, redraw: bool) -> None:
    """Draw the figure where it is missing or of another plan, and say where everything is."""
    where = () if store.root == DEFAULT_RUNS else ("--runs-dir", store.root)
    findings = command("analysis", "findings", plan.sweep.name, *where)
    console.print(f"findings  {findings}", soft_wrap=True)
    figure = _figure(plan, store)
    current = not redraw and drawn_plan(figure) == plan.key
    drawing = None if current else draw(plan, store, uri, figure)
    if drawing is None or drawing.is_whole:
        console.print(f"figure    {as_seen(figure)} (and .pdf, .csv, .json)", soft_wrap=True)
        console.print(f"report    {as_seen(figure.with_suffix('.html'))}", soft_wrap=True)
        if (problem := send_drawn(plan, store, uri, figure)) is not None:
            console.print(f"MLflow lacks the figure: {problem}", style="yellow", soft_wrap=True)
    else:
        options = [*where, "--tracking-uri", shown(uri), "--plan", plan.key]
        again = command("analysis", "report", plan.sweep.name, *options)
        if drawing.problem:
            console.print(drawing.problem, style="yellow", soft_wrap=True)
        console.print("figure    not drawn; this tries again:", style="yellow")
        console.print(f"          {again}", soft_wrap=True)
    console.print(f"runs      {shown(uri)}", soft_wrap=True)
    for name in hiding(os.getcwd()):
        module = name.removesuffix(".py")
        text = (
            f"{name} here hides a package of this program: type gigatok … or python -P -m {module}"
        )
        console.print(text, style="yellow", soft_wrap=True)
    if uri.startswith("sqlite:"):
        server = shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
        console.print(f"MLflow UI {server}", soft_wrap=True)
    if (trials := link(store, uri, plan)) is not None:
        console.print(f"trials    {trials}", soft_wrap=True)


def _like(console: Console) -> dict[str, str]:
    """Make a child print as wide as a console, and in colour if it does."""
    colour = {"FORCE_COLOR": "1"} if console.is_terminal else {}
    return {"COLUMNS": str(console.width), **colour}


def outcome(progress: Progress) -> Outcome:
    """Tell how a launch ended."""
    # The order matters: somebody's cancellation is an interrupt, not a failure, but one stage that
    # failed by itself makes the launch a failure.
    kinds = {failure.kind for failure in progress.failures.values()}
    if progress.interrupted or kinds == {"cancelled"}:
        return "interrupted"
    if progress.count("FAILED"):
        return "failed"
    if not progress.finished:
        return "interrupted"  # nothing is queued any more, but not everything is over
    return "held" if progress.held_stages else "done"
