"""Tests of pipeline.data.sources.digits."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from pipeline.data.sources.digits import Digits


def test_both_splits_hold_every_image_once_with_its_label() -> None:
    bunch = load_digits()
    listing = Digits().listing(300, map)
    seen: dict[str, list[int]] = {"train": [], "test": []}
    for piece in listing.pieces:
        samples = list(Digits().read(piece))
        assert len(samples) == piece.images <= 300
        for sample in samples:
            index = int(sample.key.removeprefix("digits/"))
            seen[piece.split].append(index)
            assert sample.label == bunch.target[index]
            assert np.array_equal(sample.image, np.rint(bunch.images[index] * 255 / 16))
    assert sorted(seen["train"] + seen["test"]) == list(range(1797))
    assert np.bincount(bunch.target[seen["test"]]).tolist() == [50] * 10


def test_the_split_never_changes() -> None:
    test = [piece for piece in Digits().listing(500, map).pieces if piece.split == "test"]
    keys = [sample.key for sample in Digits().read(test[0])]
    assert keys[:4] == ["digits/0003", "digits/0007", "digits/0009", "digits/0010"]
