"""`python -m orchestration status [SWEEP]`: all studies, or what each stage of one does, and why.

Read from the stage folders, and where a sweep was queued on a cluster from one question to its
scheduler. Complete stages cost a look at their folder only, so large sweeps answer at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gigatok.stages import STAGES
from gigatok.text.fitting import FittingTable
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.command_lines import steering
from orchestration.commands.options import AnyLaunchedSweep, AsJson, LaunchedScale
from orchestration.commands.studies import show_studies
from orchestration.costs.accuracy import accuracy_line, accuracy_table
from orchestration.execution.display import (
    SYMBOLS,
    progress_details,
    seconds_left,
    stages_of,
    states_table,
)
from orchestration.exits import EXIT_CODES, EXIT_INTERRUPTED, Outcome
from orchestration.forecast.forecast import forecast_line
from orchestration.launching.launched import LaunchedPlan
from orchestration.study.listing import list_studies
from orchestration.study.status import (
    StageStatus,
    SweepStatus,
    comparisons,
    counts_text,
    status_json,
)
from orchestration.study.study import Study
from orchestration.terminal import plain_console
from orchestration.tracking.ledger import MOST_NAMED

WATCH_SECONDS = 2.0
MOST_TRIALS, MOST_STAGES = 40, 15
"""Rows of the tables; `--json` has them all."""
OTHER_LINES = 11
"""Lines of the screen at most: question, heads, blank lines, costs, forecast, counts, "… more"."""


def status(
    sweep: AnyLaunchedSweep = None,
    scale: LaunchedScale = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Until it has finished.")] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Show the state of every stage of the newest launch of a sweep, or list all sweeps."""
    if sweep is None:
        if watch:
            raise ValueError("status -w watches one sweep; name it")
        show_studies(list_studies(runs_dir), runs_dir, scale, as_json=as_json)
        return
    found = Study(sweep, scale, runs=runs_dir).status()
    if as_json:
        print(json.dumps(status_json(found)))
        return
    console = plain_console()
    if not watch:
        # Not cropped, so that commands to copy stay whole in a narrow terminal.
        console.print(render(found, console.size), crop=False)
        return
    try:
        found = _watch(found, console)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(EXIT_CODES[outcome(found)])


def outcome(found: SweepStatus) -> Outcome:
    """Tell how a launch of the sweep would have ended."""
    # As `launching.report.outcome` orders it: scripts may wait with `status -w` for what
    # `launch` would have said.
    failures = [stage.folder.failure() for stage in found.stages.values()]
    kinds = {failure.kind for failure in failures if failure is not None}
    if kinds == {"cancelled"}:
        return "interrupted"
    if "FAILED" in found.states.values():
        return "failed"
    return "held" if any(stage.held for stage in found.stages.values()) else "done"


def _watch(found: SweepStatus, console: Console) -> SweepStatus:
    # At the scale that was found: a launch at another scale meanwhile must not switch the picture.
    study = Study(found.launched.sweep, found.launched.scale, runs=found.store.root)
    # No refresh in the background: the screen changes only when folders were read again.
    with Live(render(found, console.size, fit=True), console=console, auto_refresh=False) as live:
        while not found.finished:
            time.sleep(WATCH_SECONDS)
            found = study.status()
            live.update(render(found, console.size, fit=True), refresh=True)
    return found


# Looking


def render(found: SweepStatus, size: ConsoleDimensions, *, fit: bool = False) -> RenderableType:
    """Render trials x stages, then what runs, waits or has failed and why, then counts.

    Args:
        found: what to show.
        size: of the terminal.
        fit: leave out what does not fit on its screen.
    """
    launched, states = found.launched, found.states
    busy = [s for s in found.stages.values() if s.state in ("RUNNING", "FAILED") or s.why]
    # From the end of `SYMBOLS` to its start, so that failures come before what runs, and that
    # before what waits.
    busy.sort(key=lambda s: list(SYMBOLS).index(s.state), reverse=True)
    rows = (
        _rows(found, len(busy), size.height)
        if fit
        else Rows(MOST_TRIALS, MOST_STAGES, MOST_STAGES)
    )
    parts: list[RenderableType] = [
        Text(launched.question, style="bold", no_wrap=fit, overflow="ellipsis"),
        states_table(launched.trials, states, size.width, most_rows=rows.trials),
    ]
    if busy:
        trials = trial_names(launched)
        parts += [Text(), stages_table(busy, trials, rows.stages, one_line=fit)]
        parts.append(reasons_table(busy, trials, rows.reasons, one_line=fit))
    compared = comparisons(found)
    if compared:
        parts += [Text(), Text(accuracy_line(compared))]
        if not fit and any(one.predicted is not None for one in compared):
            parts.append(accuracy_table(compared))
    return Group(*parts, Text(), *_lines(found, fit=fit))


def _lines(found: SweepStatus, *, fit: bool) -> Iterator[Text]:
    """Write what stands below the tables: forecast, counts, and what calls for attention."""
    if found.unforeseen is not None:
        yield Text(f"no forecast: {found.unforeseen}", style="yellow")
    if found.forecast is not None:
        line = forecast_line(found.forecast)
        yield Text(line, style="dim", no_wrap=fit, overflow="ellipsis")
    # A command that is broken into lines cannot be copied.
    whole: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis" if fit else "ignore"}
    yield Text(counts_line(found), **whole)
    if found.refusal is not None:
        said = "; ".join(found.refusal.reasons)
        # A round that was not begun says so itself.
        before = "" if found.refusal.claims else "the newest launch was refused: "
        yield Text(before + said, style="red")
    if found.skipped:
        yield Text(skipped_line(found), style="yellow")
    if found.orphans:
        yield Text(orphans_line(found), style="yellow", **whole)
    if found.other_scales:
        yield Text(other_scales_line(found), style="yellow", **whole)


