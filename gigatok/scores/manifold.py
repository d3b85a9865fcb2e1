"""Precision and recall of generated images (Kynkäänniemi 2019), as the ADM evaluator has them.

Shapes: N and M images, D channels. A set's manifold is the union of balls around its images, each
reaching to the image's third neighbour in the set.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gigatok.scores.gaussians import Features, Matrix

# As the ADM evaluator and the paper have it.
NEIGHBOURS = 3
_BLOCK = 2048
"""Images of each set whose mutual distances are held at once, 32 MB."""
_TOLERANCE = 1e-9
"""Distance outside a ball, relative to the larger squared norm, that rounding may cause."""


def precision_recall(features: Features, reference: Features) -> tuple[float, float]:
    """Compute the fraction of images in the reference's manifold, and of the reference in theirs.

    Args:
        features: features of the images to judge, (N, D).
        reference: features of real images, (M, D).

    Raises:
        ValueError: a set is too small to have a third neighbour.
    """
    count = min(len(features), len(reference))
    if count <= NEIGHBOURS:
        raise ValueError(
            f"precision and recall need at least {NEIGHBOURS + 1} images in each set, got {count}"
        )
    radii_N, radii_M = _radii(features), _radii(reference)
    covered_N = np.zeros(len(features), bool)
    covered_M = np.zeros(len(reference), bool)
    for rows, columns, distance in _distances(features, reference):
        # An image is covered by any ball of the other set, in whichever block it is.
        covered_N[rows] |= (distance <= radii_M[columns]).any(axis=1)
        covered_M[columns] |= (distance <= radii_N[rows, None]).any(axis=0)
    return float(covered_N.mean()), float(covered_M.mean())


def _radii(features: Features) -> Matrix:
    """Compute the squared distance of each image to its third neighbour, with tolerance, (N,)."""
    nearest = np.full((len(features), NEIGHBOURS + 1), np.inf)
    largest = 0.0
    for rows, _, distance in _distances(features, features):
        # An image is its own nearest neighbour, so it takes the first place.
        # Only the nearest so far are kept: all distances of 50,000 images would take 20 GB.
        candidates = np.concatenate([nearest[rows], distance], axis=1)
        nearest[rows] = np.partition(candidates, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1]
    for part in _blocks(len(features)):
        largest = max(largest, float(_squared(features[part].astype(np.float64)).max()))
    radii: Matrix = nearest.max(axis=1) + _TOLERANCE * largest
    return radii


def _distances(a: Features, b: Features) -> Iterator[tuple[slice, slice, Matrix]]:
    """Yield squared distances block by block: rows of a, rows of b, and their distances."""
    for rows in _blocks(len(a)):
        x = a[rows].astype(np.float64)
        for columns in _blocks(len(b)):
            y = b[columns].astype(np.float64)
            # |x|² - 2 x.y + |y|² needs one matrix product; differences of all pairs would not fit.
            yield rows, columns, _squared(x)[:, None] - 2 * x @ y.T + _squared(y)


def _squared(x: Matrix) -> npt.NDArray[np.float64]:
    norms: Matrix = np.square(x).sum(axis=1)
    return norms


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))
