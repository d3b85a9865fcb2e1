"""Contract of a schedule of classifier-free guidance: what sampling relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gigatok.config import SamplingConfig
from gigatok.config.schedules import GuidanceKind
from gigatok.contracts.base import Check, SmokeTrial, broken

SCALES = (1.0, 1.5, 7.0)
STARTS = (0.0, 0.18, 1.0)
# Of two tokens and of many; the last token's ratio is 1.
RATIOS = (1.0, *(i / 255 for i in range(1, 256)))


def broken_promises(kind: GuidanceKind) -> list[str]:
    """List what a guidance schedule does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"guidance schedule {kind.name}")


def smoke(kind: GuidanceKind) -> SmokeTrial:
    """Sample with it."""
    settings = {"sampling.cfg_schedule": kind.name, "sampling.cfg_scale": 2.0}
    return SmokeTrial(stages=("evaluate_generation",), settings=settings)


def sampling(kind: GuidanceKind, scale: float, start: float) -> SamplingConfig:
    """Make settings with which it is asked."""
    return SamplingConfig(cfg_schedule=kind.name, cfg_scale=scale, cfg_start=start, num_images=4)


def scales(kind: GuidanceKind) -> Iterator[str]:
    """Check that it gives a scale for every code, between none and the full one."""
    for config in (sampling(kind, scale, start) for scale in SCALES for start in STARTS):
        found = [(ratio, kind.scale(config, ratio)) for ratio in RATIOS]
        # Below 1 guidance would lead away from the class; `cfg_scale` is the largest by its name.
        wrong = [
            f"at ratio {ratio:g} of the tokens the scale is {scale}; it must lie between 1 and "
            f"cfg_scale {config.cfg_scale:g}"
            for ratio, scale in found
            if not (math.isfinite(scale) and 1 - 1e-9 <= scale <= config.cfg_scale + 1e-9)
        ]
        yield from wrong[:1]


def purity(kind: GuidanceKind) -> Iterator[str]:
    """Check that settings and ratio decide alone, whatever was asked before."""
    config = sampling(kind, 7.0, 0.18)
    forwards = [kind.scale(config, ratio) for ratio in RATIOS]
    backwards = [kind.scale(config, ratio) for ratio in reversed(RATIOS)]
    if forwards != backwards[::-1]:
        yield "it gives other scales when asked again, so that samples would not repeat"


def start(kind: GuidanceKind) -> Iterator[str]:
    """Check that it says so if it reads `cfg_start`."""
    early, late = (
        [kind.scale(sampling(kind, 7.0, start), ratio) for ratio in RATIOS] for start in (0.1, 0.9)
    )
    if (early != late) > kind.reads_start:
        yield "it reads cfg_start, which protocols must then say: give it reads_start=True"


CHECKS: tuple[Check, ...] = (scales, purity, start)
