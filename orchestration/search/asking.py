"""Ask and tell: Optuna's studies, with nothing in memory that a killed controller could lose.

A suggestion is a pure function of (seed, trial number, trials before it): each is drawn by a fresh
sampler from a copy of the study in memory, and stored whole in one write. A decision to prune is
one of the values recorded until then: the curve is replayed by a fresh pruner on such a copy. So
the same search goes the same way on every backend, and also when it is killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from gigatok.text.credentials import hide_passwords, shown
from orchestration.runs.files import cut_torn_line
from orchestration.search.cmaes_sampler import CmaesSampler
from orchestration.sweep.search.block import Pruner, Search
from orchestration.sweep.search.space import Choices, Range

# Optuna reports every trial by itself, over the live display.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings("ignore", message="PedAnova")  # lower is made better for it

POPULATION = 20
"""Trials of a generation of NSGA-II; the first is drawn at random."""
REASON = "reason"
"""User attribute: why a trial failed or was pruned."""


# The storage


def open_study(search: Search, name: str, journal: Path) -> Study:
    """Find or make a study.

    Args:
        search: what is searched; `storage` names a database, or None for a journal file.
        name: of the study.
        journal: the file; it serves all studies of a runs directory.

    Raises:
        ValueError: the storage cannot be opened.
    """
    try:
        storage: Any = _journal(journal) if search.storage is None else search.storage
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(search.objectives.values()),
            # Never asked: `suggest` draws from a copy. Optuna would make a sampler of its own.
            sampler=optuna.samplers.RandomSampler(0),
            load_if_exists=True,
        )
    except Exception as error:
        # SQLAlchemy, drivers of databases and files each have errors of their own.
        raise ValueError(_cannot_open(search.storage, journal, error)) from error
    study.set_metric_names(list(search.objectives))
    return study


def _cannot_open(storage: str | None, journal: Path, error: Exception) -> str:
    """Say what to do about a storage that cannot be opened."""
    reason = f"{type(error).__name__}: {hide_passwords(str(error))}"
    if storage is None:
        return (
            f"{journal}{_damaged_line(journal)} cannot be read ({reason}), and searches of this "
            f"runs directory are in it. Restore it, or set it aside (mv {journal} {journal}.old) "
            "and launch again: searches start anew, and complete stages are reused"
        )
    return (
        f"search.storage {shown(storage)}: {reason}; must be an URL as Optuna takes it, such as "
        "sqlite:///search.db, or left out for a file in the runs directory"
    )


def _damaged_line(journal: Path) -> str:
    """Find the first line of a journal that is no JSON: `:NUMBER`, or nothing."""
    if not journal.is_file():
        return ""
    for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            return f":{number}"
    return ""


def _journal(file: Path) -> JournalStorage:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()  # the lock looks at its age, to tell that whoever held it was killed
    lock = JournalFileSymlinkLock(str(file))
    lock.acquire()
    try:
        cut_torn_line(file)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))


# Suggestions


def ask(search: Search, study: Study) -> FrozenTrial:
    """Draw the next trial and store it, running, in one write."""
    trials = study.get_trials(deepcopy=False)
    # Private API, because the public `Study.ask` stores the trial first and its parameters one by
    # one: a kill in between would leave a trial without parameters.
    drawn = suggest(search, trials, study.study_name)
    study._storage.create_new_trial(study._study_id, template_trial=drawn)
    return study.get_trials(deepcopy=False)[len(trials)]


def suggest(search: Search, trials: Sequence[FrozenTrial], study_name: str) -> FrozenTrial:
    """Draw the trial that follows some others: a pure function of them and of the seed."""
    number = len(trials)
    copy = _copy(search, trials, study_name)
    # A seed of its own for each number: a sampler with one seed would draw the same point every
    # time, since it is made anew.
    copy.sampler = make_sampler(search, draw_seed(search.seed, number))
    drawn = copy.ask(distributions(search))
    frozen = copy.get_trials(deepcopy=False)[number]
    assert drawn.number == number == frozen.number
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=frozen.params,
        distributions=frozen.distributions,
        system_attrs=frozen.system_attrs,
    )


def draw_seed(seed: int, number: int) -> int:
    """Compute the seed of the draw of one trial."""
    # Hashed: by a sum, trial 1 of seed 1 would be trial 0 of seed 2. NumPy takes seeds of 4 bytes.
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def make_sampler(search: Search, seed: int) -> BaseSampler:
    """Make a sampler; a grid is shuffled by the search's seed, the same for all its trials."""
    samplers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "cmaes": lambda: CmaesSampler(distributions(search), seed),
        # A grid remembers in the trials' attributes which points were visited, and only the order
        # depends on the seed.
        "grid": lambda: optuna.samplers.GridSampler(_grid(search), seed=search.seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION),
    }
    return samplers[search.sampler]()


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """Convert the space into Optuna's distributions."""
    return {key: _distribution(dimension.domain) for key, dimension in search.space.items()}


