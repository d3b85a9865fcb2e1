"""ADM crops against hand-worked sizes and a literal transcription of their definition."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gigatok.data.crops import center_crop, five_crops, random_crop, ten_crops
from gigatok.data.image_sets import resize


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random image with some noise."""
    random = np.random.default_rng(seed)
    small = random.integers(256, size=(height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.integers(-8, 9, size=(height, width, 3))
    return np.clip(np.asarray(large).astype(int) + noise, 0, 255).astype(np.uint8)


def adm_scale(image: np.ndarray, short: int) -> np.ndarray:
    """Halve with BOX until below twice the target, then bicubic: the definition, step by step."""
    picture = Image.fromarray(image)
    while min(*picture.size) >= 2 * short:
        picture = picture.resize(tuple(x // 2 for x in picture.size), Image.Resampling.BOX)
    scale = short / min(*picture.size)
    size = tuple(round(x * scale) for x in picture.size)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(40, 61), (75, 32), (16, 16), (129, 200), (20, 64)])
def test_center_crop_is_adms(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    scaled = adm_scale(image, 16)
    top, left = (scaled.shape[0] - 16) // 2, (scaled.shape[1] - 16) // 2
    expected = scaled[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(center_crop(image, 16), expected)


def test_an_image_that_fits_is_untouched() -> None:
    image = photo(16, 20)
    np.testing.assert_array_equal(center_crop(image, 16), image[:, 2:18])


def test_halving_is_by_area_means() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[::2, ::2] = 200
    assert (center_crop(image, 16) == 50).all()


@pytest.mark.parametrize(
    ("draws", "short", "place"),
    [
        ((0.0, 0.0, 0.0), 16, (0, 0)),
        ((0.999, 0.999, 0.999), 20, (4, 14)),
        ((0.5, 0.5, 0.0), 18, (1, 0)),
    ],
)
def test_random_crops_reach_both_ends_of_every_range(
    draws: tuple[float, float, float], short: int, place: tuple[int, int]
) -> None:
    image = photo(40, 60)
    scaled = adm_scale(image, short)
    top, left = place
    expected = scaled[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(random_crop(image, 16, draws), expected)


def test_random_short_sides_are_uniform() -> None:
    # A column ramp: the slope of the crop tells the scale it was cut at.
    random = np.random.default_rng(0)
    image = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, 0).repeat(3, 2)
    slopes = []
    for draws in random.random((300, 3)):
        row = random_crop(image, 16, draws)[8, :, 0].astype(float)
        slopes.append((row[-3] - row[2]) / 11)
    shorts = np.round(256 / np.array(slopes))
    counts = np.bincount(shorts.astype(int), minlength=21)[16:21]
    assert counts.sum() == 300
    assert counts.min() > 40


def test_five_crops_come_from_the_original_not_from_the_crop() -> None:
    image = photo(80, 120)
    large = adm_scale(image, 17)[:, 4:21]
    crops = five_crops(image, 16)
    assert crops.shape == (5, 16, 16, 3)
    for crop, (top, left) in zip(crops, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)], strict=True):
        np.testing.assert_array_equal(crop, large[top : top + 16, left : left + 16])
    again = resize(center_crop(image, 16)[None], 17)[0][:16, :16]
    assert not np.array_equal(crops[0], again)


def test_five_crops_at_the_published_size() -> None:
    crops = five_crops(photo(300, 400), 256)
    large = center_crop(photo(300, 400), 281)
    np.testing.assert_array_equal(crops[3], large[25:, 25:])
    np.testing.assert_array_equal(crops[4], large[12:268, 12:268])


def test_mirrored_crops_are_cut_out_of_the_mirror_image() -> None:
    """At 281 pixels the centre is at 12 of 25 in both, so that it is not its own mirror image."""
    ramp = np.broadcast_to(np.arange(281) % 256, (281, 281)).astype(np.uint8)
    image = np.stack([ramp] * 3, axis=-1)
    crops = ten_crops(image, 256)
    np.testing.assert_array_equal(crops[:5], five_crops(image, 256))
    np.testing.assert_array_equal(crops[9, 0, :3, 0], image[0, ::-1][12:15, 0])
    np.testing.assert_array_equal(crops[4, 0, :3, 0], image[0, 12:15, 0])
    assert crops[9, 0, 0, 0] != crops[4, 0, -1, 0]
