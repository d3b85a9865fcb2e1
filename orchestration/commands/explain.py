"""`explain` and `diff`: why a stage runs, is reused or waits, and what sets two stages apart.

python -m orchestration explain decoder_scaling S-B          every stage of a trial
python -m orchestration explain decoder_scaling S-B train_generator
python -m orchestration diff S-S S-B                         trials, keys or folders
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from gigatok.names import METRICS
from gigatok.text.fitting import FittingTable
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.completion import stages, trials
from orchestration.commands.options import AsJson, Overrides, SweepFile
from orchestration.runs.state import Store
from orchestration.study.differences import RESULT, Rows, compare_runs
from orchestration.study.explaining import Explanation
from orchestration.study.study import Study
from orchestration.terminal import plain_console

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
    runs_dir: RunsDir = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Say of each stage what became or will become of it, and because of what."""
    found = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).explain(what, stage)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    console = plain_console()
    for part in _explained(found):
        console.print(part)


def _explained(found: list[Explanation]) -> Iterator[RenderableType]:
    """Write each trial's name, and below it a row per stage."""
    for trial, of_trial in groupby(found, key=lambda one: one.trial):
        yield Text(trial, style="bold")
        table = FittingTable(("stage", "", "because"), wraps=("because",), show_header=False)
        for one in of_trial:
            verdict = Text(one.verdict, style=STYLES[one.verdict])
            table.add_row(f"  {one.stage}", verdict, "\n".join(one.because))
        yield table


def diff(
    a: Annotated[str, typer.Argument(help="A trial, the start of a key, or a stage's folder.")],
    b: Annotated[str, typer.Argument(help="What it is compared with.")],
    sweep: Annotated[str | None, typer.Option(help="The sweep that trials are of.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Show in what two trials or stages differ: config, data, code, environment, results."""
    found = compare_runs(Store(runs_dir), a, b, sweep)
    if as_json:
        print(json.dumps({"a": a, "b": b, "stages": found}))
        return
    console = plain_console()
    for stage, rows in found.items():
        if rows:
            console.print(Text(stage, style="bold"))
            console.print(_compared(rows, a, b))
    same = [stage for stage, rows in found.items() if not rows]
    if same:
        console.print(f"the same in everything that is recorded: {', '.join(same)}", style="dim")


def _compared(rows: Rows, a: str, b: str) -> FittingTable:
    table = FittingTable(("", a, b), wraps=("", a, b))
    for name, (mine, other) in rows.items():
        table.add_row(f"  {_with_unit(name)}", *_written(mine, other))
    return table


def _with_unit(name: str) -> str:
    """Write the unit of a result behind its name; values are printed as they are recorded."""
    metric = METRICS.get(name.removeprefix(RESULT)) if name.startswith(RESULT) else None
    return f"{name} ({metric.unit})" if metric is not None and metric.unit else name


def _written(mine: Any, other: Any) -> tuple[str, str]:
    """Write two values; numbers short, where that does not make them look the same."""
    if isinstance(mine, float) and isinstance(other, float):
        # "z": an entropy of nothing is recorded as -0.0.
        short = f"{mine:z.6g}", f"{other:z.6g}"
        if short[0] != short[1]:
            return short
    return str(mine), str(other)
