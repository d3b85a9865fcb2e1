"""`explain` and `diff`: why a stage runs, is reused or waits, and what sets two stages apart.

python -m orchestration explain decoder_scaling S-B          every stage of a trial
python -m orchestration explain decoder_scaling S-B train_generator
python -m orchestration diff S-S S-B                         trials, keys or folders
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestration.commands.completion import stages, trials
from orchestration.commands.options import AsJson, Overrides, RunsDir, SweepFile
from orchestration.runs.state import Store
from orchestration.study.differences import Rows, compare_runs
from orchestration.study.explaining import Explanation
from orchestration.study.study import Study
from orchestration.terminal import plain_console, plain_table

STYLES = {
    "reused": "green",
    "will run": "cyan",
    "running": "cyan",
    "blocked": "red",
    "failed": "bold red",
    "held": "yellow",
}


def explain(
    sweep: SweepFile,
    what: Annotated[
        str | None,
        typer.Argument(
            help="A trial, a stage, or the start of a key; default: all.", autocompletion=trials
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Argument(help="Of the trial; default: all.", autocompletion=stages)
    ] = None,
    scale: Annotated[str | None, typer.Option(help="Default: as launched last.")] = None,
    set_: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say of each stage what became or will become of it, and because of what."""
    found = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).explain(what, stage)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    plain_console().print(_explained(found))


def _explained(found: list[Explanation]) -> Table:
    table = plain_table(("trial", "stage", "", "because"), overflow="fold")
    for one in found:
        verdict = Text(one.verdict, style=STYLES[one.verdict])
        table.add_row(one.trial, one.stage, verdict, "\n".join(one.because))
    return table


def diff(
    a: Annotated[str, typer.Argument(help="A trial, the start of a key, or a stage's folder.")],
    b: Annotated[str, typer.Argument(help="What it is compared with.")],
    sweep: Annotated[str | None, typer.Option(help="The sweep that trials are of.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show in what two trials or stages differ: config, data, code, environment, results."""
    found = compare_runs(Store(runs_dir), a, b, sweep)
    if as_json:
        print(json.dumps({"a": a, "b": b, "stages": found}))
        return
    console = plain_console()
    table = _compared(found, a, b)
    # Equal runs have no rows, and an empty table would print a bare heading.
    if table.row_count:
        console.print(table)
    same = [stage for stage, rows in found.items() if not rows]
    if same:
        console.print(f"the same in everything that is recorded: {', '.join(same)}", style="dim")


def _compared(found: dict[str, Rows], a: str, b: str) -> Table:
    table = plain_table(("stage", "what", a, b), overflow="fold")
    for stage, rows in found.items():
        for name, (mine, other) in rows.items():
            table.add_row(stage, name, str(mine), str(other))
            # The stage's name stands in its first row only.
            stage = ""
    return table
