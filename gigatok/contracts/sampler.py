"""Contract of a sampler: what the drawing of images relies on.

B batch, V codebook_size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gigatok.config import SamplingConfig
from gigatok.config.kinds.samplers import PUBLISHED, SHARED, SamplerKind
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.scores.samplers import find_sampler

BATCH, VOCABULARY = 64, 50
# Each with another value than its default.
CHANGES = {"temperature": 0.7, "top_k": 3, "top_p": 0.5}


def broken_promises(kind: SamplerKind) -> list[str]:
    """List what a sampler does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"sampler {kind.name}")


def smoke(kind: SamplerKind) -> SmokeTrial:
    """Sample with it."""
    sampler = {"name": kind.name, **kind.example}
    return SmokeTrial(stages=("evaluate_generation",), settings={"sampling.sampler": sampler})


def sampling(kind: SamplerKind, **changes: float) -> SamplingConfig:
    """Make settings with the sampler's example."""
    sampler = {"name": kind.name, **kind.example}
    return SamplingConfig.model_validate({"num_images": 4, "sampler": sampler, **changes})


def logits(seed: int = 0) -> Tensor:
    """Draw logits, (B, V), of some unit and some large scale."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, VOCABULARY, generator=random) * torch.linspace(0, 20, BATCH)[:, None]


def drawn(config: SamplingConfig, logits_BV: Tensor, seed: int = 1) -> Tensor:
    """Draw codes, (B,)."""
    return find_sampler(config)(logits_BV, config, torch.Generator().manual_seed(seed))


def settings(kind: SamplerKind) -> Iterator[str]:
    """Check that settings survive being written, and set keys apart from the default's."""
    config = sampling(kind)
    if SamplingConfig.model_validate(config.model_dump(mode="json")) != config:
        yield "its settings are others after they were written and read"
    if kind.name != PUBLISHED.name and '"sampler":' not in config.identity:
        yield "keys do not hold its name; a sampler's config must not give `name` a default"


def codes(kind: SamplerKind) -> Iterator[str]:
    """Check number, type and range of codes, for logits of all kinds."""
    config = sampling(kind)
    one = torch.full((BATCH, VOCABULARY), -math.inf)
    one[:, 7] = 0.0
    for what, logits_BV in (
        ("drawn logits", logits()),
        ("equal logits", torch.zeros(BATCH, VOCABULARY)),
        ("logits in bfloat16", logits().bfloat16()),
        ("a single image", logits()[:1]),
        ("a codebook of one code", torch.zeros(BATCH, 1)),
        ("logits of which one is finite", one),
    ):
        found, (batch, vocabulary) = drawn(config, logits_BV), logits_BV.shape
        if found.shape != (batch,) or found.dtype != torch.int64:
            yield (
                f"{what}: codes are {found.dtype} {tuple(found.shape)}; they must be int64 "
                f"({batch},)"
            )
        elif not 0 <= found.min() <= found.max() < vocabulary:
            yield (
                f"{what}: codes lie in {found.min()} to {found.max()}; allowed are 0 to "
                f"{vocabulary - 1}"
            )
        elif logits_BV is one and (found != 7).any():
            yield "it draws codes whose probability is 0"


def determinism(kind: SamplerKind) -> Iterator[str]:
    """Check that logits, settings and the given source of randomness decide alone."""
    config, logits_BV = sampling(kind), logits()
    torch.manual_seed(2)
    first = drawn(config, logits_BV)
    torch.manual_seed(3)
    if not torch.equal(first, drawn(config, logits_BV)):
        yield "it draws other codes from the same seed; take all randomness from the given rng"
    if not torch.equal(logits_BV, logits()):
        yield "it changes the logits that it is given"


def independence(kind: SamplerKind) -> Iterator[str]:
    """Check that the code of an image does not hang on the other images of its batch."""
    config = sampling(kind)
    mixed_BV = logits(seed=5)
    mixed_BV[0] = logits()[0]
    # Row 0 is of equal logits, so that any change of its probabilities shows in some draw.
    seeds = range(20)
    alone = [int(drawn(config, logits(), seed)[0]) for seed in seeds]
    if alone != [int(drawn(config, mixed_BV, seed)[0]) for seed in seeds]:
        yield "the code of an image depends on the logits of others in its batch"


def reading(kind: SamplerKind) -> Iterator[str]:
    """Check that it reads none of the shared settings but those that its config names."""
    plain = drawn(sampling(kind), logits())
    for name in sorted(SHARED - kind.config.reads):
        if not torch.equal(drawn(sampling(kind, **{name: CHANGES[name]}), logits()), plain):
            yield f"it reads {name}, which keys leave out; add it to `reads` of its config"


CHECKS: tuple[Check, ...] = (settings, codes, determinism, independence, reading)
