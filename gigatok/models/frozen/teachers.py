"""Frozen networks whose patch features a tokenizer's decoder is drawn to (GigaTok, Table 6).

Shapes: B batch, D channels, G side of the feature grid, T = G * G patches in row-major order,
C principal components.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.files.foreign_weights import flaw
from gigatok.models.frozen.backbones import fold_batch_norms, mobilenetv2, resnet50
from gigatok.models.frozen.layout import TeacherCost, teacher_cost

# Channel statistics of [0, 1] RGB over ImageNet, as torchvision and DINOv2 use them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# In [0, 255], blue first: Caffe's models had it, and Keras' ResNet50 with them.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Teacher(nn.Module):
    """Frozen network, and how images are put to it.

    Attributes:
        dim: channels D of its features.
        grid: side G of its feature grid.
        input_size: side to which images are resized.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor],
        cost: TeacherCost,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.dim, self.grid, self.input_size = cost.dim, cost.grid, cost.side

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Compute features (B, T, D) of images (B, 3, H, W) in [-1, 1].

        As the authors do it, images are normalised first, then resized bicubically without
        antialiasing.
        """
        x = self.preprocess((images + 1) / 2)
        size = (self.input_size, self.input_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bicubic", align_corners=False)
        # (B, 3, side, side) -> (B, T, D).
        features: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return features


def build_teacher(name: str, device: str = "cpu") -> Teacher:
    """Build a teacher by name, its weights fetched if need be.

    Raises:
        ValueError: If the name is unknown, or an optional package is missing.
        AssetError: If the weights cannot be had.
    """
    if name not in TEACHERS:
        raise ValueError(f"no teacher {name!r}; there are {', '.join(sorted(TEACHERS))}")
    return TEACHERS[name]().to(device)


def normalised_for_imagenet(images: Tensor) -> Tensor:
    """Bring [0, 1] RGB to zero mean and unit variance over ImageNet."""
    mean = images.new_tensor(_IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(_IMAGENET_STD)[:, None, None]
    return (images - mean) / std


def _caffe(images: Tensor) -> Tensor:
    """Turn [0, 1] RGB into BGR in [0, 255] less the ImageNet mean, as Keras' ResNet50 expects."""
    return 255 * images.flip(1) - images.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]


class _Patches(nn.Module):
    """Backbone whose map (B, D, G, G) is flattened to (B, T, D)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) -> (B, T, D)."""
        patches: Tensor = self.backbone(x).flatten(2).transpose(1, 2)
        return patches


