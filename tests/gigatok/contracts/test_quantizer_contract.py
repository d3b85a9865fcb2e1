"""Every quantizer keeps the contract, and the contract tells what a broken one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gigatok.config.kinds.quantizers import QUANTIZERS, FiniteScalarConfig, QuantizerKind
from gigatok.contracts.quantizer import CHECKS, Check, broken_promises
from gigatok.models.quantizers.base import Losses
from gigatok.models.quantizers.fsq import FiniteScalarQuantizer


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_built_in_quantizers_keep_it(name: str, check: Check) -> None:
    assert list(check(QUANTIZERS[name])) == []


class OutOfRange(FiniteScalarQuantizer):
    def _number(self, bounded_MC: Tensor) -> Tensor:
        return super()._number(bounded_MC) + 50


class Undecided(FiniteScalarQuantizer):
    def code(self, z_MC: Tensor) -> Tensor:
        return super().code(z_MC + 0.3)


class WithoutGradient(FiniteScalarQuantizer):
    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        value, codes, losses = super().quantise(z_MC)
        return value.detach() + 0 * z_MC, codes, losses


class Ambiguous(FiniteScalarQuantizer):
    def vectors(self, codes_MD: Tensor) -> Tensor:
        return super().vectors(codes_MD).abs()


class Random(FiniteScalarQuantizer):
    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        return super().quantise(z_MC + 0.5 * torch.rand_like(z_MC))


class UnnamedLoss(FiniteScalarQuantizer):
    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        value, codes, _ = super().quantise(z_MC)
        return value, codes, {"spread": z_MC.std()}


class Forgetful(FiniteScalarQuantizer):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.shift = float(torch.rand(()))

    def bound(self, z_MC: Tensor) -> Tensor:
        return super().bound(z_MC + self.shift)


class Failing(FiniteScalarQuantizer):
    def nearest(self, z_BTC: Tensor) -> Tensor:
        raise RuntimeError("no such kernel")


class Weighty(FiniteScalarQuantizer):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mix = torch.nn.Linear(3, 3)

    def bound(self, z_MC: Tensor) -> Tensor:
        return super().bound(self.mix(z_MC))


BROKEN = {
    OutOfRange: "allowed are 0 to 59",
    Undecided: "finds other codes than `nearest`",
    WithoutGradient: "the gradient of the latents is zero",
    Ambiguous: "two codes stand for one vector",
    Random: "two of the same seed give other outputs",
    UnnamedLoss: "losses are spread; its config names",
    Forgetful: "a copy by its state dict gives other outputs",
    Failing: "RuntimeError: no such kernel",
    Weighty: "its layout has 0 parameters, the module 12",
}


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[QuantizerKind]:
    """A broken quantizer in the place of `fsq`, whose settings it takes."""
    sound = QUANTIZERS["fsq"]
    kind = replace(sound, module=f"{__name__}:{request.param.__name__}")
    QUANTIZERS["fsq"] = kind
    yield kind
    QUANTIZERS["fsq"] = sound


@pytest.mark.parametrize(("registered", "text"), BROKEN.items(), indirect=["registered"])
def test_what_a_broken_one_does_is_said(registered: QuantizerKind, text: str) -> None:
    found = broken_promises(registered)
    assert any(text in line for line in found), found
    assert all(line.startswith("quantizer fsq: ") for line in found)


def test_a_loss_over_the_batch_must_be_named() -> None:
    class Silent(FiniteScalarConfig):
        def losses(self, codebook: Any) -> tuple[str, ...]:
            return ("spread",)

    kind = QuantizerKind(
        Silent,
        f"{__name__}:UnnamedLoss",
        QUANTIZERS["fsq"].layout,
        example=QUANTIZERS["fsq"].example,
    )
    sound, QUANTIZERS["fsq"] = QUANTIZERS["fsq"], kind
    try:
        (line,) = broken_promises(kind)
    finally:
        QUANTIZERS["fsq"] = sound
    assert "spread of a batch is not the mean of its halves" in line
