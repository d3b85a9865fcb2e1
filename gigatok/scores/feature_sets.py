"""Features of an image set, gathered while the images stream by.

Shapes: N images, D pooled channels, E spatial features. What is held of 50,000 images are their
pooled features as float32 (410 MB, less where they live in a file) and running moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gigatok.data.crops import UInt8
from gigatok.files.durable import write_durably
from gigatok.models.features import FeatureNetwork
from gigatok.scores.gaussians import Features, Gaussian, Moments

BATCH = 32
"""Images per forward pass; no effect on features beyond rounding."""
_POOL, _SPATIAL = "features.npy", "spatial.npz"


@dataclass(frozen=True)
class FeatureSet:
    """What metrics compare of a set of images.

    Attributes:
        pool: pooled features, (N, D); of a saved set a memory map. None if there are only
            statistics.
        spatial: Gaussian of the spatial features; None if the network has none.
        gaussian: Gaussian of the pooled features where it is not that of `pool`: reference
            statistics over more images.
    """

    pool: Features | None
    spatial: Gaussian | None
    gaussian: Gaussian | None = None

    def pooled_gaussian(self) -> Gaussian:
        """Gaussian of the pooled features."""
        if self.gaussian is not None:
            return self.gaussian
        assert self.pool is not None, "a set has images or statistics"
        return Gaussian.of(self.pool)

    def save(self, folder: Path) -> None:
        """Write `features.npy`, and `spatial.npz` if there are spatial features."""
        pool = self.pool
        assert pool is not None, "statistics without images have a file already"
        write_durably(folder / _POOL, lambda path: _save_array(path, pool))
        if self.spatial is not None:
            write_durably(folder / _SPATIAL, self.spatial.save)

    @staticmethod
    def load(folder: Path) -> FeatureSet:
        """Read what `save` wrote."""
        spatial = folder / _SPATIAL
        return FeatureSet(
            np.load(folder / _POOL, mmap_mode="r"),
            Gaussian.load(spatial) if spatial.is_file() else None,
        )


class FeatureStream:
    """Takes in an image set batch by batch and keeps its features.

    Args:
        network: computes them.
        count: N, images in all.
    """

    def __init__(self, network: FeatureNetwork, count: int) -> None:
        self._network, self._count, self._done = network, count, 0
        self._pool: Features = np.empty((0, 0), np.float32)
        self.moments: Moments | None = None
        """Of the spatial features; None if the network has none."""

    @torch.inference_mode()
    def add(self, images: UInt8) -> None:
        """Take in images (B, H, W, 3)."""
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
            pool, spatial = self._network.apply(batch.permute(0, 3, 1, 2))
            self._keep(pool.float().cpu().numpy())
            if spatial is not None:
                self.moments = self.moments or Moments()
                self.moments.add(spatial.float().cpu().numpy())

    def _keep(self, pool: Features) -> None:
        if self._done == 0:
            self._pool = np.empty((self._count, pool.shape[1]), np.float32)
        self._pool[self._done : self._done + len(pool)] = pool
        self._done += len(pool)

    @property
    def pool(self) -> Features:
        """Pooled features of all images, (N, D)."""
        assert self._done == self._count, f"{self._done} of {self._count} images"
        return self._pool

    def result(self) -> FeatureSet:
        """Features of all images."""
        return FeatureSet(self.pool, None if self.moments is None else self.moments.gaussian())


def _save_array(path: Path, array: npt.NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        np.save(file, array)
