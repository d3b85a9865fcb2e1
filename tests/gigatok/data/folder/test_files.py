"""Files of images are found below a path; what is hidden or no image is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.data.folder.files import is_image, list_files


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_images_are_found_at_any_depth_and_in_order(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "b/2.JPG", "b/deep/1.png", "a/3.webp")
    listing = list_files(root)
    assert listing.kind == "folders"
    assert list(listing.files) == ["a/3.webp", "b/2.JPG", "b/deep/1.png"]


def test_hidden_files_and_folders_are_no_part(tmp_path: Path) -> None:
    names = ("a/1.png", "a/._1.png", ".DS_Store", "__MACOSX/a/1.png", ".cache/x.png")
    listing = list_files(touch(tmp_path / "set", *names))
    assert list(listing.files) == ["a/1.png"]
    assert listing.left_out == {}


def test_other_files_are_counted_and_empty_folders_are_named(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "a/1.png", "labels.csv", "a/1.heic", "README")
    (root / "b" / "c").mkdir(parents=True)
    listing = list_files(root)
    assert listing.left_out == {".csv": 1, ".heic": 1, "without suffix": 1}
    assert set(listing.empty) == {"b", "b/c"}


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere", "1.png")
    root = touch(tmp_path / "set", "a/1.png")
    (root / "linked").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to(root)
    assert list(list_files(root).files) == ["a/1.png", "linked/1.png"]


@pytest.mark.parametrize("kind", ["tar", "parquet", "npz"])
def test_a_file_of_images_is_a_set(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, f"birds.{kind}", "other.png")
    listing = list_files(tmp_path / f"birds.{kind}")
    assert (listing.kind, list(listing.files)) == (kind, [f"birds.{kind}"])


@pytest.mark.parametrize(
    ("names", "what", "message"),
    [
        ((), "nowhere", "does not exist|no such file or folder"),
        (("set/.DS_Store",), "set", r"holds no images: it is empty|found .DS_Store"),
        (("set/birds.zip",), "set", r"found birds.zip; unpack birds.zip"),
        (("set/a.txt",), "set", r"found a.txt; allowed are image files"),
        (("birds.tar.gz",), "birds.tar.gz", r"is a file; allowed are a folder.*unpack it"),
        (("bird.png",), "bird.png", r"is a file; allowed are a folder"),
        (("set/1.png", "set/x.tar"), "set", r"1 × image files and 1 × .tar \(x.tar, ...\)"),
    ],
)
def test_refusals_say_what_is_there(
    tmp_path: Path, names: tuple[str, ...], what: str, message: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        list_files(tmp_path / what)


@pytest.mark.parametrize(
    ("member", "is_one"),
    [("./a/1.png", True), ("a/._1.png", False), ("__MACOSX/1.png", False), ("a/1.txt", False)],
)
def test_members_of_archives_are_judged_alike(member: str, is_one: bool) -> None:
    assert is_image(member) is is_one
