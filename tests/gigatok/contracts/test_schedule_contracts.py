"""Built-in schedules keep their contracts, and the contracts tell what a broken one does."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from gigatok.config import SamplingConfig, TrainingConfig
from gigatok.config.schedules import (
    GUIDANCE_SCHEDULES,
    SCHEDULES,
    GuidanceKind,
    ScheduleKind,
)
from gigatok.contracts import guidance_schedule, schedule

_calls = itertools.count()


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_built_in_schedules_keep_it(name: str) -> None:
    assert schedule.broken_promises(SCHEDULES[name]) == []


@pytest.mark.parametrize("name", GUIDANCE_SCHEDULES)
def test_the_built_in_guidance_schedules_keep_it(name: str) -> None:
    assert guidance_schedule.broken_promises(GUIDANCE_SCHEDULES[name]) == []


def beyond(config: TrainingConfig, step: int) -> float:
    return config.lr * (1 - step / (config.steps - 1))


def unbounded(config: TrainingConfig, step: int) -> float:
    return math.nan if step == config.steps else config.lr


def counting(config: TrainingConfig, step: int) -> float:
    return config.lr / (1 + next(_calls))


def halfway(config: TrainingConfig, step: int) -> float:
    return config.lr if step < 5 else [][step]


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (beyond, "the rate of step 100 of 100 is -1"),
        (beyond, "rates: ZeroDivisionError"),
        (unbounded, "the rate of step 1 of 1 is nan; it must lie between 0 and lr 0.001"),
        (counting, "it gives other rates when asked again"),
        (halfway, "rates: IndexError"),
    ],
)
def test_what_a_broken_schedule_does_is_said(rate: object, text: str) -> None:
    found = schedule.broken_promises(ScheduleKind("cosine", rate))  # type: ignore[arg-type]
    assert any(line.startswith(f"schedule cosine: {text}") for line in found), found


def above(config: SamplingConfig, ratio: float) -> float:
    return config.cfg_scale + ratio


def below(config: SamplingConfig, ratio: float) -> float:
    return config.cfg_scale * ratio


def undecided(config: SamplingConfig, ratio: float) -> float:
    return 1 + (config.cfg_scale - 1) / (1 + next(_calls))


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (
            above,
            "at ratio 1 of the tokens the scale is 2.0; it must lie between 1 and cfg_scale 1",
        ),
        (below, "at ratio 0.00392157 of the tokens the scale is 0.0"),
        (undecided, "it gives other scales when asked again"),
    ],
)
def test_what_a_broken_guidance_schedule_does_is_said(scale: object, text: str) -> None:
    kind = GuidanceKind("linear", scale)  # type: ignore[arg-type]
    found = guidance_schedule.broken_promises(kind)
    assert any(line.startswith(f"guidance schedule linear: {text}") for line in found), found


def test_a_guidance_schedule_must_say_that_it_reads_the_start() -> None:
    (line,) = guidance_schedule.broken_promises(
        replace(GUIDANCE_SCHEDULES["step"], reads_start=False)
    )
    assert "give it reads_start=True" in line
