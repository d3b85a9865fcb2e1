"""Preview of a launch: trials, stages to run and stages that are reused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from gigatok.config import AdoptedFile
from gigatok.models.generator.layout import generator_parameters
from gigatok.models.tokenizer.layout import tokenizer_parameters
from gigatok.stages import STAGES
from gigatok.text.fitting import FittingTable
from orchestration.costs.amounts import MISSING
from orchestration.execution.progress import Progress
from orchestration.forecast.cost_table import (
    cost_json,
    kinds_table,
    stages_table,
    total_lines,
    totals_json,
)
from orchestration.forecast.devices import Machines
from orchestration.forecast.totals import to_run
from orchestration.plan.graph import Plan, PlannedTrial
from orchestration.runs.provenance import code_version, imported_state
from orchestration.runs.state import StageFolder
from orchestration.yaml.source import show

MOST_ROWS = 20
"""Trials, cells and files that are named one by one: `--json` has them all."""
MOST_NAMED = 3
"""Trials that are named where many have the same reused."""
MOST_CHECKED = 500
"""Reused stages whose code is looked up: each costs reading a record."""


def print_plan(
    console: Console, progress: Progress, machine: Machines, *, stages: bool = False
) -> None:
    """Print the question, a row per trial, the costs, and how many stages will run.

    Args:
        console: where to.
        progress: the plan.
        machine: on what stages run.
        stages: show every stage instead of every kind.
    """
    plan, sweep = progress.plan, progress.plan.sweep
    console.print(sweep.question, style="bold")
    cite = f" · paper {sweep.paper}" if sweep.paper else ""
    scale = f"{sweep.scale} ({sweep.own_scale})" if sweep.own_scale else sweep.scale
    console.print(f"{sweep.name} at scale {scale}{cite}: {sweep.scale_description}")
    console.print(trials_table(progress))

    def say(lines: Iterable[str], **style: Any) -> None:
        for line in lines:
            console.print(line, **style)

    say(search_lines(progress))
    if sweep.claims:
        # Imported here: statistics take a tenth of a second, which other plans need not wait for.
        from orchestration.launching.outlook import claim_lines

        # In a log each claim is one line.
        whole = not console.is_terminal
        say(claim_lines(progress, machine), markup=False, highlight=False, soft_wrap=whole)
    say(formula_lines(plan), markup=False)
    say(adopted_lines(progress))
    for line in image_lines(plan):
        style = "yellow" if line.startswith("  ") else ""
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    # Shown as well as what runs: a cell that `where` dropped by mistake is otherwise noticed in
    # the figure.
    say(absent_lines(plan), style="dim", markup=False, highlight=False)
    console.print(summary(progress))
    if not progress.finished:
        table = stages_table if stages else kinds_table
        console.print(table(progress, machine))
        for line in total_lines(progress, machine):
            # A command that is broken into lines cannot be copied.
            console.print(line, soft_wrap="`" in line)
    say(reused_lines(progress), style="dim", soft_wrap=True)
    say(damaged_lines(progress), style="yellow", soft_wrap=True)
    if progress.reused and (code := other_code_line(progress)) is not None:
        console.print(code, style="yellow")


def damaged_lines(progress: Progress) -> list[str]:
    """Name each stage that runs again because its outputs are gone."""
    stages = progress.plan.stages
    return [
        f"runs again: {stages[key].stage} {stages[key].readable}, {why}"
        for key, why in progress.damaged.items()
    ]


def search_lines(progress: Progress) -> list[str]:
    """Describe space, sampler, pruner, objectives and budget of a search."""
    # A search has one trial in its plan, the example: trials are known only once they were asked
    # for.
    search = progress.plan.sweep.search
    if search is None:
        return []
    spaces = [f"  {key}: {dimension.domain}" for key, dimension in search.space.items()]
    pruner = search.pruner
    looks = f"{pruner.name} on {pruner.stage} {pruner.metric} every {pruner.every} steps"
    goals = ", ".join(f"{way} {name}" for name, way in search.objectives.items())
    hours = "" if search.hours is None else f", or {search.hours:g} GPU hours"
    once = "" if search.at_once == 1 else f", {search.at_once} at once"
    lines = [
        f"search of {search.trials} trials{hours}{once}; the one above stands for all:",
        *spaces,
        f"  {goals}; sampler {search.sampler}, seed {search.seed}",
        f"  pruner {'none' if pruner.name == 'none' else looks}",
    ]
    if search.transfer:
        to = ", ".join(f"{key}={setting.written}" for key, setting in search.transfer.items())
        lines.append(f"  then the best rate is checked at {to}")
    each = len(progress.plan.trials[0].stages)
    return [*lines, f"  {each} stages per trial; those that trials share run once"]


def trials_table(progress: Progress) -> FittingTable:
    """Make a row per trial: what is derived, sizes, and stages to run of all its stages."""
    trials = progress.plan.trials
    derived = list(dict.fromkeys(name for one in trials for name in one.trial.derived))
    sizes = ("encoder", "decoder", "at inference", "training head", "AR", "steps")
    numbers = (*derived, *sizes, "to run")
    drops = ("training head", "at inference", "steps", "encoder", "AR", "decoder")
    table = FittingTable(("trial", *numbers), right=numbers, wraps=("trial",), drops=drops)
    for planned in trials[:MOST_ROWS]:
        config = planned.trial.config
        steps = " + ".join(
            str(part.steps) if file is None else "adopted"
            for part, file in (
                (config.tokenizer, config.adopt.tokenizer),
                (config.generator, config.adopt.generator),
            )
        )
        # A stage that trials share counts for each of them; `summary` counts it once.
        todo = sum(progress.will_run(key) for key in planned.stages.values())
        counts = parameters_json(planned)
        table.add_row(
            planned.trial.name,
            *(_shown(planned.trial.derived.get(name, MISSING)) for name in derived),
            *(f"{counts[name] / 1e6:.2f} M" for name in SHOWN_PARAMETERS),
            steps,
            f"{todo}/{len(planned.stages)}",
        )
    if len(trials) > MOST_ROWS:
        table.add_row(f"… {len(trials) - MOST_ROWS} more trials")
    return table


def formula_lines(plan: Plan) -> list[str]:
    """Say what was solved for, a line per trial."""
    lines = []
    for planned in plan.trials[:MOST_ROWS]:
        trial = planned.trial
        words = [
            f"{s.key} = {s.value:,} (solved: {s.made:.5g}, {s.deviation:+.2%} of {s.target:.5g})"
            for s in trial.solved
        ]
        if words:
            lines.append(f"{trial.name}: {', '.join(words)}")
    return lines


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else show(value)


def absent_lines(plan: Plan) -> list[str]:
    """Name the cells that are no trials, and what took them out."""
    lines = [
        *_first("excluded", [_cell(axes) for axes in plan.excluded]),
        *_first("dropped", [f"{_cell(cell.axes)}: not {cell.by}" for cell in plan.dropped]),
    ]
    return lines + _first("there already, from `include`:", [_cell(a) for a in plan.repeated])


def _cell(axes: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in axes.items())


def _first(word: str, cells: Sequence[str]) -> list[str]:
    lines = [f"{word} {cell}" for cell in cells[:MOST_ROWS]]
    more = len(cells) - MOST_ROWS
    return [*lines, f"… {more} more {word.rstrip(':')}"] if more > 0 else lines


def adopted_lines(progress: Progress) -> list[str]:
    """Name the files that stand in for training, each once, with the sha256 that keys hold."""
    stages = progress.plan.stages.values()
    # By the few types first: pydantic is slow to say that a config has no such field.
    adopting = {t for t in {type(stage.config) for stage in stages} if "file" in t.model_fields}
    files = ((s, getattr(s.config, "file", None)) for s in stages if type(s.config) in adopting)
    lines = [
        f"adopted, not trained: {stage.readable} {STAGES[stage.stage].model} "
        f"from {file.path} (sha256 {file.sha256[:12]}…)"
        for stage, file in files
        if isinstance(file, AdoptedFile)
    ]
    return lines[:MOST_ROWS]


def image_lines(plan: Plan) -> list[str]:
    """Say what was found of a user's own images, each data set once."""
    # By identity first: ten thousand trials share a few configs.
    data = {id(trial.trial.config.data): trial.trial.config.data for trial in plan.trials}
    return list(dict.fromkeys(line for config in data.values() for line in config.lines()))


