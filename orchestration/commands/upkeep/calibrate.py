"""`python -m orchestration calibrate [SWEEP]`: measure what stages take on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from gigatok.stages import STAGES
from gigatok.text.fitting import FittingTable
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.options import AsJson, Overrides, PlannedScale
from orchestration.costs.accuracy import BUSY
from orchestration.costs.calibration import Observation, alike_groups, fit
from orchestration.exits import EXIT_FAILED, EXIT_INTERRUPTED
from orchestration.forecast.devices import utilisation
from orchestration.study.calibrating import CalibrationRun
from orchestration.study.study import Study
from orchestration.terminal import plain_console


def calibrate(
    sweep: Annotated[str, typer.Argument(help="Whose models are run.")] = "decoder_scaling",
    scale: PlannedScale = None,
    set_: Overrides = None,
    jobs: Annotated[
        int | None, typer.Option(help="Stages at a time, as the launch will have.")
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Run a few steps of every kind of stage here, so that plans can say what time they take."""
    # With `--json`, stdout carries JSON alone; whatever is said on the way goes to stderr.
    console = plain_console(stderr=as_json)
    study = Study(sweep, scale, runs=runs_dir, overrides=set_ or ())
    run = study.calibrate(jobs, console=console)
    # Before anything is shown: a calibration is recorded whole or not at all.
    _check(run, console)
    if as_json:
        print(json.dumps([o.model_dump(mode="json") for o in run.observations]))
        return
    console.print(throughput_table(run.observations))
    waited = sum(o.waited_seconds or 0.0 for o in run.observations)
    # 1e-3: stages of no measurable time would divide by 0.
    share = waited / max(waited + sum(o.seconds for o in run.observations), 1e-3)
    if share > BUSY:
        console.print(
            f"others had the processor {share:.0%} of the time, which is left out; on an idle "
            "machine times are truer",
            style="yellow",
        )
    records = f"{len(run.observations)} records in {study.store.calibration}"
    console.print(records, soft_wrap=True)


def _check(run: CalibrationRun, console: Console) -> None:
    if run.interrupted:
        console.print("stopped; nothing was recorded", style="yellow")
        raise typer.Exit(EXIT_INTERRUPTED)
    for reason in run.failures:
        console.print(reason, style="red")
    if run.failures:
        raise typer.Exit(EXIT_FAILED)


def throughput_table(found: Sequence[Observation]) -> FittingTable:
    """Make a row per stage and configuration: rate, fixed seconds, utilisation, peak memory."""
    numbers = ("GFLOP/s", "of peak", "fixed s", "peak MiB")
    table = FittingTable(("stage", "of", *numbers), right=numbers, wraps=("of",))
    for alike in alike_groups(found):
        fitted = fit(alike)
        rate = 1 / fitted.seconds_per_flop if fitted.seconds_per_flop else None
        share = None if rate is None else utilisation(rate, alike[0].device, alike[0].family)
        # None and not 0: the peak is not measured on every device.
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
