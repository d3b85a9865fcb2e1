"""Tokenizer and generator architectures keep their contracts, which tell what broken ones do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gigatok.config.kinds.generators import GENERATORS, GeneratorKind
from gigatok.config.kinds.tokenizers import TOKENIZERS, TokenizerKind
from gigatok.contracts import generator, tokenizer
from gigatok.contracts.base import Check
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.base import TokenizerOutput
from gigatok.models.tokenizer.tokenizer import GigaTok


@pytest.mark.parametrize("check", tokenizer.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_built_in_tokenizers_keep_it(name: str, check: Check) -> None:
    assert list(check(TOKENIZERS[name])) == []


@pytest.mark.parametrize("check", generator.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", GENERATORS)
def test_the_built_in_generators_keep_it(name: str, check: Check) -> None:
    assert list(check(GENERATORS[name])) == []


def test_every_variant_is_tried() -> None:
    found = [
        (one.variant, one.transformer_layer)
        for one in tokenizer.architectures(TOKENIZERS["gigatok"])
    ]
    assert found == [
        *(("1d", "vit"), ("2d", "vit"), ("2d", "qformer"), ("2d", "double_attention")),
    ]
    positions = [one.position for one in generator.architectures(GENERATORS["llamagen"])]
    assert positions == ["learned", "rope_2d"]


class Upside(GigaTok):
    def decode(self, codes_BS: Tensor) -> Tensor:
        return super().decode(codes_BS).flip(2)


class Mixing(GigaTok):
    def forward(self, image_BCHW: Tensor, *, shortcut: bool = False) -> TokenizerOutput:
        return super().forward(image_BCHW + image_BCHW.roll(1, 0), shortcut=shortcut)


class Idle(GigaTok):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.spare = torch.nn.Linear(2, 2)


class Headless(GigaTok):
    def forward(self, image_BCHW: Tensor, *, shortcut: bool = False) -> TokenizerOutput:
        return super().forward(image_BCHW)._replace(semantic_BNS=None)


class Peeking(LlamaGen):
    def forward(self, codes_BT: Tensor, classes_B: Tensor) -> Tensor:
        return super().forward(codes_BT.roll(-1, 1), classes_B)


class Classless(LlamaGen):
    def first_logits(self, classes_B: Tensor, cache: Any) -> Tensor:
        return super().first_logits(0 * classes_B, cache)

    def forward(self, codes_BT: Tensor, classes_B: Tensor) -> Tensor:
        return super().forward(codes_BT, 0 * classes_B)


class Forgetful(LlamaGen):
    def next_logits(self, codes_B: Tensor, position: int, cache: Any) -> Tensor:
        return super().next_logits(codes_B, position, self.allocate_cache(len(codes_B)))


class Attached(LlamaGen):
    def drop_classes(self, classes_B: Tensor) -> Tensor:
        return classes_B


@pytest.fixture
def broken_tokenizer(request: pytest.FixtureRequest) -> Iterator[TokenizerKind]:
    """A broken tokenizer in the place of ours, whose settings and layout it takes."""
    sound = TOKENIZERS["gigatok"]
    TOKENIZERS["gigatok"] = replace(sound, module=f"{__name__}:{request.param.__name__}")
    yield TOKENIZERS["gigatok"]
    TOKENIZERS["gigatok"] = sound


@pytest.fixture
def broken_generator(request: pytest.FixtureRequest) -> Iterator[GeneratorKind]:
    """A broken generator in the place of ours."""
    sound = GENERATORS["llamagen"]
    GENERATORS["llamagen"] = replace(sound, module=f"{__name__}:{request.param.__name__}")
    yield GENERATORS["llamagen"]
    GENERATORS["llamagen"] = sound


@pytest.mark.parametrize(
    ("broken_tokenizer", "check", "text"),
    [
        (Upside, tokenizer.reconstruction, "images that differ from decoded codes"),
        (Mixing, tokenizer.reconstruction, "depends on the rest of its batch"),
        (Idle, tokenizer.gradients, "no finite gradient reaches spare.weight, spare.bias"),
        (Idle, tokenizer.costs, "parameters, the module"),
        (Headless, tokenizer.gradients, "there are no features for the teacher"),
        (Headless, tokenizer.shortcut, "reads `shortcut_images`, and makes none"),
    ],
    indirect=["broken_tokenizer"],
)
def test_what_a_broken_tokenizer_does_is_said(
    broken_tokenizer: TokenizerKind, check: Check, text: str
) -> None:
    found = list(check(broken_tokenizer))
    assert any(text in line for line in found), found


@pytest.mark.parametrize(
    ("broken_generator", "check", "text"),
    [
        (Peeking, generator.causality, "changes logits that must not know it"),
        (Classless, generator.classes, "another class gives the same logits"),
        (Forgetful, generator.sampling, "has other logits than in the forward pass"),
        (Attached, generator.classes, "training does not pass classes through `drop_classes`"),
    ],
    indirect=["broken_generator"],
)
def test_what_a_broken_generator_does_is_said(
    broken_generator: GeneratorKind, check: Check, text: str
) -> None:
    found = list(check(broken_generator))
    assert any(text in line for line in found), found
