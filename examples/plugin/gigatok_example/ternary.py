"""A quantizer's settings and cost: every channel becomes -1, 0 or 1. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.quantizers import (
    CodebookConfig,
    CodeShape,
    QuantizerConfig,
    QuantizerKind,
    register,
)
from gigatok.models.layers import Layer
from gigatok.models.quantizers.layout import QuantizerLayout


class TernaryConfig(QuantizerConfig):
    """Settings: in a sweep, `tokenizer.quantizer: {name: ternary, channels: 4}`."""

    name: Literal["ternary"]
    channels: Annotated[int, Field(ge=1, le=12)]

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        """Say how many codes there are, and how many channels their vectors have."""
        return CodeShape(vocabulary=3**self.channels, dim=self.channels)


def layout(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Describe what it costs: no parameters, no products; it keeps the bounded values."""
    return QuantizerLayout((Layer(kept=tokens * config.code_shape.dim),))


register(
    QuantizerKind(
        TernaryConfig,
        module=f"{__package__}.ternary_module:TernaryQuantizer",
        layout=f"{__name__}:layout",
        example={"channels": 3},  # with which `gigatok check` tries it
    )
)
