"""Architecture of a tokenizer: which kind, which settings, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from gigatok.config.fields.base import UNREAD_SIZE
from gigatok.config.fields.marks import COMPUTES
from gigatok.config.fields.open_union import OneOf
from gigatok.config.kinds.quantizers import CodebookConfig
from gigatok.config.kinds.teachers import TeacherCost, teacher_cost, unread_name
from gigatok.config.kinds.tokenizers import (
    OF_SOME,
    PUBLISHED,
    TOKENIZERS,
    ProbedFeatures,
    TokenizerKindConfig,
    TokenizerSettings,
    reads_of,
)


class TokenizerArchitecture(TokenizerSettings):
    """Architecture of a tokenizer; the defaults are the published recipe (paper Table 9).

    `architecture` names the kind; each says which of the other fields it reads.
    """

    decisive: ClassVar[tuple[str, ...]] = ("architecture", "quantizer")
    architecture: Annotated[TokenizerKindConfig, OneOf(TOKENIZERS), COMPUTES] = PUBLISHED
    """Architecture by name, with its settings; those of the published one are keys beside it."""

    @property
    def name(self) -> str:
        """Name as in the paper, encoder-decoder, such as `S-B`; that of other architectures."""
        return self.architecture.label_of(self)

    @property
    def vocabulary(self) -> int:
        """Values that a code can have."""
        return self.code_shape.vocabulary

    @property
    def restart_codes_every(self) -> int:
        """Steps between restarts of unused codes; 0: the quantizer has none, or they are off."""
        return self.dead_code_restart_every if self.has_codebook else 0

    @property
    def has_codebook(self) -> bool:
        """Tell whether the quantizer learns its codes, so that they are drawn and restarted."""
        return "dead_code_restart_every" in self.quantizer.reads

    @property
    def unread(self) -> frozenset[str]:
        """Settings that this architecture or this quantizer does not read."""
        codebook = frozenset(CodebookConfig.model_fields) - self.quantizer.reads
        return codebook | (OF_SOME - self.architecture.reads)

    @property
    def told_elsewhere(self) -> frozenset[str]:
        """Path of a teacher, whose content was found."""
        return unread_name(self.teacher)

    @property
    def teacher_cost(self) -> TeacherCost:
        """Features and costs of the teacher."""
        return teacher_cost(self.teacher, self.found_teacher)

    def sequence_length(self, image_size: int) -> int:
        """Count the codes of an image: those of all its tokens."""
        return self.tokens_per_image(image_size) * self.code_shape.depth

    def bits_per_image(self, image_size: int) -> float:
        """Count the bits that name an image's codes."""
        return self.sequence_length(image_size) * math.log2(self.vocabulary)

    def tokens_per_image(self, image_size: int) -> int:
        """Count the tokens of an image, such as latent tokens or grid cells."""
        return self.architecture.tokens_per_image(self, image_size)

    def probed_width(self, features: ProbedFeatures) -> int:
        """Count the channels of the features that a linear probe reads.

        Raises:
            ValueError: the architecture has no such features.
        """
        return self.architecture.probed_width(self, features)

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put `UNREAD_SIZE` for sizes that the architecture does not read, and no teacher."""
        reads = reads_of(values.get("architecture", PUBLISHED))
        unread = {"encoder": UNREAD_SIZE, "decoder": UNREAD_SIZE, "semantic_weight": 0.0}
        return {**{key: value for key, value in unread.items() if key not in reads}, **values}

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        return cls.completed(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> TokenizerArchitecture:
        if self.semantic_weight > 0 and "semantic_weight" not in self.architecture.reads:
            raise ValueError(
                f"semantic_weight {self.semantic_weight:g} needs features that a teacher can "
                f"regularise, which architecture {self.architecture.name} does not have; give 0"
            )
        self.architecture.check(self)
        if self.semantic_weight > 0 and self.teacher == "none":
            raise ValueError("semantic_weight > 0 needs a teacher; teacher is 'none'")
        return self
