"""`decode`: a file of codes into image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigatok.commands.options import DeviceOption, PrecisionOption, TokenizerOption
from gigatok.commands.progress import bar, chosen_device


def decode(
    codes: Annotated[Path, typer.Argument(help="File that `encode` wrote.")],
    tokenizer: TokenizerOption,
    out: Annotated[Path, typer.Option(help="Folder of the images, which are PNG files.")],
    device: DeviceOption = None,
    precision: PrecisionOption = "fp32",
) -> None:
    """Decode codes into images, under the names of the images that were encoded."""
    if out.is_file():
        raise ValueError(f"--out {out} is a file; give a folder, such as {out.with_suffix('')}")
    # Imported here: torch takes seconds, and `--help` needs none.
    from gigatok.api import load
    from gigatok.folders.coding import CodedImages, check_decodes, decode_to

    coded = CodedImages.load(codes)
    loaded = load(tokenizer, device=chosen_device(device), precision=precision)
    check_decodes(loaded, coded, codes)
    count = len(coded.names)
    with bar("decoding") as show:
        decode_to(out, loaded, coded, lambda done: show(done, count))
    print(f"{out}: {count} images of {coded.image_size}x{coded.image_size} pixels")
