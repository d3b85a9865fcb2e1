"""Drawing of an image's codes from any generator, to count what it costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from gigatok.config import GeneratorArchitecture
from gigatok.models.generator.base import Generator, build_generator


def drawing(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> Callable[[Tensor], Tensor]:
    """Build a function of classes (B,) that draws all codes, and returns the last logits."""
    return partial(draw, build_generator(config, codebook_size, num_classes, num_tokens).eval())


def draw(generator: Generator, classes_B: Tensor) -> Tensor:
    """Draw all codes of an image per class, and return the last logits (B, V)."""
    cache = generator.allocate_cache(len(classes_B))
    logits_BV = generator.first_logits(classes_B, cache)
    for position in range(1, generator.num_tokens):
        # Whatever the code is: on the meta device logits have no values.
        logits_BV = generator.next_logits(classes_B, position, cache)
    return logits_BV
