"""Image files become codes, and codes become image files again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gigatok
from gigatok.folders.coding import CodedImages, check_decodes, decode_to, encode_files
from gigatok.folders.listing import find_images
from orchestration import Study
from tests.gigatok.trained import digits, noise, read_images, write_images


def coded(**changes: object) -> CodedImages:
    whole = CodedImages(np.zeros((1, 8), np.int32), ("a/b.jpg",), 16, 64, "ab")
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.heavy
def test_files_come_back_as_the_reconstructions_of_the_stage(home: Study, tmp_path: Path) -> None:
    tokenizer = gigatok.load(home.output("S-S", "train_tokenizer"))
    files = find_images([write_images(tmp_path / "images", digits())])
    encode_files(tokenizer, files).save(tmp_path / "codes.npz")
    loaded = CodedImages.load(tmp_path / "codes.npz")
    assert loaded.names == tuple(f"{number:05d}.png" for number in range(64))
    check_decodes(tokenizer, loaded, tmp_path)
    decode_to(tmp_path / "again", tokenizer, loaded)
    theirs = np.load(home.output("S-S", "evaluate_reconstruction") / "reconstructions.npy")
    assert (read_images(tmp_path / "again") == theirs).all()


def test_images_of_any_size_are_encoded_as_in_python(stage: Path, tmp_path: Path) -> None:
    tokenizer = gigatok.load(stage)
    wide, high = noise(1, 20, 33), noise(1, 40, 18)
    write_images(tmp_path / "wide", wide)
    write_images(tmp_path / "high", high)
    done: list[int] = []
    found = encode_files(tokenizer, find_images([tmp_path]), done.append)
    assert found.names == ("high/00000.png", "wide/00000.png")
    assert (found.codes == tokenizer.encode([high[0], wide[0]])).all()
    assert done == [2]
    decode_to(tmp_path / "out", tokenizer, found)
    assert (tmp_path / "out" / "wide" / "00000.png").is_file()


def test_unreadable_images_are_all_named_and_no_codes_returned(
    stage: Path, tmp_path: Path
) -> None:
    write_images(tmp_path, noise(70, 16, 16))
    for name in ("00000.png", "00069.png"):  # in different batches
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"(?s)2 unreadable:.*00000\.png.*00069\.png"):
        encode_files(gigatok.load(stage), find_images([tmp_path]))


def test_codes_of_another_tokenizer_are_refused(stage: Path) -> None:
    tokenizer = gigatok.load(stage)
    with pytest.raises(ValueError, match=r"codes\.npz was encoded by another tokenizer"):
        check_decodes(tokenizer, coded(), Path("codes.npz"))


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    coded(names=(name,)).save(tmp_path / "codes.npz")
    with pytest.raises(ValueError, match="leads out of the folder of images"):
        CodedImages.load(tmp_path / "codes.npz")


def test_other_files_hold_no_codes(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "b.npz", codes=np.zeros(3))
    # A pickle, which numpy would run code to read.
    np.savez(tmp_path / "c.npz", codes=np.array([{}], dtype=object), names=np.array(["a"]))
    np.save(tmp_path / "d.npy", np.zeros(3))
    for name in ("a.npz", "b.npz", "c.npz", "d.npy"):
        with pytest.raises(ValueError, match="holds no codes of images"):
            CodedImages.load(tmp_path / name)
    with pytest.raises(ValueError, match="encode` writes one"):
        CodedImages.load(tmp_path / "none.npz")
