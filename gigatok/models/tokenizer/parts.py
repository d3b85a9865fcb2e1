"""Parts of any tokenizer as modules of their own, to be traced."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture
from gigatok.models.tokenizer.base import Tokenizer, build_tokenizer

BATCH = 2
"""Images of the passes that show which parameters belong to a part; batch norms refuse one."""


class TokenizerPart(nn.Module):
    """Method of a tokenizer, with the parameters that its output depends on."""

    def __init__(self, tokenizer: Tokenizer, method: str, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.own = nn.ParameterList(parameters)
        # Bound, and so no submodule, whose other parameters would count.
        self._run = getattr(tokenizer, method)

    def forward(self, x: Tensor) -> Tensor:
        """Run the method."""
        out: Tensor = self._run(x)
        return out


def encoder(config: TokenizerArchitecture, image_size: int) -> TokenizerPart:
    """Build the part from an image to latents."""
    tokenizer = build_tokenizer(config, image_size)
    return TokenizerPart(tokenizer, "encode_latents", _encoders(tokenizer))


def decoder(config: TokenizerArchitecture, image_size: int) -> TokenizerPart:
    """Build the part from the vectors of codes to an image."""
    tokenizer = build_tokenizer(config, image_size)
    tokens, dim = config.tokens_per_image(image_size), config.code_shape.dim
    found = _reached(tokenizer, tokenizer.decode_latents(torch.zeros(BATCH, tokens, dim)))
    shared = {id(parameter) for parameter in _encoders(tokenizer)}
    own = [parameter for parameter in found if id(parameter) not in shared]
    return TokenizerPart(tokenizer, "decode_latents", own)


def _encoders(tokenizer: Tokenizer) -> list[nn.Parameter]:
    image_BCHW = torch.zeros(BATCH, 3, tokenizer.image_size, tokenizer.image_size)
    return _reached(tokenizer, tokenizer.encode_latents(image_BCHW))


def _reached(tokenizer: Tokenizer, output: Tensor) -> list[nn.Parameter]:
    """List the parameters that an output depends on."""
    trained = [parameter for parameter in tokenizer.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(output.sum(), trained, allow_unused=True)
    return [p for p, gradient in zip(trained, gradients, strict=True) if gradient is not None]
