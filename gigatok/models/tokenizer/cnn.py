"""Convolutional ends of a tokenizer: an encoder, and a decoder with adaptive norms.

Modules and parameters are named as in the published checkpoints. Tensors may be channels-last
throughout: rearrangements are written so that such tensors are viewed, not copied.

B batch, C channels, H W height and width.
"""

from __future__ import annotations

from itertools import pairwise, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import CNNConfig
from gigatok.models.winograd import Conv3x3

EPS = 1e-6
"""Epsilon of every group norm and of the style's standard deviation."""


def depth_to_space(x_BCHW: Tensor, block: int) -> Tensor:
    """Move channels into `block` x `block` pixels, with (dy, dx) outside the channels ("DCR").

    Channel (dy*block + dx)*C + c becomes channel c of pixel (dy, dx). `F.pixel_shuffle` has the
    other order. Args and return: (B, block*block*C, H, W) -> (B, C, block*H, block*W).
    """
    batch, _, height, width = x_BCHW.shape
    # A channels-last map is contiguous once permuted: only the reshape after the transpose copies.
    x = x_BCHW.permute(0, 2, 3, 1).reshape(batch, height, width, block, block, -1)
    x = x.transpose(2, 3).reshape(batch, height * block, width * block, -1)
    return x.permute(0, 3, 1, 2)


def space_to_depth(x_BCHW: Tensor, block: int) -> Tensor:
    """Invert `depth_to_space`: (B, C, block*H, block*W) -> (B, block*block*C, H, W)."""
    batch, channels, height, width = x_BCHW.shape
    x = x_BCHW.permute(0, 2, 3, 1)
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    x = x.transpose(2, 3).reshape(batch, height // block, width // block, -1)
    return x.permute(0, 3, 1, 2)


def norm_groups(channels: int, groups: int) -> int:
    """Count the groups of a norm over `channels`.

    Raises:
        ValueError: the channels do not split evenly.
    """
    groups = min(groups, channels)
    if channels % groups:
        raise ValueError(
            f"cnn: {channels} channels do not split into {groups} norm groups; "
            "choose channels or multipliers so that they do, or other groups"
        )
    return groups


class ResnetBlock(nn.Module):
    """Residual block: two 3x3 convolutions, each behind norm and SiLU, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups(in_channels, groups), in_channels, EPS)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.norm2 = nn.GroupNorm(norm_groups(out_channels, groups), out_channels, EPS)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.nin_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            # VQGAN's name; its 3x3 `conv_shortcut` is in no published config.
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in, H, W) -> (B, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = h + self.nin_shortcut(x_BCHW)
        return out


class Downsample(nn.Module):
    """Strided convolution that halves the resolution, padded on the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Padded in `forward`: `nn.Conv2d` pads both sides alike, VQGAN pads right and bottom only.
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C, H/2, W/2)."""
        out: Tensor = self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Convolution to four times the channels, whose output doubles the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # `conv` is the nearest-neighbour upsampler in the authors' code, in no published config.
        self.conv1 = Conv3x3(channels, 4 * channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C, 2H, 2W)."""
        return depth_to_space(self.conv1(x_BCHW), 2)


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and bias per sample come from statistics of a style (MAGVIT-v2).

    The scale has no "1 +", as in the authors' `AdaptiveGroupNorm`: with zero-initialised gamma the
    layer is dead.
    """

    def __init__(self, channels: int, style_channels: int, groups: int) -> None:
        super().__init__()
        self.groups = norm_groups(channels, groups)
        self.gamma = nn.Linear(style_channels, channels)
        self.beta = nn.Linear(style_channels, channels)

    def forward(self, x_BCHW: Tensor, std_BS: Tensor, mean_BS: Tensor) -> Tensor:
        """Normalise x; `std_BS` and `mean_BS` are of the style over its positions."""
        scale_BC11 = self.gamma(std_BS)[:, :, None, None]
        bias_BC11 = self.beta(mean_BS)[:, :, None, None]
        return torch.addcmul(bias_BC11, scale_BC11, F.group_norm(x_BCHW, self.groups, eps=EPS))


class Level(nn.Module):
    """Residual blocks at one resolution; subclasses add the change of resolution."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, groups: int) -> None:
        super().__init__()
        # Only the first block changes the channels.
        channels = [in_channels, *[out_channels] * blocks]
        self.res = nn.Sequential(*(ResnetBlock(i, o, groups) for i, o in pairwise(channels)))


