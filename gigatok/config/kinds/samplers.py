"""Samplers by name: how a code is drawn from a generator's logits, with their settings.

`register` is the door for samplers from outside; those in this file come through it too. No
torch: planning reads this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gigatok.config.fields.open_union import NamedConfig, NamedKind, add_kind
from gigatok.plugins import Registry, registry

SHARED = frozenset({"temperature", "top_k", "top_p"})
"""Settings of `sampling` that belong to samplers; those came before samplers had a name."""


class SamplerConfig(NamedConfig):
    """Settings of one kind of sampler, besides those that it reads of `sampling`."""

    reads: ClassVar[frozenset[str]] = SHARED
    """Which of `SHARED` it reads; keys leave out the others."""


@dataclass(frozen=True)
class SamplerKind(NamedKind[SamplerConfig]):
    """Sampler that a trial can name.

    Attributes:
        config: its settings, whose `name` is the value of `sampling.sampler.name`.
        module: `package.module:function`, imported when images are drawn. The function takes
            logits (B, V), the `SamplingConfig` and a `torch.Generator` on their device, and
            returns codes (B,), int64.
        example: settings beside `name` with which the contract is checked
            (`gigatok.contracts.sampler`): all required ones.
    """


SAMPLERS: Registry[SamplerKind] = registry("sampler")
"""Every sampler that `sampling.sampler` may name."""


def register(kind: SamplerKind) -> SamplerKind:
    """Add a sampler, and return it.

    Raises:
        ValueError: another sampler has the name, or its name has a default.
    """
    return add_kind(SAMPLERS, kind)


class TruncatedConfig(SamplerConfig):
    """Temperature, then the `top_k` likeliest codes, then the mass `top_p` of these."""

    name: Literal["truncated"]
    """Kind of sampler."""


class MinPConfig(SamplerConfig):
    """Min-p sampling: codes at least so likely, relative to the likeliest (arXiv 2407.01082)."""

    name: Literal["min_p"]
    """Kind of sampler."""
    # The paper recommends 0.05 to 0.1.
    min_p: Annotated[float, Field(gt=0, le=1)]
    """Least probability of a code that is drawn, as a fraction of the likeliest one's."""

    reads: ClassVar[frozenset[str]] = frozenset({"temperature"})


PUBLISHED = TruncatedConfig(name="truncated")
"""Sampler of the published scores, and the default."""

register(SamplerKind(TruncatedConfig, "gigatok.scores.samplers:truncated"))
register(SamplerKind(MinPConfig, "gigatok.scores.samplers:min_p", example={"min_p": 0.1}))
