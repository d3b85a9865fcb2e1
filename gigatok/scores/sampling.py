"""Sampling of codes from a generator: guidance schedules, filters, decoding with a KV cache.

B batch, T tokens, V codebook_size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gigatok.config import SamplingConfig
from gigatok.models.generator.base import Generator


def guidance_scale(config: SamplingConfig, position: int, num_tokens: int) -> float:
    """Compute the scale of classifier-free guidance for one code, as `generate.py` does.

    That is the reference's script. Code 0 always has the full scale s. Code i has r = i / (T - 1)
    in (0, 1] and

    * constant: s
    * step: s if r >= `cfg_start`, else 1
    * linear: 1 + (s - 1) r
    * cosine: 1 + (s - 1) (1 - cos(pi r)) / 2, which leaves 1 and reaches s slowly. It is our own:
      the reference names a cosine schedule, but its code does not run.
    """
    full = config.cfg_scale
    # The first code comes with the class token's own pass, outside of the reference's schedule.
    if position == 0 or config.cfg_schedule == "constant":
        return full
    ratio = position / (num_tokens - 1)
    match config.cfg_schedule:
        case "step":
            return full if ratio >= config.cfg_start else 1.0
        case "linear":
            return 1 + (full - 1) * ratio
        case "cosine":
            return 1 + (full - 1) * (1 - math.cos(math.pi * ratio)) / 2


def guide(logits_2BV: Tensor, scale: float) -> Tensor:
    """Extrapolate from logits without a class (second half) to those with it: (B, V)."""
    conditional_BV, unconditional_BV = logits_2BV.chunk(2)
    # u + s (c - u); a scale above 1 extrapolates.
    return torch.lerp(unconditional_BV, conditional_BV, scale)


def filter_top_k(logits_BV: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` largest logits of each row, and ties with the last; 0 keeps all."""
    if top_k == 0 or top_k >= logits_BV.shape[-1]:
        return logits_BV
    smallest_B1 = logits_BV.topk(top_k).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < smallest_B1, -math.inf)


def filter_top_p(logits_BV: Tensor, top_p: float) -> Tensor:
    """Keep the fewest most likely codes whose probabilities sum to more than `top_p`."""
    if top_p >= 1:
        return logits_BV
    sorted_BV, order_BV = logits_BV.sort(descending=True)
    probability_BV = sorted_BV.softmax(-1)
    # The sum before a code decides, so the likeliest code is always kept.
    dropped_sorted_BV = probability_BV.cumsum(-1) - probability_BV > top_p
    dropped_BV = dropped_sorted_BV.scatter(-1, order_BV, dropped_sorted_BV)
    return logits_BV.masked_fill(dropped_BV, -math.inf)


def draw(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    """Sample one code per row: temperature, then top-k, then top-p. Returns (B,)."""
    # float32: in half precision neighbouring probabilities fall together.
    logits_BV = filter_top_k(logits_BV.float() / config.temperature, config.top_k)
    probabilities_BV = filter_top_p(logits_BV, config.top_p).softmax(-1)
    return torch.multinomial(probabilities_BV, 1, generator=rng).squeeze(1)


@torch.inference_mode()
def generate(
    generator: Generator,
    classes_B: Tensor,
    config: SamplingConfig,
    rng: torch.Generator,
    num_tokens: int | None = None,
    *,
    greedy: bool = False,
) -> Tensor:
    """Draw the codes of one image per class.

    Args:
        generator: in eval mode, or its dropouts are active.
        classes_B: class of each image.
        config: guidance and filters; its counts of images are not read.
        rng: source of randomness, on the generator's device.
        num_tokens: codes per image; by default as many as the generator was built for.
        greedy: take the likeliest code instead of sampling.

    Returns:
        Codes (B, T), int64.
    """
    num_tokens = num_tokens or generator.num_tokens
    guided = config.cfg_scale > 1
    copies = 2 if guided else 1
    cache = generator.allocate_cache(copies * len(classes_B))
    # Both halves in one batch: the weights are read once for the two.
    if guided:
        classes_B = torch.cat([classes_B, torch.full_like(classes_B, generator.null_class)])
    logits = generator.first_logits(classes_B, cache)
    codes: list[Tensor] = []
    while True:
        if guided:
            logits = guide(logits, guidance_scale(config, len(codes), num_tokens))
        codes.append(logits.argmax(-1) if greedy else draw(logits, config, rng))
        if len(codes) == num_tokens:
            return torch.stack(codes, dim=1)
        # Both halves go on with the same code.
        logits = generator.next_logits(codes[-1].repeat(copies), len(codes), cache)