class EncoderLevel(Level):
    """Residual blocks, then a downsampling unless this is the last level."""

    def __init__(self, ends: tuple[int, int], blocks: int, groups: int, *, last: bool) -> None:
        super().__init__(*ends, blocks, groups)
        self.downsample = nn.Identity() if last else Downsample(ends[1])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in, H, W) -> (B, out, H/2, W/2), or (B, out, H, W) at the last level."""
        out: Tensor = self.downsample(self.res(x_BCHW))
        return out


class DecoderLevel(Level):
    """Residual blocks, then an upsampling unless this is the last level."""

    def __init__(self, ends: tuple[int, int], blocks: int, groups: int, *, last: bool) -> None:
        super().__init__(*ends, blocks, groups)
        self.upsample = nn.Identity() if last else Upsample(ends[1])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in, H, W) -> (B, out, 2H, 2W), or (B, out, H, W) at the last level."""
        out: Tensor = self.upsample(self.res(x_BCHW))
        return out


class Encoder(nn.Module):
    """CNN from image to a grid of features."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        top, groups = widths[-1], config.groups
        ends = list(pairwise([config.channels, *widths]))
        self.patch_size = config.patch_size
        self.conv_in = Conv3x3(3 * config.patch_size**2, config.channels)
        self.conv_blocks = nn.Sequential(
            *(
                EncoderLevel(end, config.resblocks, groups, last=i == len(ends) - 1)
                for i, end in enumerate(ends)
            )
        )
        self.mid = nn.Sequential(
            *(ResnetBlock(top, top, groups) for _ in range(config.mid_blocks))
        )
        self.norm_out = nn.GroupNorm(norm_groups(top, groups), top, EPS)
        self.conv_out = Conv3x3(top, config.z_channels)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Map images in [-1, 1] -> (B, z_channels, H/downsampling, W/downsampling)."""
        x = image_BCHW if self.patch_size == 1 else space_to_depth(image_BCHW, self.patch_size)
        # At the published sizes (B, 3, 256, 256) -> (B, 512, 16, 16) -> (B, 256, 16, 16).
        x = self.mid(self.conv_blocks(self.conv_in(x)))
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class Decoder(nn.Module):
    """CNN from a grid of features to an image; the grid is also the style of the norms."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in reversed(config.multipliers)]
        top, z, groups = widths[0], config.z_channels, config.groups
        ends = list(pairwise([top, *widths]))
        self.patch_size = config.patch_size
        self.conv_in = Conv3x3(z, top)
        self.mid = nn.Sequential(
            *(ResnetBlock(top, top, groups) for _ in range(config.mid_blocks))
        )
        self.conv_blocks = nn.ModuleList(
            # One block more per level than in the encoder, as in VQGAN.
            DecoderLevel(end, config.resblocks + 1, groups, last=i == len(ends) - 1)
            for i, end in enumerate(ends)
        )
        # Drawn after all levels: another order of construction would draw other weights.
        norms = (AdaptiveGroupNorm(i, z, groups) for i, _ in ends)
        self.adaptive = nn.ModuleList(norms if config.adaptive_norm else ())
        self.norm_out = nn.GroupNorm(norm_groups(widths[-1], groups), widths[-1], EPS)
        self.conv_out = Conv3x3(widths[-1], 3 * config.patch_size**2)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Map (B, z_channels, h, w) -> unclamped images (B, 3, h*downsampling, w*downsampling)."""
        # Unbiased, so the grid needs more than one cell.
        var_BC, mean_BC = torch.var_mean(z_BCHW, dim=(2, 3))
        std_BC = torch.sqrt(var_BC + EPS)
        x = self.mid(self.conv_in(z_BCHW))
        # (B, z, h, w) -> (B, top, h, w), then each level but the last doubles the side.
        for norm, level in zip_longest(self.adaptive, self.conv_blocks):
            x = level(x if norm is None else norm(x, std_BC, mean_BC))
        x = self.conv_out(F.silu(self.norm_out(x)))
        return x if self.patch_size == 1 else depth_to_space(x, self.patch_size)
