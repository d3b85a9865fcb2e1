"""`python -m orchestration calibrate [SWEEP]`: measure what stages take on this machine.

Runs the sweep's own stages, small: the smallest and the largest model of each family, each with
two amounts of steps and images, in a runs directory of their own that is removed afterwards. Two
amounts, because what takes the same time whatever a stage does is told from what grows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gigatok.config import TrialConfig
from gigatok.flops import tokenizer_step_flops
from gigatok.stages import STAGES
from orchestration.backends.local import connect
from orchestration.costs.accuracy import BUSY
from orchestration.costs.calibration import (
    Observation,
    alike_groups,
    append_observations,
    fit,
    observe,
)
from orchestration.costs.cost import Amounts, with_amounts
from orchestration.execution.display import plain_line
from orchestration.execution.progress import Progress, survey
from orchestration.exits import EXIT_FAILED, EXIT_INTERRUPTED, fail
from orchestration.forecast.devices import machines, utilisation
from orchestration.launching.foreground import on_interrupt, prefetch
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.provenance import device_name
from orchestration.runs.state import StageFolder, Store
from orchestration.sweep.definition import Expansion, Sweep, Trial, expand, load_sweep

LESS = Amounts(steps=6, train_images=512, val_images=64, images=16)
MORE = Amounts(steps=48, train_images=3072, val_images=128, images=48)
"""Of each at most as much as the trial itself has."""


def calibrate(
    sweep: Annotated[str, typer.Argument(help="Whose models are run.")] = "decoder_scaling",
    scale: Annotated[str | None, typer.Option(help="smoke, micro, mini, paper, …")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Stages at a time, as the launch will have.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run a few steps of every kind of stage here, so that plans can say what time they take."""
    console = Console(stderr=as_json, markup=False, highlight=False)
    store = Store(runs_dir)
    try:
        loaded = load_sweep(sweep, scale, set_ or [])
        trials = chosen(expand(loaded).trials)
        store.root.mkdir(parents=True, exist_ok=True)
        plan = small_plan(loaded, trials)
        prefetch(plan)
        found = measure(plan, store, jobs, console)
    except (ValueError, OSError) as error:
        fail(error)
    append_observations(store, found)
    if as_json:
        print(json.dumps([o.model_dump(mode="json") for o in found]))
        return
    console.print(throughput_table(found))
    waited = sum(o.waited_seconds or 0.0 for o in found)
    share = waited / max(waited + sum(o.seconds for o in found), 1e-3)
    if share > BUSY:
        console.print(
            f"others had the processor {share:.0%} of the time, which is left out; on an idle "
            "machine times are truer",
            style="yellow",
        )
    console.print(f"{len(found)} records in {store.calibration}", soft_wrap=True)


def chosen(trials: Iterable[Trial]) -> list[Trial]:
    """Choose the smallest and the largest trial of every family, in the order of the sweep."""
    families: dict[tuple[tuple[str, ...], ...], list[Trial]] = {}
    for trial in trials:
        stages = [stage for stage in STAGES.values() if stage.applies(trial.config)]
        facts = tuple(stage.costs.family(trial.config) for stage in stages)
        families.setdefault(facts, []).append(trial)
    ends = [
        end(members, key=lambda t: _size(t.config))
        for members in families.values()
        for end in (min, max)
    ]
    return list({trial.name: trial for trial in ends}.values())


def _size(trial: TrialConfig) -> int:
    step = tokenizer_step_flops(trial.tokenizer, trial.data.image_size)
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


def measure(plan: Plan, store: Store, jobs: int | None, console: Console) -> list[Observation]:
    """Run a small plan as a study's own is run; what each stage took.

    Raises:
        typer.Exit: a stage failed, or the user stopped it.
    """
    profile = Profile()
    machine = machines("local", jobs, profile)
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".calibrate-") as folder:
        scratch = Store(Path(folder))
        backend = connect(jobs, profile, scratch)
        backend.warm_up()
        progress = survey(plan, scratch, lambda stage: machine(stage).site)
        where = f"{device_name()}, {backend.slots} at a time"
        console.print(f"running {len(plan.stages)} small stages on {where}", style="dim")
        runner = Runner(progress, scratch, backend, profile)
        with on_interrupt(runner, console):
            runner.run(_Said(progress, console).observe)
        _check(progress, console)
        return [_observed(stage) for stage in progress.folders.values()]


class _Said:
    """Says once of each stage that it is complete."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._done: set[str] = set()

    def observe(self, keys: Iterable[str]) -> None:
        for key in set(keys) - self._done:
            if self._progress.states[key] == "COMPLETE":
                self._done.add(key)
                done = f"{len(self._done)}/{len(self._progress.states)}"
                self._console.print(f"{done} {plain_line(self._progress, key)}", style="dim")


def _check(progress: Progress, console: Console) -> None:
    if progress.interrupted:
        console.print("stopped; nothing was recorded", style="yellow")
        raise typer.Exit(EXIT_INTERRUPTED)
    for key, failure in progress.failures.items():
        console.print(f"{progress.plan.stages[key].stage}: {failure.message}", style="red")
    if progress.failures:
        raise typer.Exit(EXIT_FAILED)


def _observed(folder: StageFolder) -> Observation:
    spec, attempts = folder.spec(), folder.attempts()
    found = observe(spec, attempts[-1], calibrated=True)
    assert found is not None, f"{folder.name} was run whole, once, with a prediction"
    return found


def throughput_table(found: Sequence[Observation]) -> Table:
    """Per stage and configuration: rate, fixed seconds, utilisation, peak memory."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("of")
    for head in ("GFLOP/s", "of peak", "fixed s", "peak MiB"):
        table.add_column(head, justify="right")
    for alike in alike_groups(found):
        fitted = fit(alike)
        rate = 1 / fitted.seconds_per_flop if fitted.seconds_per_flop else None
        share = None if rate is None else utilisation(rate, alike[0].device, alike[0].family)
        peaks = [o.peak_memory_bytes for o in alike if o.peak_memory_bytes is not None]
        table.add_row(
            STAGES[alike[0].stage].label,
            alike[0].readable,
            "–" if rate is None else f"{rate / 1e9:.1f}",
            "–" if share is None else f"{share:.0%}",
            f"{fitted.fixed:.1f}",
            f"{max(peaks) / 2**20:.0f}" if peaks else "–",
        )
    return table
