"""Comparison of foreign weights with a model's needs: nothing is adopted that does not fit.

A deeper model's weights contain all that a shallower one needs, and integers and NaN have the
right shape. Each would be loaded without a word and give the scores of another model. So weights
that the model has no place for are refused too, unless they are known to be for training only.
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
"""Prefixes of names that trainers save beside a model, and that the model does not need."""
_SHOWN = 20
"""Number of names that a message lists of each kind."""


@dataclass(frozen=True)
class Misfits:
    """Misfits between weights and a model, by name, with shapes.

    Attributes:
        missing: the model needs them, the weights lack them.
        unexpected: the weights have them, the model does not, and training does not explain them.
        mismatched: expected and found shape.
        unusable: reason why a weight of the right name cannot be used: not finite, or integers.
        ignored: extra weights that are for training only.
    """

    missing: Mapping[str, Shape]
    unexpected: Mapping[str, Shape]
    mismatched: Mapping[str, tuple[Shape, Shape]]
    unusable: Mapping[str, str]
    ignored: Mapping[str, Shape]

    @property
    def fits(self) -> bool:
        """True if the weights fill the model, and nothing unexplained is left over."""
        # `ignored` counts for nothing: the model has no use for what only trained it.
        return not (self.missing or self.unexpected or self.mismatched or self.unusable)

    def lines(self) -> list[str]:
        """Describe each kind of misfit for a message."""
        # At most some names of each kind: another model's weights misfit in hundreds.
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
        expected: state dict of the model.
        found: the weights; all values of those with a place in the model are checked.
        optional: names that may be missing.
        ignored: prefixes of names that may be there in addition.
    """
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    have = {key: tuple(value.shape) for key, value in found.items()}
    # Sorted, so that a message is the same at every call.
    both = sorted(shapes.keys() & have.keys())
    beside = {key: shape for key, shape in have.items() if key not in shapes}
    # Only weights that the model keeps as floating-point numbers; buffers may be integers.
    flaws = {key: flaw(found[key]) for key in both if expected[key].is_floating_point()}
    return Misfits(
        missing={k: v for k, v in shapes.items() if k not in have and k not in optional},
        unexpected={k: v for k, v in beside.items() if not k.startswith(ignored)},
        mismatched={key: (shapes[key], have[key]) for key in both if shapes[key] != have[key]},
        unusable={key: text for key, text in flaws.items() if text is not None},
        ignored={k: v for k, v in beside.items() if k.startswith(ignored)},
    )


def flaw(weight: Tensor) -> str | None:
    """Say why a tensor cannot be a weight of a float32 model; None if it can."""
    if weight.is_meta:
        return None  # without values
    if not weight.is_floating_point() or weight.layout != torch.strided:
        kind = str(weight.dtype).removeprefix("torch.")
        return f"is {kind} ({weight.layout}), expected floating-point numbers"
    # As float32, in which the model computes: larger numbers of float64 become infinite.
    # Counted, not only found: a few point to a damaged file, all to a diverged training.
    bad = int((~weight.to(torch.float32).isfinite()).sum())
    return f"holds {bad:,} values that are not finite" if bad else None


def listed(shapes: Mapping[str, object]) -> str:
    """List names with their shapes in one line, at most the first `_SHOWN`."""
    more = f", ... ({len(shapes)} in all)" if len(shapes) > _SHOWN else ""
    return ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:_SHOWN]) + more
