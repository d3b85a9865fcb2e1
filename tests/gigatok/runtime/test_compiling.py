"""Parts of published models go through torch's compiler as one graph each."""

import pytest
import torch
from torch import Tensor, nn

from gigatok.config import GeneratorConfig, TokenizerConfig
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.tokenizer import GigaTok
from tests.gigatok.tiny_stages import GENERATOR, TOKENIZER

pytestmark = pytest.mark.slow


def gradients(model: nn.Module, output: Tensor) -> list[Tensor]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(output.square().mean(), trained, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def compile_parts(parts: list[nn.Module]) -> None:
    for part in parts:
        # Raises at a break. This backend runs what was traced; the others take minutes.
        part.compile(backend="eager", fullgraph=True, dynamic=False)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_tokenizer_compiles_without_a_break(recompute: bool) -> None:
    torch._dynamo.reset()
    config = TokenizerConfig.model_validate(TOKENIZER)
    tokenizer = GigaTok(config, 32, 12, activation_checkpointing=recompute)
    image_BCHW = torch.rand(2, 3, 32, 32)
    expected = gradients(tokenizer, tokenizer(image_BCHW).reconstruction_BCHW)
    compile_parts(tokenizer.compiled_parts)
    found = gradients(tokenizer, tokenizer(image_BCHW).reconstruction_BCHW)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("position", ["learned", "rope_2d"])
def test_a_generator_compiles_without_a_break(position: str) -> None:
    torch._dynamo.reset()
    config = GeneratorConfig.model_validate({**GENERATOR, "position": position, "dropout": 0})
    generator = LlamaGen(config, 16, 10, 16, activation_checkpointing=True).eval()
    nn.init.normal_(generator.output.weight)
    codes_BT, classes_B = torch.randint(16, (2, 16)), torch.tensor([3, 4])
    expected = gradients(generator, generator(codes_BT, classes_B))
    compile_parts(generator.compiled_parts)
    found = gradients(generator, generator(codes_BT, classes_B))
    torch.testing.assert_close(found, expected)
