"""The Python API: images to codes and back, saved and loaded again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import gigatok
from gigatok.data.splits import to_unit_range
from orchestration import Study
from tests.gigatok.trained import digits, noise


def test_one_image_and_many_give_the_same_codes(stage: Path) -> None:
    tokenizer = gigatok.load(stage)
    many = noise(3, 16, 16)
    codes = tokenizer.encode(many)
    assert codes.shape == (3, tokenizer.tokens)
    assert (tokenizer.encode(many[0]) == codes[0]).all()
    assert (tokenizer.encode(list(many)) == codes).all()
    assert (tokenizer.model.encode(to_unit_range(many)).numpy() == codes).all()
    again = tokenizer.decode(codes)
    assert again.shape == many.shape
    assert again.dtype == np.uint8
    assert (tokenizer.decode(torch.from_numpy(codes)) == again).all()
    # Another batch may round another way.
    assert np.abs(tokenizer.decode(codes[0]).astype(int) - again[0]).max() <= 1


def test_more_images_than_a_batch_are_encoded(stage: Path) -> None:
    tokenizer = gigatok.load(stage)
    codes = tokenizer.encode(noise(70, 16, 16))
    assert (codes[64:] == tokenizer.encode(noise(70, 16, 16)[64:])).all()
    assert tokenizer.decode(codes).shape == (70, 16, 16, 3)
    assert tokenizer.encode([]).shape == (0, tokenizer.tokens)


def test_mixed_precision_is_near_full_precision(stage: Path) -> None:
    images = noise(8, 16, 16)
    full, mixed = gigatok.load(stage), gigatok.load(stage, precision="bf16")
    codes = full.encode(images)
    assert (mixed.encode(images) == codes).mean() > 0.8
    difference = mixed.decode(codes).astype(int) - full.decode(codes)
    assert 0 < np.abs(difference).max() <= 8


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([0] * 7 + [64], "got codes 0 to 64; allowed are 0 to 63"),
        ([-1] * 8, "got codes -1 to -1"),
        ([0.0] * 8, r"got float64 of shape \(8,\); codes are whole numbers \(8,\) or \(B, 8\)"),
        ([0] * 7, r"of shape \(7,\)"),
    ],
)
def test_what_are_no_codes_is_said(stage: Path, codes: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gigatok.load(stage).decode(codes)


def test_what_cannot_be_loaded_is_said(stage: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the folder of a complete stage"):
        gigatok.load(tmp_path)
    with pytest.raises(ValueError, match=r"no precision 'int8'; there are fp32, bf16 and fp16"):
        gigatok.load(stage, precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no device 'gpu' here .*`cpu` is always there"):
        gigatok.load(stage, device="gpu")
    with pytest.raises(ValueError, match=r"no folder a/b/c with a tokenizer.*Repo id must be"):
        gigatok.load("a/b/c")


def test_a_folder_of_another_model_is_refused(stage: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((stage / "out/model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="describes no tokenizer of this library"):
        gigatok.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        gigatok.load(tmp_path)


def test_damaged_weights_are_refused(stage: Path, tmp_path: Path) -> None:
    gigatok.load(stage).save_pretrained(tmp_path)
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds other weights .*; copy both files again"):
        gigatok.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"is no \.safetensors file, or is damaged"):
        gigatok.load(tmp_path)


def test_a_saved_tokenizer_gives_equal_outputs(stage: Path, tmp_path: Path) -> None:
    tokenizer, images = gigatok.load(stage), noise(3, 16, 16)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    again = gigatok.Tokenizer.from_pretrained(tmp_path / "saved")
    codes = tokenizer.encode(images)
    assert (again.encode(images) == codes).all()
    assert (again.decode(codes) == tokenizer.decode(codes)).all()
    # Byte for byte the stage's file, so that its recorded hash holds for a copy, too.
    original = (stage / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == original


def test_saving_replaces_what_another_tokenizer_left(stage: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("of another tokenizer")
    gigatok.load(stage).save_pretrained(tmp_path)
    assert "of another tokenizer" not in (tmp_path / "README.md").read_text()


@pytest.mark.heavy
def test_the_round_trip_equals_the_reconstructions_of_the_stage(home: Study) -> None:
    tokenizer = gigatok.load(home.output("S-S", "train_tokenizer"))
    theirs = np.load(home.output("S-S", "evaluate_reconstruction") / "reconstructions.npy")
    assert (tokenizer.decode(tokenizer.encode(digits())) == theirs).all()


@pytest.mark.heavy
def test_packages_are_imported_without_torch() -> None:
    code = (
        "import sys, gigatok, orchestration; assert not {'torch', 'pydantic'} & set(sys.modules);"
    )
    code += "from orchestration import Study; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
