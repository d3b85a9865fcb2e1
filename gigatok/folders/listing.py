"""Image files of a user: found by name, read in threads, and every unreadable one reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from gigatok.data.crops import UInt8
from gigatok.data.folder.files import IMAGE_SUFFIXES, is_image
from gigatok.data.image_sets import DECODERS, decode

Files = Mapping[str, Path]
"""Name of each image -> its file, sorted by name.

The name is the path below the folder, with `/`; of a file that was named itself, its own name.
"""


def find_images(paths: Iterable[Path]) -> Files:
    """Find the images in folders and below them, and take single files as they are.

    Hidden files and folders are left out, as are files that have no ending of an image.

    Raises:
        ValueError: a path does not exist, there are no images, or two have the same name.
    """
    given = list(paths)
    missing = [str(path) for path in given if not path.exists()]
    if missing:
        raise ValueError(
            f"no file or folder {', '.join(missing)}; give images, or folders of them"
        )
    found: dict[str, Path] = {}
    for name, file in (entry for path in given for entry in _images_of(path)):
        if name in found:
            raise ValueError(
                f"{found[name]} and {file} have the same name, {name}; names tell images apart, "
                "so give them one folder after the other, or rename one"
            )
        found[name] = file
    if not found:
        where = ", ".join(map(str, given))
        raise ValueError(f"no images in {where}; files end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return dict(sorted(found.items()))


def _images_of(path: Path) -> Iterable[tuple[str, Path]]:
    if path.is_file():  # whatever its ending: the user has named it
        return [(path.name, path)]
    # By the path below the folder: a hidden folder above it is the user's own choice.
    names = ((file.relative_to(path).as_posix(), file) for file in path.rglob("*"))
    return [(name, file) for name, file in names if is_image(name)]


def stems(names: Iterable[str]) -> dict[str, str]:
    """Map the names of images without their endings to the names.

    Raises:
        ValueError: two names differ in their ending only.
    """
    found: dict[str, str] = {}
    for name in names:
        stem = PurePosixPath(name).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(
                f"{found[stem]} and {name} differ in their ending only, and images are told apart "
                "by what stands before it; rename one"
            )
        found[stem] = name
    return found


class Reader:
    """Reader of image files, several at a time; collects what cannot be read.

    Attributes:
        unreadable: files that could not be read, each with the reason.
    """

    def __init__(self) -> None:
        self.unreadable: dict[Path, str] = {}
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="read")

    def read(self, files: Sequence[Path]) -> list[UInt8]:
        """Read files as RGB (H, W, 3), in their order.

        A black pixel stands in place of an unreadable one, so that reading goes on and finds all
        of them: nothing may be made of the images before `check`.
        """
        return list(self._pool.map(self._read, files))

    def _read(self, file: Path) -> UInt8:
        try:
            return decode(file.read_bytes())
        except Exception as error:  # arbitrary bytes make a decoder raise whatever it will
            self.unreadable[file] = str(error).partition("\n")[0]
            return np.zeros((1, 1, 3), np.uint8)

    def check(self) -> None:
        """Raise if files were unreadable.

        Raises:
            ValueError: names all of them, so that they can be mended at once.
        """
        if self.unreadable:
            lines = [f"  {file}: {reason}" for file, reason in sorted(self.unreadable.items())]
            raise ValueError(
                "\n".join(
                    [
                        f"{len(lines)} unreadable:",
                        *lines,
                        "Replace or remove them; nothing was written.",
                    ]
                )
            )
