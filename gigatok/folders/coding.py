"""Codes of image files, as one `.npz` file: written by encoding, read by decoding.

codes          int32 (N, T), an image a row
names          text (N,), sorted: paths of the images below the folder that was encoded
image_size     side S of the tokenizer's images
codebook_size  codes are 0 to this, without it
weights        sha256 of the tokenizer's `model.safetensors`
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from gigatok.api import BATCH, TrainedTokenizer
from gigatok.data.crops import UInt8, center_crop
from gigatok.data.image_sets import in_batches, read_ahead
from gigatok.files.durable import facts_of, make_folder, write_durably
from gigatok.folders.listing import Files, Reader, stems
from gigatok.hub.folder import WEIGHTS
from gigatok.text.command_lines import command

Progress = Callable[[int], object]
"""Function that is called with the number of images done."""


@dataclass(frozen=True)
class CodedImages:
    """Codes of images, their names, and what decodes them; fields as in the file."""

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]
    image_size: int
    codebook_size: int
    weights: str

    def save(self, path: Path) -> None:
        """Write the `.npz` file, which appears only when it is complete."""
        write_durably(path, self._write)

    def _write(self, path: Path) -> None:
        # Through a handle: given a path, numpy appends `.npz` to names that do not end so.
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                codes=self.codes,
                names=np.array(self.names, np.str_),
                image_size=self.image_size,
                codebook_size=self.codebook_size,
                weights=self.weights,
            )

    @staticmethod
    def load(path: Path) -> CodedImages:
        """Read what `save` wrote.

        Raises:
            ValueError: it is another file, or a name in it leads out of the folder of images.
        """
        try:
            # Pickles are refused by default: a file of somebody else cannot run code.
            with np.load(path) as arrays:
                found = CodedImages(
                    arrays["codes"],
                    tuple(arrays["names"].tolist()),
                    int(arrays["image_size"]),
                    int(arrays["codebook_size"]),
                    str(arrays["weights"]),
                )
        except FileNotFoundError as error:
            raise ValueError(
                f"no file {path}; `{command('gigatok', 'encode')}` writes one"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no codes of images ({error}); give a file that "
                f"`{command('gigatok', 'encode')}` wrote"
            ) from error
        found._check_names(path)
        return found

    def _check_names(self, path: Path) -> None:
        """Refuse names that would write outside the folder that the user gives."""
        for name in map(PurePosixPath, self.names):
            if name.is_absolute() or ".." in name.parts or not name.name:
                raise ValueError(
                    f"{path}: the name {str(name)!r} leads out of the folder of images; "
                    "encode the images again"
                )


def weights_hash(tokenizer: TrainedTokenizer) -> str:
    """Compute the sha256 of the tokenizer's weights: codes mean nothing to another one."""
    return str(facts_of(tokenizer.source / WEIGHTS)["sha256"])


def encode_files(
    tokenizer: TrainedTokenizer, files: Files, on_progress: Progress = lambda done: None
) -> CodedImages:
    """Encode image files of any size, the next ones being read while some are encoded.

    Raises:
        ValueError: files are unreadable (all are named), or two names differ in their ending only.
    """
    stems(files)  # decoded images are all PNG, so names must differ without their endings
    paths, reader, side = list(files.values()), Reader(), tokenizer.image_size
    codes = np.empty((len(paths), tokenizer.tokens), np.int32)

    def views(rows: npt.NDArray[np.int64]) -> UInt8:
        return np.stack([center_crop(p, side) for p in reader.read([paths[row] for row in rows])])

    batches = list(in_batches(len(paths), BATCH))
    for rows, batch in zip(batches, read_ahead(views, batches), strict=True):
        if not reader.unreadable:
            codes[rows] = tokenizer.encode_views(batch)
        on_progress(int(rows[-1]) + 1)
    reader.check()
    weights = weights_hash(tokenizer)
    return CodedImages(codes, tuple(files), side, tokenizer.codebook_size, weights)


def check_decodes(tokenizer: TrainedTokenizer, coded: CodedImages, where: Path) -> None:
    """Check that codes were made by this tokenizer.

    Raises:
        ValueError: another one made them.
    """
    mine = (tokenizer.image_size, tokenizer.codebook_size, tokenizer.tokens)
    theirs = (coded.image_size, coded.codebook_size, coded.codes.shape[-1])
    if mine != theirs or weights_hash(tokenizer) != coded.weights:
        raise ValueError(
            f"{where} was encoded by another tokenizer (weights with sha256 {coded.weights[:16]}, "
            f"{theirs[2]} codes of {theirs[1]} an image of {theirs[0]} pixels); give --tokenizer "
            "the one that encoded it, or encode the images again"
        )


def decode_to(
    folder: Path,
    tokenizer: TrainedTokenizer,
    coded: CodedImages,
    on_progress: Progress = lambda done: None,
) -> None:
    """Decode images into PNG files: those named `a/b.jpg` become `a/b.png` in the folder."""
    names = list(stems(coded.names))
    for rows in in_batches(len(names), BATCH):
        images = tokenizer.decode(coded.codes[rows])
        for row, image in zip(rows, images, strict=True):
            target = folder / f"{names[row]}.png"
            make_folder(target.parent)
            Image.fromarray(image).save(target)
        on_progress(int(rows[-1]) + 1)
