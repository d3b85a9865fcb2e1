"""Base of generators: the interface to training, sampling and linear probes.

A generator predicts the codes of an image one after the other, given its class: [class, t_0, ...,
t_(T-2)] predicts t_0 ... t_(T-1). Of a quantizer with several codes per token, T counts all of
them (`gigatok.models.quantizers.base`).

B batch, T codes, V codebook_size, D channels of features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from gigatok.config import GeneratorArchitecture
from gigatok.config.kinds.generators import GENERATORS


class Generator(nn.Module, ABC):
    """Autoregressive model of an image's codes, given its class.

    Weights are drawn from torch's global generator, and from nothing else.

    Args:
        config: architecture, with the settings of its kind.
        codebook_size: size of the vocabulary.
        num_classes: classes; `null_class`, which stands for none of them, is the next index.
        num_tokens: codes per image.
        activation_checkpointing: recompute layers in the backward pass
            (`gigatok.models.recompute.run_layer`); an architecture without layers may ignore it.
    """

    def __init__(
        self,
        config: GeneratorArchitecture,
        codebook_size: int,
        num_classes: int,
        num_tokens: int,
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.codebook_size = codebook_size
        self.num_tokens = num_tokens
        self.null_class = num_classes
        self.activation_checkpointing = activation_checkpointing

    @property
    def depth(self) -> int:
        """Number of layers behind which `features` can be read."""
        return self.config.architecture.probed_layers(self.config)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Large parts that FSDP gathers and frees one by one; the rest stays together."""
        return ()

    @property
    def compiled_parts(self) -> Sequence[nn.Module]:
        """Modules that torch.compile takes one by one; without any it takes the whole model.

        Equal layers share what is compiled, so that a deep model does not take many minutes.
        """
        return self.blocks

    @abstractmethod
    def forward(self, codes_BT: Tensor, classes_B: Tensor) -> Tensor:
        """Compute teacher-forced logits (B, T, V): position t predicts `codes_BT[:, t]`.

        It must not read that code, nor any after it. In training it is to see the classes that
        `drop_classes` leaves.
        """

    @abstractmethod
    def features(self, codes_BT: Tensor, layer: int, classes_B: Tensor | None = None) -> Tensor:
        """Compute features (B, T, D) behind `layer`, counted from 1, without dropping classes.

        Args:
            codes_BT: codes of images.
            layer: from 1 to `depth`.
            classes_B: None: the null class, as linear probing wants it.
        """

    @abstractmethod
    def allocate_cache(self, batch_size: int) -> Any:
        """Make what drawing code by code keeps of the codes before; each call may change it."""

    def allocate_static_cache(self, batch_size: int) -> Any:
        """Make a cache with which `next_logits` takes its position as a tensor, int64 (1,).

        One graph then computes the codes of all positions and batches. Its property `tensors`
        lists what each call writes; `first_logits` fills it anew. None: there is no such cache.
        """
        return None

    @abstractmethod
    def first_logits(self, classes_B: Tensor, cache: Any) -> Tensor:
        """Compute logits (B, V) of code 0; drops no class."""

    @abstractmethod
    def next_logits(self, codes_B: Tensor, position: int, cache: Any) -> Tensor:
        """Compute logits (B, V) of code `position`, at least 1, given the code before it."""

    def drop_classes(self, classes_B: Tensor) -> Tensor:
        """Replace classes by the null class at random in training, which guidance needs."""
        if not self.training or self.config.class_dropout == 0:
            return classes_B
        uniform_B = torch.rand(classes_B.shape, device=classes_B.device)
        dropped_B = uniform_B < self.config.class_dropout
        return classes_B.masked_fill(dropped_B, self.null_class)

    def no_classes(self, codes_BT: Tensor) -> Tensor:
        """Return the null class for each image, (B,)."""
        return torch.full_like(codes_BT[:, 0], self.null_class)


def build_generator(
    config: GeneratorArchitecture,
    codebook_size: int,
    num_classes: int,
    num_tokens: int,
    **options: Any,
) -> Generator:
    """Build the generator that an architecture names, with fresh weights.

    Args:
        config: architecture.
        codebook_size: size of the vocabulary.
        num_classes: classes, without the null class.
        num_tokens: codes per image.
        options: further arguments of `Generator`.
    """
    kind: type[Generator] = resolve_name(GENERATORS[config.architecture.name].module)
    return kind(config, codebook_size, num_classes, num_tokens, **options)
