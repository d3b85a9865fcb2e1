"""Contract of an extra loss: what training, micro-batches and costs rely on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gigatok.config.kinds.losses import LossConfig, LossKind
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.models.losses.base import Loss, build_loss
from gigatok.models.tokenizer.base import TokenizerOutput
from gigatok.models.traced import Input, Subject
from gigatok.models.tracer import trace

BATCH, SIDE, GRID_CHANNELS, GRID = 4, 32, 8, 8


def broken_promises(kind: LossKind) -> list[str]:
    """List what a loss does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"loss {kind.name}")


def smoke(kind: LossKind) -> SmokeTrial:
    """Train a tokenizer with it."""
    settings = {"tokenizer.extra_losses": [{"name": kind.name, **kind.example}]}
    return SmokeTrial(stages=("train_tokenizer",), settings=settings)


def config(kind: LossKind) -> LossConfig:
    """Make the settings of the example."""
    return kind.config.model_validate({"name": kind.name, **kind.example})


def built(kind: LossKind) -> Loss:
    """Build the example, always with the same weights."""
    torch.manual_seed(0)
    return build_loss(config(kind))


def images(seed: int) -> Tensor:
    """Draw images in [-1, 1], (B, 3, H, W)."""
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(BATCH, 3, SIDE, SIDE, generator=random) - 1


def loss_of(
    loss: Loss,
    reconstruction_BCHW: Tensor,
    image_BCHW: Tensor,
    *,
    step: int = 1,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Compute a loss of images as a training step does; `first` is their place in the batch."""
    random = torch.Generator().manual_seed(5)
    grids_BCHW = torch.randn(BATCH, GRID_CHANNELS, GRID, GRID, generator=random)
    grid = grids_BCHW[first : first + len(image_BCHW)]
    codes_BS = torch.zeros(len(image_BCHW), 1, dtype=torch.int64)
    output = TokenizerOutput(reconstruction_BCHW, codes_BS, {}, None, grid, grid)
    torch.manual_seed(seed)
    return loss(output, image_BCHW, step)


def settings(kind: LossKind) -> Iterator[str]:
    """Check that settings survive being written."""
    example = config(kind)
    if kind.config.model_validate(example.model_dump(mode="json")) != example:
        yield "its settings are others after they were written and read"


def value(kind: LossKind) -> Iterator[str]:
    """Check that it is a finite number, of different images and of equal ones."""
    loss, image_BCHW = built(kind), images(1)
    for what, other_BCHW in (("different", images(2)), ("equal", image_BCHW.clone())):
        found = loss_of(loss, other_BCHW, image_BCHW)
        if found.shape != () or not found.isfinite():
            yield f"of {what} images it is {_shown(found)}; it must be one finite number"


def minimum(kind: LossKind) -> Iterator[str]:
    """Check that it grows with the distance to the image, if it says that it compares."""
    if not kind.compares:
        return
    loss, image_BCHW = built(kind), images(1)
    least = loss_of(loss, image_BCHW.clone(), image_BCHW)
    for share in (0.1, 0.5, 1.0):
        apart = loss_of(loss, image_BCHW.lerp(images(2), share), image_BCHW)
        if apart <= least:
            yield (
                f"it is {_shown(least)} where the reconstruction equals the image and "
                f"{_shown(apart)} where it does not; a loss that does not compare says "
                "`compares=False`"
            )
            return


def gradients(kind: LossKind) -> Iterator[str]:
    """Check that finite gradients reach the reconstruction, also where it equals the image."""
    loss, image_BCHW = built(kind), images(1)
    for what, start_BCHW in (("different", images(2)), ("equal", image_BCHW.clone())):
        made_BCHW = start_BCHW.requires_grad_()
        (found,) = torch.autograd.grad(loss_of(loss, made_BCHW, image_BCHW), made_BCHW)
        if not found.isfinite().all():
            yield f"the gradient of {what} images is not finite"
        elif what == "different" and not found.flatten(1).any(1).all():
            yield "no gradient reaches some of the reconstructions"


def determinism(kind: LossKind) -> Iterator[str]:
    """Check that images, step and seed decide everything, and that nothing stays from before."""
    first, second = built(kind), built(kind)
    image_BCHW, made_BCHW = images(1), images(2)
    before = _state(first)
    found = loss_of(first, made_BCHW, image_BCHW)
    if not torch.equal(found, loss_of(second, made_BCHW, image_BCHW)):
        yield "two of the same seed give other values"
    loss_of(first, images(3), images(4), step=2, seed=1)
    if not torch.equal(found, loss_of(first, made_BCHW, image_BCHW)):
        yield "its value depends on steps before, which a resumed training does not have"
    if any(not torch.equal(a, b) for a, b in zip(before, _state(first), strict=True)):
        yield "it changes its buffers; a checkpoint holds nothing of a loss"


def batches(kind: LossKind) -> Iterator[str]:
    """Check that a loss of a batch is the mean of its halves, unless it says otherwise."""
    if kind.over_batch:
        return
    loss, image_BCHW = built(kind), images(1)
    # Each image at another distance: halves that are alike would hide what is not a mean.
    made_BCHW = image_BCHW.lerp(images(2), torch.linspace(0.1, 1, BATCH).view(-1, 1, 1, 1))
    half = BATCH // 2
    first = loss_of(loss, made_BCHW[:half], image_BCHW[:half])
    second = loss_of(loss, made_BCHW[half:], image_BCHW[half:], first=half)
    halves = torch.stack([first, second])
    whole = loss_of(loss, made_BCHW, image_BCHW)
    if not torch.equal(whole, loss_of(loss, made_BCHW, image_BCHW, seed=1)):
        return  # it draws, and the halves draw other numbers than the batch does
    if not torch.isclose(halves.mean(), whole, rtol=1e-4):
        yield (
            f"of a batch it is {_shown(whole)}, and {_shown(halves.mean())} as the mean of its "
            "halves, so micro-batches would change results; register it with `over_batch=True`"
        )


def costs(kind: LossKind) -> Iterator[str]:
    """Check that its costs can be traced without running it on real images."""
    image, grid = (3, SIDE, SIDE), (GRID_CHANNELS, GRID, GRID)
    inputs = (Input(image, gradient=True), Input(image), *[Input(grid, gradient=True)] * 2)
    build = "gigatok.models.losses.base:OfTensors"
    found = trace(Subject(build, inputs, (config(kind),), training=True))
    if found.note is not None:
        yield found.note


def _state(loss: Loss) -> list[Tensor]:
    """Copy the buffers and parameters of a loss that has any."""
    known: dict[str, Any] = loss.state_dict() if isinstance(loss, nn.Module) else {}
    return [tensor.clone() for tensor in known.values()]


def _shown(value: Tensor) -> str:
    return f"{value.item():.6g}" if value.shape == () else f"of shape {tuple(value.shape)}"


CHECKS: tuple[Check, ...] = (
    settings,
    value,
    minimum,
    gradients,
    determinism,
    batches,
    costs,
)
