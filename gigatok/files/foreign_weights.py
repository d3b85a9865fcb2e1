"""Weights that were made elsewhere, compared with what a model needs: nothing fits silently.

A deeper model's weights have all that a shallower one needs, integers and NaN have the right
shape: each would be taken without a word, and the scores be those of something else. So what has
no place in the model is refused too, unless it is known to be of training alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]

TRAINING_ONLY = (
    "loss.",
    "vq_loss.",
    "discriminator.",
    "perceptual_loss.",
    "lpips.",
    "teacher.",
)
"""Beginnings of names that trainers save beside a model, and that the model does not need."""
_SHOWN = 20
"""Names listed of each kind."""


@dataclass(frozen=True)
class Misfits:
    """Everything that keeps weights from filling a model; shapes are by name.

    Attributes:
        missing: what the model needs and the weights lack.
        unexpected: what the weights hold beside, and is not known to be of training alone.
        mismatched: expected and found shape of what is there in another shape.
        unusable: why weights of the right name are none: not finite, or integers.
        ignored: what they hold beside and is of training alone.
    """

    missing: Mapping[str, Shape]
    unexpected: Mapping[str, Shape]
    mismatched: Mapping[str, tuple[Shape, Shape]]
    unusable: Mapping[str, str]
    ignored: Mapping[str, Shape]

    @property
    def fits(self) -> bool:
        """Whether the model can be filled, and by all of the weights that count."""
        return not (self.missing or self.unexpected or self.mismatched or self.unusable)

    def lines(self) -> list[str]:
        """Describe each kind of misfit for a message."""
        lines = [f"missing: {listed(self.missing)}"] if self.missing else []
        for key, (expected, found) in list(self.mismatched.items())[:_SHOWN]:
            lines.append(f"{key} is {found}, expected {expected}")
        lines += [f"{key} {flaw}" for key, flaw in list(self.unusable.items())[:_SHOWN]]
        if self.unexpected:
            lines.append(f"unexpected: {listed(self.unexpected)}")
        return lines


def compare(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    optional: Collection[str] = (),
    ignored: tuple[str, ...] = TRAINING_ONLY,
) -> Misfits:
    """Compare weights with a state dict, which may be on the meta device.

    Args:
        expected: of the model.
        found: the weights; every value of those that have a place is looked at.
        optional: names that may be missing.
        ignored: beginnings of names that may be there beside.
    """
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    have = {key: tuple(value.shape) for key, value in found.items()}
    both = sorted(shapes.keys() & have.keys())
    beside = {key: shape for key, shape in have.items() if key not in shapes}
    flaws = {key: flaw(found[key]) for key in both if expected[key].is_floating_point()}
    return Misfits(
        missing={k: v for k, v in shapes.items() if k not in have and k not in optional},
        unexpected={k: v for k, v in beside.items() if not k.startswith(ignored)},
        mismatched={key: (shapes[key], have[key]) for key in both if shapes[key] != have[key]},
        unusable={key: text for key, text in flaws.items() if text is not None},
        ignored={k: v for k, v in beside.items() if k.startswith(ignored)},
    )


def flaw(weight: Tensor) -> str | None:
    """Say why a tensor is no weight of a float32 model; None where it is one."""
    if weight.is_meta:
        return None  # without values
    if not weight.is_floating_point() or weight.layout != torch.strided:
        kind = str(weight.dtype).removeprefix("torch.")
        return f"is {kind} ({weight.layout}), expected floating-point numbers"
    # As float32, in which the model computes: larger numbers of float64 become infinite.
    bad = int((~weight.to(torch.float32).isfinite()).sum())
    return f"holds {bad:,} values that are not finite" if bad else None


def listed(shapes: Mapping[str, object]) -> str:
    """Names with their shapes in one line, the first of many."""
    more = f", ... ({len(shapes)} in all)" if len(shapes) > _SHOWN else ""
    return ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:_SHOWN]) + more
