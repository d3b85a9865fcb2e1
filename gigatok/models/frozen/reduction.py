"""Standardised principal components of teacher features.

Raw features share a large common mean, so a cosine to them says little; standardising each
channel first and keeping the leading components makes the target both sharper and smaller.
Shapes: N images, T patches, D channels, C components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 65536
"""Most patches whose float32 copy is held at once."""


@dataclass(frozen=True)
class Reduction:
    """Transform fitted to features.

    Attributes:
        mean: of each channel, (D,).
        std: of each channel, (D,); 1 where the channel is constant.
        components: orthonormal columns by falling variance, (D, C).
        explained: fraction of the standardised variance that the components keep.
    """

    mean: Tensor
    std: Tensor
    components: Tensor
    explained: float

    def apply(self, features: Tensor) -> Tensor:
        """Map (..., D) of any dtype to (..., C) float16."""
        standard = (features.float() - self.mean) / self.std
        return (standard @ self.components).half()


def fit_reduction(features: Tensor, components: int) -> Reduction:
    """Fit to features (N, T, D), or any (..., D), of any floating dtype.

    Raises:
        ValueError: If more components are asked for than there are channels.
    """
    channels = features.shape[-1]
    if components > channels:
        raise ValueError(f"{components} components asked of features with {channels} channels")
    mean, covariance = _moments(torch.split(features.reshape(-1, channels), _ROWS), channels)
    std = covariance.diagonal().sqrt()
    std = torch.where(std > 0, std, 1.0)
    # The covariance of standardised channels, without a second pass over the features.
    variances, vectors = torch.linalg.eigh(covariance / std.outer(std))
    # `eigh` sorts by rising variance.
    leading = vectors[:, -components:].flip(1)
    # An eigenvector's sign is arbitrary: make its largest entry positive.
    largest = leading.gather(0, leading.abs().argmax(dim=0, keepdim=True))
    return Reduction(
        mean.float(),
        std.float(),
        (leading * largest.sign()).float(),
        float(variances[-components:].sum() / variances.sum()),
    )


def _moments(parts: Iterable[Tensor], channels: int) -> tuple[Tensor, Tensor]:
    """Compute mean (D,) and covariance (D, D) of rows given in parts, in float64."""
    count = 0
    total = torch.zeros(channels, dtype=torch.float64)
    products = torch.zeros(channels, channels, dtype=torch.float64)
    for part in parts:
        x = part.float()
        count += len(x)
        total += x.sum(dim=0, dtype=torch.float64)
        products += x.T @ x
    mean = total / count
    # E[x x'] - E[x] E[x]' cancels digits, which float64 can afford.
    return mean, products / count - mean.outer(mean)


def reduce_features(features: Tensor, components: int) -> Tensor:
    """Reduce features (..., D) to their own leading components: (..., C) float16."""
    reduction = fit_reduction(features, components)
    rows = features.reshape(-1, features.shape[-1])
    reduced = torch.cat([reduction.apply(part) for part in torch.split(rows, _ROWS)])
    return reduced.reshape(*features.shape[:-1], components)
