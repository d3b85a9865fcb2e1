"""Weights out of the files that the authors' trainers write, in every layout (spec section 8)."""

from __future__ import annotations

import argparse
import numbers
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors.torch import load_file
from torch import Tensor

TOKENIZER_LAYOUTS = ("ema", "model", "state_dict", "module")
GENERATOR_LAYOUTS = ("model", "module", "state_dict", "ema")
"""Keys under which a file may hold the weights. Of several the first is taken, as the authors'
loaders do: an average is preferred of tokenizers only (spec 8)."""
BARE = "bare"
"""Layout of a file that holds nothing but weights."""
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What DDP, torch.compile, FSDP and activation checkpointing put into names."""
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["All"]},
    *(
        (f, f"numpy.{core}.multiarray.{f.__name__}")
        for core in ("core", "_core")
        for f in (multiarray.scalar, multiarray._reconstruct)
    ),
]
"""What the reader may build beside tensors; `weight_files` has the same by name."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights as a file holds them.

    Attributes:
        tensors: by name, without the prefixes of wrappers; of a file, they may be mapped.
        layout: the key under which it holds them, or `BARE`.
        steps: optimizer steps of training, where the file says so.
        args: the trainer's command line, where the file holds it.
    """

    tensors: Mapping[str, Tensor]
    layout: str
    steps: int | None
    args: Mapping[str, Any] | None


def read_weights(source: Path | str | Mapping[str, Any], layouts: Sequence[str]) -> StoredWeights:
    """Read a `.pt`, `.pth` or `.safetensors` file, or take what was loaded from one.

    Nothing in the file can run code. Optimizer moments are not read where the format allows it.

    Args:
        source: the file, or its content.
        layouts: `TOKENIZER_LAYOUTS` or `GENERATOR_LAYOUTS`.

    Raises:
        ValueError: there is no such file, it is none of these, or holds no weights.
    """
    content = source if isinstance(source, Mapping) else _read(Path(source).expanduser())
    held = (key for key in layouts if isinstance(content.get(key), Mapping) and content[key])
    layout = next(held, BARE)
    weights = content if layout == BARE else content[layout]
    others = {name for name, value in weights.items() if not isinstance(value, Tensor)}
    if others or not weights:
        raise ValueError(
            f"no weights found: looked for {', '.join(layouts)}, or tensors and nothing else; "
            f"there is {', '.join(sorted(map(str, others))[:8]) or 'nothing'}"
        )
    tensors = {_unwrapped(str(name)): tensor for name, tensor in weights.items()}
    if len(tensors) < len(weights):
        raise ValueError("some weights are there twice, with and without the prefix of a wrapper")
    args = content.get("args")
    return StoredWeights(
        tensors=tensors,
        layout=layout,
        steps=_whole(content.get("steps")),
        args=vars(args) if isinstance(args, argparse.Namespace) else None,
    )


def _whole(value: Any) -> int | None:
    """A count that may be a number of Python, NumPy or torch; None where it is no count."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return int(value) if isinstance(value, numbers.Integral) else None


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            # Mapped, the moments of the optimizer stay on the disk.
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # arbitrary bytes make a parser raise whatever it will
        raise ValueError(f"{path} is not a checkpoint that can be read safely: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights by name")
    return content


def _unwrapped(name: str) -> str:
    """The name without what wrappers put in front of it or between its parts."""
    for wrapper in _WRAPPERS:
        name = name.replace("." + wrapper, ".")
    while any(name.startswith(wrapper) for wrapper in _WRAPPERS):
        name = name.partition(".")[2]
    return name
