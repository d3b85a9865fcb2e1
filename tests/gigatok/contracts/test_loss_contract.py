"""Every extra loss keeps the contract, and the contract tells what a broken one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gigatok.config.kinds.losses import LOSSES, LossConfig, LossKind
from gigatok.contracts.base import Check
from gigatok.contracts.loss import CHECKS, broken_promises
from gigatok.models.tokenizer.base import TokenizerOutput


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LOSSES)
def test_the_built_in_losses_keep_it(name: str, check: Check) -> None:
    assert list(check(LOSSES[name])) == []


class Error(nn.Module):
    """Squared error, and what each subclass does to it."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()

    def forward(self, output: TokenizerOutput, image_BCHW: Tensor, step: int) -> Tensor:
        return self.of((output.reconstruction_BCHW - image_BCHW).square())

    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW.mean()


class PerImage(Error):
    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW.mean((1, 2, 3))


class Logarithm(Error):
    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW.mean().log()


class Reward(Error):
    def of(self, square_BCHW: Tensor) -> Tensor:
        return -square_BCHW.mean()


class Norm(Error):
    """The gradient of a square root has no limit at 0."""

    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW.sum((1, 2, 3)).sqrt().mean()


class FirstOnly(Error):
    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW[0].mean()


class Momentum(Error):
    def __init__(self, config: LossConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(()))

    def of(self, square_BCHW: Tensor) -> Tensor:
        self.mean = self.mean.lerp(square_BCHW.mean().detach(), 0.5)
        return square_BCHW.mean() + self.mean


class Unseeded(Error):
    """A generator of its own, which a resumed training starts anew."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__(config)
        self.random = torch.Generator()

    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW.mean() * (1 + torch.rand((), generator=self.random, device="cpu"))


class Spread(Error):
    def of(self, square_BCHW: Tensor) -> Tensor:
        return square_BCHW.mean().square()


class OfGrids(Error):
    """Also reads the grids before the bottleneck, each image's alone."""

    def forward(self, output: TokenizerOutput, image_BCHW: Tensor, step: int) -> Tensor:
        assert output.spatial_BCHW is not None
        return super().forward(output, image_BCHW, step) + output.spatial_BCHW.square().mean()


class Variance(OfGrids):
    """Variance of the grids over the batch, which a half of it does not have."""

    def forward(self, output: TokenizerOutput, image_BCHW: Tensor, step: int) -> Tensor:
        assert output.spatial_BCHW is not None
        error = Error.forward(self, output, image_BCHW, step)
        return error + output.spatial_BCHW.var(0).mean()


class Patchy(Error):
    """Compares pixels that it draws from torch's global generator, as it may."""

    def of(self, square_BCHW: Tensor) -> Tensor:
        drawn = torch.rand_like(square_BCHW)
        return (square_BCHW * drawn).mean()


class Reading(Error):
    def of(self, square_BCHW: Tensor) -> Tensor:
        mean = square_BCHW.mean()
        return mean if mean.item() < 1 else 2 * mean


BROKEN = {
    PerImage: "it is of shape (4,); it must be one finite number",
    Logarithm: "of equal images it is -inf; it must be one finite number",
    Reward: "a loss that does not compare says `compares=False`",
    Norm: "the gradient of equal images is not finite",
    FirstOnly: "no gradient reaches some of the reconstructions",
    Momentum: "it changes its buffers; a checkpoint holds nothing of a loss",
    Unseeded: "its value depends on steps before",
    Spread: "register it with `over_batch=True`",
    Variance: "register it with `over_batch=True`",
    Reading: "Values that are read at run time do not exist there",
}


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[LossKind]:
    """A broken loss in the place of `l1`, whose settings it takes."""
    sound = LOSSES["l1"]
    LOSSES["l1"] = replace(sound, module=f"{__name__}:{request.param.__name__}")
    yield LOSSES["l1"]
    LOSSES["l1"] = sound


@pytest.mark.parametrize(("registered", "text"), BROKEN.items(), indirect=["registered"])
def test_what_a_broken_one_does_is_said(registered: LossKind, text: str) -> None:
    found = broken_promises(registered)
    assert any(text in line for line in found), found
    assert all(line.startswith("loss l1: ") for line in found)


@pytest.mark.parametrize("registered", [OfGrids, Patchy], indirect=True)
def test_grids_and_draws_of_the_batch_are_cut_with_it(registered: LossKind) -> None:
    assert broken_promises(registered) == []


@pytest.mark.parametrize("registered", [Error, Spread, Reward], indirect=True)
def test_what_a_loss_says_of_itself_is_no_breach(registered: LossKind) -> None:
    honest = replace(registered, over_batch=True, compares=False)
    assert broken_promises(honest) == []
