"""Images as users have them become the square views of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gigatok.data.crops import center_crop
from gigatok.hub.views import square_views
from tests.gigatok.trained import noise

WIDE = noise(1, 20, 33)[0]


@pytest.mark.parametrize(
    "image",
    [WIDE, Image.fromarray(WIDE), torch.from_numpy(WIDE).permute(2, 0, 1)],
    ids=["array", "Pillow", "tensor"],
)
def test_kinds_of_images_give_the_same_view(image: object) -> None:
    views, is_one = square_views(image, 16)  # type: ignore[arg-type]
    assert is_one
    assert (views == center_crop(WIDE, 16)).all()


def test_a_list_may_mix_kinds_and_sizes() -> None:
    views, is_one = square_views([WIDE, Image.fromarray(WIDE[:, ::-1]), WIDE[:18, :18]], 16)
    assert not is_one
    assert views.shape == (3, 16, 16, 3)


def test_batches_stay_batches() -> None:
    batch = noise(2, 20, 33)
    for images in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2)):
        views, is_one = square_views(images, 16)
        assert not is_one
        assert (views[1] == center_crop(batch[1], 16)).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_modes_of_pillow_become_rgb(mode: str) -> None:
    picture = Image.fromarray(WIDE).convert(mode)
    views, _ = square_views(picture, 20)
    assert (views[0] == center_crop(np.asarray(picture.convert("RGB")), 20)).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((2, 2, 3)),
            r"got an array of float64 and shape \(2, 2, 3\); images are Pillow's",
        ),
        (np.zeros((2, 2), np.uint8), r"uint8 and shape \(2, 2\)"),
        (
            torch.zeros(2, 2, 3, dtype=torch.uint8),
            r"got a tensor of torch.uint8 and shape \(2, 2, 3\)",
        ),
        (torch.zeros(3, 2, 2, dtype=torch.bfloat16), "go to `tokenizer.model`"),
        (Image.new("I;16", (2, 2)), "mode I;16, which has more than 8 bits a channel"),
        ("a.png", "images are Pillow's"),
        ([WIDE, WIDE[None]], "image 1 of the list has shape"),
        ([WIDE, np.zeros(3)], "image 1 of the list: got an array"),
    ],
)
def test_what_is_no_image_is_said(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        square_views(image, 16)  # type: ignore[arg-type]
