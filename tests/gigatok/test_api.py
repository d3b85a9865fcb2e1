"""The Python API: images to codes and back, whatever shape they come in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gigatok
from gigatok.data.splits import to_unit_range
from gigatok.models.tokenizer.tokenizer import Tokenizer
from gigatok.training.saved import save_tokenizer
from orchestration.sweep.definition import expand, load_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder with a tokenizer that nobody trained."""
    (trial, *_) = expand(load_sweep("decoder_scaling", "smoke")).trials
    config = trial.config
    place = tmp_path_factory.mktemp("stage")
    (place / "out").mkdir()
    save_tokenizer(place / "out", Tokenizer(config.tokenizer, config.data.image_size, 8))
    return place


def images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_one_image_and_many_give_the_same_codes(folder: Path) -> None:
    tokenizer = gigatok.load_tokenizer(folder)
    many = images(3, tokenizer.image_size)
    codes = gigatok.encode(tokenizer, many)
    assert codes.shape == (3, tokenizer.config.tokens_per_image(tokenizer.image_size))
    assert (gigatok.encode(tokenizer, Image.fromarray(many[0])) == codes[0]).all()
    assert (tokenizer.encode(to_unit_range(many)).numpy() == codes).all()
    again = gigatok.decode(tokenizer, codes)
    assert again.shape == many.shape
    assert again.dtype == np.uint8
    assert np.abs(gigatok.decode(tokenizer, codes[0]).astype(int) - again[0]).max() <= 1


def test_an_image_of_another_side_is_scaled_and_cropped(folder: Path) -> None:
    tokenizer = gigatok.load_tokenizer(folder / "out")
    wide = images(1, 2 * tokenizer.image_size)[0][:, :-2]
    assert gigatok.encode(tokenizer, wide).ndim == 1


def test_what_is_no_image_and_what_are_no_codes_is_said(folder: Path, tmp_path: Path) -> None:
    tokenizer = gigatok.load_tokenizer(folder)
    with pytest.raises(ValueError, match=r"got float64 of shape \(2, 2, 3\)"):
        gigatok.encode(tokenizer, np.zeros((2, 2, 3)))
    size = tokenizer.config.codebook_size
    tokens = tokenizer.config.tokens_per_image(tokenizer.image_size)
    with pytest.raises(ValueError, match=f"allowed are 0 to {size - 1}"):
        gigatok.decode(tokenizer, np.full(tokens, size))
    with pytest.raises(ValueError, match="codes are whole numbers"):
        gigatok.decode(tokenizer, np.zeros(tokens))
    with pytest.raises(ValueError, match="give the folder of a complete stage"):
        gigatok.load_tokenizer(tmp_path)


@pytest.mark.heavy
def test_packages_are_imported_without_torch() -> None:
    code = (
        "import sys, gigatok, orchestration; assert not {'torch', 'pydantic'} & set(sys.modules);"
    )
    code += "from orchestration import Study; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
