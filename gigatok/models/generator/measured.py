"""Layout of a generator that does not describe itself: as it is traced. Imports no torch."""

from __future__ import annotations

from functools import lru_cache

from gigatok.config import GeneratorArchitecture
from gigatok.models.generator.layout import GeneratorLayout
from gigatok.models.traced import Input, Subject, traced

_CLASS = Input((), "int64")
"""Class of an image, of which a batch is (B,)."""


def layout(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> GeneratorLayout:
    """Measure a generator.

    Raises:
        TraceError: it cannot be traced.
    """
    return _measured(_architecture(config), codebook_size, num_classes, num_tokens)


@lru_cache(maxsize=256)
def _architecture(config: GeneratorArchitecture) -> GeneratorArchitecture:
    """Drop what only training reads, and what the architecture does not read."""
    names = GeneratorArchitecture.model_fields.keys() - config.unread
    return GeneratorArchitecture(**{name: getattr(config, name) for name in names})


# Cached, as each trial asks several times.
@lru_cache(maxsize=256)
def _measured(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> GeneratorLayout:
    args = (config, codebook_size, num_classes, num_tokens)
    codes = Input((num_tokens,), "int64")
    build = "gigatok.models.generator.base:build_generator"
    whole = traced(Subject(build, (codes, _CLASS), args, training=True))
    drawn = traced(Subject("gigatok.models.generator.drawing:drawing", (_CLASS,), args))
    return GeneratorLayout((whole.layer(),), drawn.flops)
