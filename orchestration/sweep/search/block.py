"""The `search` block of a sweep: its space, sampler, pruner, objectives and budget.

It is only read and checked here, without Optuna; `orchestration.search.asking` runs the search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from gigatok.names import METRICS
from gigatok.stages import STAGES
from gigatok.text.credentials import has_secret, shown
from orchestration.sweep.grid.axes import Axes
from orchestration.sweep.grid.expansion import Expansion, Trial, count
from orchestration.sweep.search.space import Choices, Range, SearchedKey, read_space
from orchestration.sweep.settings.keys import RANK_AXIS, Checker, Setting, trial_keys
from orchestration.sweep.settings.scales import Scale, report_unknown, text_of
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    did_you_mean,
    entries,
    items,
    listed,
    show,
)
from orchestration.yaml.values import one_of, positive, whole

SEARCH_KEYS = (
    "space",
    "sampler",
    "pruner",
    "objectives",
    "budget",
    "seed",
    "at_once",
    "storage",
    "transfer",
)
PRUNER_KEYS = ("name", "stage", "metric", "direction", "every", "min_steps", "factor")
BUDGET_KEYS = ("trials", "hours")
SAMPLERS = ("tpe", "cmaes", "grid", "random", "nsga2")
PRUNERS = ("none", "asha", "hyperband", "median")
DIRECTIONS = ("minimize", "maximize")
GPU_HOURS = "gpu_hours"
"""Objective that no stage measures: hours times devices of the trial's stages.

A stage that ran without a GPU counts as if it had one.
"""
WORDS = {"lower": "minimize", "higher": "maximize"}
TRANSFER_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors of the best learning rate that are tried where it is transferred to."""

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Pruner:
    """Rule for ending trials that are not worth continuing.

    Attributes:
        name: one of `PRUNERS`.
        stage: the training stage whose curve is watched.
        metric: name of the curve, such as `train/loss`.
        direction: the better direction.
        every: steps between two looks.
        min_steps: steps before the first look.
        factor: for `asha` and `hyperband`: one in so many trials is promoted from rung to rung.
    """

    name: str = "none"
    stage: str = "train_generator"
    metric: str = "train/loss"
    direction: Direction = "minimize"
    every: int = 1
    min_steps: int = 1
    factor: int = 3


