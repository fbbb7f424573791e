"""Tests of pipeline.data.nvjpeg: on the CPU through torchvision's own decoder, and on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.data.augment import draw
from pipeline.data.errors import StoreError
from pipeline.data.nvjpeg import RawImages, decoded_views
from pipeline.data.views import training_view
from pipeline.schema import Augmentation
from tests.data.material import encoded, jpeg, picture

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision")

JITTER = Augmentation(scale=(40, 80), pad=0, crop=32, mirror=True, color_noise=0.0)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
        ),
    ],
)
def test_views_are_those_of_the_cpu(device: str) -> None:
    contents = [jpeg(n, 90 + n, 70) for n in range(6)]
    contents += [
        encoded(picture(7, 90, 70), "PNG"),
        encoded(picture(8, 90, 70).convert("CMYK")),
        encoded(picture(9, 90, 70).convert("L")),
    ]
    draws = draw(np.random.default_rng(0), len(contents), JITTER)
    raw = RawImages.of(memoryview(content) for content in contents)
    found = decoded_views(raw, draws, 32, torch.device(device)).cpu().numpy().astype(int)
    for row, content in enumerate(contents):
        expected = training_view(memoryview(content), draws, row, 32).numpy()
        assert np.abs(found[row] - expected).mean() < 1.5


def test_a_damaged_jpeg_is_an_error() -> None:
    damaged = RawImages.of([memoryview(jpeg(1)[:-200])])
    draws = draw(np.random.default_rng(0), 1, JITTER)
    with pytest.raises(StoreError, match="cannot be decoded on cpu"):
        decoded_views(damaged, draws, 32, torch.device("cpu"))