@dataclass(frozen=True)
class Rows:
    """Numbers of rows that are shown."""

    trials: int
    stages: int
    reasons: int


def _rows(found: SweepStatus, busy: int, height: int) -> Rows:
    """Choose what fits on a screen: half of it for the trials, the rest as needed."""
    # At most so many lines of heads: one per stage, where the labels do not fit side by side.
    heads = len(stages_of(found.launched.trials)) + 1
    left = height - heads - OTHER_LINES - 2 * bool(found.orphans) - 2 * bool(found.other_scales)
    # 3 at least, even if the screen is too small: an empty table says nothing.
    trials = min(len(found.launched.trials), max(3, left // 2))
    stages = min(busy, MOST_STAGES, max(3, (left - trials) * 2 // 3))
    return Rows(trials, stages, max(1, left - trials - stages))


def trial_names(launched: LaunchedPlan) -> dict[str, str]:
    """Name the trial that each stage is of, or count the trials that share it."""
    trials: dict[str, list[str]] = {key: [] for key in launched.stages}
    for name, stages in launched.trials.items():
        for key in stages.values():
            trials[key].append(name)
    return {key: of[0] if len(of) == 1 else f"{len(of)} trials" for key, of in trials.items()}


def stages_table(
    stages: list[StageStatus], trials: Mapping[str, str], most: int, *, one_line: bool = False
) -> FittingTable:
    """Make a row per stage, of the first ones if there are more."""
    heads = ("stage", "trial", "host", "progress", "left", "tries")
    # A line that wraps would break the count of rows that fit.
    wraps = () if one_line else ("trial", "host")
    table = FittingTable(heads, ("left", "tries"), wraps=wraps, drops=("tries", "host"))
    for stage in stages[:most]:
        symbol, style = SYMBOLS[stage.state]
        left = seconds_left(stage.running)
        table.add_row(
            Text(f"{symbol} {STAGES[stage.planned.stage].label}", style=style),
            Text(trials[stage.planned.key]),
            Text(stage.host or (f"job {stage.job}" if stage.job else "")),
            Text(", ".join(progress_details(stage.running)[:1])),
            "" if left is None else str(timedelta(seconds=round(left))),
            str(stage.attempts),
        )
    if len(stages) > most:
        table.add_row(f"… {len(stages) - most} more", style="dim")
    return table


def reasons_table(
    stages: list[StageStatus], trials: Mapping[str, str], most: int, *, one_line: bool = False
) -> Table:
    """List why stages failed or wait, each reason once."""
    # A dict keeps the order: the reason of the most urgent stage comes first.
    alike: dict[str, list[StageStatus]] = {}
    for stage in stages:
        if stage.why is not None:
            alike.setdefault(stage.why, []).append(stage)
    table = Table.grid(padding=(0, 1))
    for why, group in list(alike.items())[:most]:
        first = group[0]
        name = f"{STAGES[first.planned.stage].label} of {trials[first.planned.key]}"
        others = f" and {len(group) - 1} more" if len(group) > 1 else ""
        reason = Text(why, no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
        table.add_row(Text(f"{name}{others}:", style=SYMBOLS[first.state][1]), reason)
    return table


def counts_line(found: SweepStatus) -> str:
    """Count the stages in each state; name the command that lets held ones pass."""
    text, held = counts_text(found.states.values()), sum(s.held for s in found.stages.values())
    if held:
        go_on = steering("resume", found.launched.sweep, found.store, "--ignore-gates")
        # Named with the command, because a held sweep looks finished: nothing runs or waits.
        text += f" ({held} held by gates; `{go_on}` lets them pass)"
    return text


def orphans_line(found: SweepStatus) -> str:
    """Count the stages of earlier launches, and name the command that stops them."""
    states = [stage.state for stage in found.orphans.values()]
    line = f"orphaned, of earlier launches and not in this plan: {counts_text(states)}"
    if "RUNNING" in states:
        stop = steering("cancel", found.launched.sweep, found.store, "--orphaned")
        line += f"; `{stop}` stops them"
    return line


def other_scales_line(found: SweepStatus) -> str:
    """Say that the sweep was launched at other scales, and the command that shows one."""
    launched, other = found.launched, found.other_scales[0]
    look_there = steering("status", launched.sweep, found.store, "--scale", other)
    also = ", ".join(found.other_scales)
    return f"this is scale {launched.scale}; also launched at {also}: `{look_there}` shows it"


def skipped_line(found: SweepStatus) -> str:
    """Count what could not be sent to MLflow, and quote the first of it."""
    count = sum(skipped.count for skipped in found.skipped.values())
    first = [problem for skipped in found.skipped.values() for problem in skipped.first]
    many = f"{count} lines or values of {len(found.skipped)} stages could not be sent to MLflow"
    return f"{many} and were skipped: {'; '.join(first[:MOST_NAMED])}"
