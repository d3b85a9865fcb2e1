"""Pictures of every mode come out as people see them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gigatok.data.folder.decoding import array_to_rgb, decode_upright

RED, GREEN = (255, 0, 0), (0, 255, 0)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def split_picture() -> Image.Image:
    """Red on the left, green on the right: 4 wide, 2 high."""
    picture = Image.new("RGB", (4, 2), RED)
    picture.paste(GREEN, (2, 0, 4, 2))
    return picture


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_modes_without_loss_give_their_colours(mode: str) -> None:
    picture = split_picture().convert(mode)
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_upright(encoded(picture)), expected)


def test_print_colours_become_light() -> None:
    picture = Image.new("CMYK", (2, 2), (0, 255, 255, 0))  # no cyan, full magenta and yellow
    decoded = decode_upright(encoded(picture, "TIFF"))
    np.testing.assert_array_equal(decoded, np.full((2, 2, 3), RED, np.uint8))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 256, 32768, 65535]], np.uint16)
    decoded = decode_upright(encoded(Image.fromarray(grey)))
    assert decoded[0, :, 1].tolist() == [0, 1, 128, 255]


def test_a_photo_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    decoded = decode_upright(encoded(split_picture(), exif=exif))
    assert decoded.shape == (4, 2, 3)
    assert decoded[0, 0].tolist() == list(RED)
    assert decoded[3, 0].tolist() == list(GREEN)


def test_what_is_transparent_is_white() -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    assert decode_upright(encoded(picture))[0].tolist() == [list(RED), [255, 255, 255]]


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    picture = Image.new("P", (1, 1), 0)
    picture.putpalette([9, 9, 9])
    assert decode_upright(encoded(picture, transparency=0))[0, 0].tolist() == [255, 255, 255]


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (2, 2), RED), Image.new("RGB", (2, 2), GREEN)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_upright(content)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "12 bytes that are no image"),
        (encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:900], "truncated"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "floating-point"),
    ],
)
def test_what_cannot_be_decoded_says_why(content: bytes, reason: str) -> None:
    with pytest.raises((ValueError, OSError), match=reason):
        decode_upright(content)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
def test_arrays_of_any_number_of_colours_become_rgb(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 255, np.uint8)
    np.testing.assert_array_equal(array_to_rgb(pixels), np.full((2, 3, 3), 255, np.uint8))
    sixteen = np.full(shape, 65535, np.uint16)
    np.testing.assert_array_equal(array_to_rgb(sixteen), np.full((2, 3, 3), 255, np.uint8))
