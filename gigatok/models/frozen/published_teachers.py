"""Teachers of the paper's Table 6: DINOv2, CLIP (DFN) and SigLIP-400M.

All see 224 pixels in patches of 14. The paper does not say which `CLIP (DFN)` it took.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config.kinds.teachers import TeacherCost
from gigatok.models.frozen.layout import CLIP_DFN_COST, DINOV2_COST, SIGLIP_COST
from gigatok.models.frozen.pretrained import load_pretrained, transformers_for
from gigatok.models.frozen.teachers import (
    Teacher,
    normalised_for_imagenet,
    per_channel,
    symmetric,
)

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class _Published:
    """Teacher of the paper, which transformers loads.

    Attributes:
        name: value of `tokenizer.teacher`.
        title: name in the paper.
        kind: its class in transformers.
        repository: on the Hugging Face hub; sizes and pixel statistics are those of its files.
        variable: environment variable that names the user's folder instead.
        side: of the images that it sees, in pixels.
    """

    name: str
    title: str
    kind: str
    repository: str
    variable: str
    side: int


_DINOV2 = _Published(
    "dinov2",
    "DINOv2",
    "Dinov2Model",
    "facebook/dinov2-base",
    "GIGATOK_DINOV2",
    DINOV2_COST.side,
)
_CLIP_DFN = _Published(
    "clip_dfn",
    "CLIP (DFN)",
    "CLIPVisionModel",
    "apple/DFN5B-CLIP-ViT-H-14",
    "GIGATOK_CLIP_DFN",
    CLIP_DFN_COST.side,
)
_SIGLIP = _Published(
    "siglip",
    "SigLIP-400M",
    "SiglipVisionModel",
    "google/siglip-so400m-patch14-224",
    "GIGATOK_SIGLIP",
    SIGLIP_COST.side,
)


def build_dinov2() -> Teacher:
    """Load DINOv2 (Oquab et al. 2023), its positions resampled from 518 to 224 pixels."""
    model = _load(_DINOV2)
    _resample_positions(model.embeddings, _DINOV2.side // model.config.patch_size)
    return _teacher(_DINOV2, model, normalised_for_imagenet, _dinov2_patches)


def build_clip_dfn() -> Teacher:
    """Load the image encoder of CLIP, trained on DFN-5B (Fang et al. 2023)."""
    model = _load(_CLIP_DFN)
    _check_side(_CLIP_DFN, model)
    return _teacher(_CLIP_DFN, model, _normalised_for_clip, _clip_patches)


def build_siglip() -> Teacher:
    """Load the image encoder of SigLIP (Zhai et al. 2023)."""
    model = _load(_SIGLIP)
    _check_side(_SIGLIP, model)
    model.use_head = False  # it pools the patches, which are wanted one by one
    return _teacher(_SIGLIP, model, symmetric, _siglip_patches)


def _load(known: _Published) -> Any:
    """Load the network from the folder that its variable names, or the hub."""
    kind = getattr(transformers_for(known.name), known.kind)
    source = os.environ.get(known.variable, known.repository)
    advice = (
        f"Set {known.variable} to a folder that holds config.json and the weights of "
        f"{known.repository}"
    )
    return load_pretrained(kind, known.title, source, advice)


def _check_side(known: _Published, model: Any) -> None:
    if model.config.image_size != known.side:
        raise ValueError(
            f"{known.variable} holds a {known.title} for images of {model.config.image_size} "
            f"pixels; take one for {known.side}, such as {known.repository}"
        )


def _teacher(
    known: _Published,
    model: Any,
    preprocess: Callable[[Tensor], Tensor],
    patches: Callable[[Any, Tensor], Tensor],
) -> Teacher:
    patch = model.config.patch_size
    assert isinstance(patch, int), "all have square patches"
    # A smaller network under the same name, as in tests, has other features than the published.
    cost = TeacherCost(model.config.hidden_size, known.side // patch, known.side)
    return Teacher(_PatchTokens(model, patches), preprocess, cost)


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
    return (images - per_channel(_CLIP_MEAN, images)) / per_channel(_CLIP_STD, images)


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
