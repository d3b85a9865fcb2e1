"""Shows a launch that was prepared, carries it out and prints its result."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console

from orchestration.execution.inputs import find_inputs
from orchestration.launching.report import print_counts, report
from orchestration.study.launch import LaunchResult, PreparedLaunch
from orchestration.terminal import Terminal, plain_console


def start(
    prepared: PreparedLaunch,
    *,
    dry_run: bool = False,
    stages: bool = False,
    watch: bool = False,
    yes: bool = False,
    as_json: bool = False,
) -> None:
    """Show a plan and run it; exits with the code that says how it went.

    Args:
        prepared: what to run, where.
        dry_run: show the plan and return.
        stages: show the cost of every stage, not of every kind.
        watch: where jobs go on without the launcher, stay until they are over.
        yes: queue such jobs without asking.
        as_json: print JSON instead of tables.
    """
    # With `--json`, stdout carries JSON alone.
    console = plain_console(stderr=as_json)
    if not as_json:
        prepared.print(console, stages=stages)
    if dry_run:
        _show_inputs(prepared, console, as_json=as_json)
        return
    # After the plan was shown: downloads may take minutes, and a refusal reads better below the
    # costs.
    prepared.make_ready()
    # Behind all refusals, and before anything is sent.
    if (notice := prepared.notice()) is not None:
        console.print(notice, style="yellow")
    # Nobody answers a question where a program reads the output.
    terminal = Terminal(console, watch=watch, ask=not (yes or as_json), as_json=as_json)
    try:
        result = prepared.run(terminal)
    except OSError as error:
        error.add_note("Complete stages are kept; launch again when this is fixed.")
        raise
    _print_result(result, console, as_json=as_json)
    raise typer.Exit(result.exit_code)


def _show_inputs(prepared: PreparedLaunch, console: Console, *, as_json: bool) -> None:
    """Say which data a launch would fetch, and why it would be refused."""
    inputs = find_inputs(prepared.progress)
    if as_json:
        more = {"inputs": asdict(inputs), "refused": prepared.refused}
        print(json.dumps({**prepared.data(), **more}))
        return
    for line in inputs.lines():
        console.print(line, soft_wrap=True, style="red" if line.startswith("not on") else "")
    for reason in prepared.refused:
        console.print(f"would be refused: {reason}", style="red", soft_wrap=True)


def _print_result(result: LaunchResult, console: Console, *, as_json: bool) -> None:
    if result.search is not None:
        # Optuna takes half a second to import.
        from orchestration.search.launch import print_found

        if not as_json and result.search.progress is not None:
            print_counts(result.search.progress, console)
        print_found(result.search.searcher, result.uri, console, as_json=as_json)
    elif result.progress is not None:
        report(result.progress, result.uri, console, as_json=as_json)
