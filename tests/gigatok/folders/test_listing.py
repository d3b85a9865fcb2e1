"""Images of a user are found by name, and what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.folders.listing import Reader, find_images, stems
from tests.gigatok.trained import noise, write_images


def test_images_below_folders_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_images(tmp_path / "b", noise(2, 8, 8))
    write_images(tmp_path, noise(1, 8, 8))
    for hidden in ("._00000.png", ".cache/00000.png", "b/notes.txt"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    assert list(find_images([tmp_path])) == ["00000.png", "b/00000.png", "b/00001.png"]


def test_single_files_keep_their_own_names(tmp_path: Path) -> None:
    write_images(tmp_path / "a", noise(1, 8, 8)).joinpath("00000.png").rename(tmp_path / "x.dat")
    assert find_images([tmp_path / "x.dat"]) == {"x.dat": tmp_path / "x.dat"}


def test_what_cannot_be_listed_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "a", noise(1, 8, 8))
    write_images(tmp_path / "b", noise(1, 8, 8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no file or folder .*x, .*y; give images"):
        find_images([tmp_path / "x", tmp_path / "a", tmp_path / "y"])
    with pytest.raises(ValueError, match=r"no images in .*empty; files end in .*\.jpg, "):
        find_images([tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"have the same name, 00000\.png"):
        find_images([tmp_path / "a", tmp_path / "b"])


def test_names_without_their_endings_tell_images_apart() -> None:
    assert stems(["a/b.jpg", "c.tar.png"]) == {"a/b": "a/b.jpg", "c.tar": "c.tar.png"}
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png differ in their ending only"):
        stems(["a.jpg", "a.png"])


def test_every_unreadable_file_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, noise(2, 8, 8))
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").touch()
    reader, files = Reader(), find_images([tmp_path])
    read = reader.read(list(files.values()))
    assert [len(pixels) for pixels in read] == [8, 8, 1, 1]
    with pytest.raises(
        ValueError, match=r"(?s)2 unreadable:.*a\.png: 8 bytes.*b\.png: it is empty"
    ):
        reader.check()
