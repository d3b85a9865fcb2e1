"""Layout of a tokenizer that does not describe itself: its parts as they are traced. No torch."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from gigatok.config import TokenizerArchitecture
from gigatok.models.layers import Layer, Layers, flops, parameters
from gigatok.models.quantizers.layout import quantizer_layout
from gigatok.models.tokenizer.layout import TokenizerParts
from gigatok.models.traced import Input, Subject, traced

_PARTS = "gigatok.models.tokenizer.parts"


def layout(
    config: TokenizerArchitecture, image_size: int, teacher_dim: int | None
) -> TokenizerParts[Layers]:
    """Measure a tokenizer.

    Parameters belong to the encoder or to the decoder by what their outputs depend on; those that
    both depend on count as the encoder's.

    Raises:
        TraceError: it cannot be traced.
    """
    dim = 0
    if config.semantic_weight > 0:
        own = config.teacher_components or config.teacher_cost.dim
        dim = own if teacher_dim is None else teacher_dim
    return _measured(_architecture(config), image_size, dim)


@lru_cache(maxsize=256)
def _architecture(config: TokenizerArchitecture) -> TokenizerArchitecture:
    """Drop what only training reads, and what the architecture does not read."""
    names = TokenizerArchitecture.model_fields.keys() - config.unread
    return TokenizerArchitecture(**{name: getattr(config, name) for name in names})


# Cached, as each trial asks several times.
@lru_cache(maxsize=256)
def _measured(
    config: TokenizerArchitecture, image_size: int, teacher_dim: int
) -> TokenizerParts[Layers]:
    tokens, image = config.tokens_per_image(image_size), Input((3, image_size, image_size))
    latents = Input((tokens, config.code_shape.dim), gradient=True)
    args, pixels = (config, image_size), 3 * image_size**2
    encoder = traced(Subject(f"{_PARTS}:encoder", (image,), args, training=True))
    decoder = traced(Subject(f"{_PARTS}:decoder", (latents,), args, training=True))
    # A backward pass takes twice the FLOPs of the forward pass, but for the gradient of the image.
    stem = Layer(flops=max(2 * encoder.flops - encoder.backward, 0), kept=pixels)
    rest = encoder.layer()
    last = decoder.layer()
    quantizer = quantizer_layout(config, tokens)
    parts = TokenizerParts[Layers](
        cnn_encoder=(stem, replace(rest, flops=rest.flops - stem.flops)),
        to_tokens=(),
        project_in=(),
        codebook=quantizer.codebook,
        entropy=quantizer.losses,
        project_out=(),
        to_grid=(),
        head=(),
        # The difference to the image that the loss squares is kept, too.
        cnn_decoder=(replace(last, kept=last.kept + pixels),),
    )
    if not teacher_dim:
        return parts
    return replace(parts, head=(_head(parts.total, config, image_size, teacher_dim),))


def _head(
    others: Layers, config: TokenizerArchitecture, image_size: int, teacher_dim: int
) -> Layer:
    """Measure what semantic regularisation adds: the whole, without the other parts."""
    grid = config.teacher_cost.grid
    whole = traced(
        Subject(
            "gigatok.models.tokenizer.base:build_tokenizer",
            (Input((3, image_size, image_size)),),
            (config, image_size),
            {"teacher_dim": teacher_dim, "teacher_grid": grid},
            training=True,
        )
    )
    kept = sum(layer.kept for layer in others)
    return Layer(
        whole.parameters - parameters(others),
        max(whole.flops - flops(others), 0),
        max(whole.kept - kept, 0),
    )