@dataclass(frozen=True)
class Search:
    """Checked `search` block.

    Attributes:
        space: key -> its range or list of values.
        sampler: one of `SAMPLERS`.
        pruner: rule for stopping a trial early.
        objectives: metric or `gpu_hours` -> the better direction.
        trials: number of trials to ask for.
        hours: device hours after which no further trial starts; None: no limit.
        seed: seed of the sampler; the seed of the trials is the sweep's.
        at_once: trials that run at the same time. With one, the sequence of suggestions is the
            same on every backend.
        storage: Optuna's URL; None: a journal file in the runs directory.
        transfer: keys and values under which the best learning rate is checked; empty: it is not.
        written: parts of the sweep at its scale as plain data; with the scale, they decide which
            trial a suggestion means.
    """

    space: Mapping[str, SearchedKey]
    sampler: str
    pruner: Pruner
    objectives: Mapping[str, Direction]
    trials: int
    hours: float | None
    seed: int
    at_once: int
    storage: str | None
    transfer: Mapping[str, Setting]
    # Kept whole: a suggestion becomes a trial by the same expansion as a grid cell.
    axes: Axes = field(repr=False)
    scale: Scale = field(repr=False)
    seeds: tuple[int, ...] = field(repr=False)
    written: Mapping[str, Any] = field(repr=False)

    @property
    def identity(self) -> str:
        """Text that differs between different searches: all but budget, storage and `at_once`."""
        parts = self.as_json()
        # A larger budget goes on with the same search, so it is no part of its identity.
        return json.dumps({key: parts[key] for key in sorted(parts) if key != "budget"})

    def as_json(self) -> dict[str, Any]:
        """Return the block as data, with defaults filled in."""
        return {
            "space": {key: d.domain.as_json() for key, d in self.space.items()},
            "sampler": self.sampler,
            "pruner": asdict(self.pruner),
            "objectives": dict(self.objectives),
            "budget": {"trials": self.trials, "hours": self.hours},
            "seed": self.seed,
            "transfer": {key: setting.written for key, setting in self.transfer.items()},
        }

    def trial(self, name: str, suggestion: Mapping[str, Any]) -> Trial:
        """Build the trial of a suggestion.

        Raises:
            ValueError: the values do not fit together, or the sweep drops them; says which.
        """
        problems: list[Problem] = []
        chosen = {k: self.space[k].setting(k, value) for k, value in suggestion.items()}
        trials = self._expand(chosen, problems).trials
        if problems:
            raise ValueError("; ".join(f"{p.key}: {p.text}" for p in problems))
        if not trials:
            raise ValueError("this combination is excluded by the sweep")
        # One cell, as the check of the block made sure, so one trial.
        (trial,) = trials
        parts = [f"{key.rpartition('.')[2]}={_label(s.written)}" for key, s in chosen.items()]
        written = {key: setting.written for key, setting in chosen.items()}
        return Trial(" ".join([name, *parts]), trial.config, {**trial.axes, **written})

    def example(self, problems: list[Problem]) -> Expansion:
        """Expand one possible trial, which stands for all of them in the plan."""
        first = {key: d.setting(key, d.first()) for key, d in self.space.items()}
        return self._expand(first, problems)

    def examples(self) -> Expansion:
        """Expand trials that together use every value of every list, if they can combine."""
        first = {key: d.first() for key, d in self.space.items()}
        lists = {k: d.domain for k, d in self.space.items() if isinstance(d.domain, Choices)}
        suggestions = [first]
        suggestions += [{**first, k: v} for k, d in lists.items() for v in d.labels[1:]]
        trials: list[Trial] = []
        for number, suggestion in enumerate(suggestions):
            # One list varies at a time, from the first values of the others; a combination that
            # the sweep excludes is skipped.
            with suppress(ValueError):
                trials.append(self.trial(f"{number:03d}", suggestion))
        return Expansion(tuple(trials), ())

    def _expand(self, chosen: Mapping[str, Setting], problems: list[Problem]) -> Expansion:
        rows = {key: (setting,) for key, setting in chosen.items()}
        axes = replace(self.axes, axes={**self.axes.axes, **rows})
        return axes.expand(self.seeds, self.scale, problems)

    def learning_rate(self) -> str:
        """Return the key of `transfer`'s learning rate: the first searched over a log range."""
        return _rates(self.space)[0]

    def transferred(self, best: float) -> Search:
        """Build the search that checks the best learning rate under the keys of `transfer`."""
        key = self.learning_rate()
        place = self.space[key].place
        rates = tuple(factor * best for factor in TRANSFER_FACTORS)
        where = f"search.space.{key}"
        settings = tuple(Setting(rate, rate, place, where, RANK_AXIS) for rate in rates)
        fixed = {**self.axes.fixed, **self.transfer}
        return replace(
            self,
            space={key: SearchedKey(Choices(rates, settings), place)},
            # A grid without pruning: all of the few rates must end, to be compared at their end.
            sampler="grid",
            pruner=Pruner(),
            trials=len(rates),
            transfer={},
            axes=replace(self.axes, fixed=fixed),
        )


def _rates(space: Mapping[str, SearchedKey]) -> list[str]:
    return [k for k, d in space.items() if isinstance(d.domain, Range) and d.domain.log]


def _label(written: Any) -> str:
    if isinstance(written, float):
        return f"{written:.4g}"
    return written if isinstance(written, str) else json.dumps(written)


# Reading


def _check_steps(
    pruner: Pruner,
    axes: Axes,
    scale: Scale,
    parts: Mapping[str, Node],
    problems: list[Problem],
) -> None:
    """Check that the pruner looks where the curve has points, and before it ends."""
    if pruner.name == "none":
        return
    section = STAGES[pruner.stage].model
    settings = {**scale.trial, **axes.fixed}
    every = settings.get(f"{section}.log_every")
    # By the config's own default, which the file of the scale need not repeat.
    default = trial_keys()[f"{section}.log_every"].field.default
    # Only logged steps have a point of the curve.
    logged = int(default if every is None else every.value)
    block = parts["pruner"]
    if pruner.every % logged:
        text = f"got {pruner.every}; must be a multiple of {logged}, {section}.log_every"
        problems.append(Problem(block.place, "search.pruner.every", text))
    steps = settings.get(f"{section}.steps")
    if steps is not None and pruner.min_steps >= steps.value:
        text = f"got {pruner.min_steps}; the stage has {steps.value} steps: look before that"
        problems.append(Problem(block.place, "search.pruner.min_steps", text))


