"""Plain models of the benchmarks against ours, with the same weights."""

from __future__ import annotations

import pytest
import torch

from gigatok.config import (
    CNNConfig,
    GeneratorArchitecture,
    SamplingConfig,
    TokenizerArchitecture,
    TransformerSize,
)
from gigatok.models.frozen.inception import Inception
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.scores.sampling import generate
from tests.benchmarks.plain.generator import PlainGenerator
from tests.benchmarks.plain.inception import PlainInception
from tests.benchmarks.plain.tokenizer import PlainTokenizer

pytestmark = pytest.mark.heavy
NARROW = TransformerSize(width=64, layers=3, heads=2)


def test_tokenizers() -> None:
    # Wide enough for Winograd's algorithm in the upper level, and not in the lower one.
    cnn = CNNConfig(channels=128, multipliers=(1, 1), resblocks=1, z_channels=32)
    config = TokenizerArchitecture(
        encoder=NARROW, decoder=NARROW, cnn=cnn, num_latent_tokens=16, codebook_size=64
    )
    torch.manual_seed(0)
    ours = GigaTok(config, 48, 12)
    plain = PlainTokenizer(config, 48, 12)
    plain.load_state_dict(ours.state_dict())
    image_BCHW = torch.rand(2, 3, 48, 48) * 2 - 1
    found, expected = ours(image_BCHW), plain(image_BCHW)
    assert torch.equal(found.codes_BS, expected.codes_BS)
    codes_BS = ours.encode(image_BCHW)
    assert torch.equal(codes_BS, plain.encode(image_BCHW))
    pairs = [
        (found.reconstruction_BCHW, expected.reconstruction_BCHW),
        (found.semantic_BNS, expected.semantic_BNS),
        (ours.decode(codes_BS), plain.decode(codes_BS)),
    ]
    for output in (found, expected):
        sum(output.losses.values(), output.reconstruction_BCHW.square().mean()).backward()
    convs = (ours.encoder.mid[0].conv1, plain.encoder.mid[0].conv1)
    pairs.append(tuple(conv.weight.grad for conv in convs))
    for one, other in pairs:
        scale = float(other.detach().std())
        torch.testing.assert_close(one / scale, other / scale, atol=2e-3, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_generators(scale: float) -> None:
    torch.manual_seed(0)
    config = GeneratorArchitecture(size=NARROW, ffn_multiple_of=32)
    ours = LlamaGen(config, 50, 10, 16).eval()
    torch.nn.init.normal_(ours.output.weight)
    plain = PlainGenerator(config, 50, 10, 16)
    plain.load_state_dict(ours.state_dict())
    classes_B = torch.tensor([1, 4, 9])
    sampling = SamplingConfig(num_images=4, cfg_scale=scale)
    codes_BT = generate(ours, classes_B, sampling, torch.Generator(), greedy=True)
    assert torch.equal(codes_BT, plain.generate(classes_B, scale))
    codes_BT = codes_BT.clone()  # no inference tensor any more
    logits = ours(codes_BT, classes_B), plain(codes_BT, classes_B)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_inception() -> None:
    torch.manual_seed(0)
    ours = Inception(75).eval()
    images = torch.randint(256, (2, 3, 75, 75)).float()
    torch.testing.assert_close(PlainInception(ours)(images), ours(images).pool)