SHOWN_PARAMETERS = ("encoder", "decoder", "tokenizer", "head", "generator")


def parameters_json(planned: PlannedTrial) -> dict[str, int]:
    """Count parameters by part; `tokenizer` is without its training-only head."""
    config = planned.trial.config
    tokenizer = tokenizer_parameters(config.tokenizer, config.data.image_size)
    generator = generator_parameters(
        config.generator,
        config.tokenizer.vocabulary,
        config.data.num_classes,
        config.tokenizer.sequence_length(config.data.image_size),
    )
    return {
        "encoder": tokenizer.encoder,
        "codebook": tokenizer.codebook,
        "decoder": tokenizer.decoder,
        "tokenizer": tokenizer.total - tokenizer.head,
        "head": tokenizer.head,
        "generator": generator,
    }


def summary(progress: Progress) -> str:
    """Count the stages: all, shared, complete, to run."""
    plan = progress.plan
    waiting = Counter[str]()
    for group in to_run(progress):
        waiting[group.stage] += len(group.keys)
    text = f"{len(plan.trials)} trials, {len(plan.stages)} stages"
    if plan.shared():
        text += f" ({plan.shared()} more are shared)"
    text += f": {len(progress.reused)} complete, {waiting.total()} to run"
    if waiting:
        parts = (f"{n} {STAGES[stage].label}" for stage, n in waiting.items())
        text += " (" + ", ".join(parts) + ")"
    # Given up: `resume` leaves what failed, `retry` all that was not named.
    others = len(plan.stages) - len(progress.reused) - waiting.total()
    return text + (f", {others} left as they are" if others else "")


