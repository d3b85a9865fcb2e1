"""Costs of the extra losses, which are traced. Imports no torch."""

from __future__ import annotations

from gigatok.config import TokenizerConfig
from gigatok.models.traced import Input, Subject, Traced, traced


def extra_losses_costs(config: TokenizerConfig, image_size: int) -> tuple[Traced, ...]:
    """Measure each extra loss of a tokenizer, per image; Fourier transforms count no FLOPs.

    Raises:
        TraceError: one cannot be built or run.
    """
    image = (3, image_size, image_size)
    inputs: tuple[Input, ...] = (Input(image, gradient=True), Input(image))
    if "shortcut_end" in config.architecture.reads:
        side = image_size // config.cnn.downsampling
        inputs += (Input((config.cnn.z_channels, side, side), gradient=True),) * 2
    build = "gigatok.models.losses.base:OfTensors"
    return tuple(
        traced(Subject(build, inputs, (one,), training=True)) for one in config.extra_losses
    )
