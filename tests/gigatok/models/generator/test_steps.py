from typing import Any

import pytest
import torch
from torch import Tensor

from gigatok.config import GeneratorArchitecture, SamplingConfig, TransformerSize
from gigatok.models.generator.base import Generator
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.steps import CompiledSteps, Steps, steps_of
from gigatok.scores.sampling import generate
from tests.gigatok.waiting import NoBlockingCopies, NoConstants

POSITIONS = ["learned", "rope_2d"]


def build(position: str, device: str = "cpu") -> LlamaGen:
    torch.manual_seed(0)
    size = TransformerSize(width=32, layers=2, heads=2)
    config = GeneratorArchitecture(size=size, ffn_multiple_of=32, position=position)
    with torch.device(device):
        generator = LlamaGen(config, 50, 10, 16)
        torch.nn.init.normal_(generator.output.weight, std=0.3)
    return generator.eval()


def draw(generator: LlamaGen, steps: Steps, scale: float, seed: int = 0, batch: int = 3) -> Tensor:
    classes_B = torch.arange(batch)
    config = SamplingConfig(num_images=4, cfg_scale=scale)
    return generate(generator, classes_B, config, torch.Generator().manual_seed(seed), steps=steps)


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_positions_in_a_tensor(position: str) -> None:
    generator = build(position)
    codes_BT, classes_B = torch.randint(50, (3, 16)), torch.tensor([1, 4, 10])
    cache = generator.allocate_static_cache(3)
    place_1 = torch.zeros(1, dtype=torch.int64)
    # Twice: what is left of the batch before must not be seen.
    for seen_BT in (codes_BT.flip(1), codes_BT):
        found = [generator.first_logits(classes_B, cache)]
        for place in range(1, 16):
            logits_BV = generator.next_logits(seen_BT[:, place - 1], place_1.fill_(place), cache)
            found.append(logits_BV)
    expected = generator(codes_BT, classes_B)
    torch.testing.assert_close(torch.stack(found, dim=1), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
def test_one_graph_for_all_positions_and_batches(position: str) -> None:
    torch._dynamo.reset()
    generator = build(position)
    compiled = CompiledSteps(generator, backend="eager")
    graphs = torch._dynamo.utils.counters["stats"]
    for scale in (1.0, 2.0):
        graphs.clear()
        for seed in (0, 1):
            expected = draw(generator, Steps(generator), scale, seed)
            assert torch.equal(draw(generator, compiled, scale, seed), expected)
        # Guidance is another batch size, and so another graph; `fullgraph` raises at a break.
        assert graphs["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_the_compiler_makes_draws_the_same() -> None:
    torch._dynamo.reset()
    generator = build("learned")
    compiled = CompiledSteps(generator)
    for seed in (0, 1):
        expected = draw(generator, Steps(generator), 2.0, seed)
        assert torch.equal(draw(generator, compiled, 2.0, seed), expected)


def test_batches_of_one_size_share_a_cache() -> None:
    generator = build("learned")
    compiled = CompiledSteps(generator, backend="eager")
    caches = []
    for batch in (3, 2, 3):
        compiled.first(torch.arange(batch))
        caches.append(compiled._cache)
    assert caches[0] is caches[2]
    assert len(caches[1].tensors[0]) == 2


class WithoutStaticCache(LlamaGen):
    def allocate_static_cache(self, batch_size: int) -> Any:
        return Generator.allocate_static_cache(self, batch_size)


def test_only_what_has_a_static_cache_is_compiled() -> None:
    generator = build("learned")
    assert isinstance(steps_of(generator, compiled=True), CompiledSteps)
    assert not isinstance(steps_of(generator, compiled=False), CompiledSteps)
    generator.__class__ = WithoutStaticCache
    assert not isinstance(steps_of(generator, compiled=True), CompiledSteps)


class Uncompiled(CompiledSteps):
    """Steps with positions in a tensor, as they are: the compiler's own work is not looked at."""

    def __init__(self, generator: Generator) -> None:
        super().__init__(generator, backend="eager")
        self._compiled = generator.next_logits


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", [Steps, Uncompiled])
@pytest.mark.parametrize("sampler", [{}, {"sampler": {"name": "min_p", "min_p": 0.1}}])
def test_drawing_waits_for_nothing(position: str, kind: type[Steps], sampler: Any) -> None:
    generator = build(position, "meta")
    classes_B = torch.zeros(2, dtype=torch.int64, device="meta")
    config = SamplingConfig(num_images=4, cfg_scale=2.0, top_k=20, top_p=0.9, **sampler)
    with NoBlockingCopies() as copies, NoConstants() as constants:
        copies.armed = constants.armed = True
        # On the meta device, what reads a value raises.
        random: Any = None  # torch's own, as there is none of this device
        codes_BT = generate(generator, classes_B, config, random, steps=kind(generator))
    assert codes_BT.shape == (2, 16)
