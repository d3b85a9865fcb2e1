import math

import pytest
import torch

from gigatok.config import GeneratorArchitecture, SamplingConfig, TransformerSize
from gigatok.models.generator.generator import LlamaGen
from gigatok.scores.sampling import generate, guidance_scale, guide


def sampling(**changes: object) -> SamplingConfig:
    return SamplingConfig(num_images=4, **changes)


@pytest.fixture(scope="module")
def generator() -> LlamaGen:
    torch.manual_seed(0)
    size = TransformerSize(width=32, layers=2, heads=2)
    generator = LlamaGen(GeneratorArchitecture(size=size, ffn_multiple_of=32), 50, 10, 16)
    torch.nn.init.normal_(generator.output.weight, std=0.3)
    return generator.eval()


def draw_codes(generator: LlamaGen, seed: int = 0, **changes: object) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return generate(generator, torch.tensor([1, 2]), sampling(**changes), random)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [3, 3, 3, 3, 3]),
        ("step", [3, 1, 3, 3, 3]),
        ("linear", [3, 1.5, 2, 2.5, 3]),
        ("cosine", [3, 2 - math.sqrt(0.5), 2, 2 + math.sqrt(0.5), 3]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    config = sampling(cfg_scale=3, cfg_schedule=schedule, cfg_start=0.5)
    scales = [guidance_scale(config, position, 5) for position in range(5)]
    assert scales == pytest.approx(expected)


def test_step_schedule_of_the_paper() -> None:
    config = sampling(cfg_scale=2, cfg_schedule="step", cfg_start=0.18)
    scales = [guidance_scale(config, position, 256) for position in range(256)]
    assert scales == [2.0, *[1.0] * 45, *[2.0] * 210]


def test_guidance_extrapolates_from_the_null_class() -> None:
    logits = torch.tensor([[1.0, 4.0], [0.0, 2.0]])
    assert guide(logits, 3.0).tolist() == [[3.0, 8.0]]
    assert guide(logits, 1.0).tolist() == [[1.0, 4.0]]


def test_codes_are_reproducible_and_in_range(generator: LlamaGen) -> None:
    codes = draw_codes(generator, top_k=20, top_p=0.9, cfg_scale=2)
    assert codes.shape == (2, 16)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < 50
    assert torch.equal(codes, draw_codes(generator, top_k=20, top_p=0.9, cfg_scale=2))
    assert not torch.equal(codes, draw_codes(generator, seed=1, top_k=20, top_p=0.9, cfg_scale=2))


def test_scale_1_is_no_guidance(generator: LlamaGen) -> None:
    almost = draw_codes(generator, cfg_scale=1 + 1e-9)  # runs the doubled batch
    assert torch.equal(draw_codes(generator, cfg_scale=1), almost)


def test_top_1_is_greedy_and_follows_the_argmax(generator: LlamaGen) -> None:
    classes_B = torch.tensor([1, 2])
    greedy = generate(generator, classes_B, sampling(cfg_scale=1), torch.Generator(), greedy=True)
    assert torch.equal(draw_codes(generator, cfg_scale=1, top_k=1), greedy)
    with torch.no_grad():
        assert torch.equal(generator(greedy, classes_B).argmax(-1), greedy)
