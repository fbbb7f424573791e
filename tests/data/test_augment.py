"""Tests of pipeline.data.augment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.data.augment import color_noise, crop_offset, crops, draw, pad_zeros
from pipeline.data.statistics import InputStatistics, Sums
from pipeline.schema import Augmentation

JITTER = Augmentation(scale=(256, 480), pad=0, crop=224, mirror=True, color_noise=0.1)


def test_draws_have_the_papers_distributions() -> None:
    draws = draw(np.random.default_rng(0), 50_000, JITTER)
    assert (draws.scale.min(), draws.scale.max()) == (256, 480)
    assert abs(draws.scale.mean() - 368) < 1.5
    assert abs(draws.scale.std() - np.sqrt((225**2 - 1) / 12)) < 1  # uniform over the 225 integers
    assert abs(draws.mirror.mean() - 0.5) < 0.01
    assert abs(draws.noise.std() - 0.1) < 0.001
    assert 0 <= draws.position.min() < 0.001
    assert 0.999 < draws.position.max() < 1


def test_one_option_does_not_change_anothers_draws() -> None:
    plain = Augmentation(scale=None, pad=0, crop=8, mirror=False, color_noise=0.0)
    mirrored = plain.model_copy(update={"mirror": True, "color_noise": 0.1})
    one, other = (draw(np.random.default_rng(5), 40, augmentation) for augmentation in (plain, mirrored))
    assert np.array_equal(one.position, other.position)
    assert not one.mirror.any()
    assert other.mirror.any()
    assert (one.scale == 0).all()
    assert (one.noise == 0).all()


def test_a_part_is_those_rows() -> None:
    draws = draw(np.random.default_rng(0), 10, JITTER)
    part = draws.part(3, 7)
    assert np.array_equal(part.scale, draws.scale[3:7])
    assert np.array_equal(part.noise, draws.noise[3:7])


def test_crops_lie_at_every_place_that_fits_and_no_other() -> None:
    position = np.random.default_rng(0).random((5000, 2))
    top, left = crop_offset(position, 10, 12, 8)
    assert set(top) == {0, 1, 2}
    assert set(left) == {0, 1, 2, 3, 4}
    assert np.bincount(left).min() > 900
    with pytest.raises(ValueError, match=r"augmentation\.crop: 8 does not fit into images of 7x12"):
        crop_offset(position, 7, 12, 8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crops_are_slices_and_mirror_images(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (6, 9, 11, 3)).to(dtype)
    top, left, mirror = np.array([0, 1, 2, 3, 0, 3]), np.array([5, 4, 3, 2, 1, 0]), np.array([True, False] * 3)
    found = crops(images, top, left, mirror, 6)
    for n in range(6):
        expected = images[n, top[n] : top[n] + 6, left[n] : left[n] + 6]
        assert torch.equal(found[n], expected.flip(1) if mirror[n] else expected)


def test_padding_is_zeros_all_around() -> None:
    padded = pad_zeros(torch.ones(2, 3, 4, 3), 2)
    assert padded.shape == (2, 7, 8, 3)
    assert padded.sum() == 2 * 3 * 4 * 3
    assert padded[:, 2:5, 2:6].min() == 1


def test_colour_noise_is_along_the_principal_colours() -> None:
    values, vectors = (
        np.float32([900, 100, 4]),
        np.linalg.qr(np.random.default_rng(0).random((3, 3)))[0].T.astype(np.float32),
    )
    statistics = InputStatistics(np.zeros(3, np.float32), None, values, vectors)
    draws = draw(np.random.default_rng(0), 20_000, JITTER)
    noise = color_noise(draws, statistics).numpy().astype(np.float64)
    assert np.allclose(np.cov(noise.T), 0.01 * vectors.T @ np.diag(values) @ vectors, atol=0.1)
    assert np.allclose(noise[0], sum(draws.noise[0, k] * values[k] ** 0.5 * vectors[k] for k in range(3)), atol=1e-4)
    divided = InputStatistics(np.zeros(3, np.float32), np.float32([50, 60, 70]), values, vectors)
    assert np.allclose(color_noise(draws, divided).numpy(), noise / [50, 60, 70], atol=1e-5)
    with pytest.raises(ValueError, match="needs the principal colours"):
        color_noise(draws, InputStatistics(np.zeros(3, np.float32)))


def test_colour_noise_varies_as_the_data_do_at_a_hundredth_of_their_covariance() -> None:
    generator = np.random.default_rng(3)
    mixing = np.array([[40.0, 35, 30], [5, 0, -6], [1, -3, 2]])
    pixels = np.clip(generator.normal(size=(4_000, 3)) @ mixing + 128, 0, 255).astype(np.uint8)
    sums = Sums.zero(2)
    for image in pixels.reshape(-1, 2, 2, 3):
        sums.add_image(image, None)
    statistics = replace(sums.statistics(), std=None)  # as the paper: divided by nothing
    noise = color_noise(draw(generator, 200_000, JITTER), statistics).numpy()
    covariance = np.cov(pixels.T.astype(np.float64), bias=True)
    assert np.allclose(np.cov(noise.T), 0.1**2 * covariance, atol=0.01 * 0.1**2 * covariance.max())
    assert np.abs(noise.mean(0)).max() < 0.05
