"""Samplers: one code per image from a generator's logits.

B batch, V codebook_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pkgutil import resolve_name

import torch
from torch import Tensor

from gigatok.config import SamplingConfig
from gigatok.config.kinds.samplers import SAMPLERS, MinPConfig

Sampler = Callable[[Tensor, SamplingConfig, torch.Generator], Tensor]
"""Function of logits (B, V), settings and a source of randomness to codes (B,)."""


def find_sampler(config: SamplingConfig) -> Sampler:
    """Import the function of the sampler that a config names."""
    sampler: Sampler = resolve_name(SAMPLERS[config.sampler.name].module)
    return sampler


def truncated(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    """Draw with a temperature, then top-k, then top-p. Returns (B,)."""
    logits_BV = filter_top_k(tempered(logits_BV, config), config.top_k)
    return draw(filter_top_p(logits_BV, config.top_p), rng)


def min_p(logits_BV: Tensor, config: SamplingConfig, rng: torch.Generator) -> Tensor:
    """Draw with a temperature among the codes that are likely enough. Returns (B,)."""
    assert isinstance(config.sampler, MinPConfig)
    return draw(filter_min_p(tempered(logits_BV, config), config.sampler.min_p), rng)


def tempered(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Divide logits by the temperature."""
    # float32: in half precision neighbouring probabilities fall together.
    return logits_BV.float() / config.temperature


def draw(logits_BV: Tensor, rng: torch.Generator) -> Tensor:
    """Sample one code per row: (B,).

    These are the codes of `torch.multinomial`, which also waits for the device to check its input.
    """
    # Of exponential times with rates p, the first is that of code v with probability p_v.
    times_BV = torch.empty_like(logits_BV).exponential_(generator=rng)
    return (logits_BV.softmax(-1) / times_BV).argmax(-1)


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


def filter_min_p(logits_BV: Tensor, fraction: float) -> Tensor:
    """Keep the codes whose probability is at least a fraction of the likeliest one's."""
    # p >= f p_max is l >= l_max + log f, without a softmax.
    least_B1 = logits_BV.amax(-1, keepdim=True) + math.log(fraction)
    return logits_BV.masked_fill(logits_BV < least_B1, -math.inf)
