"""Sampling of codes from a generator: guidance, and decoding with a KV cache.

B batch, T tokens, V codebook_size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gigatok.config import SamplingConfig
from gigatok.config.schedules import GUIDANCE_SCHEDULES
from gigatok.models.generator.base import Generator
from gigatok.models.generator.steps import Steps
from gigatok.scores.samplers import find_sampler


def guidance_scale(config: SamplingConfig, position: int, num_tokens: int) -> float:
    """Compute the scale of classifier-free guidance for one code, as `generate.py` does.

    That is the reference's script. Code 0 always has the full scale; code i has that of the
    schedule at r = i / (T - 1) in (0, 1].
    """
    # The first code comes with the class token's own pass, outside of the reference's schedule.
    if position == 0:
        return config.cfg_scale
    return GUIDANCE_SCHEDULES[config.cfg_schedule].scale(config, position / (num_tokens - 1))


def guide(logits_2BV: Tensor, scale: float) -> Tensor:
    """Extrapolate from logits without a class (second half) to those with it: (B, V)."""
    conditional_BV, unconditional_BV = logits_2BV.chunk(2)
    # u + s (c - u); a scale above 1 extrapolates.
    return torch.lerp(unconditional_BV, conditional_BV, scale)


@torch.inference_mode()
def generate(
    generator: Generator,
    classes_B: Tensor,
    config: SamplingConfig,
    rng: torch.Generator,
    num_tokens: int | None = None,
    *,
    greedy: bool = False,
    steps: Steps | None = None,
) -> Tensor:
    """Draw the codes of one image per class.

    Args:
        generator: in eval mode, or its dropouts are active.
        classes_B: class of each image.
        config: guidance and sampler; its counts of images are not read.
        rng: source of randomness, on the generator's device.
        num_tokens: codes per image; by default as many as the generator was built for.
        greedy: take the likeliest code instead of sampling.
        steps: those of the generator, to compile them once for many batches; by default not
            compiled.

    Returns:
        Codes (B, T), int64.
    """
    num_tokens = num_tokens or generator.num_tokens
    sampler, steps = find_sampler(config), steps or Steps(generator)
    guided = config.cfg_scale > 1
    copies = 2 if guided else 1
    # Both halves in one batch: the weights are read once for the two.
    if guided:
        classes_B = torch.cat([classes_B, torch.full_like(classes_B, generator.null_class)])
    logits = steps.first(classes_B)
    codes: list[Tensor] = []
    while True:
        if guided:
            # float32 first: the scale enlarges what is rounded.
            logits = guide(logits.float(), guidance_scale(config, len(codes), num_tokens))
        codes.append(logits.argmax(-1) if greedy else sampler(logits, config, rng))
        if len(codes) == num_tokens:
            return torch.stack(codes, dim=1)
        # Both halves go on with the same code.
        logits = steps.next(codes[-1].repeat(copies))
