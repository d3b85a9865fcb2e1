"""The pretrained networks: their structure without a download, their answers with the real files.

Tests marked `network` fetch into the user's cache on their first run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gigatok.config import SplitConfig
from gigatok.data.assets import fetch
from gigatok.data.image_sets import Images
from gigatok.data.splits import load_split, to_unit_range
from gigatok.files.unpickling import load_arrays
from gigatok.models.frozen.backbones import fold_batch_norms
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.models.frozen.inception import (
    Inception,
    load_inception,
    load_weights,
    resize_like_tensorflow,
)
from gigatok.models.frozen.perceptual import LPIPS
from gigatok.models.frozen.reduction import fit_reduction, reduce_features
from gigatok.models.frozen.teachers import build_teacher
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.gaussians import frechet_distance
from gigatok.scores.image_metrics import kid


def test_resizing_has_no_half_pixel_centres() -> None:
    row = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)
    assert resize_like_tensorflow(row, 4)[0, 0, 0].tolist() == [0, 0.5, 1, 1]
    image = torch.rand(2, 3, 9, 9)
    assert resize_like_tensorflow(image, 9) is image


def write_pytorch_fid(network: Inception, path: Path) -> dict[str, Tensor]:
    """A random weight file in pytorch-fid's format."""
    state: dict[str, Tensor] = {}
    torch.manual_seed(0)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for i, conv in enumerate(convolutions):
        channels = conv.out_channels
        state |= {
            f"layer{i}.conv.weight": torch.full_like(conv.weight, 0.01),
            f"layer{i}.bn.weight": torch.rand(channels) + 0.5,
            f"layer{i}.bn.bias": torch.randn(channels),
            f"layer{i}.bn.running_mean": torch.randn(channels),
            f"layer{i}.bn.running_var": torch.rand(channels) + 0.5,
        }
    torch.save(state, path)
    return state


def test_inception_reads_pytorch_fid_weights_and_folds_the_batch_norm(tmp_path: Path) -> None:
    network = Inception(75)
    state = write_pytorch_fid(network, tmp_path / "weights.pth")
    load_weights(network, tmp_path / "weights.pth")
    x = torch.randn(1, 3, 9, 9)
    bare = F.conv2d(x, state["layer0.conv.weight"], stride=2)
    statistics = [state[f"layer0.bn.{n}"] for n in ("running_mean", "running_var")]
    expected = F.batch_norm(
        bare, *statistics, state["layer0.bn.weight"], state["layer0.bn.bias"], eps=1e-3
    )
    torch.testing.assert_close(network.layers.conv(x), expected.relu())


def test_inception_refuses_other_weights_and_tiny_images(tmp_path: Path) -> None:
    torch.save({"fc.conv.weight": torch.zeros(2, 3, 1, 1), **_norm("fc")}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"its 1 convolutions differ .* from the 94"):
        load_weights(Inception(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"evaluation.resolution 64 is too small"):
        Inception(64)
    with torch.inference_mode():
        pool, spatial = Inception(75)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert pool.shape == (1, 2048)
    assert spatial.shape == (1, 7 * 3 * 3)


def _norm(name: str) -> dict[str, Tensor]:
    return {
        f"{name}.bn.{key}": torch.ones(2)
        for key in ("weight", "bias", "running_mean", "running_var")
    }


def test_folding_batch_norms_changes_nothing_but_speed() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-3))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), inner)
    for _ in range(3):
        network(torch.randn(8, 3, 9, 9) * 2 + 1)
    network.eval()
    x = torch.randn(2, 3, 9, 9)
    before = network(x)
    fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(x), before)


