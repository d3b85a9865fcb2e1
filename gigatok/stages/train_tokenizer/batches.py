"""Batches of a tokenizer's training: pixels and the teacher's features of them.

B batch, H W image, P teacher cells, S teacher channels.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.data.image_sets import ImageSet, Int64
from gigatok.data.pictures import reconstruction_grid
from gigatok.data.splits import on_host, to_device, to_unit_range, training_batch
from gigatok.models.frozen.teachers import Teacher
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.stages.extract_teacher_features.run import TeacherFeatures
from gigatok.stages.train_tokenizer.cost import PICTURED_IMAGES
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.ahead import Ahead

Bools = npt.NDArray[np.bool_]


class Prepared(NamedTuple):
    """Part of a batch that is read and ready to be copied to the device."""

    pixels_BHWC: Tensor
    """uint8: a quarter of the bytes of floats."""
    cached_BPS: Tensor | None
    """Features that the target had in its cache; None: it computes them of the images."""


class SemanticTarget(Protocol):
    """Protocol of a source of teacher features."""

    @property
    def dim(self) -> int:
        """S, the number of channels."""

    @property
    def grid(self) -> int:
        """Side of the square of P cells."""

    def read(self, indices: Int64, flips: Bools) -> npt.NDArray[np.float16] | None:
        """Read features (B, P, S), ahead of the step; None: there is nothing to read."""

    def features(self, image_BCHW: Tensor, cached_BPS: Tensor | None) -> Tensor:
        """Return the features of images (B, 3, H, W) as (B, P, S), on the device of the images."""


@dataclass(frozen=True)
class CachedTarget:
    """Features that a stage computed once for every image and its mirror image."""

    cache: TeacherFeatures

    @property
    def dim(self) -> int:
        """S, the number of channels."""
        return self.cache.dim

    @property
    def grid(self) -> int:
        """Side of the square of P cells."""
        return self.cache.grid

    def read(self, indices: Int64, flips: Bools) -> npt.NDArray[np.float16]:
        """Read the features from the cache, (B, P, S)."""
        # First axis: 0 for the image, 1 for its mirror image. A mirrored map of features would not
        # do: the teacher is not symmetric.
        found: npt.NDArray[np.float16] = self.cache.features[flips.astype(int), indices]
        return found

    def features(self, image_BCHW: Tensor, cached_BPS: Tensor | None) -> Tensor:
        """Return what was read."""
        assert cached_BPS is not None, "all images are in the cache"
        return cached_BPS


@dataclass(frozen=True)
class OnlineTarget:
    """Teacher that is run on each batch: for random crops, or a set too large for a cache."""

    teacher: Teacher

    @property
    def dim(self) -> int:
        """S, the number of channels."""
        return self.teacher.dim

    @property
    def grid(self) -> int:
        """Side of the square of P cells."""
        return self.teacher.grid

    def read(self, indices: Int64, flips: Bools) -> None:
        """Read nothing."""

    def features(self, image_BCHW: Tensor, cached_BPS: Tensor | None) -> Tensor:
        """Compute the features now, (B, P, S); on a GPU in fp16, as the reference does."""
        device = image_BCHW.device.type
        # Whatever the training's precision: the published targets were computed in fp16.
        half = device != "cpu" and torch.amp.is_autocast_available(device)
        with torch.autocast(device, torch.float16) if half else nullcontext():
            return self.teacher.features(image_BCHW)


class TokenizerBatches:
    """Batches of images and teacher features, each a pure function of (seed, step).

    While a batch is used, threads read and decode the next one and pin its memory, so that no
    step waits for a copy.
    """

    def __init__(
        self,
        config: TrainTokenizerConfig,
        images: ImageSet,
        target: SemanticTarget | None,
        device: str,
    ) -> None:
        self._config = config
        self._images = images
        self._target = target
        self._device = device
        self._ahead = Ahead(self._read)

    def get(self, step: int, part: slice) -> tuple[Tensor, Tensor | None]:
        """Return images (B, 3, H, W) in [-1, 1] and teacher features (B, P, S), a micro-batch."""
        prepared = self._ahead.get(step, part)
        image_BCHW = to_unit_range(to_device(prepared.pixels_BHWC, self._device))
        if self._target is None:
            return image_BCHW, None
        cached = prepared.cached_BPS
        cached_BPS = None if cached is None else to_device(cached, self._device)
        return image_BCHW, self._target.features(image_BCHW, cached_BPS)

    def _read(self, step: int, part: slice) -> Prepared:
        tokenizer, side = self._config.tokenizer, self._config.train.image_size
        seed, size = self._config.seed, tokenizer.batch_size
        pixels, indices, flips = training_batch(
            self._images, side, tokenizer.augment, seed, step, size, part
        )
        cached = None if self._target is None else self._target.read(indices, flips)
        return Prepared(
            on_host(pixels, self._device),
            None if cached is None else on_host(cached, self._device),
        )

    def first(self, count: int) -> Tensor:
        """Return the centre crops of the first images of the split, (B, 3, H, W), not flipped."""
        indices = np.arange(min(count, len(self._images)))
        return to_unit_range(to_device(self._images.centred(indices), self._device))

    def picture(self, tokenizer: Tokenizer) -> np.ndarray:
        """Draw eight training images above their reconstructions."""
        originals = self.first(PICTURED_IMAGES)
        # No inference mode: what a module keeps for later, training goes on with.
        with torch.no_grad():
            return reconstruction_grid(originals, tokenizer.decode(tokenizer.encode(originals)))
