"""LPIPS: the learned perceptual distance (Zhang et al. 2018), VGG16 and AlexNet, heads v0.1.

Shapes: B batch, C channels, H and W height and width of a map.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import LPIPS_SIDES
from gigatok.data.assets import fetch
from gigatok.files.unpickling import load_arrays
from gigatok.models.frozen.layout import LPIPS_STAGES
from gigatok.models.shapes import Pool
from gigatok.models.winograd import Conv3x3

Network = Literal["vgg", "alex"]

# ImageNet's mean and deviation (0.485, 0.229, ...) on [-1, 1] instead of [0, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10  # of `normalize_tensor` in the LPIPS package
REFERENCE_DROPOUT = 0.5
"""Dropout in front of the heads; meant for their own training, the authors leave it on."""


def _stages(network: Network) -> nn.ModuleList:
    """Build the convolutions of a network, cut behind each map that is compared."""
    stages = nn.ModuleList()
    for shapes in LPIPS_STAGES[network]:
        layers: list[nn.Module] = []
        for shape in shapes:
            if isinstance(shape, Pool):
                layers.append(nn.MaxPool2d(shape.kernel, shape.stride))
            else:
                keeps_size = shape[2:5] == (3, 1, 1)
                conv = Conv3x3(*shape[:2]) if keeps_size else nn.Conv2d(*shape)
                layers += [conv, nn.ReLU(inplace=True)]
        stages.append(nn.Sequential(*layers))
    return stages


_NETWORKS = {"vgg": ("lpips_vgg", "VGG16_0"), "alex": ("lpips_alex", "AlexNet_0")}
"""Asset, and key of the weights in it."""


class LPIPS(nn.Module):
    """Perceptual distance of image pairs. Frozen; gradients reach the inputs.

    The authors' training leaves the heads' dropout of 0.5 active, which `dropout` can bring back;
    without it the loss that is minimised is the metric.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network, dropout: float = 0.0) -> None:
        """Build and load a network.

        Args:
            network: what compares.
            dropout: of the squared differences in front of the heads, whenever it is applied.

        Raises:
            AssetError: If the weights cannot be had.
        """
        super().__init__()
        self.network = network
        self.dropout = dropout
        asset, key = _NETWORKS[network]
        self.stages = _stages(network)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        weights = load_arrays(fetch(asset))
        _load_convolutions(self.stages, weights[key])
        for i in range(len(self.stages)):
            head = torch.from_numpy(weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
            # (1, 1, C, 1) -> (C,); not saved with a model, since the files are assets.
            self.register_buffer(f"head_{i}", head.reshape(-1), persistent=False)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Compute five maps of images in [-1, 1], (B, C, H, W) each, of unit length over channels.

        Raises:
            ValueError: If the images are too small for the network's pooling.
        """
        if min(images.shape[-2:]) < (side := LPIPS_SIDES[self.network]):
            raise ValueError(
                f"LPIPS-{self.network} needs images of {side} pixels or more, "
                f"got {tuple(images.shape[-2:])}"
            )
        x = ((images - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x)
            # The second epsilon keeps the gradient finite where every channel is zero.
            length = (x.square().sum(dim=1, keepdim=True) + _EPS**2).sqrt()
            maps.append(x / (length + _EPS))
        return maps

    def distance(self, maps_x: list[Tensor], maps_y: list[Tensor]) -> Tensor:
        """Compute the distance of image pairs whose maps are given, (B,)."""
        terms = []
        for i, (map_x, map_y) in enumerate(zip(maps_x, maps_y, strict=True)):
            head: Any = getattr(self, f"head_{i}")
            squared = (map_x - map_y).square()
            if self.dropout:
                squared = F.dropout(squared, self.dropout)
            # (B, C, H, W) -> (B, C) -> (B,). A head is linear, so it may follow the mean over
            # positions: the authors' order would keep another map.
            terms.append(F.linear(squared.mean(dim=(2, 3)), head[None]).squeeze(1))
        return torch.stack(terms).sum(dim=0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the distance of images x to y, both (B, 3, H, W) in [-1, 1]: (B,).

        The weights are frozen, so an image that needs no gradient costs only its forward pass.
        """
        return self.distance(self.maps(x), self.maps(y))


def _load_convolutions(stages: nn.ModuleList, weights: dict[str, Any]) -> None:
    """Fill the convolutions from kernels in JAX's (H, W, in, out) layout."""
    convolutions = [module for module in stages.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == len(weights)
    for i, conv in enumerate(convolutions):
        assert conv.bias is not None
        kernel = torch.from_numpy(weights[f"Conv_{i}"]["kernel"])
        conv.weight.data.copy_(kernel.permute(3, 2, 0, 1))
        conv.bias.data.copy_(torch.from_numpy(weights[f"Conv_{i}"]["bias"]))
