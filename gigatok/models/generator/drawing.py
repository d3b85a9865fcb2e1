"""Drawing of an image's codes from any generator as a function of its own, to be traced."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gigatok.config import GeneratorArchitecture
from gigatok.models.generator.base import build_generator


def drawing(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> Callable[[Tensor], Tensor]:
    """Build a function of classes (B,) that draws all codes, and returns the last logits."""
    generator = build_generator(config, codebook_size, num_classes, num_tokens).eval()

    def draw(classes_B: Tensor) -> Tensor:
        cache = generator.allocate_cache(len(classes_B))
        logits_BV = generator.first_logits(classes_B, cache)
        for position in range(1, num_tokens):
            # Whatever the code is: on the meta device logits have no values.
            logits_BV = generator.next_logits(classes_B, position, cache)
        return logits_BV

    return draw
