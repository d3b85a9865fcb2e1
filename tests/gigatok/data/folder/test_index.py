"""Images are read once, again when their file changes, and all that cannot be read are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gigatok.data.folder.index import ContentIndex, read_index
from tests.gigatok.own_images import (
    CLASSES,
    pictures,
    write_flat,
    write_folders,
    write_packed,
)


def index_of(path: Path) -> ContentIndex:
    return read_index(path)[1]


def test_what_is_known_is_not_read_again(tmp_path: Path, cache: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(14))
    first = index_of(root)
    (file,) = (cache / "folder").glob("*.npz")
    written = file.stat().st_mtime_ns
    again = index_of(root)
    assert file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.digests, first.digests)


def test_only_new_and_changed_files_are_read(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(14))
    before = index_of(root)
    untouched, changed, gone = (root / os.fsdecode(before.files[i]) for i in (0, 5, 9))
    # Unreadable, but of the same size and time: only an index that was kept can know its digest.
    state = untouched.stat()
    untouched.write_bytes(b"x" * state.st_size)
    os.utime(untouched, ns=(state.st_atime_ns, state.st_mtime_ns))
    changed.write_bytes(pictures(1, seed=5)[0].content)
    gone.unlink()
    (root / CLASSES[0] / "added.jpg").write_bytes(pictures(1, seed=6)[0].content)
    after = index_of(root)
    kept = {bytes(d) for d in before.digests} & {bytes(d) for d in after.digests}
    assert len(after) == 14
    assert len(kept) == 12
    assert after.files.tolist() == sorted(after.files.tolist())


def test_a_moved_folder_has_the_same_digests(tmp_path: Path) -> None:
    before = index_of(write_folders(tmp_path / "set", pictures(14)))
    (tmp_path / "set").rename(tmp_path / "moved")
    np.testing.assert_array_equal(index_of(tmp_path / "moved").digests, before.digests)


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    root = write_flat(tmp_path / "set", pictures(5))
    before = index_of(root)
    (file,) = (cache / "folder").glob("*.npz")
    file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(index_of(root).digests, before.digests)


def test_all_unreadable_images_are_named_at_once(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "set", pictures(5))
    (root / "empty.png").touch()
    (root / "text.jpg").write_bytes(b"text")
    (root / "broken.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match="3 of 8 images cannot be read; replace") as error:
        index_of(root)
    message = str(error.value)
    assert "empty.png (it is empty)" in message
    assert "text.jpg (4 bytes that are no image)" in message
    assert "broken.png" in message


def test_a_message_names_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "set", pictures(2))
    for number in range(25):
        (root / f"bad_{number:02}.png").touch()
    with pytest.raises(ValueError, match="25 of 27 images") as error:
        index_of(root)
    assert str(error.value).count("it is empty") == 20
    assert "and 5 more" in str(error.value)


def test_an_unreadable_image_of_an_archive_is_named_by_its_member(tmp_path: Path) -> None:
    images = pictures(7)
    cut = images[3]
    images[3] = type(cut)(cut.name, cut.label, cut.content[:40])
    with pytest.raises(ValueError, match=rf"birds.tar: birds/\w+/{cut.name} \("):
        index_of(write_packed(tmp_path / "set", images))


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images in 1 files"):
        index_of(write_packed(tmp_path / "set", []))
