"""Architectures as settings: keys, names, checks, and the doors for those from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from gigatok.config import (
    GeneratorArchitecture,
    TokenizerArchitecture,
    TokenizerConfig,
)
from gigatok.config.kinds import generators, tokenizers
from gigatok.config.kinds.generators import GENERATORS, GeneratorKind, GeneratorKindConfig
from gigatok.config.kinds.tokenizers import TOKENIZERS, TokenizerKind, TokenizerKindConfig

SIZE = {"name": "S", "width": 8, "layers": 3, "heads": 1}
TRAINING = {"steps": 1, "batch_size": 8, "lr": 1e-3}


class GridConfig(TokenizerKindConfig):
    """Tokenizer of somebody else, without transformers."""

    name: Literal["grid"]
    cells: int = 4

    def tokens_per_image(self, tokenizer: Any, image_size: int) -> int:
        return self.cells**2


class SizedConfig(GridConfig):
    """Tokenizer of somebody else, with an encoder of a size."""

    name: Literal["sized"]  # type: ignore[assignment]

    reads: ClassVar[frozenset[str]] = frozenset({"encoder"})


class ChainConfig(GeneratorKindConfig):
    """Generator of somebody else."""

    name: Literal["chain"]
    order: int = 2

    def probed_layers(self, generator: Any) -> int:
        return 1

    def probed_width(self, generator: Any) -> int:
        return 4


@pytest.fixture(autouse=True)
def outside() -> Iterator[None]:
    kinds = [TokenizerKind(c, "my_lab.module:Module") for c in (GridConfig, SizedConfig)]
    for kind in kinds:
        tokenizers.register(kind)
    generators.register(GeneratorKind(ChainConfig, "my_lab.module:Module"))
    yield
    del TOKENIZERS["grid"], TOKENIZERS["sized"], GENERATORS["chain"]


def tokenizer(**values: Any) -> TokenizerArchitecture:
    return TokenizerArchitecture.model_validate(values)


def test_the_published_architectures_are_the_defaults_and_in_no_key() -> None:
    plain = tokenizer(encoder=SIZE, decoder=SIZE)
    named = tokenizer(encoder=SIZE, decoder=SIZE, architecture={"name": "gigatok"})
    assert plain == named
    assert "architecture" not in plain.identity
    assert plain.name == "S-S"
    generator = GeneratorArchitecture.model_validate({"size": SIZE})
    assert "architecture" not in generator.identity


def test_what_an_architecture_does_not_read_is_in_no_key_and_need_not_be_given() -> None:
    config = tokenizer(architecture={"name": "grid", "cells": 5})
    assert config.identity == '{"architecture":{"cells":5,"name":"grid"}}'
    others = {"encoder": SIZE, "variant": "2d", "num_latent_tokens": 3, "teacher": "clip_dfn"}
    assert tokenizer(architecture={"name": "grid", "cells": 5}, **others).identity == (
        config.identity
    )
    assert tokenizer(architecture={"name": "grid"}, codebook_size=9).identity != config.identity
    assert config.sequence_length(16) == 25
    assert config.name == "grid-cells=5"
    assert TokenizerArchitecture.model_validate(config.model_dump(mode="json")) == config


def test_an_architecture_may_read_a_size() -> None:
    config = tokenizer(architecture={"name": "sized"}, encoder=SIZE)
    assert '"encoder"' in config.identity
    assert '"decoder"' not in config.identity
    assert config.name == "sized-S"
    with pytest.raises(ValidationError, match="encoder\n  Field required"):
        tokenizer(architecture={"name": "sized"})


def test_a_size_is_required_of_the_published_ones() -> None:
    with pytest.raises(ValidationError, match="decoder\n  Field required"):
        tokenizer(encoder=SIZE)
    with pytest.raises(ValidationError, match="size\n  Field required"):
        GeneratorArchitecture.model_validate({})


def test_a_generator_from_outside() -> None:
    config = GeneratorArchitecture.model_validate({"architecture": {"name": "chain"}})
    assert config.identity == '{"architecture":{"name":"chain"}}'
    other = {"architecture": {"name": "chain"}, "position": "rope_2d", "class_dropout": 0.2}
    assert GeneratorArchitecture.model_validate(other).identity == (
        '{"architecture":{"name":"chain"},"class_dropout":0.2}'
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"architecture": {"name": "gird"}}, "name must be one of gigatok, grid, sized"),
        ({"semantic_weight": 0.5}, "semantic_weight 0.5 needs features that a teacher can"),
        ({"shortcut_end": 9}, "shortcut_end 9 needs grids on both sides of the bottleneck"),
    ],
)
def test_what_an_architecture_cannot_do_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TokenizerConfig.model_validate({"architecture": {"name": "grid"}, **TRAINING, **values})
    assert text in str(caught.value)


def test_features_that_are_not_there_cannot_be_probed() -> None:
    with pytest.raises(ValueError, match="architecture grid shows no such features; give none"):
        tokenizer(architecture={"name": "grid"}).probed_width("encoder")


def test_names_are_given_once() -> None:
    with pytest.raises(ValueError, match="there is a tokenizer 'grid' already"):
        tokenizers.register(TokenizerKind(GridConfig, "my_lab.module:Module"))
    with pytest.raises(ValueError, match="there is a generator 'chain' already"):
        generators.register(GeneratorKind(ChainConfig, "my_lab.module:Module"))
