"""Display of a plan that runs: a live table on a terminal, plain lines elsewhere.

No text that comes from elsewhere is read as markup: consoles are made with `markup=False`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gigatok.stages import STAGES
from gigatok.text.fitting import FittingTable
from orchestration.execution.progress import Progress
from orchestration.runs.state import State
from orchestration.terminal import say_event

# In a log file, a line per tick would bury the failures.
PLAIN_SECONDS, MOST_PLAIN_SECONDS = 30.0, 600.0
"""How often something that runs is told where there is no terminal: a tenth of the time that it
has run, within these."""
MOST_ROWS = 20
BAR = 16
"""Characters of a progress bar."""
OTHER_LINES = 8
"""Lines of a terminal that the live table leaves to what stands above and below it."""
SYMBOLS: dict[State, tuple[str, str]] = {
    "WAITING": ("·", "dim"),
    "RUNNING": ("▶", "cyan"),
    "COMPLETE": ("✓", "green"),
    "FAILED": ("✗", "bold red"),
    "UPSTREAM_FAILED": ("–", "red"),
    "PRUNED": ("⊘", "dim"),
}
# Lower numbers are shown first: the user acts on failures, and complete trials need no attention.
URGENCY: dict[State, int] = {
    "FAILED": 0,
    "UPSTREAM_FAILED": 1,
    "RUNNING": 2,
    "WAITING": 3,
    "PRUNED": 4,
    "COMPLETE": 5,
}

Trials = Mapping[str, Mapping[str, str]]
"""Trial name -> stage -> key."""


@dataclass(frozen=True)
class _Said:
    """State of a stage since a moment, and when a line told it last; monotonic seconds."""

    state: State
    since: float
    told: float

    def is_due(self, now: float) -> bool:
        """Tell whether it is time for another line."""
        wait = (now - self.since) / 10
        return now - self.told >= min(max(wait, PLAIN_SECONDS), MOST_PLAIN_SECONDS)


class Display:
    """Shows a run; `update` is called every tick, `close` at the end."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._progress = progress
        self._console = console
        self._live: Live | None = None
        self._table: Table | None = None
        self._over = False
        self._said: dict[str, _Said] = {}
        self._lines: dict[str, str] = {}
        self._held: list[str] = []
        self._forecast = _Said("RUNNING", time.monotonic(), time.monotonic())
        self.forecast = ""
        """What is spent and what remains, in a line."""
        self.note = ""
        """One line below the table, such as a tracking server that does not answer."""
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)
            self._live.start()

    def update(self, keys: Iterable[str]) -> None:
        """Take notice of stages that changed or run."""
        for key in keys:
            said = self._said.get(key, _Said("WAITING", 0.0, 0.0))
            state, now = self._progress.states[key], time.monotonic()
            if state != said.state:
                self._said[key] = _Said(state, now, now)
                # The table is laid out anew only when a state has changed: it has a cell per stage
                # of the plan, and `_render` is called four times a second.
                self._table = None
            elif state == "RUNNING" and said.is_due(now):
                self._said[key] = replace(said, told=now)
            else:
                continue
            if self._live is None and key not in self._progress.reused:
                self._tell(key)
        if self._live is None:
            self._tell_all()

    def _tell(self, key: str) -> None:
        """Write a line on a stage, unless it says nothing new."""
        line = plain_line(self._progress, key)
        if line != self._lines.get(key):
            self._lines[key] = line
            say_event(self._console, line)

    def _tell_all(self) -> None:
        """Write lines about the whole plan, now and then and where they have changed."""
        now = time.monotonic()
        if self._forecast.is_due(now):
            self._forecast = replace(self._forecast, told=now)
            say_event(self._console, self.forecast)
        lines = held_lines(self._progress)
        for line in lines:
            if line not in self._held:
                say_event(self._console, line)
        self._held = lines

    def close(self) -> None:
        """Leave the last picture on the terminal, without the trials that are complete."""
        if self._live is not None:
            self._over, self._table = True, None
            self._live.stop()

    def _render(self) -> RenderableType:
        if self._table is None:
            running = self._progress.count("RUNNING")
            # Rich cuts what is taller than the screen at its end, which is where the progress bars
            # are.
            most = max(3, min(MOST_ROWS, self._console.height - running - OTHER_LINES))
            states, reused = self._progress.states, self._progress.reused
            trials = {
                one.trial.name: one.stages
                for one in self._progress.plan.trials
                if not (self._over and all(states[k] == "COMPLETE" for k in one.stages.values()))
            }
            width = self._console.width
            self._table = states_table(trials, states, width, reused, most)
        parts: list[RenderableType] = [self._table] if self._table.row_count else []
        parts.append(running_table(self._progress))
        parts += [Text(line, style="yellow") for line in held_lines(self._progress)]
        # Of what is over, nothing remains.
        if self.forecast and not self._over:
            parts.append(Text(self.forecast, style="dim"))
        if self.note:
            parts.append(Text(self.note, style="yellow"))
        return Group(*parts)


def held_lines(progress: Progress) -> list[str]:
    """Say why gates hold stages, each reason once, with how many it holds."""
    # One failed model can hold hundreds of stages for the same reason.
    reasons = Counter(progress.held_stages.values())
    return [f"{why} ({count} stages)" for why, count in reasons.items()]


def plain_line(progress: Progress, key: str) -> str:
    """Write one line on a stage, for logs."""
    stage, state = progress.plan.stages[key], progress.states[key]
    details: list[str] = []
    if state == "RUNNING":
        details = progress_details(live_progress(progress, key))
    if state == "FAILED":
        details = [progress.failures[key].message]
    line = f"{stage.stage} {progress.names[key]}: {state.lower()}"
    return line + (f" ({', '.join(details)})" if details else "")