def read_search(
    sweep: Mapping[str, Node],
    axes: Axes,
    seeds: tuple[int, ...],
    scale: Scale | None,
    overrides: Mapping[str, Setting],
    problems: list[Problem],
) -> Search | None:
    """Read the search block of a sweep; None if there is none, or after a problem was reported.

    Args:
        sweep: parts of the sweep at its scale; `search` is the block.
        axes: all else that the sweep varies and fixes: together one cell.
        seeds: seeds of the trials: one.
        scale: source of all other values; None if it could not be read.
        overrides: values of `--set`, which remove keys from the space.
        problems: receives everything that is wrong.
    """
    node = sweep.get("search")
    if node is None or node.value is None:
        return None
    before = len(problems)
    parts = entries(node, "search", problems, "; it has the keys " + listed(SEARCH_KEYS))
    report_unknown(parts, SEARCH_KEYS, "a search", problems)
    checker = Checker(
        problems,
        "" if scale is None else scale.name,
        None if scale is None else scale.sizes,
        None if scale is None else scale.generator_sizes,
    )
    space = read_space(parts.get("space"), node, axes, checker, overrides)
    sampler = one_of(parts.get("sampler"), "search.sampler", SAMPLERS, "tpe", problems)
    pruner = _pruner(parts.get("pruner"), problems)
    objectives = _objectives(parts.get("objectives"), node, problems)
    trials, hours = _budget(parts.get("budget"), node, problems)
    seed = whole(parts.get("seed"), "search.seed", 0, 0, problems)
    at_once = whole(parts.get("at_once"), "search.at_once", 1, 1, problems)
    storage = _storage(parts.get("storage"), problems)
    transfer = _transfer(parts.get("transfer"), space, objectives, checker)
    _check_together(sampler, pruner, space, objectives, parts, problems)
    # Several cells would need several searches, one for each.
    cells = count(axes.blocks(seeds)) if seeds else 1
    if axes.included:
        text = "a search lists no cells; remove it, or put its keys into `space` or `set`"
        problems.append(Problem(axes.included[0].place, "include", text))
        cells = 1
    if cells > 1:
        text = f"the axes, zip and seeds beside it make {cells} combinations; a search has one: "
        problems.append(Problem(node.key_place, "search", text + "put keys into `space` or `set`"))
    # Only on a sound block: these checks read values that a problem may have replaced.
    if len(problems) > before or scale is None:
        return None
    _check_steps(pruner, axes, scale, parts, problems)
    if len(problems) > before:
        return None
    found = (space, sampler, pruner, objectives, trials, hours, seed, at_once, storage, transfer)
    return Search(*found, axes, scale, seeds, {key: part.plain() for key, part in sweep.items()})


def _storage(node: Node | None, problems: list[Problem]) -> str | None:
    """Read the database's URL, which must not hold a password: the file is kept and uploaded."""
    url = text_of(node, "search.storage", problems) or None
    if node is not None and url is not None and has_secret(url):
        text = f"{shown(url)} holds a password, and this file is uploaded to MLflow: "
        problems.append(Problem(node.place, "search.storage", text + "use `--storage` instead"))
    return url


def _pruner(node: Node | None, problems: list[Problem]) -> Pruner:
    """Read a pruner: its name alone, or a mapping."""
    if node is None or node.value is None:
        return Pruner()
    if not isinstance(node.value, dict):
        name = one_of(node, "search.pruner", PRUNERS, "none", problems)
        if name not in ("none", ""):
            text = f"got {show(name)} alone; say what it looks at: {{name: {name}, "
            text += "stage: train_generator, metric: train/loss, every: 50, min_steps: 100}"
            problems.append(Problem(node.place, "search.pruner", text))
        return Pruner()
    parts = node.value
    for name, item in parts.items():
        if name not in PRUNER_KEYS:
            text = f"unknown key; a pruner has the keys {listed(PRUNER_KEYS)}"
            text += did_you_mean(name, PRUNER_KEYS)
            problems.append(Problem(item.key_place, f"search.pruner.{name}", text))
    training = tuple(name for name, stage in STAGES.items() if stage.trains)
    given = Pruner()
    every = whole(parts.get("every"), "search.pruner.every", 1, 1, problems)
    direction: Any = one_of(
        parts.get("direction"), "search.pruner.direction", DIRECTIONS, "minimize", problems
    )
    return Pruner(
        name=one_of(parts.get("name"), "search.pruner.name", PRUNERS, "none", problems),
        stage=one_of(parts.get("stage"), "search.pruner.stage", training, given.stage, problems),
        metric=text_of(parts.get("metric"), "search.pruner.metric", problems) or given.metric,
        direction=direction,
        every=every,
        min_steps=whole(parts.get("min_steps"), "search.pruner.min_steps", every, 1, problems),
        factor=whole(parts.get("factor"), "search.pruner.factor", given.factor, 2, problems),
    )


