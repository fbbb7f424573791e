"""Tests of pipeline.data.images: what is kept, what is odd but kept, what is refused and why."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.errors import ImageError
from pipeline.data.images import Conversion, convert, decode_rgb
from tests.data.material import encoded, jpeg, picture

ENCODED = Conversion("encoded", None, None, 1_000_000)
DECODED = Conversion("decoded", None, None, 1_000_000)


def with_orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(1), exif=exif)


def sixteen_bit() -> bytes:
    values = np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40)
    return encoded(Image.fromarray(values), "PNG")


ODD = {
    "greyscale": encoded(picture(1).convert("L")),
    "cmyk": encoded(picture(1).convert("CMYK"), quality=95),
    "not_jpeg": encoded(picture(1), "PNG"),
    "exif_rotated": with_orientation(),
    "sixteen_bit": sixteen_bit(),
}


@pytest.mark.parametrize("kind", list(ODD))
def test_odd_images_are_kept_as_they_came_and_counted(kind: str) -> None:
    converted = convert(ODD[kind], ENCODED)
    assert converted.content == ODD[kind]
    assert kind in converted.oddities
    assert converted.shape == (30, 40, 3)
    assert decode_rgb(ODD[kind]).shape == (30, 40, 3)


def test_an_ordinary_image_is_not_odd() -> None:
    assert convert(jpeg(1), ENCODED).oddities == ()


def test_broken_metadata_make_no_bad_image() -> None:
    content = encoded(picture(1), dpi=(72, 72), exif=b"Exif\x00\x00no header of TIFF's")
    with Image.open(io.BytesIO(content)) as opened, pytest.raises(SyntaxError):
        opened.getexif()
    assert convert(content, ENCODED).oddities == ()
    assert np.array_equal(decode_rgb(content), decode_rgb(encoded(picture(1))))


def test_pixels_of_odd_images() -> None:
    plain = np.asarray(picture(1), dtype=int)
    assert np.array_equal(decode_rgb(ODD["not_jpeg"]), plain)
    assert np.abs(decode_rgb(ODD["cmyk"]) - plain).mean() < 6
    assert np.ptp(decode_rgb(ODD["greyscale"]), axis=2).max() == 0
    assert np.array_equal(decode_rgb(ODD["exif_rotated"]), decode_rgb(encoded(picture(1))))  # not rotated
    ramp = decode_rgb(ODD["sixteen_bit"])
    assert ramp.min() == 0
    assert ramp.max() == 255
    assert abs(float(ramp.mean()) - 127.5) < 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"This is a text file.\n" * 30, "not an image (it begins with b'This is a text f')"),
        (jpeg(1)[:-200], "cannot be decoded (OSError: "),
        (encoded(picture(1), "PNG")[:-200], "cannot be decoded ("),
        (jpeg(1)[:20], "not an image ("),
        (encoded(Image.new("RGB", (1, 200))), "1x200 pixels: thinner than 2 pixels"),
        (encoded(Image.new("RGB", (300, 3))), "300x3 pixels: thinner than"),
        (encoded(Image.new("1", (40_000, 40_000)), "PNG"), "pixels"),
        (encoded(Image.new("RGB", (1001, 1000))), "1001x1000 pixels are more than max_pixels = 1000000"),
        (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "pixels of kind 'F' (32 bits)"),
    ],
    ids=["zero", "text", "cut_jpeg", "cut_png", "header", "thin", "flat", "bomb", "large", "float"],
)
def test_bad_images_are_refused_with_the_reason(content: bytes, reason: str) -> None:
    for conversion in (ENCODED, DECODED):
        with pytest.raises(ImageError) as caught:
            convert(content, conversion)
        assert reason in str(caught.value)


def test_decoded_images_are_pixels_resized_where_asked() -> None:
    content = encoded(picture(1, 30, 30), "PNG")
    assert convert(content, DECODED).content == picture(1, 30, 30).tobytes()
    smaller = convert(content, Conversion("decoded", 20, None, 10**6))
    assert smaller.shape == (20, 20, 3)
    assert smaller.content == picture(1, 30, 30).resize((20, 20), Image.Resampling.BILINEAR).tobytes()
    with pytest.raises(ImageError, match="40x30 pixels cannot be resized to 20x20"):
        convert(jpeg(1), Conversion("decoded", 20, None, 10**6))


def test_grey_pixels_become_three_channels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pixels = np.frombuffer(convert(grey, DECODED).content, np.uint8).reshape(8, 8, 3)
    assert np.array_equal(pixels, np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(decode_rgb(convert(grey, ENCODED).content), pixels)


def test_larger_images_are_encoded_again_at_the_limit() -> None:
    limit = Conversion("encoded", None, 24, 10**6)
    large, small = convert(jpeg(1, 80, 60), limit), convert(jpeg(1, 32, 24), limit)
    assert (small.content, small.oddities) == (jpeg(1, 32, 24), ())
    assert large.oddities == ("reencoded",)
    plain: Any = Image.open(io.BytesIO(jpeg(1, 80, 60))).resize((32, 24), Image.Resampling.BILINEAR)
    assert np.abs(decode_rgb(large.content).astype(int) - np.asarray(plain)).mean() < 2