def states_table(
    trials: Trials,
    states: Mapping[str, State],
    width: int,
    reused: frozenset[str] = frozenset(),
    most_rows: int = MOST_ROWS,
) -> Table:
    """Lay out trials x stages with their states; failed and running trials first if not all fit.

    Args:
        trials: what there is.
        states: by key.
        width: characters of a line. Where the stages' names do not fit side by side, each gets a
            line of its own above its column.
        reused: keys of stages that were complete before.
        most_rows: trials that are shown.
    """
    used = stages_of(trials)
    shown = _most_urgent(trials, states, most_rows)
    # 2: Rich's padding between columns.
    names = max((len(name) for name in shown), default=0)
    table = Table(box=None, pad_edge=False)
    if names + sum(2 + len(STAGES[stage].label) for stage in used) <= width:
        table.add_column("trial", style="bold")
        for stage in used:
            table.add_column(STAGES[stage].label, justify="center", no_wrap=True)
        for name in shown:
            cells = [_cell(trials[name].get(stage), states, reused) for stage in used]
            table.add_row(Text(name), *cells)
    else:
        heads = ["│ " * number + STAGES[stage].label for number, stage in enumerate(used)]
        table.show_header = False
        table.add_column(style="bold")
        table.add_column(no_wrap=True, min_width=max(map(len, heads), default=0))
        for head in heads:
            table.add_row("", Text(head, style="bold"))
        for name in shown:
            symbols = [_symbol(trials[name].get(stage), states, reused) for stage in used]
            table.add_row(Text(name), Text(" ").join(symbols))
    if len(shown) < len(trials):
        table.add_row(f"… {len(trials) - len(shown)} more trials", style="dim")
    return table


def stages_of(trials: Trials) -> list[str]:
    """List the kinds of stages that any trial has, in the graph's order."""
    return [stage for stage in STAGES if any(stage in stages for stages in trials.values())]


def running_table(progress: Progress) -> FittingTable:
    """Show the progress of each running stage, and of the whole plan."""
    columns = ("stage", "bar", "progress", "left", "more")
    table = FittingTable(
        columns, wraps=("stage",), drops=("more", "bar"), more="", show_header=False
    )
    if progress.count("RUNNING"):
        for key, state in progress.states.items():
            if state == "RUNNING":
                table.add_row(*_running_row(progress, key))
    complete, total = progress.count("COMPLETE"), len(progress.states)
    elapsed = str(timedelta(seconds=int(time.time() - progress.started)))
    bar = ProgressBar(total=total, completed=complete, width=BAR)
    table.add_row("all stages", bar, f"{complete}/{total}", elapsed)
    return table


def _running_row(progress: Progress, key: str) -> tuple[RenderableType, ...]:
    stage = progress.plan.stages[key]
    running = live_progress(progress, key)
    who = f"{STAGES[stage.stage].label} {progress.names[key]}"
    if key in progress.elsewhere:
        who += " (another launch)"
    # Before the first report the worker imports torch and loads data; a bar at 0 would look stuck.
    if not running:
        return Text(who), "", Text("starting", style="dim")
    bar = ProgressBar(total=running["total"], completed=running["done"], width=BAR)
    done, *more = progress_details(running)
    left = [detail for detail in more if detail.endswith(" left")]
    rest = [detail for detail in more if detail not in left]
    return Text(who), bar, Text(done), Text(", ".join(left)), Text(", ".join(rest))


def live_progress(progress: Progress, key: str) -> Mapping[str, Any]:
    """Read what the worker of a stage last reported; empty before it did."""
    lease = progress.folders[key].lease()
    return {} if lease is None else lease.progress


def seconds_left(running: Mapping[str, Any], now: float | None = None) -> float | None:
    """Estimate the remaining time at the speed of this phase of this attempt; None: unknown."""
    # From the first report of this phase of this attempt: a resumed stage begins in the middle,
    # and steps of an earlier attempt say nothing about the speed now.
    if not running or running["done"] <= running["first_done"]:
        return None
    elapsed = (now or time.time()) - running["first_time"]
    speed = (running["done"] - running["first_done"]) / max(elapsed, 1e-9)
    return float(max(0, running["total"] - running["done"]) / speed)


def progress_details(running: Mapping[str, Any]) -> list[str]:
    """Say in words what a stage reports."""
    if not running:
        return []
    details = [f"{running['unit']} {running['done']}/{running['total']}"]
    if "loss" in running:
        details.append(f"loss {running['loss']:.3f}")
    if "images_per_second" in running:
        details.append(f"{running['images_per_second']:.0f} images/s")
    left = seconds_left(running)
    if left is not None:
        details.append(f"{timedelta(seconds=round(left))} left")
    return details


def _cell(key: str | None, states: Mapping[str, State], reused: frozenset[str]) -> Text:
    if key in reused:
        return Text("reused", style="green dim")
    return _symbol(key, states, reused)


def _symbol(key: str | None, states: Mapping[str, State], reused: frozenset[str]) -> Text:
    if key is None:
        return Text(" ")
    symbol, style = SYMBOLS[states[key]]
    return Text(symbol, style=f"{style} dim" if key in reused else style)


def _most_urgent(trials: Trials, states: Mapping[str, State], most: int) -> list[str]:
    if len(trials) <= most:
        return list(trials)

    def urgency(name: str) -> int:
        return min(URGENCY[states[key]] for key in trials[name].values())

    # Chosen by urgency, but shown in the plan's order, so that rows do not jump about.
    chosen = set(sorted(trials, key=urgency)[:most])
    return [name for name in trials if name in chosen]
