"""Tests of pipeline.data.resize."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from pipeline.data.resize import center_crop, resize_shorter_side, scaled_size
from tests.data.material import picture


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 333), (37, 500)])
@pytest.mark.parametrize("shorter_side", [24, 256, 480])
def test_it_is_torchvisions_resize_of_pil_images(size: tuple[int, int], shorter_side: int) -> None:
    image = picture(1, *size)
    ours = resize_shorter_side(np.asarray(image), shorter_side)
    theirs = np.asarray(functional.resize(image, shorter_side))
    assert np.array_equal(ours, theirs)
    assert ours.shape[:2] == scaled_size(size[1], size[0], shorter_side)
    assert min(ours.shape[:2]) == shorter_side


def test_an_image_of_that_size_is_itself() -> None:
    image = np.asarray(picture(1, 40, 30))
    assert resize_shorter_side(image, 30) is image


def test_the_centre_crop_is_torchvisions() -> None:
    image = picture(1, 41, 30)
    theirs = np.asarray(functional.center_crop(image, [16, 16]))
    assert np.abs(center_crop(np.asarray(image), 16).astype(int) - theirs).mean() < 10  # odd margins: a pixel apart
    even = picture(1, 40, 30)
    assert np.array_equal(center_crop(np.asarray(even), 16), np.asarray(functional.center_crop(even, [16, 16])))
    with pytest.raises(ValueError, match="crop of 31 does not fit into an image of 30x41"):
        center_crop(np.asarray(image), 31)


def test_down_scaling_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(resize_shorter_side(stripes, 16)[4:-4, 4:-4].astype(int)) < 10
    assert Image.fromarray(stripes).resize((16, 16), Image.Resampling.NEAREST).getextrema()[0][0] in (0, 255)
