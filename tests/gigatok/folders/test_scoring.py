"""Two folders of images are scored as a study scores its reconstructions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gigatok.data.crops import center_crop
from gigatok.data.splits import to_unit_range
from gigatok.folders.scoring import FolderScoring, score_folders
from gigatok.models.frozen.perceptual import LPIPS
from gigatok.scores import image_metrics
from orchestration import Study
from tests.gigatok.trained import digits, noise, write_images

PIXELS = {"network": "pixels", "resolution": 8}


def scoring(*metrics: str, **settings: object) -> FolderScoring:
    return FolderScoring(metrics, **{**PIXELS, **settings})  # type: ignore[arg-type]


@pytest.mark.heavy
def test_scores_equal_those_of_the_stage(home: Study, tmp_path: Path) -> None:
    out = home.output("S-S", "evaluate_reconstruction")
    theirs = json.loads((out.parent / "DONE").read_bytes())["metrics"]
    mine = write_images(tmp_path / "mine", np.load(out / "reconstructions.npy"))
    names = ("rfid", "rkid", "psnr", "ssim", "ssim_reference")
    found = score_folders(mine, write_images(tmp_path / "real", digits()), scoring(*names))
    assert found.metrics == {name: theirs[name] for name in (*names, "rkid_se")}
    assert found.protocol["rfid"] == "pixels@8, 64 images of mine vs 64 of real"
    assert found.protocol["psnr"] == "64 images of mine and real, uint8"


def test_equal_folders_have_perfect_scores(tmp_path: Path) -> None:
    folder = write_images(tmp_path, noise(4, 16, 16))
    found = score_folders(folder, folder, scoring("psnr", "ssim", "rfid", "gkid"))
    assert math.isinf(found.metrics["psnr"])
    assert found.metrics["ssim"] == 1
    assert found.metrics["rfid"] == pytest.approx(0, abs=1e-6)
    assert list(found.protocol) == ["psnr", "ssim", "rfid", "gkid", "gkid_se"]


def test_pairs_are_found_by_name_and_may_differ_from_each_other_in_size(tmp_path: Path) -> None:
    small, large = noise(2, 12, 12), noise(3, 20, 24)
    for name, shift in (("a", 0), ("b", 1)):
        write_images(tmp_path / name / "small", small // 2 + shift)
        write_images(tmp_path / name / "large", large // 2 + shift)
    for file in (tmp_path / "b" / "small").iterdir():
        file.rename(file.with_suffix(".PNG"))
    found = score_folders(tmp_path / "a", tmp_path / "b", scoring("psnr"))
    assert found.metrics["psnr"] == pytest.approx(20 * math.log10(255))


def test_images_can_be_brought_to_one_size(tmp_path: Path) -> None:
    first, second = noise(3, 20, 24), noise(3, 16, 16)
    a, b = write_images(tmp_path / "a", first), write_images(tmp_path / "b", second)
    found = score_folders(a, b, scoring("psnr", side=16))
    cut = np.stack([center_crop(image, 16) for image in first])
    assert found.metrics["psnr"] == image_metrics.psnr(cut, second)
    assert found.protocol["psnr"] == "3 images of a and b at 16 pixels, uint8"
    with pytest.raises(
        ValueError, match=r"00000\.png: the two images have 24x20 and 16x16 pixels"
    ):
        score_folders(a, b, scoring("psnr"))


def test_sets_without_pairs_have_distances_of_distributions(tmp_path: Path) -> None:
    a, b = write_images(tmp_path / "a", noise(5, 16, 16)), tmp_path / "b"
    write_images(b, noise(70, 16, 20))
    found = score_folders(a, b, scoring("gfid", "gsfid"))
    assert found.metrics.keys() == {"gfid"}
    assert found.protocol["gfid"] == "pixels@8, 5 images of a vs 70 of b"
    assert found.protocol["gsfid"].startswith("not measured: ")
    with pytest.raises(
        ValueError, match=r"65 images are in one folder only: 00005, .* and 55 more"
    ):
        score_folders(a, b, scoring("gfid", "rfid"))


def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    a = write_images(tmp_path / "a", noise(2, 16, 16))
    with pytest.raises(ValueError, match="no metric fid, mse; there are psnr, ssim"):
        score_folders(a, a, scoring("fid", "psnr", "mse"))
    with pytest.raises(ValueError, match="no metric is asked for"):
        score_folders(a, a, scoring())
    with pytest.raises(ValueError, match="no device 'abacus' here"):
        score_folders(a, a, scoring("psnr", device="abacus"))
    with pytest.raises(ValueError, match="KID needs at least 3 images"):
        score_folders(a, a, scoring("rkid"))
    (a / "00001.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"1 unreadable:"):
        score_folders(a, write_images(tmp_path / "b", noise(2, 16, 16)), scoring("psnr"))


@pytest.mark.network
def test_lpips_and_fid_of_the_real_networks(tmp_path: Path) -> None:
    first, second = noise(3, 32, 32), noise(3, 32, 32)[::-1].copy()
    a, b = write_images(tmp_path / "a", first), write_images(tmp_path / "b", second)
    same = score_folders(a, a)
    assert same.metrics["lpips"] == 0
    assert same.metrics["rfid"] == pytest.approx(0, abs=1e-3)
    assert same.protocol["rfid"].startswith("inception-2015@299")
    found = score_folders(a, b, scoring("lpips", lpips="alex"))
    expected = LPIPS("alex")(to_unit_range(first), to_unit_range(second)).double().mean()
    assert found.metrics == {"lpips": float(expected)}
    assert found.protocol["lpips"] == "lpips-alex, 3 images of a and b, uint8"
