"""Networks that turn images into the features which FID and KID compare.

B batch, H W image, D features, E spatial features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gigatok.models.frozen.inception import load_inception

Apply = Callable[[Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class FeatureNetwork:
    """Network behind metrics.

    Attributes:
        name: for protocols.
        apply: maps (B, 3, H, W) with values in [0, 255] to pooled features (B, D), and spatial
            features (B, E) where the network has them.
    """

    name: str
    apply: Apply


def build_feature_network(name: str, resolution: int, device: str) -> FeatureNetwork:
    """Build the feature network of an `EvaluationConfig`, its weights fetched if need be."""
    return FEATURE_NETWORKS[name](resolution, device)


def _inception(resolution: int, device: str) -> FeatureNetwork:
    network = load_inception(resolution).to(device)
    return FeatureNetwork(
        f"inception-2015@{resolution}", lambda image_BCHW: network(image_BCHW.to(device))
    )


def _pixels(resolution: int, device: str) -> FeatureNetwork:
    """Take raw pixels in [-1, 1] at a small size: for tests, without any download."""

    def apply(image_BCHW: Tensor) -> tuple[Tensor, None]:
        x = image_BCHW.to(device).float() / 127.5 - 1
        # (B, 3, H, W) -> (B, 3 * resolution^2).
        return F.adaptive_avg_pool2d(x, resolution).flatten(1), None

    return FeatureNetwork(f"pixels@{resolution}", apply)


FEATURE_NETWORKS: dict[str, Callable[[int, str], FeatureNetwork]] = {
    "inception": _inception,
    "pixels": _pixels,
}
"""Constructors by the name that `evaluation.network` takes."""
