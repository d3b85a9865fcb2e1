"""Features of an image set, gathered while the images stream by.

Shapes: N images, D pooled channels, E spatial features. Of 50,000 images, the pooled features are
kept as float32 (410 MB, less if they live in a file), and running moments of the spatial ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gigatok.data.crops import UInt8
from gigatok.files.durable import write_array_durably, write_durably
from gigatok.models.frozen.features import FeatureNetwork
from gigatok.scores.gaussians import Features, Gaussian, Moments

BATCH = 32
"""Images per forward pass; no effect on features beyond rounding."""
_POOL, _SPATIAL = "features.npy", "spatial.npz"


@dataclass(frozen=True)
class FeatureSet:
    """Features of an image set, as metrics compare them.

    Attributes:
        pool: pooled features, (N, D); a memory map if the set was saved. None if there are only
            statistics.
        spatial: Gaussian of the spatial features; None if the network has none.
        gaussian: Gaussian of the pooled features if it is not that of `pool`: reference statistics
            over more images.
    """

    pool: Features | None
    spatial: Gaussian | None
    gaussian: Gaussian | None = None

    def pooled_gaussian(self) -> Gaussian:
        """Return the Gaussian of the pooled features."""
        # A published file may hold statistics of all images, and only some of the images.
        if self.gaussian is not None:
            return self.gaussian
        assert self.pool is not None, "a set has images or statistics"
        return Gaussian.of(self.pool)

    def save(self, folder: Path) -> None:
        """Write `features.npy`, and `spatial.npz` if there are spatial features."""
        assert self.pool is not None, "statistics without images have a file already"
        write_array_durably(folder / _POOL, self.pool)
        if self.spatial is not None:
            write_durably(folder / _SPATIAL, self.spatial.save)

    @staticmethod
    def load(folder: Path) -> FeatureSet:
        """Read features that `save` wrote."""
        spatial = folder / _SPATIAL
        return FeatureSet(
            # Mapped: KID and precision read parts, and several stages share the file's pages.
            np.load(folder / _POOL, mmap_mode="r"),
            Gaussian.load(spatial) if spatial.is_file() else None,
        )


class FeatureStream:
    """Collector of an image set's features, batch by batch.

    Args:
        network: the network that computes the features.
        count: N, the number of all images.
    """

    def __init__(self, network: FeatureNetwork, count: int) -> None:
        self._network, self._count, self._done = network, count, 0
        self._pool: Features = np.empty((0, 0), np.float32)
        self.moments: Moments | None = None
        """Moments of the spatial features; None if the network has none."""

    @torch.inference_mode()
    def add(self, images: UInt8) -> None:
        """Take in images (B, H, W, 3)."""
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
            # As uint8: each network has its own way of resizing and scaling.
            pool, spatial = self._network.apply(batch.permute(0, 3, 1, 2))
            self._keep(pool.float().cpu().numpy())
            if spatial is not None:
                self.moments = self.moments or Moments()
                self.moments.add(spatial.float().cpu().numpy())

    def _keep(self, pool: Features) -> None:
        if self._done == 0:
            # Allocated with the first features, whose width the network only then shows.
            self._pool = np.empty((self._count, pool.shape[1]), np.float32)
        # Into a place made beforehand: joining parts at the end would take the memory twice.
        self._pool[self._done : self._done + len(pool)] = pool
        self._done += len(pool)

    @property
    def pool(self) -> Features:
        """Pooled features of all images, (N, D)."""
        # Rows that were never filled hold whatever lay in memory.
        assert self._done == self._count, f"{self._done} of {self._count} images"
        return self._pool

    def result(self) -> FeatureSet:
        """Return the features of all images."""
        return FeatureSet(self.pool, None if self.moments is None else self.moments.gaussian())
