"""Base class of all configs, and transformer sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from gigatok.config.fields.identity import identity_text
from gigatok.config.fields.marks import RUNTIME, SAME_COST, marked

UnixTime = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""UNIX seconds before the year 10000; a larger number from a damaged file is no date."""
Fraction = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: immutable, refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        # NaN is not equal to itself, so no config with it would equal its copy from a file.
        allow_inf_nan=False,
        # Validators are built with the first object: most commands need few of a hundred types.
        defer_build=True,
    )
    decisive: ClassVar[tuple[str, ...]] = ()
    """Fields whose values make others `unread`."""

    @cached_property
    def cost_identity(self) -> str:
        """Text that configs of equal cost share: values that cost; of a loss, whether it is on."""
        kind = type(self)
        free = marked(kind, SAME_COST)
        values = {name: getattr(self, name) for name in kind.model_fields if name not in free}
        facts = {n: v > 0 if n.endswith("_weight") else v for n, v in values.items()}
        return f"{kind.__name__} {facts}"

    @cached_property
    def identity(self) -> str:
        """Canonical JSON of what differs from the defaults (`gigatok.config.fields.identity`).

        Kept with the config, since ten thousand trials of a plan share a few sections.
        """
        return identity_text(self, self.unread | self.told_elsewhere)

    @property
    def unread(self) -> frozenset[str]:
        """Names of fields that others make meaningless; keys leave them out.

        A sweep that sets one in vain is refused.
        """
        return frozenset()

    @property
    def told_elsewhere(self) -> frozenset[str]:
        """Names of fields that keys leave out as another field holds what they stand for."""
        return frozenset()

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add stand-ins for required fields that others among these values make meaningless."""
        return values

    def __copy__(self) -> Self:
        """Copy without the texts that are kept: `model_copy(update=...)` changes what they say."""
        copied = super().__copy__()
        for kept in ("identity", "cost_identity"):
            copied.__dict__.pop(kept, None)
        return copied


class TransformerSize(Config):
    """Width, depth and heads of a transformer, with a letter such as S or B (paper Table 1)."""

    # Run-time: a size given by its numbers is the same model as one given by its letter.
    name: Annotated[str, RUNTIME] = ""
    """Letter of the size, such as `B`; only a name."""
    width: PositiveInt
    """Channels of the residual stream."""
    layers: PositiveInt
    """Number of transformer layers."""
    # All published sizes have heads of 64 channels.
    heads: PositiveInt
    """Attention heads of each layer; they must divide `width`."""

    @property
    def label(self) -> str:
        """Letter of the size; width and layers if it has none."""
        return self.name or f"{self.width}x{self.layers}"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerSize:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


UNREAD_SIZE = TransformerSize(name="none", width=1, layers=1, heads=1)
"""Stand-in for a size that an architecture does not read, and that need not be given."""
