"""Peak memory of training steps: what their tensors take.

That is parameters, gradients, the optimizer's moments, averages, and what eager autograd keeps for
the backward pass. The peak is looked for along the backward pass, in which kept values go as
gradients come. The allocator's waste, compilers and a process's own memory are not in it. Mixed
precision keeps many values in half the bytes; it is counted as fp32, which is an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gigatok.config import GeneratorConfig, TokenizerConfig, TrainingConfig
from gigatok.costs.optimizers import ADAM_MOMENTS, optimizer_costs
from gigatok.models.frozen.layout import lpips_layer
from gigatok.models.generator.layout import generator_layout
from gigatok.models.judges.layout import judge_layout
from gigatok.models.layers import Layer, Layers, parameters
from gigatok.models.losses.layout import extra_losses_costs
from gigatok.models.tokenizer.layout import tokenizer_layout

FLOAT = 4
"""Bytes."""


def generator_training_memory(
    config: GeneratorConfig, codebook_size: int, num_classes: int, num_tokens: int, world: int = 1
) -> int:
    """Estimate the peak bytes per device of a step of `train_generator`."""
    layout = generator_layout(config, codebook_size, num_classes, num_tokens)
    return training_memory(config, layout, world)


def tokenizer_training_memory(
    config: TokenizerConfig, image_size: int, world: int = 1, *, cached_teacher: bool = False
) -> int:
    """Estimate the peak bytes per device of a step of `train_tokenizer`, with all its losses."""
    layers = tokenizer_layout(config, image_size).total
    judge = judge_layout(config.discriminator, image_size)
    frozen = parameters(judge.frozen) + judge.workspace
    if config.perceptual_weight > 0:
        lpips = lpips_layer(config.perceptual_network, image_size, image_size)
        layers += (replace(lpips, parameters=0),)
        frozen += lpips.parameters
    for loss in extra_losses_costs(config, image_size):
        layers += (replace(loss.layer(), parameters=0),)
        frozen += loss.parameters
    if config.semantic_weight > 0 and not cached_teacher:
        frozen += config.teacher_cost.parameters
    window = 3 * config.usage_window  # of codes, and its copies when it moves
    always = FLOAT * (frozen + window)
    if config.discriminator == "none":
        return training_memory(config, layers, world, always)
    # The judge's parameters, moments and gradients, which stay while the tokenizer has its turn.
    always += FLOAT * (1 + ADAM_MOMENTS + 1) * judge.parameters
    own = training_memory(config, (*layers, judge.watched), world, always)
    # In the judge's own turn it sees image and reconstruction; the tokenizer's gradients stay.
    # 6: two images of 3 colours.
    shown = Layer(kept=2 * judge.watched.kept + 6 * image_size**2, scratch=judge.scratch)
    turn = backward_peak([shown], -(-config.batch_size // world), accumulates=False)
    # Weights, moments and averages, and the tokenizer's gradients.
    resting = _held(config, layers) + parameters(layers)
    return max(own, FLOAT * (resting + turn) + always)


def training_memory(
    config: TrainingConfig, layers: Layers, world: int = 1, always: int = 0
) -> int:
    """Estimate the peak bytes per device of one model's part of a step.

    Args:
        config: batch size, micro-batch, averages, activation checkpointing, sharding.
        layers: of the model and its losses.
        world: processes that share the batch, and with fsdp the model.
        always: bytes that are there all the time.
    """
    share = -(-config.batch_size // world)
    images = min(config.micro_batch or share, share)
    if config.activation_checkpointing:
        layers = tuple(map(_recomputed, layers))
    total, held = parameters(layers), _held(config, layers)
    if config.parallel == "fsdp" and world > 1:
        # Each process holds a part of all copies and gradients, and two layers as a whole.
        whole = 2 * max(layer.parameters for layer in layers)
        bare = [replace(layer, parameters=0) for layer in layers]
        peak = whole + images * backward_peak(bare, 1, accumulates=False)
        return FLOAT * ((held + total) // world + peak) + always
    peak = backward_peak(layers, images, accumulates=share > images)
    return FLOAT * (held + peak) + always


def backward_peak(layers: Sequence[Layer], images: int, *, accumulates: bool) -> int:
    """Find the most values at once in a backward pass, parameters left out.

    Args:
        layers: in the order of the forward pass.
        images: of a micro-batch.
        accumulates: gradients of an earlier micro-batch are there already.
    """
    total = parameters(layers)
    kept, gradients, peak = images * sum(layer.kept for layer in layers), 0, 0
    for layer in reversed(layers):
        gradients += layer.parameters
        # A gradient that is added to another exists twice for a moment: at most a layer's.
        there = total + layer.parameters if accumulates else gradients
        peak = max(peak, kept + there + images * layer.scratch)
        kept -= images * layer.kept
    return peak


def _held(config: TrainingConfig, layers: Layers) -> int:
    """Count the values between two steps: parameters, averages, moments."""
    averages = config.ema_decay > 0
    return (1 + averages) * parameters(layers) + optimizer_costs(config, layers).moments


def _recomputed(layer: Layer) -> Layer:
    """Checkpoint a layer that has a stream: what it keeps comes back in its turn."""
    if layer.stream == 0:
        return layer
    scratch = layer.scratch + layer.kept - layer.stream
    return replace(layer, kept=layer.stream, scratch=scratch)
