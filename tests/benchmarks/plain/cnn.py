"""Convolutional encoder and decoder of a GigaTok tokenizer."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import CNNConfig

EPS = 1e-6


class ResnetBlock(nn.Module):
    """Two convolutions behind norm and SiLU, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, EPS)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.changes = inputs != outputs
        if self.changes:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = h + (self.nin_shortcut(x) if self.changes else x)
        return out


class Resample(nn.Module):
    """Convolution that halves the side, or one to four times the channels, made pixels."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        if up:
            self.conv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        else:
            self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.up:
            half: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
            return half
        batch, channels, height, width = x.shape
        # Channels are (dy, dx, C).
        x = self.conv1(x).view(batch, 2, 2, channels, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, channels, 2 * height, 2 * width)


class Level(nn.Module):
    """Residual blocks at one side, then its change unless this is the last level."""

    def __init__(self, inputs: int, outputs: int, blocks: int, groups: int) -> None:
        super().__init__()
        pairs = pairwise([inputs, *[outputs] * blocks])
        self.res = nn.Sequential(*(ResnetBlock(i, o, groups) for i, o in pairs))

    def add_resample(self, name: str, channels: int) -> None:
        self.add_module(name, Resample(channels, up=name == "upsample"))

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


def levels(widths: list[int], first: int, blocks: int, groups: int, name: str) -> list[Level]:
    """Build all levels."""
    inputs = [first, *widths]
    made = [Level(i, o, blocks, groups) for i, o in zip(inputs, widths, strict=False)]
    for level, width in zip(made[:-1], widths, strict=False):
        level.add_resample(name, width)
    return made


class AdaptiveGroupNorm(nn.Module):
    """Group norm with scale and bias from the mean and deviation of a style."""

    def __init__(self, channels: int, style: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPS, affine=False)
        self.gamma = nn.Linear(style, channels)
        self.beta = nn.Linear(style, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        flat = style.flatten(2)
        scale = self.gamma((flat.var(-1) + EPS).sqrt())[:, :, None, None]
        bias = self.beta(flat.mean(-1))[:, :, None, None]
        out: Tensor = scale * self.norm(x) + bias
        return out


class PlainEncoder(nn.Module):
    """Image to grid; patches of one pixel only."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        widths, groups = [config.channels * m for m in config.multipliers], config.groups
        top = widths[-1]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        stages = levels(widths, config.channels, config.resblocks, groups, "downsample")
        self.conv_blocks = nn.Sequential(*stages)
        self.mid = nn.Sequential(
            *(ResnetBlock(top, top, groups) for _ in range(config.mid_blocks))
        )
        self.norm_out = nn.GroupNorm(groups, top, EPS)
        self.conv_out = nn.Conv2d(top, config.z_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.mid(self.conv_blocks(self.conv_in(image)))
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class PlainDecoder(nn.Module):
    """Grid to image."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in reversed(config.multipliers)]
        top, z, groups = widths[0], config.z_channels, config.groups
        self.conv_in = nn.Conv2d(z, top, 3, padding=1)
        self.mid = nn.Sequential(
            *(ResnetBlock(top, top, groups) for _ in range(config.mid_blocks))
        )
        stages = levels(widths, top, config.resblocks + 1, groups, "upsample")
        self.conv_blocks = nn.ModuleList(stages)
        norms = [AdaptiveGroupNorm(c, z, groups) for c in [top, *widths[:-1]]]
        self.adaptive = nn.ModuleList(norms)
        self.norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for norm, level in zip(self.adaptive, self.conv_blocks, strict=True):
            x = level(norm(x, z))
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out
