"""Check of the `search` block of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, get_args

from pydantic import Field

from gigatok.names import METRICS
from gigatok.stages import STAGES
from gigatok.text.credentials import has_secret, shown
from orchestration.sweep.grid.axes import Axes
from orchestration.sweep.grid.expansion import count
from orchestration.sweep.search.block import GPU_HOURS, Direction, Pruner, Search, log_ranges
from orchestration.sweep.search.space import Choices, Range, SearchedKey, read_space
from orchestration.sweep.settings.keys import trial_keys
from orchestration.sweep.settings.scales import Scale, size_names
from orchestration.sweep.settings.settings import Setting, SizeNames
from orchestration.yaml.parts import Part
from orchestration.yaml.source import did_you_mean, listed, show
from orchestration.yaml.values import ABOVE_ZERO, COUNT, RANDOM_SEED, ValueType, one_of

SEARCH_KEYS = (
    *("space", "sampler", "pruner", "objectives", "budget"),
    *("seed", "at_once", "storage", "transfer"),
)
SAMPLERS = ("tpe", "cmaes", "grid", "random", "nsga2")
PRUNERS = ("none", "asha", "hyperband", "median")
DIRECTIONS = get_args(Direction)
_FEWEST_OF_RUNG = 2  # asha and hyperband promote one of so many, so that one would promote all
BUDGET_FIELDS = {"trials": COUNT, "hours": ABOVE_ZERO}
_BETTER: Mapping[str | None, Direction] = {"lower": "minimize", "higher": "maximize"}


def read_search(
    sweep: Part,
    axes: Axes,
    seeds: tuple[int, ...],
    scale: Scale | None,
    overrides: Mapping[str, Setting],
) -> Search | None:
    """Read the search block of a sweep; None if there is none, or after a problem was reported.

    Args:
        sweep: the sweep at its scale.
        axes: all else that the sweep varies and fixes: together one cell.
        seeds: seeds of the trials: one.
        scale: source of all other values; None if it could not be read.
        overrides: values of `--set`, which remove keys from the space.
    """
    block, before = sweep.part("search"), len(sweep.problems)
    if block.is_null:
        return None
    block.mapping("; it has the keys " + listed(SEARCH_KEYS))
    block.check_keys(SEARCH_KEYS, "a search")
    names = size_names(scale)
    space = read_space(block.part("space"), axes, names, overrides)
    objectives = _objectives(block.part("objectives"))
    sampler = block.part("sampler").read(one_of(SAMPLERS), "tpe")
    pruner = _pruner(block.part("pruner"))
    trials, hours = _budget(block.part("budget"))
    seed = block.part("seed").read(RANDOM_SEED, 0)
    at_once = block.part("at_once").read(COUNT, 1)
    storage = _storage(block.part("storage"))
    transfer = _transfer(block.part("transfer"), space, objectives, names)
    _check_together(block, sampler, pruner, space, objectives)
    _check_one_cell(block, axes, seeds)
    # Only on a sound block: this check reads values that a problem may have replaced.
    if len(block.problems) == before and scale is not None:
        _check_steps(block.part("pruner"), pruner, {**scale.trial, **axes.fixed})
    if len(block.problems) > before or scale is None:
        return None
    return Search(
        space=space,
        sampler=sampler,
        pruner=pruner,
        objectives=objectives,
        trials=trials,
        hours=hours,
        seed=seed,
        at_once=at_once,
        storage=storage,
        transfer=transfer,
        axes=axes,
        scale=scale,
        seeds=seeds,
        written=sweep.plain(),
    )


def _check_one_cell(block: Part, axes: Axes, seeds: tuple[int, ...]) -> None:
    """Check that the rest of the sweep is one cell: several would need several searches."""
    if axes.included:
        text = "a search lists no cells; remove it, or put its keys into `space` or `set`"
        replace(axes.included[0].part, key="include").report(text)
    elif seeds and (cells := count(axes.blocks(seeds))) > 1:
        text = f"the axes, zip and seeds beside it make {cells} combinations; a search has one: "
        block.report_key(text + "put keys into `space` or `set`")


def _check_steps(part: Part, pruner: Pruner, settings: Mapping[str, Setting]) -> None:
    """Check that the pruner looks where the curve has points, and before it ends."""
    if pruner.name == "none":
        return
    section = STAGES[pruner.stage].model
    every = settings.get(f"{section}.log_every")
    # Only logged steps have a point of the curve. By the config's own default, which the file of
    # the scale need not repeat.
    logged = trial_keys()[f"{section}.log_every"].default if every is None else every.value
    if pruner.every % logged:
        text = f"got {pruner.every}; must be a multiple of {logged}, {section}.log_every"
        part.part("every").report(text)
    steps = settings.get(f"{section}.steps")
    if steps is not None and pruner.min_steps >= steps.value:
        text = f"got {pruner.min_steps}; the stage has {steps.value} steps: look before that"
        part.part("min_steps").report(text)


def _storage(part: Part) -> str | None:
    """Read the database's URL, which must not hold a password: the file is kept and uploaded."""
    url = part.text() or None
    if url is not None and has_secret(url):
        text = f"{shown(url)} holds a password, and this file is uploaded to MLflow: "
        part.report(text + "use `--storage` instead")
    return url


