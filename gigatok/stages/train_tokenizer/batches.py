"""Batches of a tokenizer's training: pixels and the teacher's features of them.

B batch, H W image, P teacher cells, S teacher channels.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.data.image_sets import ImageSet, Int64
from gigatok.data.pictures import reconstruction_grid
from gigatok.data.splits import to_device, to_unit_range, training_batch
from gigatok.models.frozen.teachers import Teacher
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.stages.extract_teacher_features.run import TeacherFeatures
from gigatok.stages.train_tokenizer.cost import PICTURED_IMAGES
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig

Bools = npt.NDArray[np.bool_]
Pixels = tuple[npt.NDArray[np.uint8], Int64, Bools]
"""Pixels (B, H, W, 3), indices (B,) and mirroring (B,) of a part of a batch."""
T = TypeVar("T")


class SemanticTarget(Protocol):
    """Protocol of a source of teacher features."""

    @property
    def dim(self) -> int:
        """S, the number of channels."""

    @property
    def grid(self) -> int:
        """Side of the square of P cells."""

    def features(self, image_BCHW: Tensor, indices: Int64, flips: Bools) -> Tensor:
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

    def features(self, image_BCHW: Tensor, indices: Int64, flips: Bools) -> Tensor:
        """Read the features from the cache, (B, P, S) float16."""
        # First axis: 0 for the image, 1 for its mirror image. A mirrored map of features would not
        # do: the teacher is not symmetric.
        found = self.cache.features[flips.astype(int), indices]
        return to_device(found, image_BCHW.device.type)


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

    def features(self, image_BCHW: Tensor, indices: Int64, flips: Bools) -> Tensor:
        """Compute the features now, (B, P, S); on a GPU in fp16, as the reference does."""
        device = image_BCHW.device.type
        # Whatever the training's precision: the published targets were computed in fp16.
        mixed = nullcontext() if device == "cpu" else torch.autocast(device, torch.float16)
        with mixed:
            return self.teacher.features(image_BCHW)


class TokenizerBatches:
    """Batches of images and teacher features, each a pure function of (seed, step).

    While a batch is used, threads read and decode the next one.
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
        self._pixels = Ahead(self._read)

    def get(self, step: int, part: slice) -> tuple[Tensor, Tensor | None]:
        """Return images (B, 3, H, W) in [-1, 1] and teacher features (B, P, S), a micro-batch."""
        pixels, indices, flips = self._pixels.get(step, part)
        # (B, H, W, 3) as uint8 to the device, a quarter of the bytes of floats.
        image_BCHW = to_unit_range(to_device(pixels, self._device))
        if self._target is None:
            return image_BCHW, None
        return image_BCHW, self._target.features(image_BCHW, indices, flips)

    def _read(self, step: int, part: slice) -> Pixels:
        tokenizer, side = self._config.tokenizer, self._config.train.image_size
        seed, size = self._config.seed, tokenizer.batch_size
        return training_batch(self._images, side, tokenizer.augment, seed, step, size, part)

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


class Ahead(Generic[T]):
    """Computation of the next step's value in a thread while this step's is used.

    Args:
        compute: a pure function of a step and a part of its batch.
    """

    def __init__(self, compute: Callable[[int, slice], T]) -> None:
        self._compute = compute
        # One thread is enough: decoding itself is spread over all cores.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._pending: dict[tuple[int, int, int], Future[T]] = {}

    def get(self, step: int, part: slice) -> T:
        """Return `compute(step, part)`, and begin the same part of the next step."""
        pending = self._pending.pop((step, part.start, part.stop), None)
        # After a resume or a stop, values of other steps may be left; none is used twice.
        self._pending = {key: value for key, value in self._pending.items() if key[0] >= step}
        value = self._compute(step, part) if pending is None else pending.result()
        # A guess, which is right unless training stops: micro-batches are the same in every step.
        following = self._pool.submit(self._compute, step + 1, part)
        self._pending[step + 1, part.start, part.stop] = following
        return value
