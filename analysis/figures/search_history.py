"""The figure of a search: what each trial reached, the best so far, and which keys mattered.

A search with `transfer` also gets the objective over the learning rate, in both places.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import polars as pl

from analysis.charts.grammar import Chart, FigureData, Mark, Origin, Reading, Series, axis
from analysis.charts.style import BLUE, GREEN, ORANGE, OTHER, Look
from analysis.figures.parts.registry import RunsRequest, of_runs
from analysis.store import artifacts
from analysis.store.interface import SweepRun
from analysis.store.opening import open_store
from analysis.store.requests import RequestError
from gigatok.names import PREFIX_SEARCH, quantity
from gigatok.text.command_lines import command

NAME = "search-history"
PRUNED, FAILED, BEST = "pruned", "failed", "best so far"
_ENDS = {"PRUNED": (PRUNED, "x"), "FAIL": (FAILED, "v")}
_MARGIN = 0.08
"""Distance beyond the worst value of the trials without one, in parts of the range."""
Trials = Sequence[Mapping[str, Any]]


@of_runs(NAME)
def search_history(request: RunsRequest) -> FigureData:
    """Show the newest search among the trials of a store, as its launcher logged it.

    Raises:
        RequestError: none of them is of a search, or no trial of it is complete.
    """
    launch = _newest(request.trials.table, request.trials.uri)
    found = read_search(request.trials.uri, launch.run_id)
    if found is None:
        raise RequestError(
            f"{NAME}: the run of {launch.sweep} has no search.json; launch it again"
        )
    study, moved = found["studies"][0], found["transfer"]
    charts = search_charts(found, launch.run_id)
    if not charts:
        raise RequestError(f"{NAME}: no trial of the search {launch.sweep} is complete yet")
    counts = [f"{len(study['trials'])} trials of the sampler {study['sampler']}"]
    # Counted in the caption, as several of them at one edge cover each other.
    ended = Counter(trial["state"] for trial in study["trials"])
    counts += [f"{ended[state]} {word}" for state, (word, _) in _ENDS.items() if ended[state]]
    note = f"{launch.sweep}: {', '.join(counts)}."
    if ended.keys() & _ENDS.keys():
        note += " Pruned and failed trials have no value: they stand beyond the worst one."
    if any(len(shares) > 1 for shares in study["importances"].values()):
        note += " Importance: share of the spread of good trials (PED-ANOVA)."
    notes = (note,) if moved is None else (note, _drift(moved))
    return FigureData(NAME, "How did the search go?", "runs", tuple(charts), notes)


def read_search(uri: str, run_id: str) -> Mapping[str, Any] | None:
    """Read what the launcher of a search logged to its sweep run; None where it logged nothing.

    The search itself is first among its `studies`; a second one holds the rates that were tried
    where the best one is to be used.
    """
    content = artifacts.read(uri, run_id, "search.json")
    return None if content is None else json.loads(content)


def search_charts(found: Mapping[str, Any], run_id: str) -> list[Chart]:
    """Draw the history and importances of each objective, and the transfer where there was one."""
    study, moved = found["studies"][0], found["transfer"]
    charts = []
    for name, direction in study["objectives"].items():
        drawn = history(study["trials"], name, direction, run_id)
        charts += [drawn] if drawn is not None else []
        charts += _importances(study["importances"].get(name, {}), name, run_id)
    if moved is not None:
        charts.append(transfer(found["studies"], moved, run_id))
    return charts


def main_chart(found: Mapping[str, Any], run_id: str) -> Chart | None:
    """Draw what a search asks: its objective over its one key, else of each trial."""
    charts = search_charts(found, run_id)
    return charts[-1] if found["transfer"] is not None else next(iter(charts), None)


def history(trials: Trials, name: str, direction: str, run_id: str) -> Chart | None:
    """Draw the value of each trial and the best so far; None while no trial has a value.

    Args:
        trials: trials of `search.json`, in the order in which the sampler proposed them.
        name: key of the objective.
        direction: `minimize` or `maximize`.
        run_id: id of the sweep's MLflow run.
    """
    valued = [t for t in trials if t["values"] is not None]
    if not valued:
        return None
    values = [_value(t, name) for t in valued]
    down = direction == "minimize"
    # The best that was known when each trial ended, as the sampler saw it.
    so_far = list(accumulate(values, min if down else max))
    span = max(values) - min(values)
    worst = max(values) if down else min(values)
    # Beyond the worst value by a margin: such a trial is no better than any other.
    # A single value has no range, and a value of 0 no size: some distance must remain.
    edge = worst + (1 if down else -1) * _MARGIN * (span or abs(worst) or 1.0)
    series = [
        Series("complete", _marks(valued, values, run_id), Look(BLUE, "o"), joined=False),
        Series(BEST, _marks(valued, so_far, run_id), Look(ORANGE, "")),
    ]
    for state, (word, marker) in _ENDS.items():
        ended = [t for t in trials if t["state"] == state]
        marks = _marks(ended, [edge] * len(ended), run_id, "no value")
        series += [Series(word, marks, Look(OTHER, marker), joined=False)] if marks else []
    title = f"{quantity(name).title} of each trial"
    return Chart(title, axis("number"), axis(name), tuple(series))


def _value(trial: Mapping[str, Any], objective: str) -> float:
    """Look up what a trial reached, in the unit of print."""
    return quantity(objective).factor * float(trial["values"][objective])


def _marks(
    trials: Trials, values: Sequence[float], run_id: str, reading: Reading = "run"
) -> tuple[Mark, ...]:
    return tuple(
        Mark(float(t["number"]), value, (_origin(t, run_id),), reading)
        for t, value in zip(trials, values, strict=True)
    )


def _origin(trial: Mapping[str, Any], run_id: str) -> Origin:
    """Name a trial of the search: all of them are in the file of one run."""
    facts = {key: value for key, value in trial.items() if key != "values"}
    return {"id": f"{run_id}#{trial['number']}", **facts, "objectives": trial["values"]}


def transfer(studies: Sequence[Mapping[str, Any]], moved: Mapping[str, Any], run_id: str) -> Chart:
    """Draw the objective over the learning rate, in the search and at the target of its transfer.

    Args:
        studies: `studies` of `search.json`: the search, then the rates tried at the target.
        moved: `transfer` of `search.json`.
        run_id: id of the sweep's MLflow run.
    """
    key, name = moved["key"], moved["objective"]
    lines = (
        ("searched here", moved["best_here"], Look(BLUE, "o")),
        (f"there: {_there(moved)}", moved["best_there"], Look(ORANGE, "s")),
    )
    series = []
    for study, (words, best, look) in zip(studies, lines, strict=True):
        marks = []
        for trial in study["trials"]:
            if trial["values"] is not None:
                rate, origin = trial["params"][key], _origin(trial, run_id)
                label = "best" if rate == best else ""
                marks.append(Mark(float(rate), _value(trial, name), (origin,), "run", label))
        # By rate: the sampler asks for rates in an order of its own, and the line joins
        # neighbours.
        series.append(Series(words, tuple(sorted(marks, key=lambda m: m.x)), look))
    title = f"{quantity(name).title} over the learning rate"
    return Chart(title, axis(key), axis(name), tuple(series))


def _there(moved: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in moved["to"].items())


def _drift(moved: Mapping[str, Any]) -> str:
    cost = quantity(moved["objective"]).factor * moved["cost"]
    label = quantity(moved["objective"]).title
    if moved["factor"] == 1:
        return f"The best {moved['key']} here is the best at {_there(moved)} as well. One seed."
    return (
        f"The best {moved['key']} at {_there(moved)} is {moved['factor']:g} times that here; "
        f"using this one there costs {cost:.4g} of {label}. One seed, no interval."
    )


def _importances(shares: Mapping[str, float], name: str, run_id: str) -> list[Chart]:
    """Draw the share of each of several keys, the largest first; nothing of too few trials."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    # One key has all of the importance.
    if len(ranked) < 2:
        return []
    marks = [
        Mark(float(i), share, ({"id": f"{run_id}#{key}", "key": key},), "run")
        for i, (key, share) in enumerate(ranked)
    ]
    ticks = tuple((float(i), key) for i, (key, _) in enumerate(ranked))
    series = Series("importance", tuple(marks), Look(GREEN, "o"), joined=False)
    title = f"Importance for {quantity(name).label}"
    return [Chart(title, axis("key", "searched key", ticks), axis("importance"), (series,))]


def _newest(runs: pl.DataFrame, uri: str) -> SweepRun:
    """Find the newest launch of a search that any of the trials belongs to."""
    known = set(runs["sweep_run_id"])
    launches = [launch for launch in open_store(uri).launches(None) if launch.run_id in known]
    searches = [launch for launch in launches if PREFIX_SEARCH + "study" in launch.tags]
    if not searches:
        raise RequestError(
            f"{NAME}: no runs for it in the store; they come from a sweep with a `search` block, "
            f"such as `{command('orchestration.launch', 'learning_rate')}`"
        )
    return max(searches, key=lambda launch: launch.launched)
