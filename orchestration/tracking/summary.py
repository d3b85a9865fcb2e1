"""Summary of a launch on its run in MLflow: question and results, as text and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from gigatok.names import METRICS, Metric, result_columns
from gigatok.text import markdown
from orchestration.plan.graph import Plan
from orchestration.sweep.definition import Sweep
from orchestration.tracking.mlflow_server import NOTE_TAG, TABLES_TAG
from orchestration.tracking.params import trial_params

RESULTS_FILE = "results.json"
MOST_ROWS = 40
"""Trials of a description, which MLflow limits; the file has all."""
Scores = Mapping[str, Mapping[str, float]]
"""Trial -> metric -> value; a missing one is absent."""


def note_tags(sweep: Sweep, scores: Scores) -> dict[str, str]:
    """Write the description of a sweep's run, which MLflow renders as Markdown.

    Args:
        sweep: with its question.
        scores: final ones; empty while there are none.
    """
    parts = [markdown.for_mlflow(sweep.question)]
    parts += [f"After {markdown.for_mlflow(sweep.paper)} of the paper."] if sweep.paper else []
    parts += [_markdown(scores)] if any(scores.values()) else []
    tables = json.dumps([{"path": RESULTS_FILE, "type": "table"}])
    return {NOTE_TAG: "\n\n".join(parts), **({TABLES_TAG: tables} if scores else {})}


def table_files(plan: Plan, scores: Scores) -> dict[str, bytes]:
    """Write the scores of all trials as `MlflowClient.log_table` would; none before there are any.

    Columns are the trial, what varies, and every score; a value that is missing or not finite is
    null.
    """
    if not any(scores.values()):
        return {}
    found = {name for values in scores.values() for name in values}
    columns = [*(n for n in METRICS if n in found), *sorted(found - METRICS.keys())]
    rows = []
    for planned in plan.trials:
        trial = planned.trial
        params = trial_params(trial.config)
        settings = [params.get(axis) for axis in plan.sweep.varied]
        values = [_finite(scores[trial.name].get(name)) for name in columns]
        rows.append([trial.name, *settings, trial.config.seed, *values])
    table = {"columns": ["trial", *plan.sweep.varied, "seed", *columns], "data": rows}
    return {RESULTS_FILE: json.dumps(table, allow_nan=False).encode()}


def _markdown(scores: Scores) -> str:
    shown = [METRICS[n] for n in result_columns() if any(n in v for v in scores.values())]
    lines = [["trial", *(metric.heading for metric in shown)], ["---", *("--:" for _ in shown)]]
    for trial, values in list(scores.items())[:MOST_ROWS]:
        lines.append([markdown.for_mlflow(trial), *(_cell(metric, values) for metric in shown)])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    left = len(scores) - MOST_ROWS
    return table if left <= 0 else f"{table}\n\n{left} more trials are in `{RESULTS_FILE}`."


def _cell(metric: Metric, values: Mapping[str, float]) -> str:
    value = values.get(metric.name)
    return "–" if value is None else metric.text(value)


def _finite(value: float | None) -> float | None:
    # JSON has no NaN and no infinity.
    return value if value is not None and math.isfinite(value) else None
