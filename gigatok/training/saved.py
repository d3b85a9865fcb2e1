"""Models and codes as stages save them for later stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gigatok.config import Config, GeneratorArchitecture, TokenizerArchitecture
from gigatok.config.kinds import tokenizers
from gigatok.config.kinds.teachers import without_path
from gigatok.files.durable import write_durably, write_text_durably
from gigatok.models.generator.base import Generator, build_generator
from gigatok.models.tokenizer.base import Tokenizer, build_tokenizer
from gigatok.runtime.distributed import is_main, whole

T = TypeVar("T", bound=Tokenizer)

CODES_FILE = "codes.safetensors"
_SMALL_CODEBOOK = 2**15
"""Largest codebook whose codes are stored as int16."""


@dataclass(frozen=True)
class Codes:
    """Codes and labels of both splits, mapped into memory: only what is read is loaded.

    Attributes:
        train: int16 or int32 (V, N, T), V views of each of N images.
        train_labels: int64 (N,).
        val: int16 or int32 (M, T), the centre view.
        val_labels: int64 (M,).
        codebook_size: size of the vocabulary.
        num_classes: number of labels.
    """

    train: Tensor
    train_labels: Tensor
    val: Tensor
    val_labels: Tensor
    codebook_size: int
    num_classes: int

    @staticmethod
    def load(folder: Path) -> Codes:
        """Map `codes.safetensors` of a folder into memory."""
        # Mapped, not read: the codes of ImageNet's ten views are 6.5 GB.
        tensors = load_file(folder / CODES_FILE)
        codebook_size, num_classes = tensors.pop("sizes").tolist()
        return Codes(**tensors, codebook_size=codebook_size, num_classes=num_classes)


def code_tensors(
    *, views: int, train: int, val: int, tokens: int, codebook_size: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Describe dtype and shape of each tensor of `codes.safetensors`, for filling it in pieces."""
    dtype = "int16" if codebook_size <= _SMALL_CODEBOOK else "int32"
    # The names are the fields of `Codes`.
    return {
        "train_labels": ("int64", (train,)),
        "val_labels": ("int64", (val,)),
        "sizes": ("int64", (2,)),
        "train": (dtype, (views, train, tokens)),
        "val": (dtype, (val, tokens)),
    }


def save_model(folder: Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `model.json`, which says how to build the module.

    All processes must call it; the main one writes.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        # On every rank, since gathering shards is a collective; only the main one keeps the
        # result.
        value = whole(tensor.detach())
        if is_main():
            tensors[name] = value.contiguous().cpu()
    if is_main():
        # The description first: weights without it could not be loaded.
        write_text_durably(folder / "model.json", json.dumps(description, indent=1))
        write_durably(folder / "model.safetensors", lambda file: save_file(tensors, file))


def read_description(folder: Path) -> dict[str, Any]:
    """Read how to build the model that was saved in a folder."""
    description: dict[str, Any] = json.loads((folder / "model.json").read_bytes())
    return description


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load `model.safetensors` of a folder into a module that was built from its description."""
    model.load_state_dict(load_file(folder / "model.safetensors"))


def place(tokenizer: T, device: str) -> T:
    """Move a tokenizer to a device, its convolutions in the memory layout that is fastest."""
    moved: T = tokenizer.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a tokenizer as JSON data from which `described_tokenizer` makes the module."""
    architecture = _described(tokenizer.config, TokenizerArchitecture)
    # What is saved may be published, and the teacher is not needed any more.
    architecture["teacher"] = without_path(tokenizer.config.teacher)
    return {
        "architecture": architecture,
        "image_size": tokenizer.image_size,
        # The width of the head, which is among the weights though only training used it.
        "teacher_dim": tokenizer.teacher_dim,
        "teacher_grid": tokenizer.teacher_grid,
    }


def described_tokenizer(description: Mapping[str, Any]) -> Tokenizer:
    """Build the module that `describe_tokenizer` described, with fresh weights.

    Raises:
        ValueError: its architecture comes from a plug-in that is not loaded.
    """
    sizes = dict(description)
    described = sizes.pop("architecture")
    kind = described.get("architecture", {}).get("name", tokenizers.PUBLISHED.name)
    if kind not in tokenizers.TOKENIZERS:
        raise ValueError(
            f"the tokenizer is of architecture {kind!r}, which nothing here registers; import its "
            'plug-in first: `gigatok.plugins.load(["./NAME"], Path("FOLDER"))`'
        )
    architecture = TokenizerArchitecture.model_validate(described)
    return build_tokenizer(architecture, **sizes)


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write weights and a description from which `load_tokenizer` builds the module."""
    save_model(folder, tokenizer, describe_tokenizer(tokenizer))


def load_tokenizer(folder: Path, device: str) -> Tokenizer:
    """Load the trained tokenizer of a folder, in eval mode."""
    tokenizer = described_tokenizer(read_description(folder))
    load_weights(folder, tokenizer)
    return place(tokenizer, device).eval()


def save_generator(folder: Path, generator: Generator, codes: Codes) -> None:
    """Write weights and a description from which `load_generator` builds the module."""
    description = {
        "architecture": _described(generator.config, GeneratorArchitecture),
        "codebook_size": codes.codebook_size,
        "num_classes": codes.num_classes,
        "num_tokens": codes.val.shape[1],
    }
    save_model(folder, generator, description)


def load_generator(folder: Path, device: str) -> Generator:
    """Load the trained generator of a folder, in eval mode."""
    description = read_description(folder)
    architecture = GeneratorArchitecture.model_validate(description.pop("architecture"))
    generator = build_generator(architecture, **description)
    load_weights(folder, generator)
    # Codes are drawn without dropout.
    return generator.eval().to(device)


def _described(config: Config, architecture: type[Config]) -> dict[str, Any]:
    """Describe a model by what its weights compute, without the settings of its training."""
    return config.model_dump(mode="json", include=set(architecture.model_fields))