def _distribution(domain: Range | Choices) -> BaseDistribution:
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.labels)
    if domain.whole:
        step = 1 if domain.step is None else int(domain.step)
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=step)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def _grid(search: Search) -> dict[str, Sequence[Any]]:
    grid: dict[str, Sequence[Any]] = {}
    for key, dimension in search.space.items():
        domain = dimension.domain
        values = domain.labels if isinstance(domain, Choices) else domain.values()
        assert values is not None, "checked when the sweep was read"
        whole = isinstance(domain, Range) and domain.whole
        grid[key] = [int(v) for v in values] if whole else list(values)  # type: ignore[arg-type]
    return grid


def grid_size(search: Search) -> int | None:
    """Count the points of a grid, after which nothing is left; None: no grid."""
    if search.sampler != "grid":
        return None
    size = 1
    for values in _grid(search).values():
        size *= len(values)
    return size


def _copy(search: Search, trials: Sequence[FrozenTrial], study_name: str) -> Study:
    """Copy a study into memory, trial by trial; changes of the copy reach no storage."""
    # Numbers in the copy equal those of the study, because trials are added in their order and
    # none is left out.
    storage = InMemoryStorage()
    copy = optuna.create_study(
        storage=storage,
        study_name=study_name,
        directions=list(search.objectives.values()),
        pruner=make_pruner(search.pruner, 1),
        sampler=optuna.samplers.RandomSampler(0),
    )
    for trial in trials:
        storage.create_new_trial(copy._study_id, template_trial=trial)
    return copy


# Pruning


def make_pruner(pruner: Pruner, most_steps: int) -> BasePruner:
    """Make a pruner without history.

    Args:
        pruner: which, and when.
        most_steps: of the stage that is looked at.
    """
    first = pruner.min_steps
    pruners: dict[str, Callable[[], BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(
            min_resource=first, reduction_factor=pruner.factor
        ),
        # Hyperband hashes the study's name into a trial's bracket, hence `_copy` takes the name
        # over.
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=first,
            max_resource=max(first, most_steps),
            reduction_factor=pruner.factor,
        ),
        "median": lambda: optuna.pruners.MedianPruner(n_warmup_steps=first - 1),
    }
    return pruners[pruner.name]()


def report(
    search: Search, study: Study, number: int, step: int, value: float, most_steps: int
) -> bool:
    """Record the value of a step and say whether the trial ends here.

    What the pruner notes about the trial is stored first and the value last: where the value is
    missing after a kill, all of it is done again, with the same result.

    Args:
        search: whose pruner decides.
        study: changed.
        number: of the trial.
        step: of the stage that the pruner looks at; larger than all that were reported.
        value: of the pruner's metric at this step.
        most_steps: of that stage.
    """
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    # Optuna prunes in the direction of the study. The curve may improve the other way, as a loss
    # under an accuracy: then its sign is changed.
    sign = 1 if search.pruner.direction == next(iter(search.objectives.values())) else -1
    curve = {**trial.intermediate_values, step: sign * value}
    pruned, notes = decide(search, trials, number, curve, most_steps, study.study_name)
    for key, note in notes.items():
        study._storage.set_trial_system_attr(trial._trial_id, key, note)
    study._storage.set_trial_intermediate_value(trial._trial_id, step, sign * value)
    return pruned


