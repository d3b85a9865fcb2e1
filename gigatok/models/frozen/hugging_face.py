"""Teachers `hf:REPO_OR_FOLDER`: any vision backbone of transformers with a grid of features.

Shapes: B batch, D channels, G side of the grid, N tokens, T = G * G.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gigatok.config.kinds.teachers import TeacherCost, is_path
from gigatok.data.assets import fetch
from gigatok.models.frozen.hugging_face_files import Pixels, Source, read_source
from gigatok.models.frozen.pretrained import load_pretrained, transformers_for
from gigatok.models.frozen.teachers import Teacher, per_channel

_ALLOWED = (
    "allowed are image classifiers and backbones of transformers, such as vit, dinov2, swin, "
    "convnext and resnet, and vision encoders, such as those of clip and siglip"
)
_BEFORE_PATCHES = 2
"""Most tokens before the patches, registers aside: class and distillation (DeiT)."""


class _Grid(NamedTuple):
    """Grid in what a network returns.

    Attributes:
        dim: channels D.
        side: G.
        before: tokens before the patches, such as the class and registers.
    """

    dim: int
    side: int
    before: int


def build(which: str) -> Teacher:
    """Load a network with its weights.

    Args:
        which: what stands behind `hf:`.

    Raises:
        ValueError: it cannot be used, transformers is missing, or the files do not fit.
    """
    source = read_source(f"hf:{which}")
    transformers, config = transformers_for(source.name), _vision_config(source)
    folder = source.folder if is_path(which) else fetch(source.name)
    advice = "Its weights must be those of the network that its config.json describes"
    model = load_pretrained(
        transformers.AutoModel, config.model_type, str(folder), advice, config=config
    )
    # On the meta device a pass takes no time, however large the network.
    with torch.device("meta"):
        empty = transformers.AutoModel.from_config(config).eval()
        grid = _grid(source, config, empty)
    return _teacher(source.pixels, model, grid)


def skeleton(name: str, *files: str) -> Teacher:
    """Build a network without its weights, for its costs.

    Args:
        name: value of `tokenizer.teacher`.
        files: content of its JSON files, which sets results of different networks apart.
    """
    source = read_source(name)
    config = _vision_config(source)
    model = transformers_for(name).AutoModel.from_config(config).eval()
    return _teacher(source.pixels, model, _grid(source, config, model))


def _vision_config(source: Source) -> Any:
    """Read the config of the vision encoder.

    Raises:
        ValueError: it is no network that gives a grid of features.
    """
    transformers = transformers_for(source.name)
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(source.folder), trust_remote_code=False
        )
    except Exception as error:  # files of any content make it raise whatever it will
        raise ValueError(f"teacher {source.name}: config.json cannot be read: {error}") from error
    config = getattr(config, "vision_config", config)
    if not _is_backbone(config):
        raise ValueError(
            f"teacher {source.name} is a {config.model_type}, which has no grid of features of "
            f"an image; {_ALLOWED}"
        )
    return config


def _is_backbone(config: Any) -> bool:
    """Tell by its class whether a network maps images to features of the same image.

    Detectors, masked autoencoders and others take images too, but return something else.
    """
    from transformers.models.auto import modeling_auto as auto

    # A few configs have several classes, none of which is for images.
    network: Any = auto.MODEL_MAPPING.get(type(config), None)
    kinds = {
        *auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        *auto.MODEL_FOR_BACKBONE_MAPPING_NAMES,
    }
    takes_images = getattr(network, "main_input_name", None) == "pixel_values"
    return takes_images and (config.model_type in kinds or "vision" in config.model_type)


def _grid(source: Source, config: Any, model: nn.Module) -> _Grid:
    """Find the grid in what a network returns, by one pass.

    Raises:
        ValueError: there is none, or the pass fails.
    """
    side = source.pixels.side
    try:
        with torch.no_grad():
            shape = tuple(model(torch.zeros(1, 3, side, side)).last_hidden_state.shape)
    except Exception as error:  # foreign code that was given a size it may not take
        raise ValueError(
            f"teacher {source.name}, a {config.model_type}, does not take images of {side} "
            f"pixels: {error}"
        ) from error
    if (grid := _find_grid(shape, config, side)) is None:
        raise ValueError(
            f"teacher {source.name}, a {config.model_type}, maps an image to {shape}, in which "
            f"no square grid of features is found; {_ALLOWED}"
        )
    return grid


def _find_grid(shape: tuple[int, ...], config: Any, side: int) -> _Grid | None:
    if len(shape) == 4:
        _, dim, height, width = shape
        return _Grid(dim, height, 0) if height == width else None
    if len(shape) != 3:
        return None
    _, tokens, dim = shape
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int):
        before = tokens - (side // patch) ** 2
        if 0 <= before <= _BEFORE_PATCHES + getattr(config, "num_register_tokens", 0):
            return _Grid(dim, side // patch, before)
    # Hierarchical networks merge patches, and have no class token.
    return _Grid(dim, isqrt(tokens), 0) if isqrt(tokens) ** 2 == tokens else None


def _teacher(pixels: Pixels, model: nn.Module, grid: _Grid) -> Teacher:
    def preprocess(images: Tensor) -> Tensor:
        mean, std = per_channel(pixels.mean, images), per_channel(pixels.std, images)
        return (255 * pixels.scale * images - mean) / std

    cost = TeacherCost(grid.dim, grid.side, pixels.side)
    return Teacher(_LastPatches(model, grid.before), preprocess, cost)


class _LastPatches(nn.Module):
    """Network of transformers, of which the last features of all patches are taken."""

    def __init__(self, model: nn.Module, before: int) -> None:
        super().__init__()
        self.model = model
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) -> (B, T, D), row-major."""
        features: Tensor = self.model(x).last_hidden_state
        # A map (B, D, G, G) of a convolutional network, or tokens (B, N, D).
        return (
            features.flatten(2).transpose(1, 2)
            if features.ndim == 4
            else features[:, self.before :]
        )
