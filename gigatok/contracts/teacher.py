"""Contract of a semantic teacher: what tokenizer, cache of features and costs rely on.

B batch, T cells of the grid, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config.kinds.teachers import TeacherKind, teacher_cost
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.models.frozen.teachers import Teacher, build_teacher

BATCH, SIDE, OTHER_SIDE = 3, 48, 32
"""Images that are shown, and their sides: a trial has any."""
TOLERANCE = 1e-3
"""Difference of features that rounding explains, in parts of their standard deviation."""
PARAMETERS_WITHIN = 0.02
"""Part by which parameters may differ: files hold some that are cut off in loading."""


def broken_promises(kind: TeacherKind) -> list[str]:
    """List what a teacher does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"teacher {kind.name}")


def smoke(kind: TeacherKind) -> SmokeTrial | None:
    """Train a tokenizer that follows it; None: a family without an example."""
    if (name := checked(kind)) is None:
        return None
    return SmokeTrial(stages=("train_tokenizer",), settings={"tokenizer.teacher": name})


def checked(kind: TeacherKind) -> str | None:
    """Return the name of the teacher that is checked; None: a family without an example."""
    return (kind.example or None) if kind.family else kind.name


def built(kind: TeacherKind) -> Iterator[Teacher]:
    """Build the teacher, if there is one."""
    if (name := checked(kind)) is not None:
        yield build_teacher(name)


def images(side: int = SIDE, *, seed: int = 1) -> Tensor:
    """Draw images in [-1, 1], (B, 3, side, side)."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(BATCH, 3, side, side, generator=random) * 2 - 1


def shapes(kind: TeacherKind) -> Iterator[str]:
    """Check that features are as many, and as wide, as the teacher and its cost say."""
    for teacher in built(kind):
        stated = teacher_cost(checked(kind) or "")
        said = (stated.dim, stated.grid, stated.side)
        is_ = (teacher.dim, teacher.grid, teacher.input_size)
        if said != is_:
            yield f"its cost says dim, grid and side {said}; the teacher has {is_}"
        wanted = (BATCH, teacher.grid**2, teacher.dim)
        for side in (SIDE, OTHER_SIDE):
            found = tuple(teacher.features(images(side)).shape)
            if found != wanted:
                yield f"features of images of {side} pixels are {found}; they must be {wanted}"


def values(kind: TeacherKind) -> Iterator[str]:
    """Check that features are finite numbers that tell images apart, without a gradient."""
    for teacher in built(kind):
        found = teacher.features(images().requires_grad_())
        if not found.is_floating_point() or not found.isfinite().all():
            yield "features are no finite floating-point numbers"
        if found.requires_grad:
            yield "features have a gradient; the teacher must not be trained"
        if any(p.requires_grad for p in teacher.parameters()) or teacher.network.training:
            yield "its network can be trained, or is in training mode"
        if torch.equal(found[0], found[1]):
            yield "two images have the same features"


def determinism(kind: TeacherKind) -> Iterator[str]:
    """Check that an image alone decides its features."""
    for teacher, again in zip(built(kind), built(kind), strict=True):
        shown = images()
        found = teacher.features(shown)
        if not torch.equal(teacher.features(shown), found):
            yield "the same images have other features at the second time"
        if not torch.equal(again.features(shown), found):
            yield "a teacher that is built again gives other features"
        alone = torch.cat([teacher.features(image[None]) for image in shown])
        if (alone - found).abs().max() > TOLERANCE * found.std():
            yield "an image has other features alone than in a batch"


def costs(kind: TeacherKind) -> Iterator[str]:
    """Check FLOPs and parameters of the cost that is given; others were counted like this."""
    if kind.cost is None:
        return
    stated = teacher_cost(kind.name)
    for teacher in built(kind):
        shown = images(teacher.input_size)[:1]
        # Only this kernel's products are counted on a CPU.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            teacher.features(shown)
        if (found := counter.get_total_flops()) != stated.flops:
            yield f"an image takes {found} FLOPs, its cost says {stated.flops}"
        count = sum(p.numel() for p in teacher.parameters())
        if abs(stated.parameters - count) > PARAMETERS_WITHIN * count:
            yield f"its network has {count} parameters, its cost says {stated.parameters}"


CHECKS: tuple[Check, ...] = (shapes, values, determinism, costs)
