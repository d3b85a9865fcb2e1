"""Schedules by name: of the learning rate over the steps, of guidance over an image's tokens.

`register` and `register_guidance` are the doors for schedules from outside; those in this file
come through them too. A schedule is a pure function of settings and of a place, without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gigatok.config.generator import SamplingConfig
from gigatok.config.training import TrainingConfig
from gigatok.plugins import Registry, registry


@dataclass(frozen=True)
class ScheduleKind:
    """Schedule of the learning rate that a trial can name.

    Attributes:
        name: value of `tokenizer.schedule` and `generator.schedule`.
        rate: function of the settings and of a step, counted from 1, to the learning rate. It is
            asked from `warmup_steps` on; before that the rate rises to `lr` by itself.
    """

    name: str
    rate: Callable[[TrainingConfig, int], float]


@dataclass(frozen=True)
class GuidanceKind:
    """Schedule of classifier-free guidance that a trial can name.

    Attributes:
        name: value of `sampling.cfg_schedule`.
        scale: function of the settings and of the ratio r = i / (T - 1) of code i of T, to a
            scale from 1 to `cfg_scale`. It is not asked for code 0, which has the full scale.
        reads_start: it reads `cfg_start`, which protocols then say.
    """

    name: str
    scale: Callable[[SamplingConfig, float], float]
    reads_start: bool = False


SCHEDULES: Registry[ScheduleKind] = registry("schedule")
"""Every schedule of the learning rate that a trial may name."""
GUIDANCE_SCHEDULES: Registry[GuidanceKind] = registry("guidance schedule")
"""Every schedule of guidance that a trial may name."""


def register(kind: ScheduleKind) -> ScheduleKind:
    """Add a schedule of the learning rate, and return it.

    Raises:
        ValueError: another one has the name.
    """
    return SCHEDULES.add(kind.name, kind)


def register_guidance(kind: GuidanceKind) -> GuidanceKind:
    """Add a schedule of guidance, and return it.

    Raises:
        ValueError: another one has the name.
    """
    return GUIDANCE_SCHEDULES.add(kind.name, kind)


# Learning rate: those of the reference's `vq_train.py` (`cosine_v2`, `wsd`).


def constant_rate(config: TrainingConfig, step: int) -> float:
    """Hold the full rate."""
    return config.lr


def cosine_rate(config: TrainingConfig, step: int) -> float:
    """Fall along half a cosine, from `lr` after the warm-up to `min_lr` at the last step."""
    span = max(config.steps - config.warmup_steps, 1)
    phase = math.pi * (step - config.warmup_steps) / span
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(phase))


def wsd_rate(config: TrainingConfig, step: int) -> float:
    """Hold the full rate, then fall to 0 over the last steps, at first fast (1 - square root)."""
    decay = int(config.steps * config.wsd_decay_fraction)  # truncated, as in the reference
    held = config.steps - decay
    return config.lr * (1 - math.sqrt((step - held) / decay)) if step > held else config.lr


register(ScheduleKind("constant", constant_rate))
register(ScheduleKind("cosine", cosine_rate))
register(ScheduleKind("wsd", wsd_rate))


# Guidance: those of the reference's `generate.py`, with s for `cfg_scale`.


def constant_scale(config: SamplingConfig, ratio: float) -> float:
    """Hold s."""
    return config.cfg_scale


def step_scale(config: SamplingConfig, ratio: float) -> float:
    """Begin with 1, and go on with s from `cfg_start`."""
    return config.cfg_scale if ratio >= config.cfg_start else 1.0


def linear_scale(config: SamplingConfig, ratio: float) -> float:
    """Rise evenly from 1 to s."""
    return 1 + (config.cfg_scale - 1) * ratio


def cosine_scale(config: SamplingConfig, ratio: float) -> float:
    """Leave 1 slowly and reach s slowly.

    It is our own: the reference names a cosine schedule, but its code does not run.
    """
    return 1 + (config.cfg_scale - 1) * (1 - math.cos(math.pi * ratio)) / 2


register_guidance(GuidanceKind("constant", constant_scale))
register_guidance(GuidanceKind("step", step_scale, reads_start=True))
register_guidance(GuidanceKind("linear", linear_scale))
register_guidance(GuidanceKind("cosine", cosine_scale))
