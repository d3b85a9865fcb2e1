"""The commands encode, decode and score as a user types them: what they print, and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gigatok.__main__ import app
from tests.gigatok.trained import noise, read_images, write_images

PIXELS = ("--network", "pixels", "--resolution", "8")


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", noise(4, 16, 16))


@pytest.mark.heavy
def test_images_are_encoded_decoded_and_scored(stage: Path, images: Path, tmp_path: Path) -> None:
    codes, again = tmp_path / "new" / "codes.npz", tmp_path / "again"
    done = typed("encode", images, "--tokenizer", stage, "--out", codes, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{codes}: 4 images, 8 codes each, of a codebook of 64\n"
    with np.load(codes) as file:
        assert file["names"].tolist() == [f"0000{number}.png" for number in range(4)]
    done = typed("decode", codes, "--tokenizer", stage, "--out", again, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert read_images(again).shape == (4, 16, 16, 3)
    done = typed("score", again, images, "--metrics", "rfid, psnr,rkid", "--json", *PIXELS)
    rows = json.loads(done.stdout)
    assert list(rows) == ["rfid", "psnr", "rkid", "rkid_se"]
    assert rows["psnr"]["protocol"] == "4 images of again and images, uint8"
    shown = typed("score", again, images, "--metrics", "psnr").stdout
    assert f"PSNR (dB) ↑  {rows['psnr']['value']:5.2f}" in shown


def test_infinity_is_null_in_json_and_explained(images: Path) -> None:
    row = json.loads(typed("score", images, images, "--metrics", "psnr", "--json").stdout)["psnr"]
    assert row["value"] is None
    assert row["protocol"].endswith("infinite: at least one image is reproduced exactly")
    assert "inf" in typed("score", images, images, "--metrics", "psnr").stdout


def test_wrong_requests_say_what_is_wrong_and_exit_with_2(
    stage: Path, images: Path, tmp_path: Path
) -> None:
    codes = tmp_path / "codes.npz"
    codes.write_bytes(b"")
    wrong = {
        ("encode", images, "--out", tmp_path): "is a folder; give a file",
        ("encode", tmp_path / "none", "--out", codes): "no file or folder",
        ("decode", codes, "--out", codes): "is a file; give a folder",
        ("decode", codes, "--out", tmp_path): "holds no codes of images",
        ("encode", images, "--out", codes, "--device", "abacus"): "no device 'abacus' here",
    }
    for words, message in wrong.items():
        done = typed(*words, "--tokenizer", stage)
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr
    done = typed("encode", images, "--tokenizer", tmp_path, "--out", codes)
    assert done.exit_code == 2
    assert "no tokenizer" in done.stderr


def test_unreadable_images_are_all_named_and_nothing_is_written(
    stage: Path, images: Path, tmp_path: Path
) -> None:
    for name in ("00001.png", "00003.png"):
        (images / name).write_bytes(b"damaged")
    done = typed("encode", images, "--tokenizer", stage, "--out", tmp_path / "codes.npz")
    assert done.exit_code == 2
    assert "00001.png" in done.stderr
    assert "00003.png" in done.stderr
    assert not (tmp_path / "codes.npz").exists()


@pytest.mark.heavy
def test_a_missing_network_is_named_with_the_way_to_get_it(images: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gigatok", "score", images, images, "--metrics", "lpips"],
        # No cache, and no way out: nothing listens on port 9.
        env={
            **os.environ,
            "GIGATOK_CACHE": str(tmp_path / "cache"),
            "PIP_NO_INDEX": "1",
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot fetch lpips_vgg (LPIPS with VGG16)" in done.stderr
    assert "To supply it by hand, put vgg16.ckpt" in done.stderr
    assert str(tmp_path / "cache") in done.stderr
