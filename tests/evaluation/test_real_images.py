"""The protocols on photographs, from the prepared store's JPEG bytes to probabilities, against plain loops.

The reference reads the same files with PIL, resizes with torchvision's `resize`, cuts with PIL's `crop` and gives the
network (BN unfolded, NCHW, fp32) one view at a time. Its resize equals the project's because both are PIL's bilinear
filter, which is antialiased as it widens with the ratio, to the same size: the longer side rounded down.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.transforms.functional import resize

from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Split, Store
from pipeline.evaluation.predictor import Predictor
from pipeline.models.blocks import BasicBlock, conv
from pipeline.models.convolutional import GlobalPoolNetwork
from pipeline.schema import MultiScale, TenCrop
from tests.data.material import data, encoded, write_class_folders

pytestmark = pytest.mark.slow

N_IMAGES, SIDE, CROP, CLASSES = 500, 256, 224, 10
SIDES = (224, 256, 384, 480, 640)
SHAPES = ((1, 1, 224, 224), (1, 1, 163, 224), (2, 2, 437, 331), (1, 1, 224, 224), (1, 1, 224, 131), (2, 2, 301, 448))
"""Photographs across and down, and width and height of what is taken of them."""


class ThinNetwork(GlobalPoolNetwork):
    """An ImageNet stem and three residual blocks of few channels, so that 5,000 crops of 224×224 take seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 8, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(BasicBlock(8, 8, 1, "A"), BasicBlock(8, 16, 2, "B"), BasicBlock(16, 32, 2, "A"))
        self.fc = nn.Linear(32, CLASSES)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.blocks(self.maxpool(torch.relu(self.bn1(self.conv1(images)))))


