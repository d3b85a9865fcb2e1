"""Report of a search: a table on the terminal, tags and a file in MLflow."""

from __future__ import annotations

import json
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from gigatok import names
from gigatok.text.fitting import FittingTable
from orchestration.search import asking
from orchestration.search.run import Round, Searcher
from orchestration.tracking.sweep_runs import Findings

MOST_ROWS = 30
Json = dict[str, Any]


def findings(searcher: Searcher) -> Findings:
    """Collect what MLflow is told: the best trial for the sweep's run, states for the trials'."""
    content = search_json(searcher)
    # The search itself; a second study is the check of the transfer.
    first = content["studies"][0]
    tags = {
        "study": searcher.study_name,
        "sampler": searcher.search.sampler,
        "pruner": searcher.search.pruner.name,
        "best": json.dumps(first["best"]),
        "importances": json.dumps(first["importances"]),
    }
    if content["transfer"] is not None:
        tags["transfer"] = json.dumps(content["transfer"])
    trials: dict[str, dict[str, str]] = {}
    ended = set()
    for one, number, planned in searcher.planned():
        trial = one.study.get_trials(deepcopy=False)[number]
        trials[planned.key] = _prefixed(_trial_tags(trial, one))
        # Their runs end here: stages that were never started would keep them RUNNING in MLflow.
        if trial.state in (TrialState.PRUNED, TrialState.FAIL):
            ended.add(planned.key)
    files = {"search.json": json.dumps(content, indent=1).encode()}
    return Findings(_prefixed(tags), files, trials, frozenset(ended))


def _prefixed(tags: dict[str, str]) -> dict[str, str]:
    return {names.PREFIX_SEARCH + key: value for key, value in tags.items()}


def _trial_tags(trial: FrozenTrial, one: Round) -> dict[str, str]:
    tags = {"study": one.study.study_name, "number": str(trial.number), "state": trial.state.name}
    reason = trial.user_attrs.get(asking.REASON)
    return tags if reason is None else {**tags, "reason": str(reason)}


def search_json(searcher: Searcher) -> Json:
    """Convert the whole search into JSON data; what does not exist is null."""
    return {
        "sweep": searcher.sweep.name,
        "scale": searcher.sweep.scale,
        "plan": searcher.plan.key,
        "studies": [_study_json(one) for one in searcher.rounds],
        "transfer": drift(searcher),
    }


def _study_json(one: Round) -> Json:
    return {
        "name": one.study.study_name,
        "sampler": one.search.sampler,
        "seed": one.search.seed,
        "objectives": dict(one.search.objectives),
        "trials": [_trial_json(trial, one) for trial in one.study.get_trials(deepcopy=False)],
        "best": [_trial_json(trial, one) for trial in asking.best_trials(one.study, one.search)],
        "importances": asking.importances(one.study, one.search),
    }


def _trial_json(trial: FrozenTrial, one: Round) -> Json:
    complete = trial.state == TrialState.COMPLETE
    shown = one.trials.get(trial.number)
    return {
        "number": trial.number,
        "trial": None if shown is None else shown.name,
        "state": trial.state.name,
        "params": dict(trial.params),
        "values": dict(zip(one.search.objectives, trial.values, strict=True))
        if complete
        else None,
        **dict(trial.user_attrs),
    }


def drift(searcher: Searcher) -> Json | None:
    """Compare the best rate with that of the transfer; None: not known.

    `factor` is the best rate there over the best here, among the factors that were tried;
    `cost` is how much worse the objective is there with the rate that is best here.
    """
    if len(searcher.rounds) < 2:
        return None
    here, there = searcher.rounds
    key = here.search.learning_rate()
    (objective,) = here.search.objectives
    best_here = asking.best_trials(here.study, here.search)[0]
    best_there = asking.best_trials(there.study, there.search)
    rate = float(best_here.params[key])
    complete = [t for t in there.study.get_trials(deepcopy=False) if t.values is not None]
    # Equal floats: the transfer tries multiples of this rate, 1 among them, and stores them as
    # they are.
    same = [t for t in complete if t.params[key] == rate]
    if not best_there or not same:
        return None
    best = best_there[0]
    return {
        "key": key,
        "to": {k: setting.written for k, setting in here.search.transfer.items()},
        "objective": objective,
        "best_here": rate,
        "best_there": best.params[key],
        "factor": best.params[key] / rate,
        "cost": abs(same[0].values[0] - best.values[0]),
        "tried": {str(t.params[key]): t.values[0] for t in complete},
    }


# The terminal


def print_search(searcher: Searcher, console: Console) -> None:
    """Print a row per trial, the best trial or the Pareto front, importances, and the drift."""
    for one in searcher.rounds:
        if one.label:
            to = ", ".join(f"{k}={s.written}" for k, s in searcher.search.transfer.items())
            console.print(f"the best rate at {to}", style="bold")
        console.print(_table(one))
        console.print(_counts(one))
        for trial in asking.best_trials(one.study, one.search):
            front = len(one.search.objectives) > 1
            console.print(f"{'Pareto front' if front else 'best'}: {_described(trial, one)}")
        for name, shares in asking.importances(one.study, one.search).items():
            said = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
            console.print(f"importances for {name}: {said}")
    found = drift(searcher)
    if found is not None:
        console.print(
            f"drift: the best {found['key']} there is {found['factor']:g} times that here; using "
            f"this one there costs {found['cost']:.4g} of {found['objective']}"
        )


def _table(one: Round) -> FittingTable:
    numbers = [key.rpartition(".")[2] for key in one.search.space] + list(one.search.objectives)
    # Values before keys: without what was reached, a row says nothing.
    drops = numbers[: len(one.search.space)][::-1]
    table = FittingTable(
        ("trial", *numbers, "state"), numbers, wraps=("trial", "state"), drops=drops
    )
    trials = one.study.get_trials(deepcopy=False)
    best = {trial.number for trial in asking.best_trials(one.study, one.search)}
    for trial in trials[-MOST_ROWS:]:
        complete = trial.state == TrialState.COMPLETE
        values = [f"{v:.4g}" if complete else "–" for v in trial.values or [0.0]]
        values += ["–"] * (len(one.search.objectives) - len(values))
        params = [_value(trial.params.get(key)) for key in one.search.space]
        style = "green" if trial.number in best else "" if complete else "dim"
        state = trial.state.name.lower()
        if trial.state == TrialState.PRUNED and "pruned_at_step" in trial.user_attrs:
            state += f" at step {trial.user_attrs['pruned_at_step']}"
        if trial.state == TrialState.FAIL or (complete and asking.REASON in trial.user_attrs):
            state += f": {trial.user_attrs.get(asking.REASON, '')}".partition("\n")[0]
        name = Text(one.name(trial.number), style="bold")
        table.add_row(name, *params, *values, state, style=style)
    return table


def _counts(one: Round) -> str:
    states = [trial.state.name.lower() for trial in one.study.get_trials(deepcopy=False)]
    kinds = dict.fromkeys(states)
    said = ", ".join(f"{states.count(kind)} {kind}" for kind in kinds) or "none"
    return f"{len(states)} of {one.search.trials} trials: {said}"


def _described(trial: FrozenTrial, one: Round) -> str:
    values = zip(one.search.objectives, trial.values, strict=True)
    reached = ", ".join(f"{name} {value:.4g}" for name, value in values)
    params = ", ".join(f"{key}={_value(value)}" for key, value in trial.params.items())
    return f"trial {one.name(trial.number)}: {reached} with {params}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
