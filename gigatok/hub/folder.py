"""Folder of a published tokenizer: `config.json`, `model.safetensors` and `README.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from gigatok.files.durable import write_durably

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
STAGE_CONFIG = "model.json"
"""Description of the network in the outputs of a stage."""
LIBRARY = "gigatok"


def write_folder(folder: Path, model: nn.Module, config: Mapping[str, Any], card: str) -> None:
    """Write the three files; those of another tokenizer are replaced, the card as well."""
    tensors = {
        name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()
    }
    text = json.dumps({"library": LIBRARY, **config}, indent=1)
    write_durably(folder / CONFIG, lambda file: file.write_text(text, encoding="utf-8"))
    # Without metadata: the file stays, byte for byte, the one that the stage's DONE has a hash of.
    write_durably(folder / WEIGHTS, lambda file: save_file(tensors, file))
    write_durably(folder / CARD, lambda file: file.write_text(card, encoding="utf-8"))


def find_weights(folder: Path) -> Path | None:
    """Find the folder with description and weights: this one, or the `out` of a stage."""
    # Users copy the folder of a stage as often as its `out`.
    for place in (folder, folder / "out"):
        described = (place / CONFIG).is_file() or (place / STAGE_CONFIG).is_file()
        if described and (place / WEIGHTS).is_file():
            return place
    return None


def read_config(place: Path) -> dict[str, Any]:
    """Read the description of a tokenizer, with its origin if the folder was published.

    Raises:
        ValueError: the folder holds another kind of model.
    """
    # A published folder says where the tokenizer comes from, so it comes first.
    published = (place / CONFIG).is_file()
    file = place / (CONFIG if published else STAGE_CONFIG)
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); copy it again") from error
    config = found if published else {"tokenizer": found}
    if not isinstance(config.get("tokenizer"), dict) or "image_size" not in config["tokenizer"]:
        raise ValueError(
            f"{file} describes no tokenizer of this library; give the folder of a complete stage "
            "train_tokenizer or adopt_tokenizer, or one that `save_pretrained` wrote"
        )
    return dict(config)
