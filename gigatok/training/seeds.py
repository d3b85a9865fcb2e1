"""Seeds of everything random in training and sampling."""

from __future__ import annotations

from typing import Literal, get_args

Stream = Literal["step", "weights", "codebook", "views", "sampling", "probe", "tuning"]
"""Kinds of random numbers; their order is part of every result."""
_STREAMS = {name: number for number, name in enumerate(get_args(Stream))}


def step_seed(seed: int, step: int, stream: Stream, rank: int = 0) -> int:
    """Derive the seed of one kind of random numbers in one step; streams are independent.

    Every rank draws dropout and the like from a stream of its own, so the masks of the slices of a
    batch are independent. With such layers, training on another number of processes is another
    draw; without them it computes the same up to rounding. Rank 0's stream is that of a single
    process.
    """
    # Odd constants, as mixers such as SplitMix64 have. Torch's CPU generator reads the low 32
    # bits, so these must change with each argument.
    words = (seed * 0x9E3779B97F4A7C15, step * 0xBF58476D1CE4E5B9, _STREAMS[stream] * 0x94D049BB)
    return (sum(words) + rank * 0xD6E8FEB86659FD93) % 2**63
