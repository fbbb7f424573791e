"""Tests of pipeline.data.statistics."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.errors import StoreError
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics, Sums, normalise
from pipeline.data.store import Store
from pipeline.schema import Mean
from tests.data.material import data, digits, train_images, write_ilsvrc2012

GENERATOR = np.random.default_rng(0)


def test_the_mean_and_colours_of_a_store_by_their_definition(tmp_path: Path) -> None:
    prepare(data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source")), tmp_path / "out")
    views = []
    for members in train_images().values():
        for content in members.values():
            image = Image.open(io.BytesIO(content)).resize((32, 24), Image.Resampling.BILINEAR)
            views.append(np.asarray(image)[4:20, 8:24].astype(np.float64))
    pixels = np.stack(views).reshape(-1, 3)
    store = Store.open(tmp_path / "out")
    found = InputStatistics.of_store(store, Mean(kind="per_pixel", shorter_side=24, crop=16, divide_by_std=True))
    assert np.allclose(found.mean, np.mean(views, axis=0), atol=1e-4)
    assert np.allclose(found.std, pixels.std(axis=0), atol=1e-3)
    covariance = np.cov(pixels.T, bias=True)
    rebuilt = found.eigenvectors.T @ np.diag(found.eigenvalues) @ found.eigenvectors
    assert np.allclose(rebuilt, covariance, rtol=1e-4)
    assert (np.diff(found.eigenvalues) <= 0).all()
    assert np.allclose(store.manifest.color_pca.eigenvalues, found.eigenvalues)


def test_the_forms_of_the_mean(tmp_path: Path) -> None:
    prepare(digits(), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    pixel = InputStatistics.of_store(store, Mean(kind="per_pixel", shorter_side=20, crop=16, divide_by_std=False))
    channel = InputStatistics.of_store(store, Mean(kind="per_channel", shorter_side=20, crop=16, divide_by_std=True))
    assert pixel.mean.shape == (16, 16, 3)
    assert pixel.std is None
    assert channel.mean.shape == (3,)
    assert np.allclose(channel.mean, pixel.mean.mean(axis=(0, 1)), rtol=1e-5)
    assert channel.std.shape == (3,)
    with pytest.raises(StoreError, match=r"taken at shorter side 20, crop 16, but data\.mean asks for 24 and 16"):
        InputStatistics.of_store(store, Mean(kind="per_pixel", shorter_side=24, crop=16, divide_by_std=False))


def test_saving_and_loading(tmp_path: Path) -> None:
    whole = Sums.zero(4)
    for _ in range(5):
        whole.add_image(GENERATOR.integers(0, 256, (6, 8, 3), np.uint8), 5)
    for statistics in (whole.statistics(), InputStatistics(np.float32([1, 2, 3]))):
        statistics.save(tmp_path / "a")
        loaded = InputStatistics.load(tmp_path / "a")
        for name in ("mean", "std", "eigenvalues", "eigenvectors"):
            saved, read = getattr(statistics, name), getattr(loaded, name)
            assert (saved is None and read is None) or np.array_equal(saved, read)
    (tmp_path / "a").write_bytes(b"junk")
    with pytest.raises(StoreError, match="a: not readable as input statistics"):
        InputStatistics.load(tmp_path / "a")


def test_sums_do_not_depend_on_order_or_parts() -> None:
    images = GENERATOR.integers(0, 256, (9, 12, 10, 3), np.uint8)
    one, many = Sums.zero(8), Sums.zero(8)
    for image in images:
        one.add_image(image, None)
    for part in (images[5:], images[:5]):
        sums = Sums.zero(8)
        for image in part[::-1]:
            sums.add_image(image, None)
        many.add(sums)
    assert one.images == many.images
    assert np.array_equal(one.pixels, many.pixels)
    assert np.array_equal(one.products, many.products)
    with pytest.raises(ValueError, match="no image"):
        Sums.zero(8).statistics()


def test_grey_images_have_one_principal_colour() -> None:
    sums = Sums.zero(6)
    for _ in range(20):
        grey = GENERATOR.integers(0, 256, (6, 6, 1), np.uint8)
        sums.add_image(np.repeat(grey, 3, axis=2), None)
    statistics = sums.statistics()
    assert statistics.eigenvalues[1:].tolist() == [0, 0]
    assert np.allclose(statistics.eigenvectors[0], 3**-0.5)


@pytest.mark.parametrize("side", [6, 200])  # small batches are treated whole, large images one by one
@pytest.mark.parametrize("with_std", [True, False])
@pytest.mark.parametrize("shape", [("side", "side", 3), (3,)])
def test_normalise_is_its_formula(side: int, with_std: bool, shape: tuple) -> None:
    images = GENERATOR.integers(0, 256, (3, side, side, 3), np.uint8)
    mean = GENERATOR.random([side if n == "side" else n for n in shape]).astype(np.float32) * 255
    std = np.float32([50, 60, 70]) if with_std else None
    shift = GENERATOR.random((3, 3)).astype(np.float32)
    found = normalise(torch.from_numpy(images), InputStatistics(mean, std), torch.from_numpy(shift))
    expected = (images - mean) / (1 if std is None else std) + shift[:, None, None]
    assert found.shape == (3, 3, side, side)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(6, 5), (3, 2)])
def test_at_other_sizes_the_mean_image_is_resized(height: int, width: int) -> None:
    mean = GENERATOR.random((4, 4, 3)).astype(np.float32) * 255
    images = GENERATOR.integers(0, 256, (2, height, width, 3), np.uint8)
    channels = [Image.fromarray(mean[..., c]).resize((width, height), Image.Resampling.BILINEAR) for c in range(3)]
    expected = images - np.stack([np.asarray(channel) for channel in channels], axis=-1)
    found = normalise(torch.from_numpy(images), InputStatistics(mean)).permute(0, 2, 3, 1).numpy()
    assert np.allclose(found, expected, atol=1e-3)
