"""Images in every form that clients send, and the message for each that is none."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.tracking.images import MOST_IMAGES, as_images
from tests.tracking.factory import images

BATCH = images(3, size=(5, 7))


def encoded(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


PNGS = [encoded(image) for image in BATCH]


@pytest.mark.parametrize(
    "data",
    [
        BATCH,
        BATCH.astype(np.int64),
        BATCH.astype(object),
        BATCH.tolist(),
        list(BATCH),
        {"images": BATCH},
        PNGS,
        [text(png) for png in PNGS],
        [f"data:image/png;base64,{text(png)}" for png in PNGS],
        np.array(PNGS, dtype=object),
        pd.DataFrame({"images": PNGS}),
        [BATCH[0], PNGS[1], text(PNGS[2])],
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_form_gives_the_same_pixels(data: Any) -> None:
    found = as_images(data)
    assert all(image.dtype == np.uint8 for image in found)
    assert np.array_equal(np.stack(found), BATCH)


def test_single_images_and_mixed_sizes() -> None:
    assert np.array_equal(as_images(BATCH[0])[0], BATCH[0])
    assert np.array_equal(as_images(PNGS[0])[0], BATCH[0])
    assert np.array_equal(as_images(np.array(PNGS[0], dtype=object))[0], BATCH[0])
    assert [image.shape for image in as_images([BATCH[0], images(1, size=(2, 9))[0]])] == [(5, 7, 3), (2, 9, 3)]


def test_grey_transparent_and_jpeg_images_become_rgb() -> None:
    grey = np.full((4, 4), 77, np.uint8)
    transparent = np.dstack([BATCH[0], np.full((5, 7), 128, np.uint8)])
    found = as_images([encoded(grey), encoded(transparent), encoded(BATCH[0], "JPEG")])
    assert np.array_equal(found[0], np.full((4, 4, 3), 77))
    assert np.array_equal(found[1], BATCH[0])
    assert found[2].shape == (5, 7, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "there are none"),
        ([PNGS[0], b"no image"], "image 1: 8 bytes that are no image of JPEG, PNG"),
        ([b""], "image 0: 0 bytes that are no image"),
        ([PNGS[0][:60]], "image 0: broken image"),
        ([encoded(images(1, size=(64, 64))[0], "JPEG")[:900]], "image 0: broken image"),
        (["not base64!"], "image 0: not base64"),
        ([text(b"no image")], "image 0: 8 bytes that are no image"),
        ([bomb(10_000, 10_000)], "image 0: 10000x10000 pixels; at most 50000000"),
        ([bomb(60_000, 60_000)], "image 0: too many pixels"),
        (BATCH / 255, "image 0: float64 values; give whole numbers"),
        (BATCH.astype(np.int16) - 300, "image 0: int16 values"),
        ([[[[256, 0, 0]]]], "image 0: int64 values"),
        ([[[[1, 2], [3]]]], "image 0: rows of pixels of different lengths"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"image 0: shape \(4, 4, 1\)"),
        (np.zeros((2, 0, 4, 3), np.uint8), r"image 0: shape \(0, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"image 0: shape \(4,\)"),
        ([None], "image 0: NoneType; give pixels"),
        ([{"b64": "x"}], "image 0: dict; give pixels"),
        (np.array([b"abc\0"]), "make it with dtype=object"),
        (7, "int is not a batch of images"),
        ({"a": [], "b": []}, r"entries \['a', 'b'\]"),
        (pd.DataFrame({"a": [1], "b": [2]}), r"a table of columns \['a', 'b'\]"),
        (["x"] * (MOST_IMAGES + 1), "4097 at once"),
        ([encoded(BATCH[0], "ICO")], "are no image of"),
        ([np.broadcast_to(np.uint8(0), (7000, 7000, 3))] * 6, "more than 250000000 pixels together"),
    ],
)
def test_what_is_no_image_is_refused_by_name(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_images(data)
