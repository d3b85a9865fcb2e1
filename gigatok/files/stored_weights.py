"""Weights in files that the authors' trainers write, in every layout of theirs.

The layouts were read off `vq_train.py`, `vq_train_fsdp.py` and `train_c2i.py` of
SilentView/GigaTok; see docs/reference_quirks.md, "Files".
"""

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
"""Keys under which a file may hold the weights; the first one in the file is taken.

This order is that of the authors' loaders: only for tokenizers is an average preferred.
"""
BARE = "bare"
"""Layout of a file that holds nothing but weights."""
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Prefixes that DDP, torch.compile, FSDP and activation checkpointing add to names."""
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
"""Types that the reader may build besides tensors; `weight_files` lists the same by name."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights as a file holds them.

    Attributes:
        tensors: tensors by name, without prefixes of wrappers; they may be mapped from the file.
        layout: key under which the file holds them, or `BARE`.
        steps: optimizer steps of training, if the file tells.
        args: the trainer's command line, if the file holds it.
    """

    tensors: Mapping[str, Tensor]
    layout: str
    steps: int | None
    args: Mapping[str, Any] | None


def read_weights(source: Path | str | Mapping[str, Any], layouts: Sequence[str]) -> StoredWeights:
    """Read a `.pt`, `.pth` or `.safetensors` file, or content that was loaded from one.

    Nothing in the file can run code. Optimizer moments are not read if the format allows it.

    Args:
        source: the file, or its content.
        layouts: `TOKENIZER_LAYOUTS` or `GENERATOR_LAYOUTS`.

    Raises:
        ValueError: there is no such file, it has another format, or it holds no weights.
    """
    # A checkpoint that the caller has loaded is taken as it is.
    content = source if isinstance(source, Mapping) else _read(Path(source).expanduser())
    # An empty entry, as trainers write without an average, is no layout.
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
    # Two names that differ in a prefix would silently become one weight.
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
    """Convert a count of Python, NumPy or torch to an int; None if it is not a count."""
    # The trainers save the step as whatever they counted with.
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
    # Whole modules and bare tensors are no state dicts.
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights by name")
    return content


def _unwrapped(name: str) -> str:
    """Remove what wrappers put before a name or between its parts."""
    for wrapper in _WRAPPERS:
        name = name.replace("." + wrapper, ".")
    # Repeated, since wrappers nest: `module._orig_mod.encoder…`.
    while any(name.startswith(wrapper) for wrapper in _WRAPPERS):
        name = name.partition(".")[2]
    return name
