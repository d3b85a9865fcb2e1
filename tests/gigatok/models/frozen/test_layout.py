"""FLOPs and parameters of frozen networks against the modules, on the meta device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gigatok.config.kinds.teachers import teacher_cost
from gigatok.models.frozen.backbones import _mobilenetv2_backbone, _ResNet50, fold_batch_norms
from gigatok.models.frozen.inception import Inception
from gigatok.models.frozen.layout import feature_flops
from gigatok.models.frozen.teachers import build_teacher
from tests.gigatok.counted_flops import BATCH, counted, meta


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "build"),
    [("mobilenetv2", _mobilenetv2_backbone), ("resnet50", _ResNet50)],
)
def test_convolutional_teachers(name: str, build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        network = build().eval()
    image, cost = meta(1, 3, 128, 128), teacher_cost(name)
    assert cost.flops == counted(lambda: network(image))
    fold_batch_norms(network)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert network(image).shape == (1, cost.dim, cost.grid, cost.grid)


@pytest.mark.heavy
def test_dinov2() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        network = transformers.Dinov2Model(transformers.Dinov2Config()).eval()
    cost = teacher_cost("dinov2")
    assert cost.flops == counted(lambda: network(meta(1, 3, 224, 224)))
    assert (cost.dim, cost.grid**2) == (network.config.hidden_size, (224 // 14) ** 2)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("clip_dfn", "CLIPVision", (1280, 32, 5120)),
        ("siglip", "SiglipVision", (1152, 27, 4304)),
    ],
)
def test_language_trained_teachers(name: str, kind: str, shape: tuple[int, int, int]) -> None:
    """Shapes are those of the config files on the hub."""
    transformers = pytest.importorskip("transformers")
    width, layers, hidden = shape
    config = getattr(transformers, f"{kind}Config")(
        **{"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": hidden},
        **{"num_attention_heads": 16, "image_size": 224, "patch_size": 14},
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        network = getattr(transformers, f"{kind}Model")(config).eval()
    network.use_head = False
    cost = teacher_cost(name)
    assert cost.flops == counted(lambda: network(meta(1, 3, 224, 224)))
    assert (cost.dim, cost.grid**2) == (width, (224 // 14) ** 2)
    assert cost.parameters == sum(p.numel() for p in network.parameters())


def test_the_teacher_without_a_network() -> None:
    teacher, cost = build_teacher("pixels"), teacher_cost("pixels")
    assert (cost.dim, cost.grid, cost.flops) == (teacher.dim, teacher.grid, 0)
    image = torch.zeros(1, 3, 16, 16)
    assert counted(lambda: teacher.features(image)) == 0


@pytest.mark.parametrize(("resolution", "side"), [(299, 256), (299, 299), (75, 32), (128, 16)])
def test_inception(resolution: int, side: int) -> None:
    with torch.device("meta"):
        network = Inception(resolution).eval()
    predicted = feature_flops("inception", resolution, side)
    # The resize multiplies with matrices made on the CPU.
    assert BATCH * predicted == counted(lambda: network(meta(BATCH, 3, side, side)))