def _pruner(part: Part) -> Pruner:
    """Read a pruner: its name alone, or a mapping."""
    if not part.is_mapping:
        name = part.read(one_of(PRUNERS), "none")
        if name != "none":
            text = f"got {show(name)} alone; say what it looks at: {{name: {name}, "
            text += "stage: train_generator, metric: train/loss, every: 50, min_steps: 100}"
            part.report(text)
        return Pruner()
    given = part.fields(pruner_fields(), "a pruner")
    return Pruner(**{"min_steps": given.get("every", 1), **given})


def pruner_fields() -> dict[str, ValueType]:
    """Map the keys of a pruner to the types of their values."""
    return {
        "name": one_of(PRUNERS),
        "stage": one_of(name for name, stage in STAGES.items() if stage.trains),
        "metric": ValueType(str),
        "direction": one_of(DIRECTIONS),
        "every": COUNT,
        "min_steps": COUNT,
        "factor": ValueType(Annotated[int, Field(ge=_FEWEST_OF_RUNG)]),
    }


def _objectives(part: Part) -> dict[str, Direction]:
    """Read name -> direction; in a list, each name takes the direction in which it is better."""
    known = [*METRICS, GPU_HOURS]
    if part.is_null:
        text = "missing; write `[ar_val_loss]`, or `{rfid: minimize, gpu_hours: minimize}`"
        part.report_key(text)
        return {}
    entries: list[tuple[Any, Part]] = list(part.mapping().items() if part.is_mapping else ())
    if not part.is_mapping:
        items = part.items(" of names, or a mapping to directions")
        entries = [(item.plain(), item) for item in items]
    found: dict[str, Direction] = {}
    for name, item in entries:
        if name not in known:
            text = f"got {show(name)}; objectives: {listed(known)}{did_you_mean(name, known)}"
            item.report_key(text)
        elif name in found:
            item.report(f"{name} is given twice")
        else:
            found[name] = _direction(name, item, is_given=part.is_mapping)
    if not entries:
        part.report("is empty; give one at least")
    return found


def _direction(name: str, part: Part, *, is_given: bool) -> Direction:
    usual = _BETTER.get("lower" if name == GPU_HOURS else METRICS[name].better)
    # Parameter counts, for instance, are better in neither direction.
    if not is_given and usual is None:
        text = f"{name} is better neither lower nor higher; say which: `{{{name}: minimize}}`"
        part.report(text)
    direction: Direction = usual or "minimize"
    if is_given:
        direction = part.read(one_of(DIRECTIONS), direction)
    return direction


def _budget(part: Part) -> tuple[int, float | None]:
    part.mapping("; write `{trials: 20}`")
    given = part.fields(BUDGET_FIELDS, "a budget")
    if not part.part("trials").is_given:
        part.part("trials").report_key("missing; say how many trials, such as 20")
    return given.get("trials", 1), given.get("hours")


def _transfer(
    part: Part,
    space: Mapping[str, SearchedKey],
    objectives: Mapping[str, Direction],
    names: SizeNames,
) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    parts = part.mapping("; write `{tokenizer.decoder: B}`")
    for key, item in parts.items():
        setting = names.setting(key, item)
        if key in space:
            text = "is searched itself; name a key that is fixed in the search, such as a size"
            item.report_key(text)
        elif setting is not None:
            found[key] = setting
    fits = len(space) == len(log_ranges(space)) == 1 and len(objectives) <= 1
    if parts and not fits:
        text = "checks one key, searched over a range with log: true, for one objective"
        part.report_key(text)
    return found


def _check_together(
    block: Part,
    sampler: str,
    pruner: Pruner,
    space: Mapping[str, SearchedKey],
    objectives: Mapping[str, Direction],
) -> None:
    """Report what a sampler or pruner cannot do with this space and these objectives."""
    part, several = block.part("sampler"), len(objectives) > 1
    if sampler == "cmaes":
        named = [k for k, d in space.items() if isinstance(d.domain, Choices)]
        if several:
            part.report("cmaes takes one objective; use nsga2 or tpe for several")
        if named:
            part.report(f"cmaes takes ranges only, not the values of {listed(named)}")
        # CMA-ES adapts a covariance, and Optuna's refuses a single dimension.
        elif len(space) == 1:
            part.report("cmaes needs two keys at least; use tpe for one")
    if sampler == "nsga2" and objectives and not several:
        part.report("nsga2 is for several objectives; use tpe or cmaes for one")
    if sampler == "grid":
        ranges = {key: d.domain for key, d in space.items() if isinstance(d.domain, Range)}
        endless = [key for key, domain in ranges.items() if domain.values() is None]
        if endless:
            part.report(f"grid needs a step, or a list of values, for {listed(endless)}")
    # Optuna reports no intermediate values for several objectives.
    if pruner.name != "none" and several:
        block.part("pruner").report("trials can be pruned for one objective only; write `none`")
