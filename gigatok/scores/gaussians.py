"""Gaussians fitted to features that come in parts, and the Fréchet distance of two (FID).

Shapes: N images, D feature channels. A covariance C is kept as a root R with R'R = C. Roots can be
summed part by part as exactly as covariances, need no full rank, and make the distance real.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

_ROUNDING = 1e-3
"""Largest negative variance, relative to the largest variance, that float32 may cause."""
_PART = 2048
"""Images whose float64 copy is held at once."""


@dataclass(frozen=True)
class Gaussian:
    """Gaussian: its mean (D,) and a root R (any number of rows, D) of its covariance R'R."""

    mean: Matrix
    root: Matrix

    @staticmethod
    def of(features: Features) -> Gaussian:
        """Fit to features (N, D), with the unbiased covariance; they may be a memory map.

        Raises:
            ValueError: there are fewer than two images.
        """
        moments = Moments()
        # In parts: the features may be mapped from a file larger than memory.
        for part in parts(features):
            moments.add(part)
        return moments.gaussian()

    @staticmethod
    def from_covariance(mean: Matrix, covariance: Matrix) -> Gaussian:
        """Build from known moments, such as those in a file of reference statistics.

        Args:
            mean: (D,).
            covariance: (D, D).

        Raises:
            ValueError: the matrix is not a covariance: it has negative variances.
        """
        # C = A diag(v) A', so diag(sqrt v) A' is a root.
        variances, axes = np.linalg.eigh(covariance)
        # Rounding makes the variances of a singular covariance slightly negative.
        if variances[0] < -_ROUNDING * abs(variances[-1]):
            raise ValueError(f"a covariance has no negative variances, this one {variances[0]:g}")
        return Gaussian(mean, np.sqrt(variances.clip(min=0))[:, None] * axes.T)

    def save(self, path: Path) -> None:
        """Write an `.npz` file."""
        with path.open("wb") as file:
            np.savez(file, mean=self.mean, root=self.root)

    @staticmethod
    def load(path: Path) -> Gaussian:
        """Read a Gaussian that `save` wrote."""
        with np.load(path) as arrays:
            return Gaussian(arrays["mean"], arrays["root"])


class Moments:
    """Mean and covariance of features that come in parts, in float64.

    At most 2 D rows are held besides a part: 67 MB for 2048 channels, for any number of images.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Matrix = np.zeros(0)
        self._rows: list[Matrix] = []
        """Rows whose outer products sum to the squared deviations from the mean."""

    def add(self, features: npt.NDArray[np.floating]) -> None:
        """Take in one part (B, D)."""
        # float64: single precision loses the small variances of 50,000 summed images.
        x = features.astype(np.float64)
        mean: Matrix = x.mean(axis=0)
        self._take(len(x), mean, x - mean)

    def merge(self, other: Moments) -> None:
        """Take in everything that another one has seen."""
        for_all = np.concatenate(other._rows)
        self._take(other.count, other._mean, for_all)

    def _take(self, count: int, mean: Matrix, rows: Matrix) -> None:
        """Add a set by Chan's formula, on roots: the gap between two means is one more row.

        Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
        sample variances", 1979.
        """
        total = self.count + count
        # The width is known only now.
        if self.count == 0:
            self._mean = np.zeros_like(mean)
        gap = mean - self._mean
        self._rows += [rows, math.sqrt(self.count * count / total) * gap[None]]
        self._mean = self._mean + count / total * gap
        self.count = total
        if self.held() > 2 * len(mean):
            # R of a QR decomposition has D rows and the same R'R.
            self._rows = [np.asarray(np.linalg.qr(np.concatenate(self._rows), mode="r"))]

    def held(self) -> int:
        """Return the number of rows in memory."""
        return sum(len(rows) for rows in self._rows)

    def gaussian(self) -> Gaussian:
        """Return the Gaussian of everything so far, with the unbiased covariance.

        Raises:
            ValueError: there were fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.count}")
        rows = np.concatenate(self._rows)
        # At most D rows leave this function, however many images there were.
        if len(rows) > rows.shape[1]:
            rows = np.asarray(np.linalg.qr(rows, mode="r"))
        return Gaussian(self._mean, rows / math.sqrt(self.count - 1))

    def save(self, path: Path) -> None:
        """Write an `.npz` file, for merging in another process."""
        with path.open("wb") as file:
            np.savez(file, count=self.count, mean=self._mean, rows=np.concatenate(self._rows))

    @staticmethod
    def load(path: Path) -> Moments:
        """Read moments that `save` wrote."""
        moments = Moments()
        with np.load(path) as arrays:
            # As if the other process had added its rows here: nothing is lost by saving.
            moments._take(int(arrays["count"]), arrays["mean"], arrays["rows"])
        return moments


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Compute the squared Fréchet distance of two Gaussians (FID; Heusel et al. 2017).

    It is |mean difference|² + tr(C_a) + tr(C_b) - 2 tr sqrt(C_a C_b). With C = R'R, the last trace
    is the sum of the singular values of R_a R_b'. That is real and needs neither a matrix square
    root nor full rank: fewer images than channels are enough.
    """
    # The usual `sqrtm` of a singular product may give complex numbers and few right digits.
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    traces = np.square(a.root).sum() + np.square(b.root).sum()
    return float(np.square(a.mean - b.mean).sum() + traces - 2 * cross)


def parts(features: Features) -> Iterator[Features]:
    """Yield consecutive images, a bounded number at a time."""
    for start in range(0, len(features), _PART):
        yield features[start : start + _PART]