def test_reduction_finds_the_standardised_principal_components() -> None:
    torch.manual_seed(0)
    scales = torch.tensor([1.0, 100.0, 1.0, 1.0, 1.0])
    x = (torch.randn(50, 4, 5) @ torch.randn(5, 5)) * scales + 7
    x[..., 4] = 3.0
    reduction = fit_reduction(x, 2)
    rows = x.reshape(-1, 5).double()
    std = rows.std(0, unbiased=False)
    standard = (rows - rows.mean(0)) / torch.where(std > 1e-9, std, 1.0)
    singular = torch.linalg.svdvals(standard)
    projected = standard @ reduction.components.double()
    torch.testing.assert_close(projected.norm(dim=0), singular[:2], rtol=1e-4, atol=1e-4)
    share = (singular[:2].square().sum() / singular.square().sum()).item()
    assert reduction.explained == pytest.approx(share, rel=1e-4)
    reduced = reduce_features(x, 2)
    assert reduced.shape == (50, 4, 2)
    assert reduced.dtype == torch.float16
    torch.testing.assert_close(reduced.reshape(-1, 2).double(), projected, rtol=0.01, atol=0.01)


def test_reduction_refuses_more_components_than_channels() -> None:
    with pytest.raises(ValueError, match="9 components asked of features with 5 channels"):
        fit_reduction(torch.randn(3, 2, 5), 9)


def test_unknown_teachers_and_missing_transformers_are_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="no teacher 'dino'; there are clip_dfn, dinov2, mobile"):
        build_teacher("dino")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'gigatok-scaling\[teachers\]'"):
        build_teacher("dinov2")


def test_dinov2_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model of the architecture with random weights, through the real loader."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Dinov2Model(Dinov2Config(image_size=224, patch_size=14, **shape)).eval()
    model.save_pretrained(tmp_path)
    monkeypatch.setenv("GIGATOK_DINOV2", str(tmp_path))
    teacher = build_teacher("dinov2")
    assert (teacher.dim, teacher.grid, teacher.input_size) == (32, 16, 224)
    image = torch.rand(2, 3, 224, 224) * 2 - 1
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        tokens = model(((image + 1) / 2 - mean) / std).last_hidden_state[:, 1:]
    torch.testing.assert_close(teacher.features(image), tokens, rtol=1e-4, atol=1e-4)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WHOLE = {
    "clip_dfn": ("CLIP", {"projection_dim": 16}),
    "siglip": ("Siglip", {}),
}
"""Classes of text and image encoder together, which is what the hub has."""


def save_whole(name: str, folder: Path, image_size: int = 224) -> nn.Module:
    """A small model of both encoders with random weights; returns the vision encoder alone."""
    import transformers

    kind, extra = WHOLE[name]
    small = {**SMALL, "intermediate_size": 64}
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**small, **extra, "image_size": image_size, "patch_size": 14},
        text_config={**small, **extra, "vocab_size": 50},
    )
    torch.manual_seed(0)
    whole = getattr(transformers, f"{kind}Model")(config).eval()
    # A fresh norm is the identity, whatever is done with it.
    for parameter in whole.parameters():
        nn.init.normal_(parameter, 0.1, 0.1)
    whole.save_pretrained(folder)
    vision: nn.Module = whole.vision_model
    return vision


