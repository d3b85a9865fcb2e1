"""Parameters and FLOPs of the generator's layout against the module."""

from __future__ import annotations

import pytest
import torch

from gigatok.config import SamplingConfig
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.layout import (
    generator_flops,
    generator_parameters,
    sampling_flops,
)
from gigatok.scores.sampling import generate
from tests.gigatok.counted_flops import BATCH, GENERATORS, counted


@pytest.mark.parametrize("name", GENERATORS)
def test_forward_passes(name: str) -> None:
    config = GENERATORS[name]
    with torch.device("meta"):
        model = LlamaGen(config, 50, 10, 16)
        codes = torch.zeros(BATCH, 16, dtype=torch.int64)
    found = counted(lambda: model(codes, codes[:, 0]))
    assert BATCH * generator_flops(config, 50, 16) == found
    read = counted(lambda: model.features(codes, 1))
    assert BATCH * generator_flops(config, 50, 16, layers=1) == read
    count = sum(p.numel() for p in model.parameters())
    assert generator_parameters(config, 50, 10, 16) == count


@pytest.mark.heavy
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("name", GENERATORS)
def test_sampling(name: str, scale: float) -> None:
    model = LlamaGen(GENERATORS[name], 50, 10, 16).eval()
    config, guided = SamplingConfig(num_images=4, cfg_scale=scale), scale > 1
    classes, random = torch.zeros(BATCH, dtype=torch.int64), torch.Generator()
    predicted = sampling_flops(GENERATORS[name], 50, 16, guided=guided)
    found = counted(lambda: generate(model, classes, config, random))
    assert BATCH * predicted == found
    cache = model.allocate_cache(1)
    one = counted(lambda: model.next_logits(classes[:1], 7, cache))
    drawn = [sampling_flops(GENERATORS[name], 50, tokens, guided=False) for tokens in (7, 8)]
    assert drawn[1] - drawn[0] == one