def _objectives(node: Node | None, block: Node, problems: list[Problem]) -> dict[str, Direction]:
    """Read name -> direction; in a list, each name takes the direction in which it is better."""
    known = [*METRICS, GPU_HOURS]
    if node is None or node.value is None:
        text = "missing; write `[ar_val_loss]`, or `{rfid: minimize, gpu_hours: minimize}`"
        problems.append(Problem(block.key_place, "search.objectives", text))
        return {}
    mapping = isinstance(node.value, dict)
    nodes = list(
        entries(node, "search.objectives", problems).values()
        if mapping
        else items(node, "search.objectives", problems, " of names, or a mapping to directions")
    )
    names = list(node.value) if isinstance(node.value, dict) else [n.plain() for n in nodes]
    found: dict[str, Direction] = {}
    for name, item in zip(names, nodes, strict=True):
        if name not in known:
            place = item.key_place if mapping else item.place
            text = f"got {show(name)}; objectives: {listed(known)}{did_you_mean(name, known)}"
            problems.append(Problem(place, "search.objectives", text))
        elif name in found:
            problems.append(Problem(item.place, "search.objectives", f"{name} is given twice"))
        else:
            found[name] = _direction(name, item if mapping else None, item.place, problems)
    if not nodes:
        problems.append(Problem(node.place, "search.objectives", "is empty; give one at least"))
    return found


def _direction(name: str, node: Node | None, place: Place, problems: list[Problem]) -> Direction:
    better = "lower" if name == GPU_HOURS else METRICS[name].better
    usual = WORDS.get(better or "", "")
    if node is None and not usual:
        text = f"{name} is better neither lower nor higher; say which: `{{{name}: minimize}}`"
        problems.append(Problem(place, "search.objectives", text))
    # Parameter counts, for instance, are better in neither direction.
    given: Any = one_of(node, f"search.objectives.{name}", DIRECTIONS, usual, problems)
    return given or "minimize"


def _budget(node: Node | None, block: Node, problems: list[Problem]) -> tuple[int, float | None]:
    parts = entries(node, "search.budget", problems, "; write `{trials: 20}`")
    for name, item in parts.items():
        if name not in BUDGET_KEYS:
            text = f"unknown key; a budget has the keys {listed(BUDGET_KEYS)}"
            text += did_you_mean(name, BUDGET_KEYS)
            problems.append(Problem(item.key_place, f"search.budget.{name}", text))
    if "trials" not in parts:
        place = block.key_place if node is None else node.place
        text = "missing; say how many trials, such as 20"
        problems.append(Problem(place, "search.budget.trials", text))
    trials = whole(parts.get("trials"), "search.budget.trials", 1, 1, problems)
    return trials, positive(parts.get("hours"), "search.budget.hours", problems)


def _transfer(
    node: Node | None,
    space: Mapping[str, SearchedKey],
    objectives: Mapping[str, Direction],
    checker: Checker,
) -> dict[str, Setting]:
    problems = checker.problems
    found: dict[str, Setting] = {}
    nodes = entries(node, "search.transfer", problems, "; write `{tokenizer.decoder: B}`")
    for key, item in nodes.items():
        setting = checker.setting(key, item, f"search.transfer.{key}", RANK_AXIS)
        if key in space:
            text = "is searched itself; name a key that is fixed in the search, such as a size"
            problems.append(Problem(item.key_place, f"search.transfer.{key}", text))
        elif setting is not None:
            found[key] = setting
    fits = len(space) == len(_rates(space)) == 1 and len(objectives) <= 1
    if node is not None and nodes and not fits:
        text = "checks one key, searched over a range with log: true, for one objective"
        problems.append(Problem(node.key_place, "search.transfer", text))
    return found


def _check_together(
    sampler: str,
    pruner: Pruner,
    space: Mapping[str, SearchedKey],
    objectives: Mapping[str, Direction],
    parts: Mapping[str, Node],
    problems: list[Problem],
) -> None:
    """Report what a sampler or pruner cannot do with this space and these objectives."""

    def report(name: str, text: str) -> None:
        problems.append(Problem(parts[name].place, f"search.{name}", text))

    several = len(objectives) > 1
    if sampler == "cmaes":
        named = [k for k, d in space.items() if isinstance(d.domain, Choices)]
        if several:
            report("sampler", "cmaes takes one objective; use nsga2 or tpe for several")
        if named:
            report("sampler", f"cmaes takes ranges only, not the values of {listed(named)}")
        # CMA-ES adapts a covariance, and Optuna's refuses a single dimension.
        elif len(space) == 1:
            report("sampler", "cmaes needs two keys at least; use tpe for one")
    if sampler == "nsga2" and objectives and not several:
        report("sampler", "nsga2 is for several objectives; use tpe or cmaes for one")
    if sampler == "grid":
        endless = [
            key
            for key, d in space.items()
            if isinstance(d.domain, Range) and d.domain.values() is None
        ]
        if endless:
            report("sampler", f"grid needs a step, or a list of values, for {listed(endless)}")
    # Optuna reports no intermediate values for several objectives.
    if pruner.name != "none" and several:
        report("pruner", "trials can be pruned for one objective only; write `none`")