@pytest.mark.parametrize("name", ["clip_dfn", "siglip"])
def test_language_trained_teachers_from_a_local_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vision encoder of a whole model, with its own pixel statistics and normalised tokens."""
    vision: Any = save_whole(name, tmp_path)
    monkeypatch.setenv(
        {"clip_dfn": "GIGATOK_CLIP_DFN", "siglip": "GIGATOK_SIGLIP"}[name], str(tmp_path)
    )
    teacher = build_teacher(name)
    assert (teacher.dim, teacher.grid, teacher.input_size) == (32, 16, 224)
    image = torch.rand(2, 3, 224, 224) * 2 - 1
    pixels = image
    if name == "clip_dfn":
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        pixels = ((image + 1) / 2 - mean) / torch.tensor([0.26862954, 0.26130258, 0.27577711])[
            :, None, None
        ]
    with torch.no_grad():
        states = vision(pixels, output_hidden_states=True).hidden_states[-1]
        expected = vision.post_layernorm(states[:, -256:])
    found = teacher.features(image)
    assert found.shape == (2, 256, 32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_teacher_of_another_size_or_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_whole("siglip", tmp_path / "large", image_size=378)
    monkeypatch.setenv("GIGATOK_SIGLIP", str(tmp_path / "large"))
    with pytest.raises(
        ValueError, match="a SigLIP-400M for images of 378 pixels; take one for 224"
    ):
        build_teacher("siglip")
    save_whole("clip_dfn", tmp_path / "clip")
    broken = load_file(tmp_path / "clip" / "model.safetensors")
    kept = {key: value for key, value in broken.items() if "patch_embedding" not in key}
    save_file(kept, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    monkeypatch.setenv("GIGATOK_CLIP_DFN", str(tmp_path / "clip"))
    with pytest.raises(ValueError, match=r"is no CLIP \(DFN\): it lacks .*patch_embedding"):
        build_teacher("clip_dfn")


def test_a_teacher_whose_weights_are_not_those_of_its_config_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers drops, or draws at random, what does not fit, and keeps half precision."""
    save_whole("clip_dfn", tmp_path)
    monkeypatch.setenv("GIGATOK_CLIP_DFN", str(tmp_path))
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    save_file({key: value.half() for key, value in whole.items()}, file, {"format": "pt"})
    assert {p.dtype for p in build_teacher("clip_dfn").parameters()} == {torch.float32}
    norm = "vision_model.post_layernorm.weight"
    for changes, message in (
        ({"vision_model.encoder.layers.2.layer_norm1.weight": torch.zeros(32)}, "it also has .*2"),
        ({norm: torch.zeros(33)}, "of another shape are .*post_layernorm.weight"),
        ({norm: torch.full((32,), torch.inf)}, "post_layernorm.weight holds 32 values that are n"),
    ):
        save_file(whole | changes, file, {"format": "pt"})
        with pytest.raises(ValueError, match=rf"(?s)CLIP \(DFN\).*{message}"):
            build_teacher("clip_dfn")


def test_dinov2_that_cannot_be_loaded_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_DINOV2", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="Set GIGATOK_DINOV2 to a folder"):
        build_teacher("dinov2")


def test_the_pixel_teacher_keeps_the_layout_of_the_image() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[:, :, :2, 6:] = 1.0
    features = build_teacher("pixels").features(image)
    assert features.shape == (1, 16, 12)
    torch.testing.assert_close(features[0, 3], torch.ones(12))
    assert features.sum() == pytest.approx(12)


def cifar10(split: str, images: int) -> Images:
    return load_split(SplitConfig(name="cifar10", split=split, image_size=32, images=images))


@pytest.mark.network
def test_cifar10_is_the_canonical_one() -> None:
    train, val = cifar10("train", 50_000), cifar10("val", 10_000)
    means = train.images.mean(axis=(0, 1, 2)) / 255
    assert means.round(5).tolist() == [0.4914, 0.48216, 0.44653]
    assert val.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert train.images[0, 0, 0].tolist() == [59, 62, 63]
    assert np.bincount(train.labels).tolist() == [5000] * 10
    with pytest.raises(ValueError, match="of the val split of cifar10, which has 10000"):
        cifar10("val", 10_001)