def decided_before(search: Search, study: Study, number: int, most_steps: int) -> bool:
    """Tell, after a kill, if the last value that was recorded ended the trial."""
    trials = study.get_trials(deepcopy=False)
    curve = trials[number].intermediate_values
    if not curve:
        return False
    return decide(search, trials, number, curve, most_steps, study.study_name)[0]


def decide(
    search: Search,
    trials: Sequence[FrozenTrial],
    number: int,
    curve: Mapping[int, float],
    most_steps: int,
    study_name: str,
) -> tuple[bool, dict[str, Any]]:
    """Decide if a trial ends at the last step of its curve; returns the pruner's notes as well.

    Args:
        search: whose pruner decides.
        trials: of the study, by number; not changed.
        number: of the trial.
        curve: step -> value, in the direction of the study.
        most_steps: of the stage that the pruner looks at.
        study_name: from which Hyperband draws the trial's bracket.
    """
    others = list(trials)
    # Without what the pruner noted before: notes are made again from the curve, so that a kill
    # between two writes changes nothing.
    others[number] = _bare(trials[number])
    copy = _copy(search, others, study_name)
    pruner = make_pruner(search.pruner, most_steps)
    pruned = False
    identifier = copy.get_trials(deepcopy=False)[number]._trial_id
    # Replayed from the beginning: ASHA decides by the rungs that a trial has passed, which it
    # writes down as it goes.
    for step in sorted(curve):
        copy._storage.set_trial_intermediate_value(identifier, step, curve[step])
        pruned = pruner.prune(copy, copy.get_trials(deepcopy=False)[number])
    return pruned, copy.get_trials(deepcopy=False)[number].system_attrs


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """Reduce a trial to its parameters."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
    )


# Results


def tell(study: Study, number: int, state: TrialState, values: Sequence[float] | None) -> None:
    """End a trial."""
    # A successor may tell again what a killed controller had told already.
    study.tell(number, values, state, skip_if_finished=True)


def explain(study: Study, number: int, attributes: Mapping[str, Any]) -> None:
    """Note things about a trial, such as why it failed; before it is told."""
    trial = study.get_trials(deepcopy=False)[number]
    for key, value in attributes.items():
        study._storage.set_trial_user_attr(trial._trial_id, key, value)


def pareto_front(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Find the points that no other point dominates: as good in all, better in one objective.

    Equal points are all on the front.
    """
    signs = [1 if direction == "minimize" else -1 for direction in directions]
    costs = [[sign * x for sign, x in zip(signs, point, strict=True)] for point in points]

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return [i for i, cost in enumerate(costs) if not any(beats(other, cost) for other in costs)]


def best_trials(study: Study, search: Search) -> list[FrozenTrial]:
    """Find the best trial, or the Pareto front of several; empty while none is complete."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    directions = list(search.objectives.values())
    front = pareto_front([t.values for t in trials], directions)
    return [trials[i] for i in front] if len(directions) > 1 else [trials[i] for i in front[:1]]


def importances(study: Study, search: Search) -> dict[str, dict[str, float]]:
    """Attribute the spread of good trials to keys (PED-ANOVA), by objective; empty: too few."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    varied = any(len({repr(t.params[key]) for t in trials}) > 1 for key in search.space)
    # PED-ANOVA compares the best tenth of the trials with all: of fewer, a tenth says nothing.
    if len(trials) < 4 or not varied:
        return {}
    found = {}
    for index, (name, direction) in enumerate(search.objectives.items()):
        target = _target(index, 1 if direction == "minimize" else -1)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
        found[name] = dict(shares)
    return found


def _target(index: int, sign: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(sign * trial.values[index])
