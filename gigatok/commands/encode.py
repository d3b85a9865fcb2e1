"""`encode`: image files into one file of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigatok.commands.options import DeviceOption, PrecisionOption, TokenizerOption
from gigatok.commands.progress import bar, chosen_device


def encode(
    images: Annotated[list[Path], typer.Argument(help="Folders of images, or image files.")],
    tokenizer: TokenizerOption,
    out: Annotated[Path, typer.Option(help="File that is written, such as codes.npz.")],
    device: DeviceOption = None,
    precision: PrecisionOption = "fp32",
) -> None:
    """Encode images of any size into codes, kept with the sorted names of the images."""
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give a file, such as {out / 'codes.npz'}")
    # Imported here: torch takes seconds, and `--help` needs none.
    from gigatok.api import load
    from gigatok.files.durable import make_folder
    from gigatok.folders.coding import encode_files
    from gigatok.folders.listing import find_images

    files = find_images(images)
    # Before the work: an hour of it must not end at a folder that cannot be written.
    make_folder(out.parent)
    loaded = load(tokenizer, device=chosen_device(device), precision=precision)
    with bar("encoding") as show:
        coded = encode_files(loaded, files, lambda done: show(done, len(files)))
    coded.save(out)
    count, tokens = coded.codes.shape
    print(f"{out}: {count} images, {tokens} codes each, of a codebook of {coded.codebook_size}")