@pytest.fixture(scope="module")
def files(test_data: Path) -> dict[str, bytes]:
    """500 JPEG files, by the path that they get below the source's folder.

    A third are the validation archive's as they came. These are all of 224×224, so the others are pieces and mosaics of
    them, which are of other shapes and, for half of these, larger than the shorter side that is asked for.
    """
    with tarfile.open(test_data / "imagenette" / "ILSVRC2012_img_val.tar") as archive:
        members = itertools.islice((member for member in archive if member.isfile()), N_IMAGES)
        contents = [(member.name, archive.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
    assert len(contents) == N_IMAGES
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for _, content in contents]
    made = {}
    for number, (name, content) in enumerate(contents):
        columns, rows, width, height = SHAPES[number % len(SHAPES)]
        if (columns, rows, width, height) != (1, 1, *pictures[number].size):
            content = encoded(mosaic(pictures[number:] + pictures, columns, rows, width, height), quality=95)
        made[f"train/class/{name}"] = content
    return made


def mosaic(pictures: list[Image.Image], columns: int, rows: int, width: int, height: int) -> Image.Image:
    """The upper left `width` x `height` pixels of photographs beside and below each other."""
    tile = pictures[0].size
    whole = Image.new("RGB", (columns * tile[0], rows * tile[1]))
    for place in range(columns * rows):
        whole.paste(pictures[place], (place % columns * tile[0], place // columns * tile[1]))
    return whole.crop((0, 0, width, height))


@pytest.fixture(scope="module")
def store(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("photographs")
    write_class_folders(folder / "source", files)
    mean = {"kind": "per_pixel", "shorter_side": SIDE, "crop": CROP, "divide_by_std": False}
    prepare(data("class_folders", folder / "source", mean=mean, shard_images=200), folder / "store")
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def split(store: Store) -> Split:
    return store.split("train")


@pytest.fixture(scope="module")
def statistics(store: Store) -> InputStatistics:
    return InputStatistics(store.opened(store.manifest.statistics, InputStatistics.load).mean)


@pytest.fixture(scope="module")
def network(split: Split) -> nn.Module:
    """Random weights, BN statistics of photographs, and scores far enough apart that a wrong view shows."""
    torch.manual_seed(0)
    made = ThinNetwork().train()
    centres = [Image.fromarray(split.image(i)).resize((CROP, CROP)) for i in range(32)]
    batch = torch.from_numpy(np.stack([np.asarray(each) for each in centres])).permute(0, 3, 1, 2).float() - 120
    with torch.no_grad():
        for _ in range(30):
            made(batch)
        made.eval()
        scores = made(batch)
        made.fc.weight *= 2 / scores.std(0).mean()
        made.fc.bias -= made(batch).mean(0)
    return made


@pytest.fixture(scope="module")
def predictor(network: nn.Module, statistics: InputStatistics) -> Predictor:
    return Predictor(network, statistics, [str(i) for i in range(CLASSES)], batch_size=40)


def views(picture: Image.Image) -> Iterator[Image.Image]:
    """Corners and centre of the whole rectangle, by PIL."""
    width, height = picture.size
    right, bottom = width - CROP, height - CROP
    for left, top in [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]:
        yield picture.crop((left, top, left + CROP, top + CROP))


def scores(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        inputs = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        return network(inputs)[0].double().numpy()


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def test_ten_crop_of_500_photographs(predictor, network, statistics, split, files) -> None:
    expected = []
    for key in split.keys:
        picture = resize(Image.open(io.BytesIO(files[f"train/{key.removeprefix('train/')}"])).convert("RGB"), SIDE)
        outputs = []
        for view in views(picture):
            centred = np.asarray(view) - statistics.mean
            outputs += [softmax(scores(network, centred)), softmax(scores(network, centred[:, ::-1]))]
        expected.append(np.mean(outputs, axis=0))
    found = predictor.predict([split.image(i) for i in range(N_IMAGES)], TenCrop(shorter_side=SIDE, crop=CROP))
    assert found.shape == (N_IMAGES, CLASSES)
    assert np.std(expected, axis=0).min() > 0.01, "images must differ, or nothing is compared"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def channels_resized(mean: np.ndarray, width: int, height: int) -> np.ndarray:
    """PIL's bilinear filter on each channel as floats."""
    channels = (Image.fromarray(channel) for channel in mean.transpose(2, 0, 1))
    return np.stack([np.asarray(each.resize((width, height), Image.Resampling.BILINEAR)) for each in channels], axis=-1)


@pytest.mark.parametrize(("mirror", "average"), [(True, "softmax"), (False, "scores")])
def test_multi_scale_of_photographs_of_every_aspect(predictor, network, statistics, split, mirror, average) -> None:
    """The widest, the tallest, the smallest, the largest, and two of one shape, which go together."""
    images = [split.image(i) for i in range(N_IMAGES)]
    aspects, areas = [each.shape[1] / each.shape[0] for each in images], [each.size for each in images]
    shapes = [each.shape for each in images]
    twins = [i for i, shape in enumerate(shapes) if shape == max(set(shapes), key=shapes.count)][:2]
    extremes = [np.argmax(aspects), np.argmin(aspects), np.argmin(areas), np.argmax(areas)]
    chosen = [images[i] for i in dict.fromkeys([*map(int, extremes), *twins])]
    expected = []
    for image in chosen:
        outputs = []
        for side in SIDES:
            picture = resize(Image.fromarray(image), side)
            mean = channels_resized(statistics.mean, *picture.size)
            outputs.append(scores(network, np.asarray(picture) - mean))
            if mirror:
                outputs.append(scores(network, np.asarray(ImageOps.mirror(picture)) - mean[:, ::-1]))
        means = np.mean(outputs, axis=0)
        expected.append(np.mean([*map(softmax, outputs)], axis=0) if average == "softmax" else softmax(means))
    found = predictor.predict(chosen, MultiScale(shorter_sides=SIDES, mirror=mirror, average=average))
    assert (max(aspects), min(aspects)) == (224 / 131, 301 / 448)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
