"""Table at the end of a launch, from the stages' own records."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.text import Text

from gigatok.names import METRICS, QUANTITIES, Metric, result_columns, setting_name, with_computed
from gigatok.text.fitting import FittingTable
from orchestration.execution.progress import Progress
from orchestration.plan.graph import Plan
from orchestration.runs.stage_records import Done
from orchestration.sweep.formulas.expressions import Value
from orchestration.sweep.formulas.quantities import computed
from orchestration.yaml.source import show

BITS = "bits_per_image"
MOST_SETTINGS = 40


def trial_metrics(progress: Progress) -> dict[str, dict[str, float]]:
    """Collect the final scores of each trial's complete stages; a missing one is absent."""
    done = {key: progress.done(key) for key in progress.folders}
    return {
        trial.trial.name: merged_scores(done[key] for key in trial.stages.values())
        for trial in progress.plan.trials
    }


def merged_scores(stages: Iterable[Done | None]) -> dict[str, float]:
    """Merge the final scores of a trial's stages, and add those that follow from them.

    Args:
        stages: in the order of the graph; None: it is not complete.
    """
    # Where two report a metric of one name, the later one wins.
    merged: dict[str, float] = {}
    for done in stages:
        merged |= done.metrics if done else {}
    return with_computed(merged)


def trial_facts(plan: Plan) -> dict[str, dict[str, Value]]:
    """Collect what follows from each config: what the sweep derives, and bits per image."""
    facts = [(one.trial.derived, computed(BITS, one.trial.config)) for one in plan.trials]
    names = plan.trials[0].trial.derived if plan.trials else ()
    # Shown once, under the sweep's own name for it.
    shown = not any(all(derived[name] == bits for derived, bits in facts) for name in names)
    heading = QUANTITIES[BITS].heading
    return {
        one.trial.name: {**derived, **({heading: bits} if shown and bits is not None else {})}
        for one, (derived, bits) in zip(plan.trials, facts, strict=True)
    }


def launch_json(progress: Progress) -> dict[str, Any]:
    """Convert a launch into JSON data; a metric that is missing or not finite is null."""
    metrics = trial_metrics(progress)
    names = sorted({name for values in metrics.values() for name in values})
    return {
        "plan": progress.plan.key,
        "interrupted": progress.interrupted,
        "ran": sorted(progress.ran),
        "reused": sorted(progress.reused),
        "done_elsewhere": sorted(progress.done_elsewhere),
        "stages": dict(progress.states),
        "failures": {
            key: {"kind": f.kind, "message": f.message, "folder": str(progress.folders[key].path)}
            for key, f in progress.failures.items()
        },
        "trials": {
            trial: {name: _finite(values.get(name)) for name in names}
            for trial, values in metrics.items()
        },
    }


def _finite(value: float | None) -> float | None:
    # JSON has no NaN and no infinity; other programs refuse files that hold them.
    return value if value is not None and math.isfinite(value) else None


def result_table(
    metrics: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Mapping[str, Value]] | None = None,
) -> FittingTable:
    """Make a row per setting, with the mean of each metric over its seeds.

    Args:
        metrics: by trial and name; one that does not exist shows as an en dash.
        facts: by trial and heading: what follows from a config, whatever its seed.
    """
    facts = facts or {}
    known = list(dict.fromkeys(name for of in facts.values() for name in of))
    settings: dict[str, list[Mapping[str, float]]] = {}
    follows: dict[str, Mapping[str, Value]] = {}
    for trial, values in metrics.items():
        settings.setdefault(setting_name(trial), []).append(values)
        follows.setdefault(setting_name(trial), facts.get(trial, {}))
    shown = [
        METRICS[name] for name in result_columns() if any(name in m for m in metrics.values())
    ]
    heads = [metric.heading for metric in shown]
    table = FittingTable(
        ("setting", *known, "seeds", *heads),
        right=(*known, "seeds", *heads),
        wraps=("setting",),
        drops=heads[::-1],
        more="a wider terminal shows them",
    )
    for name, seeds in itertools.islice(settings.items(), MOST_SETTINGS):
        # Where the seed alone varies, the one setting has no name.
        derived = (_fact(follows[name].get(heading)) for heading in known)
        cells = (_mean(metric, seeds) for metric in shown)
        table.add_row(Text(name or "all"), *derived, str(len(seeds)), *cells)
    if len(settings) > MOST_SETTINGS:
        table.add_row(f"… {len(settings) - MOST_SETTINGS} more")
    return table


def _mean(metric: Metric, seeds: Sequence[Mapping[str, float]]) -> str:
    known = [one for one in seeds if metric.name in one]
    if len(known) < 2:
        return format_metric(metric, known[0] if known else {})
    return metric.text(fmean(one[metric.name] for one in known))


def _fact(value: Value | None) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else show(value)


def format_metric(metric: Metric, values: Mapping[str, float]) -> str:
    """Write a value with its standard error, in the metric's own precision."""
    value = values.get(metric.name)
    if value is None:
        return "–"
    text = metric.text(value)
    error = values.get(metric.standard_error or "")
    return text if error is None else f"{text} ± {metric.text(error)}"
