"""Tests of pipeline.data.views: the fast way against resizing all of the image and cropping it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.augment import Draws, draw
from pipeline.data.images import decode_rgb
from pipeline.data.resize import resize_shorter_side
from pipeline.data.sources.ilsvrc2012 import VAL
from pipeline.data.sources.tars import Archive, list_members
from pipeline.data.views import View, cut, decode, training_view, view_of
from pipeline.schema import Augmentation
from tests.data.material import encoded, jpeg, picture

JITTER = Augmentation(scale=(256, 480), pad=0, crop=224, mirror=True, color_noise=0.0)
BOUND = 1.5
"""Of 255, in the mean over an image."""


def plain_view(content: bytes, draws: Draws, row: int, crop: int) -> np.ndarray:
    resized = resize_shorter_side(decode_rgb(content), int(draws.scale[row]))
    view = view_of(
        *resized.shape[:2], Draws(np.zeros_like(draws.scale), draws.position, draws.mirror, draws.noise), row, crop
    )
    cropped = resized[view.top : view.top + crop, view.left : view.left + crop]
    return cropped[:, ::-1] if view.mirror else cropped


def differences(contents: list[bytes], draws: Draws) -> np.ndarray:
    found = []
    for row, content in enumerate(contents):
        fast = training_view(memoryview(content), draws, row, 224).numpy().astype(int)
        found.append(np.abs(fast - plain_view(content, draws, row, 224)).mean())
    return np.array(found)


@pytest.mark.slow
def test_real_photographs(test_data: Path) -> None:
    archive = Archive.at(str(test_data / "imagenette" / VAL))
    with open(archive.url, "rb") as file:
        contents = []
        for member in list_members(archive)[:120]:
            file.seek(member.offset)
            contents.append(file.read(member.size))
    found = differences(contents, draw(np.random.default_rng(0), len(contents), JITTER))
    assert found.max() < BOUND
    assert found.mean() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (2300, 1700), (4200, 2500), (100, 80), (640, 30)])
def test_images_of_all_sizes(size: tuple[int, int]) -> None:
    content = jpeg(1, *size)
    draws = draw(np.random.default_rng(1), 12, JITTER)
    assert differences([content] * 12, draws).max() < BOUND


def test_a_view_at_the_stored_size_is_exact() -> None:
    image = torch.from_numpy(np.asarray(picture(1, 50, 40)).copy())
    for top, left, mirror in ((0, 0, False), (8, 18, True), (3, 7, True)):
        view = cut(image, View((40, 50), top, left, mirror), 32)
        expected = image[top : top + 32, left : left + 32]
        assert torch.equal(view, expected.flip(1) if mirror else expected)


@pytest.mark.parametrize("ratio", [1.0, 0.999, 1.001, 0.992, 1.008, 2.0, 0.5, 1.4648])
def test_crops_at_every_offset_have_their_size_and_place(ratio: float) -> None:
    """Ratios near one, where whole pixels are rare, and the borders."""
    stored = np.asarray(picture(2, 90, 70)).copy()
    height, width = round(70 / ratio), round(90 / ratio)
    if min(height, width) < 32:
        height, width = 35, 45
    resized = np.asarray(picture(2, 90, 70).resize((width, height), 2))
    for top in {0, 1, (height - 32) // 2, height - 33, height - 32}:
        for left in {0, 1, (width - 32) // 3, width - 32}:
            found = cut(torch.from_numpy(stored), View((height, width), top, left, False), 32).numpy()
            expected = resized[top : top + 32, left : left + 32]
            assert found.shape == (32, 32, 3)
            assert np.abs(found.astype(int) - expected).mean() < 1


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [(1023, 256, 1023), (1024, 256, 512), (2048, 256, 512), (4096, 256, 512), (1024, 300, 1024)],
)
def test_jpegs_are_decoded_at_half_only_with_twice_the_resolution_to_spare(
    size: int, scale: int, expected: int
) -> None:
    pixels, own = decode(memoryview(jpeg(1, size, size)), scale)
    assert own == (size, size)
    assert pixels.shape == (expected, expected, 3)


@pytest.mark.parametrize(
    "content",
    [
        encoded(picture(1).convert("CMYK")),
        encoded(picture(1), "PNG"),
        encoded(picture(1).convert("L")),
        encoded(picture(1), "WEBP"),
    ],
    ids=["cmyk", "png", "grey", "webp"],
)
def test_other_images_are_decoded_as_the_plain_way_does(content: bytes) -> None:
    assert np.array_equal(decode(memoryview(content), 24)[0], decode_rgb(content))


def test_full_size_jpegs_are_decoded_as_pil_does() -> None:
    content = jpeg(1, 333, 222)
    assert np.array_equal(decode(memoryview(content), 0)[0], decode_rgb(content))
