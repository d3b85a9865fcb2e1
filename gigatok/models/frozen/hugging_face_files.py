"""Files of a vision backbone of transformers, `hf:REPO_OR_FOLDER`, as planning reads them.

Imports no torch. A folder is known by the content of its files, a repository of the Hub by its
name and the revision that the teacher's name gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gigatok.config.kinds.teachers import FoundTeacher, is_path
from gigatok.data.file_hashes import known_sha256
from gigatok.files.mirrors import AssetError, repository_file
from gigatok.models.frozen.measured import measure

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_WEIGHTS = (
    ("*.safetensors", "*.safetensors.index.json"),
    # Read as weights alone, and only where there are no safetensors.
    ("pytorch_model*.bin", "pytorch_model*.json"),
)
_SKELETON = "gigatok.models.frozen.hugging_face:skeleton"


@dataclass(frozen=True)
class Pixels:
    """Pixels as a network sees them: `(scale * x - mean) / std` of values x from 0 to 255.

    Attributes:
        side: of the square image.
    """

    side: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Source:
    """Network by its files.

    Attributes:
        name: value of `tokenizer.teacher`.
        folder: with `config.json` and `preprocessor_config.json`; weights of a repository may
            not be there yet.
        texts: content of these two files, in this order.
        pixels: how images are put to it.
    """

    name: str
    folder: Path
    texts: tuple[str, ...]
    pixels: Pixels


def look(name: str) -> FoundTeacher:
    """Identify a network and measure its features; its weights are hashed, but not loaded.

    Raises:
        ValueError: files are missing, or it has no grid of features.
    """
    source = read_source(name)
    # With the texts, so that a folder whose files change is measured again.
    cost = measure(name, source.pixels.side, _SKELETON, name, *source.texts)
    return FoundTeacher(content=content(name), cost=cost)


def content(name: str) -> str:
    """Identify a network: a hash of its folder's files, or its repository and revision.

    Raises:
        ValueError: the folder has no weights.
    """
    which = name.partition(":")[2]
    if not is_path(which):
        return which
    folder, whole = Path(which), hashlib.sha256()
    for file in (folder / CONFIG, folder / PREPROCESSOR, *_weights(name, folder)):
        whole.update(f"{file.name} {known_sha256(file)}\n".encode())
    return whole.hexdigest()


def read_source(name: str) -> Source:
    """Read what the files of a network say about it; those of a repository are fetched.

    Raises:
        ValueError: a file is missing, or says nothing of use.
    """
    which = name.partition(":")[2]
    files = [_file(name, which, file) for file in (CONFIG, PREPROCESSOR)]
    texts = tuple(file.read_text(encoding="utf-8") for file in files)
    config, preprocessor = map(partial(_json, name), (CONFIG, PREPROCESSOR), texts)
    vision = config.get("vision_config", config)
    return Source(name, files[0].parent, texts, _pixels(name, vision, preprocessor))


def _file(name: str, which: str, file: str) -> Path:
    """Find a file of a folder or a repository."""
    path = Path(which) / file if is_path(which) else _from_hub(name, which, file)
    if path is None or not path.is_file():
        raise ValueError(f"teacher {name} has no {file}; {_NEEDED[file]}")
    return path


_NEEDED = {
    CONFIG: "name a folder that save_pretrained of transformers has written, or a repository of "
    "the Hub (paths begin with /, ./, ../ or ~)",
    PREPROCESSOR: "it says how pixels are normalised: write one with image_mean and image_std, "
    'such as {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}',
}


def _from_hub(name: str, which: str, file: str) -> Path | None:
    repository, _, revision = which.partition("@")
    try:
        return repository_file(repository, revision or None, file)
    except AssetError as error:
        raise AssetError(
            f"teacher {name} is not on this machine: {error}\nWhere there is a network, run "
            "`python -m gigatok assets fetch SWEEP` and copy the cache of the Hub ($HF_HOME), or "
            "name a folder that has the files: hf:./FOLDER"
        ) from error


def _json(name: str, file: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"teacher {name}: its {file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"teacher {name}: its {file} is no JSON object")
    return found


def _weights(name: str, folder: Path) -> list[Path]:
    for patterns in _WEIGHTS:
        found = sorted(file for pattern in patterns for file in folder.glob(pattern))
        if found:
            return found
    raise ValueError(f"teacher {name} has no weights; they are in files such as model.safetensors")


# Pixels


def _pixels(name: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Pixels:
    """Read the statistics of pixels and the side of images.

    Sizes of the preprocessor come first: a network that takes several, such as DINOv2, is used at
    that one, whatever it was trained at last.
    """
    sizes = (*_sizes(preprocessor), config.get("image_size"))
    side = next((side for size in sizes if (side := _square(size)) is not None), None)
    if side is None:
        raise ValueError(
            f"teacher {name}: neither {PREPROCESSOR} nor {CONFIG} gives a square size of images; "
            f'add "size": {{"height": 224, "width": 224}} to {PREPROCESSOR}'
        )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if preprocessor.get("do_normalize", True):
        mean, std = (_channels(name, preprocessor, key) for key in ("image_mean", "image_std"))
    rescales = preprocessor.get("do_rescale", True)
    scale = float(preprocessor.get("rescale_factor", 1 / 255)) if rescales else 1.0
    return Pixels(side, scale, mean, std)


def _sizes(preprocessor: Mapping[str, Any]) -> Iterator[Any]:
    # What is cropped last is what the network sees.
    if preprocessor.get("do_center_crop", "crop_size" in preprocessor):
        yield preprocessor.get("crop_size")
    if preprocessor.get("do_resize", True):
        yield preprocessor.get("size")


def _square(size: Any) -> int | None:
    """Read the side of a square in one of the forms that transformers writes."""
    if isinstance(size, Mapping):
        # Of square images the shortest edge is each edge.
        edges = [size[key] for key in ("height", "width", "shortest_edge") if size.get(key)]
    else:
        edges = size if isinstance(size, list) else [size]
    return edges[0] if edges and len(set(edges)) == 1 and isinstance(edges[0], int) else None


def _channels(name: str, preprocessor: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    values = preprocessor.get(key)
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(
            f"teacher {name}: {key} of its {PREPROCESSOR} is {values!r}; it must be a list of "
            "three numbers, for red, green and blue"
        )
    red, green, blue = map(float, values)
    return red, green, blue
