"""Inception network of FID: convolution, batch norm and ReLU, in branches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gigatok.models.frozen.inception import Inception
from gigatok.models.frozen.layout import INCEPTION
from gigatok.models.shapes import Conv, FixedNetwork, Pool


class Branches(nn.ModuleList):
    """Branches whose channels are concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def build(shape: FixedNetwork) -> nn.Module:
    """Build a part of the network."""
    if isinstance(shape, Conv):
        norm = nn.BatchNorm2d(shape.outputs, eps=1e-3)
        return nn.Sequential(nn.Conv2d(*shape, bias=False), norm, nn.ReLU())
    if isinstance(shape, Pool):
        if shape.average:
            window = (shape.kernel, shape.stride, shape.padding)
            return nn.AvgPool2d(*window, count_include_pad=False)
        return nn.MaxPool2d(shape.kernel, shape.stride, shape.padding)
    if isinstance(shape, Mapping):
        return Branches(build(branch) for branch in shape.values())
    return nn.Sequential(*map(build, shape))


class PlainInception(nn.Module):
    """Network with the weights of ours: its folded biases are those of the batch norms."""

    def __init__(self, ours: Inception) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(build, INCEPTION.values()))
        kinds = nn.Conv2d, nn.BatchNorm2d
        convs, norms = ([m for m in self.modules() if isinstance(m, kind)] for kind in kinds)
        sources = [module for module in ours.modules() if isinstance(module, nn.Conv2d)]
        for conv, norm, source in zip(convs, norms, sources, strict=True):
            conv.weight.data.copy_(source.weight.data)
            norm.bias.data.copy_(source.bias.data)
            norm.running_var.fill_(1 - 1e-3)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Compute features of images of the network's own side, values in [0, 255]."""
        pool: Tensor = self.layers((images - 128) / 128).mean(dim=(2, 3))
        return pool