def reused_lines(progress: Progress) -> list[str]:
    """Say which kinds of stages are complete already, for all trials that reuse the same."""
    if progress.finished or not progress.reused:
        return []
    alike: dict[str, list[str]] = {}
    for planned in progress.plan.trials:
        found = [s for s, key in planned.stages.items() if key in progress.reused]
        # Trials of which nothing is complete need no line.
        if found:
            labels = ", ".join(STAGES[stage].label for stage in found)
            what = labels if len(found) < len(planned.stages) else "everything"
            alike.setdefault(what, []).append(planned.trial.name)
    return [f"reused for {_named(names, progress)}: {what}" for what, names in alike.items()]


def _named(trials: Sequence[str], progress: Progress) -> str:
    """Name a few trials, and count more of them."""
    if len(trials) == len(progress.plan.trials) > 1:
        return f"all {len(trials)} trials"
    more = f" and {len(trials) - MOST_NAMED} more" if len(trials) > MOST_NAMED else ""
    return ", ".join(trials[:MOST_NAMED]) + more


def other_code_line(progress: Progress) -> str | None:
    """Name other versions of the code that computed reused stages; None: there are none.

    Keys hash what is computed, not the code: results stay valid across commits that do not change
    it, and a commit that does must raise the stage's version. So reuse is said, never refused.
    """
    # Of the imported code, not of the files as they are now: those may have been edited since.
    now = code_version(imported_state())
    reused = sorted(progress.reused)[:MOST_CHECKED]
    versions = Counter(_computed_by(progress.folders[key]) for key in reused)
    others = [f"{count} by {version}" for version, count in versions.items() if version != now]
    return f"this code is {now}; of the reused stages {', '.join(others)}" if others else None


def _computed_by(folder: StageFolder) -> str:
    done = folder.done()
    attempts = [a for a in folder.attempts() if done is not None and a.number == done.attempt]
    return code_version(attempts[0].provenance if attempts else {})


def plan_json(progress: Progress, machine: Machines) -> dict[str, Any]:
    """Convert the plan into JSON data."""
    plan, sweep = progress.plan, progress.plan.sweep
    return {
        "sweep": sweep.name,
        "scale": sweep.scale,
        "own_scale": sweep.own_scale and str(sweep.own_scale),
        "question": sweep.question,
        "plan": plan.key,
        "trials": [
            {
                "name": planned.trial.name,
                "key": planned.key,
                "axes": dict(planned.trial.axes),
                "solved": [asdict(solved) for solved in planned.trial.solved],
                "derived": dict(planned.trial.derived),
                "stages": dict(planned.stages),
                "parameters": parameters_json(planned),
            }
            for planned in plan.trials
        ],
        "stages": {
            key: {
                "stage": stage.stage,
                "readable": stage.readable,
                "inputs": dict(stage.inputs),
                "state": progress.states[key],
                "reused_from": str(progress.folders[key].path) if key in progress.reused else None,
                "cost": cost_json(progress, machine, key),
            }
            for key, stage in plan.stages.items()
        },
        "totals": totals_json(progress, machine),
        "excluded": [dict(cell) for cell in plan.excluded],
        "search": None if sweep.search is None else sweep.search.as_json(),
        "dropped": [{"axes": dict(cell.axes), "by": cell.by} for cell in plan.dropped],
        "repeated": [dict(axes) for axes in plan.repeated],
    }
