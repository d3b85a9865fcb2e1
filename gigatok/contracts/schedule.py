"""Contract of a schedule of the learning rate: what training relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gigatok.config import TrainingConfig
from gigatok.config.schedules import ScheduleKind
from gigatok.contracts.base import Check, SmokeTrial, broken

# Among them the edges: no warm-up, one that is longer than training, a decay of all steps or none.
SETTINGS: tuple[Mapping[str, Any], ...] = (
    {"steps": 100},
    {"steps": 100, "warmup_steps": 10, "min_lr": 1e-5},
    {"steps": 1},
    {"steps": 13, "wsd_decay_fraction": 0},
    {"steps": 13, "wsd_decay_fraction": 1},
    {"steps": 5, "warmup_steps": 5},
    {"steps": 5, "warmup_steps": 9},
)
LR = 1e-3


def broken_promises(kind: ScheduleKind) -> list[str]:
    """List what a schedule does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"schedule {kind.name}")


def smoke(kind: ScheduleKind) -> SmokeTrial:
    """Train a tokenizer with it."""
    return SmokeTrial(stages=("train_tokenizer",), settings={"tokenizer.schedule": kind.name})


def configs(kind: ScheduleKind) -> Iterator[TrainingConfig]:
    """Make settings with which it is asked."""
    for values in SETTINGS:
        yield TrainingConfig(batch_size=8, lr=LR, schedule=kind.name, **values)


def steps(config: TrainingConfig) -> range:
    """List the steps for which it is asked: those after the warm-up, and its end."""
    # From 0: the reference counts so, and `reference_schedule_quirk` too.
    return range(config.warmup_steps, config.steps + 1)


def rates(kind: ScheduleKind) -> Iterator[str]:
    """Check that it gives a learning rate in every step, from the first to the last."""
    for config in configs(kind):
        for step in steps(config):
            rate = kind.rate(config, step)
            # Not above `lr`, which is the peak, and by which sweeps name a setting.
            if not (math.isfinite(rate) and 0 <= rate <= LR * (1 + 1e-9)):
                yield (
                    f"the rate of step {step} of {config.steps} is {rate}; it must lie between 0 "
                    f"and lr {LR:g}"
                )
                break  # one step of each setting: the others say the same


def purity(kind: ScheduleKind) -> Iterator[str]:
    """Check that settings and step decide alone, whatever was asked before."""
    for config in configs(kind):
        forwards = [kind.rate(config, step) for step in steps(config)]
        backwards = [kind.rate(config, step) for step in reversed(steps(config))]
        if forwards != backwards[::-1]:
            yield "it gives other rates when asked again, so that resuming would change results"
            return


CHECKS: tuple[Check, ...] = (rates, purity)
