"""Schedules and a sampler in a file outside the repository, from the plan to samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''
"""A learning rate that halves, guidance that sets in half way, and the likelier of two draws."""

from typing import Literal

from gigatok.config.kinds.samplers import SamplerConfig, SamplerKind
from gigatok.config.kinds.samplers import register as register_sampler
from gigatok.config.schedules import GuidanceKind, ScheduleKind, register, register_guidance


class BestOfConfig(SamplerConfig):
    name: Literal["best_of"]
    draws: int = 2

    reads = frozenset({"temperature"})


def best_of(logits_BV, config, rng):
    import torch

    logits_BV = logits_BV.float() / config.temperature
    draws = config.sampler.draws
    codes_BN = torch.multinomial(logits_BV.softmax(-1), draws, replacement=True, generator=rng)
    best_B1 = logits_BV.gather(1, codes_BN).argmax(1, keepdim=True)
    return codes_BN.gather(1, best_B1).squeeze(1)


register(ScheduleKind("halving", lambda config, step: config.lr / 2 ** (step // 4)))
register_guidance(GuidanceKind("late", lambda c, r: c.cfg_scale if r > 0.5 else 1.0))
register_sampler(SamplerKind(BestOfConfig, f"{__name__}:best_of"))
'''
SWEEP = """
question: Does it matter how codes are drawn?
scale: smoke
plugins: [../own/courses.py]
axes: {{tokenizer.decoder: [S]}}
set: {{tokenizer.encoder: S, {settings}}}
stages: [evaluate_generation]
"""
PLAIN = "sampling.cfg_scale: 2.0"
RATE = "generator.schedule: halving"
GUIDANCE = "sampling.cfg_scale: 2.0, sampling.cfg_schedule: late"
SAMPLER = "sampling.cfg_scale: 2.0, 'sampling.sampler': {name: best_of, draws: 3}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder, beside one with the plug-in."""
    for folder in ("own", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own" / "courses.py").write_text(PLUGIN)
    return tmp_path / "work"


def command(place: Path, settings: str, *arguments: str, code: int = 0) -> str:
    (place / "drawing.yaml").write_text(SWEEP.format(settings=settings))
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def keys(place: Path, settings: str) -> dict[str, str]:
    shown = command(place, settings, "orchestration", "plan", "drawing.yaml", "--json")
    found: dict[str, Any] = json.loads(shown)["stages"]
    return {stage["stage"]: key for key, stage in found.items()}


@pytest.mark.parametrize(
    ("settings", "key", "near"),
    [
        ("generator.schedule: halvin", "generator.schedule", "halving"),
        ("sampling.cfg_schedule: latte", "sampling.cfg_schedule", "late"),
        ("'sampling.sampler': {name: bestof}", "sampling.sampler.name", "best_of"),
    ],
)
def test_names_are_checked_as_those_of_the_built_ins(
    place: Path, settings: str, key: str, near: str
) -> None:
    shown = command(place, settings, "orchestration", "plan", "drawing.yaml", code=2)
    assert "drawing.yaml:6" in shown
    assert key in shown
    assert f"did you mean '{near}'?" in shown


def test_they_run_and_their_code_is_in_the_keys_of_what_reads_them(place: Path) -> None:
    everything = f"{RATE}, {GUIDANCE}, 'sampling.sampler': {{name: best_of, draws: 3}}"
    plain, before = keys(place, PLAIN), keys(place, everything)
    generated = {"train_generator", "evaluate_generation"}
    assert {stage for stage in plain if plain[stage] != before[stage]} == generated
    shown = command(place, everything, "orchestration.launch", "drawing.yaml")
    assert "0 failed" in shown
    # Other code under the same names.
    (place.parent / "own" / "courses.py").write_text(PLUGIN + "# edited\n")
    after = keys(place, everything)
    assert {stage for stage in after if after[stage] != before[stage]} == generated
    assert keys(place, PLAIN) == plain
    only_drawn = keys(place, SAMPLER)
    assert {stage for stage in plain if plain[stage] != only_drawn[stage]} == {
        "evaluate_generation"
    }
