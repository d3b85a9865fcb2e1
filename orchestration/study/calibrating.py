"""Measures what stages take on this machine, so that plans know their time.

Runs the sweep's own stages, small: the smallest and the largest model of each family, each with
two amounts of steps and images, in a runs directory of their own that is removed afterwards. Two
amounts, because what takes the same time whatever a stage does is told from what grows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from gigatok.config import TrialConfig
from gigatok.costs.training import tokenizer_step_flops
from gigatok.stages import STAGES
from orchestration.backends.local import connect
from orchestration.costs.calibration import Observation, append_observations, observe
from orchestration.costs.cost import Amounts, with_amounts
from orchestration.execution.display import plain_line
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.devices import machines
from orchestration.launching.foreground import on_interrupt
from orchestration.launching.readiness import prefetch
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.provenance import device_name
from orchestration.runs.state import StageFolder, Store
from orchestration.sweep.definition import Expansion, Sweep, Trial, expand

# Two amounts give two equations for the fixed seconds and the rate of each kind.
LESS = Amounts(steps=6, train_images=512, val_images=64, images=16)
MORE = Amounts(steps=48, train_images=3072, val_images=128, images=48)
"""Amounts at most: none is larger than the trial's own."""


@dataclass(frozen=True)
class CalibrationRun:
    """Small stages that were run, and what each took.

    Attributes:
        observations: a record per stage; none where one failed or the user stopped it.
        failures: why stages failed.
        interrupted: the user stopped it.
    """

    observations: list[Observation]
    failures: list[str]
    interrupted: bool


def calibrate_sweep(
    sweep: Sweep, store: Store, jobs: int | None, console: Console
) -> CalibrationRun:
    """Run a few steps of every kind of stage here, and add what they took to the calibration.

    Raises:
        ValueError: data or networks cannot be fetched.
    """
    trials = chosen(expand(sweep).trials)
    store.root.mkdir(parents=True, exist_ok=True)
    plan = small_plan(sweep, trials)
    prefetch(plan)
    found = measure(plan, store, jobs, console)
    append_observations(store, found.observations)
    return found


def chosen(trials: Iterable[Trial]) -> list[Trial]:
    """Choose the smallest and the largest trial of every family, in the order of the sweep."""
    families: dict[tuple[tuple[str, ...], ...], list[Trial]] = {}
    for trial in trials:
        stages = [stage for stage in STAGES.values() if stage.applies(trial.config)]
        # One family has one rate: trials in it differ in size only.
        facts = tuple(s.costs.family(trial.config) for s in stages if s.costs is not None)
        families.setdefault(facts, []).append(trial)
    ends = [
        end(members, key=lambda t: _size(t.config))
        for members in families.values()
        for end in (min, max)
    ]
    # By name, because the smallest of a family may be its largest, too.
    return list({trial.name: trial for trial in ends}.values())


def _size(trial: TrialConfig) -> int:
    step = tokenizer_step_flops(trial.tokenizer, trial.data.image_size)
    # An order by size is enough: FLOPs of the tokenizer, and a number that grows with the
    # generator.
    return step.tokenizer + trial.generator.size.layers * trial.generator.size.width**2


def small_plan(sweep: Sweep, trials: Iterable[Trial]) -> Plan:
    """Plan the trials with both amounts."""
    small = [
        replace(trial, name=f"{trial.name} {name}", config=_small(trial.config, amounts))
        for trial in trials
        for name, amounts in (("less", LESS), ("more", MORE))
    ]
    return make_plan(sweep, Expansion(tuple(small), ()))


def _small(trial: TrialConfig, amounts: Amounts) -> TrialConfig:
    data = trial.data
    return with_amounts(
        trial,
        Amounts(
            steps=min(amounts.steps, trial.tokenizer.steps, trial.generator.steps),
            train_images=min(amounts.train_images, data.train_images),
            val_images=min(amounts.val_images, data.val_images),
            images=min(amounts.images, trial.evaluation.num_images, trial.sampling.num_images),
        ),
    )


def measure(plan: Plan, store: Store, jobs: int | None, console: Console) -> CalibrationRun:
    """Run a small plan as a study's own is run, in a runs directory of its own."""
    profile = Profile()
    machine = machines("local", jobs, profile)
    # Below the runs directory: writing takes as long there as it will for the study.
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".calibrate-") as folder:
        scratch = Store(Path(folder))
        backend = connect(jobs, profile, scratch)
        backend.warm_up()
        progress = survey(plan, scratch, lambda stage: machine(stage).site)
        where = f"{device_name()}, {backend.slots} at a time"
        console.print(f"running {len(plan.stages)} small stages on {where}", style="dim")
        runner = Runner(progress, scratch, backend, profile)
        with on_interrupt(runner, console):
            runner.run(_Reporter(progress, console).observe)
        failures = progress.failures.items()
        reasons = [f"{plan.stages[key].stage}: {failure.message}" for key, failure in failures]
        # All or nothing: a fit to one of the two amounts would be wrong without saying so.
        whole = not (progress.interrupted or reasons)
        found = [_observed(one) for one in progress.folders.values()] if whole else []
        return CalibrationRun(found, reasons, progress.interrupted)


class _Reporter:
    """Prints once of each stage that it is complete."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._done: set[str] = set()

    def observe(self, keys: Iterable[str]) -> None:
        for key in set(keys) - self._done:
            if self._progress.states[key] == "COMPLETE":
                self._done.add(key)
                done = f"{len(self._done)}/{len(self._progress.states)}"
                self._console.print(f"{done} {plain_line(self._progress, key)}", style="dim")


def _observed(folder: StageFolder) -> Observation:
    spec, attempts = folder.spec(), folder.attempts()
    found = observe(spec, attempts[-1], calibrated=True)
    assert found is not None, f"{folder.name} was run whole, once, with a prediction"
    return found
