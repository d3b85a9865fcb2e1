"""Built-in samplers keep the contract, and the contract tells what a broken one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gigatok.config import SamplingConfig
from gigatok.config.kinds.samplers import SAMPLERS, SamplerKind
from gigatok.contracts.sampler import CHECKS, broken_promises
from gigatok.scores.samplers import min_p


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_built_in_samplers_keep_it(name: str, check: object) -> None:
    assert list(check(SAMPLERS[name])) == []  # type: ignore[operator]


def out_of_range(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return min_p(logits_BV, config, rng) + 1


def two_dimensional(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return min_p(logits_BV, config, rng)[:, None]


def unlikely(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return torch.randint(logits_BV.shape[1], logits_BV.shape[:1], generator=rng)


def careless(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return torch.multinomial(logits_BV.float().softmax(-1), 1).squeeze(1)


def destructive(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return min_p(logits_BV.div_(2), config, rng)


def common(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return min_p(logits_BV + logits_BV.mean(0), config, rng)


def greedy(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    return min_p(logits_BV, config, rng) if config.top_k == 0 else logits_BV.argmax(-1)


BROKEN = {
    out_of_range: "a codebook of one code: codes lie in 1 to 1; allowed are 0 to 0",
    two_dimensional: "drawn logits: codes are torch.int64 (64, 1); they must be int64 (64,)",
    unlikely: "it draws codes whose probability is 0",
    careless: "it draws other codes from the same seed",
    destructive: "it changes the logits that it is given",
    common: "the code of an image depends on the logits of others",
    greedy: "it reads top_k, which keys leave out",
}


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[SamplerKind]:
    """A broken sampler in the place of `min_p`, whose settings it takes."""
    sound = SAMPLERS["min_p"]
    SAMPLERS["min_p"] = replace(sound, module=f"{__name__}:{request.param.__name__}")
    yield SAMPLERS["min_p"]
    SAMPLERS["min_p"] = sound


@pytest.mark.parametrize(("registered", "text"), BROKEN.items(), indirect=["registered"])
def test_what_a_broken_one_does_is_said(registered: SamplerKind, text: str) -> None:
    found = broken_promises(registered)
    assert any(line.startswith(f"sampler min_p: {text}") for line in found), found