def _optimised(backbone: nn.Module) -> nn.Module:
    """Fold batch norms into convolutions and lay memory out channels-last: 3.5 times faster."""
    fold_batch_norms(backbone.eval())
    return _Patches(backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _mobilenetv2() -> Teacher:
    """Build ImageNet's MobileNetV2 at 128 px: fast enough for a laptop's CPU."""
    network = _optimised(mobilenetv2())
    return Teacher(network, normalised_for_imagenet, teacher_cost("mobilenetv2"))


def _resnet50() -> Teacher:
    """Build ImageNet's ResNet50 at 128 px: the best teacher that needs no hub."""
    return Teacher(_optimised(resnet50()), _caffe, teacher_cost("resnet50"))


@dataclass(frozen=True)
class _Published:
    """Teacher of the paper's Table 6, which transformers loads.

    Attributes:
        kind: its class in transformers.
        repository: on the Hugging Face hub; sizes and pixel statistics are those of its files.
        variable: environment variable that names the user's folder instead.
        patches: puts images to it and takes the normalised patch tokens.
    """

    name: str
    kind: str
    repository: str
    variable: str
    preprocess: Callable[[Tensor], Tensor]
    patches: Callable[[Any, Tensor], Tensor]


class _PatchTokens(nn.Module):
    """Network of transformers', of which the normalised patch tokens are taken."""

    def __init__(self, model: nn.Module, patches: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._patches = patches

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) -> (B, T, D), without a class token."""
        return self._patches(self.model, x)


def _dinov2_patches(model: Any, x: Tensor) -> Tensor:
    # Normalised already; token 0 is the class.
    tokens: Tensor = model(x).last_hidden_state[:, 1:]
    return tokens


def _clip_patches(model: Any, x: Tensor) -> Tensor:
    # transformers normalises the class token only.
    tokens: Tensor = model.post_layernorm(model(x).last_hidden_state[:, 1:])
    return tokens


def _siglip_patches(model: Any, x: Tensor) -> Tensor:
    tokens: Tensor = model(x).last_hidden_state
    return tokens


def _normalised_for_clip(images: Tensor) -> Tensor:
    """Normalise [0, 1] RGB by the statistics of CLIP (Radford et al. 2021), which DFN shares."""
    mean = images.new_tensor(_CLIP_MEAN)[:, None, None]
    std = images.new_tensor(_CLIP_STD)[:, None, None]
    return (images - mean) / std


def _symmetric(images: Tensor) -> Tensor:
    """Map [0, 1] to [-1, 1], as SigLIP does."""
    return 2 * images - 1


_PUBLISHED = {
    "dinov2": _Published(
        "DINOv2",
        "Dinov2Model",
        "facebook/dinov2-base",
        "GIGATOK_DINOV2",
        normalised_for_imagenet,
        _dinov2_patches,
    ),
    "clip_dfn": _Published(
        "CLIP (DFN)",
        "CLIPVisionModel",
        "apple/DFN5B-CLIP-ViT-H-14",
        "GIGATOK_CLIP_DFN",
        _normalised_for_clip,
        _clip_patches,
    ),
    "siglip": _Published(
        "SigLIP-400M",
        "SiglipVisionModel",
        "google/siglip-so400m-patch14-224",
        "GIGATOK_SIGLIP",
        _symmetric,
        _siglip_patches,
    ),
}
"""All see 224 pixels in patches of 14. The paper does not say which `CLIP (DFN)` it took."""


def _from_transformers(name: str) -> Teacher:
    """Load a teacher of the paper from the folder that its variable names, or the hub."""
    known = _PUBLISHED[name]
    model = _load_pretrained(name, known)
    config, size = model.config, teacher_cost(name).side
    patch = config.patch_size
    assert isinstance(patch, int), "all have square patches"
    grid = size // patch
    if name == "dinov2":
        _resample_positions(model.embeddings, grid)
    elif config.image_size != size:
        raise ValueError(
            f"{known.variable} holds a {known.name} for images of {config.image_size} pixels; "
            f"take one for {size}, such as {known.repository}"
        )
    if name == "siglip":
        model.use_head = False  # it pools the patches, which are wanted one by one
    # A smaller network under the same name, as in tests, has other features than the published.
    cost = TeacherCost(config.hidden_size, grid, size)
    return Teacher(_PatchTokens(model, known.patches), known.preprocess, cost)


_OTHER_PARTS = ("text_", "visual_projection", "logit_", "classifier.", "vision_model.head.")
"""Beginnings of what whole models have beside the vision encoder that is taken."""


def _load_pretrained(name: str, known: _Published) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"tokenizer.teacher {name} needs transformers: pip install "
            f"'gigatok-scaling[teachers]' (or take another: {', '.join(sorted(TEACHERS))})"
        ) from error
    source = os.environ.get(known.variable, known.repository)
    advice = (
        f"Set {known.variable} to a folder that holds config.json and the weights of "
        f"{known.repository}"
    )
    kind = getattr(transformers, known.kind)
    try:
        model, found = kind.from_pretrained(
            source,
            output_loading_info=True,
            dtype=torch.float32,  # else a file in half precision gives a model in half precision
            ignore_mismatched_sizes=True,  # so that `found` names them, for `_problem`
        )
    except Exception as error:  # files of any content make it raise whatever it will
        raise ValueError(f"cannot load {known.name} from {source}: {error}\n{advice}") from error
    if (problem := _problem(model, found)) is not None:
        raise ValueError(f"{source} is no {known.name}: {problem}\n{advice}")
    return model


def _problem(model: nn.Module, found: Mapping[str, Any]) -> str | None:
    """Say what is wrong with loaded weights: transformers draws at random what did not fit.

    It says so in a log that nobody reads, and what has no place in the model (a deeper one's
    layers, where `config.json` is of another) it drops.
    """
    if found["missing_keys"]:
        return f"it lacks {_some(found['missing_keys'])}"
    if found["mismatched_keys"]:
        return f"of another shape are {_some(key for key, *_ in found['mismatched_keys'])}"
    beside = [key for key in found["unexpected_keys"] if not key.startswith(_OTHER_PARTS)]
    if beside:
        return f"it also has {_some(beside)}, so config.json is of another model"
    flaws = (f"{name} {text}" for name, p in model.named_parameters() if (text := flaw(p)))
    return next(flaws, None)


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:3]) + ", ..."


def _resample_positions(embeddings: Any, grid: int) -> None:
    """Resample the positional table to our grid once, antialiased, as the reference does.

    transformers would otherwise resample it in every forward pass, without antialiasing.
    """
    # (1, 1 + 37^2, D) in the released DINOv2, which was made for 518 pixels; 224 give 16 x 16.
    table = embeddings.position_embeddings.data
    cls, patches = table[:, :1], table[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    map_ = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    map_ = F.interpolate(map_, (grid, grid), mode="bicubic", antialias=True)
    resampled = torch.cat([cls, map_.flatten(2).transpose(1, 2)], dim=1)
    embeddings.position_embeddings = nn.Parameter(resampled, requires_grad=False)


class _PixelPatches(nn.Module):
    """Pixels of each patch, in place of a network."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, 8, 8) -> (B, 16, 12)."""
        # (B, 12, 16) -> (B, 16, 12).
        return F.unfold(x, kernel_size=2, stride=2).transpose(1, 2)


def _pixels() -> Teacher:
    """Take 2 x 2 pixels of the image at 8 px: no semantics and no download, for tests."""
    return Teacher(_PixelPatches(), _symmetric, teacher_cost("pixels"))


TEACHERS: dict[str, Callable[[], Teacher]] = {
    "mobilenetv2": _mobilenetv2,
    "resnet50": _resnet50,
    **{name: partial(_from_transformers, name) for name in _PUBLISHED},
    "pixels": _pixels,
}