@pytest.mark.network
def test_inception_is_the_torchscript() -> None:
    script = torch.jit.load(str(fetch("inception")))
    images = torch.from_numpy(cifar10("val", 3).images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = script((resize_like_tensorflow(images.float(), 299) - 128) / 128)
        found = load_inception()(images).pool
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5


def features(images: np.ndarray, network: FeatureNetwork) -> FeatureSet:
    stream = FeatureStream(network, len(images))
    stream.add(images)
    return stream.result()


@pytest.mark.network
def test_set_distances_tell_blur_from_nothing() -> None:
    images = cifar10("val", 96).images
    blurred = images[::1, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    network = build_feature_network("inception", 139, "cpu")
    first, second = (features(x, network) for x in (images[:48], images[48:]))
    worse = features(blurred[48:], network)
    value, error = kid(first.pool, second.pool)
    assert abs(value) < 4 * error
    value, error = kid(first.pool, worse.pool)
    assert value > 4 * error
    for gaussian in (FeatureSet.pooled_gaussian, lambda features: features.spatial):
        near, far = (frechet_distance(gaussian(first), gaussian(x)) for x in (second, worse))
        assert far > near


def lpips_by_hand(name: str, x: Tensor, y: Tensor) -> Tensor:
    """AlexNet LPIPS written out in float64 from the weight file."""
    weights = load_arrays(fetch(name))
    shift = torch.tensor([-0.030, -0.088, -0.188]).double()[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450]).double()[:, None, None]
    a, b = ((image.double() - shift) / scale for image in (x, y))
    total = torch.zeros(len(x)).double()
    for i, (stride, padding, pool) in enumerate(
        ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
    ):
        part = weights["AlexNet_0"][f"Conv_{i}"]
        kernel = torch.from_numpy(part["kernel"]).double().permute(3, 2, 0, 1)
        bias = torch.from_numpy(part["bias"]).double()
        if pool:
            a, b = F.max_pool2d(a, 3, 2), F.max_pool2d(b, 3, 2)
        a, b = (F.conv2d(z, kernel, bias, stride, padding).relu() for z in (a, b))
        difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
        head = torch.from_numpy(weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).reshape(-1)
        total += torch.einsum("bchw,c->bhw", difference**2, head.double()).mean((1, 2))
    return total


@pytest.mark.network
def test_lpips_alex_agrees_with_the_definition() -> None:
    images = to_unit_range(cifar10("val", 8).images)
    x, y = images[:4], images[4:]
    found = LPIPS("alex")(x, y).double()
    torch.testing.assert_close(found, lpips_by_hand("lpips_alex", x, y), rtol=1e-4, atol=1e-6)


@pytest.mark.network
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_heads_are_those_of_version_0_1(network: str) -> None:
    """torchmetrics ships the authors' heads, though not the networks below them."""
    import torchmetrics.functional.image as image_metrics

    folder = Path(image_metrics.__file__).parent / "lpips_models"
    heads = torch.load(folder / f"{network}.pth", map_location="cpu", weights_only=True)
    lpips = LPIPS(network)
    for i in range(5):
        expected = heads[f"lin{i}.model.1.weight"].reshape(-1)
        torch.testing.assert_close(getattr(lpips, f"head_{i}"), expected, rtol=0, atol=0)


@pytest.mark.network
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_behaves_as_a_distance(network: str) -> None:
    lpips = LPIPS(network)
    x = to_unit_range(cifar10("val", 4).images)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    distances = [lpips(x + s * noise, x) for s in (0.0, 0.05, 0.2)]
    assert distances[0].tolist() == [0, 0, 0, 0]
    assert (distances[2] > distances[1]).all()
    torch.testing.assert_close(lpips(x, x + 0.2 * noise), distances[2])
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


@pytest.mark.network
def test_lpips_gradients_are_finite_even_on_black_images() -> None:
    lpips = LPIPS("alex")
    x = torch.full((2, 3, 32, 32), -1.0, requires_grad=True)
    lpips(x, to_unit_range(cifar10("val", 2).images)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="LPIPS-alex needs images of 31 pixels or more"):
        lpips(x[..., :16, :16], x[..., :16, :16])


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "at_least"),
    [("mobilenetv2", 0.68), pytest.param("resnet50", 0.70, marks=pytest.mark.exhaustive)],
)
def test_teachers_know_objects(name: str, at_least: float) -> None:
    """A ridge probe on pooled features: .1 is chance, raw pixels reach about .25."""
    teacher = build_teacher(name)
    features, labels = [], []
    for split in (cifar10("train", 400), cifar10("val", 200)):
        maps = teacher.features(to_unit_range(split.images))
        assert maps.shape[1:] == (teacher.grid**2, teacher.dim)
        features.append(maps.mean(1).double())
        labels.append(torch.from_numpy(split.labels))
    mean, std = features[0].mean(0), features[0].std(0) + 1e-6
    x, y = ((part - mean) / std for part in features)
    targets = F.one_hot(labels[0], 10).double() - 0.1
    dual = x @ x.T + teacher.dim * torch.eye(len(x)).double()
    scores = y @ x.T @ torch.linalg.solve(dual, targets)
    assert (scores.argmax(1) == labels[1]).double().mean() > at_least
