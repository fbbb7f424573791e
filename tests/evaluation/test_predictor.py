"""The protocols against a slow reading of the paper: plain loops over PIL crops, one view at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pipeline.data.statistics import InputStatistics
from pipeline.evaluation.predictor import Predictor, Protocol, fold_batch_norm
from pipeline.models import build, score_map
from pipeline.schema import CenterCrop, MultiScale, SingleView, TenCrop
from tests.compiler import needs_compiler

CROP, SIDE, CLASSES = 16, 20, 7
SIZES = [(20, 20), (24, 31), (40, 23), (20, 33), (57, 57), (24, 31)]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    made = build("resnet8", CLASSES).train()
    for _ in range(5):
        made(torch.randn(16, 3, CROP, CROP) * 60)
    return made.eval()


@pytest.fixture(scope="module")
def statistics() -> InputStatistics:
    generator = np.random.default_rng(0)
    return InputStatistics(mean=generator.uniform(100, 150, (CROP, CROP, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def predictor(network: torch.nn.Module, statistics: InputStatistics) -> Predictor:
    return Predictor(network, statistics, [f"class {i}" for i in range(CLASSES)], batch_size=4)


def resized(image: np.ndarray, side: int) -> Image.Image:
    """The shorter side at `side`, the longer one in proportion, rounded down."""
    picture = Image.fromarray(image)
    width, height = picture.size
    if min(width, height) == side:
        return picture
    shorter = min(width, height)
    return picture.resize((width * side // shorter, height * side // shorter), Image.Resampling.BILINEAR)


def resized_mean(mean: np.ndarray, width: int, height: int) -> np.ndarray:
    """PIL's bilinear filter on each channel as floats."""
    channels = [
        Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR)
        for channel in mean.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def boxes(width: int, height: int) -> Iterator[tuple[int, int]]:
    yield from [(0, 0), (width - CROP, 0), (0, height - CROP), (width - CROP, height - CROP)]
    yield (width - CROP) // 2, (height - CROP) // 2


def scores(network: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float())[0].numpy()


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def test_ten_crop_is_the_mean_softmax_of_corners_centre_and_their_mirrors(predictor, network, statistics, images):
    expected = []
    for image in images:
        picture = resized(image, SIDE)
        outputs = []
        for left, top in boxes(*picture.size):
            centred = np.asarray(picture.crop((left, top, left + CROP, top + CROP))) - statistics.mean
            outputs += [softmax(scores(network, centred)), softmax(scores(network, centred[:, ::-1]))]
        expected.append(np.mean(outputs, axis=0))
    np.testing.assert_allclose(predictor.predict(images, TenCrop(shorter_side=SIDE, crop=CROP)), expected, atol=1e-5)


def test_center_crop_is_the_softmax_of_the_middle(predictor, network, statistics, images):
    expected = []
    for image in images:
        picture = resized(image, SIDE)
        *_, (left, top) = boxes(*picture.size)
        view = np.asarray(picture.crop((left, top, left + CROP, top + CROP)))
        expected.append(softmax(scores(network, view - statistics.mean)))
    found = predictor.predict(images, CenterCrop(shorter_side=SIDE, crop=CROP))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("average", ["softmax", "scores"])
def test_multi_scale_averages_whole_images_over_scales(predictor, network, statistics, images, mirror, average):
    """The pooled network of a whole image is its dense classifier's map, averaged."""
    sides = (16, 20, 29)
    expected = []
    for image in images:
        outputs = []
        for side in sides:
            picture = resized(image, side)
            for view in [picture, ImageOps.mirror(picture)] if mirror else [picture]:
                mean = resized_mean(statistics.mean, *picture.size)
                outputs.append(scores(network, np.asarray(view) - (mean if view is picture else mean[:, ::-1])))
        if average == "softmax":
            expected.append(np.mean([softmax(output) for output in outputs], axis=0))
        else:
            expected.append(softmax(np.mean(outputs, axis=0)))
    protocol = MultiScale(shorter_sides=sides, mirror=mirror, average=average)
    np.testing.assert_allclose(predictor.predict(images, protocol), expected, atol=1e-5)


@pytest.mark.parametrize(
    "protocol",
    [
        CenterCrop(shorter_side=SIDE, crop=CROP),
        TenCrop(shorter_side=SIDE, crop=CROP),
        MultiScale(shorter_sides=(16, 20), mirror=True, average="softmax"),
    ],
)
def test_order_and_batch_size_change_no_prediction(network, statistics, images, protocol: Protocol) -> None:
    names = [str(i) for i in range(CLASSES)]
    whole = Predictor(network, statistics, names, batch_size=512).predict(images, protocol)
    single = Predictor(network, statistics, names, batch_size=1).predict(images[::-1], protocol)
    np.testing.assert_allclose(single[::-1], whole, atol=1e-6)


def test_single_view_looks_at_the_image_as_stored(predictor, network, statistics) -> None:
    image = np.random.default_rng(2).integers(0, 256, (CROP, CROP, 3), dtype=np.uint8)
    expected = softmax(scores(network, image - statistics.mean))
    np.testing.assert_allclose(predictor.predict([image], SingleView())[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 20, 3), np.float32), r"image 1: float32 \(20, 20, 3\); give uint8"),
        (np.zeros((20, 20), np.uint8), r"image 1: uint8 \(20, 20\)"),
        (np.zeros((0, 20, 3), np.uint8), r"image 1: uint8 \(0, 20, 3\)"),
    ],
)
def test_images_of_another_form_are_refused(predictor, image: np.ndarray, message: str) -> None:
    good = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        predictor.predict([good, image], SingleView())


def unsettled(name: str) -> torch.nn.Module:
    """A network of the zoo whose BN layers have statistics, scales and shifts of their own."""
    torch.manual_seed(3)
    made = build(name, CLASSES)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    return made.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "plain20", "plain18", "resnet34c", "resnet50", "bn_inception"])
def test_folding_takes_every_bn_and_changes_no_score(name: str) -> None:
    trained = unsettled(name)
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    folded = fold_batch_norm(trained)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for function in (lambda network: network(images), lambda network: score_map(network, images)):
            expected = function(trained)
            assert (function(folded) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())


def test_network_without_bn_is_not_copied() -> None:
    bare = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    assert fold_batch_norm(bare) is bare


def test_predictor_keeps_the_network_with_its_bn(predictor: Predictor, network: torch.nn.Module) -> None:
    assert predictor.network is network
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in predictor.network.modules())


@pytest.mark.parametrize("batch_size", [1, 10, 25, 512])
def test_no_more_views_than_the_batch_size_go_through_at_once(network, statistics, images, batch_size: int) -> None:
    sizes = []
    looking = Predictor(network, statistics, [str(i) for i in range(CLASSES)], batch_size=batch_size)
    looking._folded.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    looking.predict(images, TenCrop(shorter_side=SIDE, crop=CROP))
    assert sum(sizes) == 10 * len(images)
    assert max(sizes) <= batch_size
    if batch_size == 25:
        assert set(sizes) == {20}  # images of other shapes go together once they are cropped


@pytest.mark.slow
@needs_compiler
def test_compiled_for_whole_batches_of_one_size_and_the_same_probabilities(
    network: torch.nn.Module, statistics: InputStatistics, images: list[np.ndarray]
) -> None:
    names = [f"class {i}" for i in range(CLASSES)]
    plain, fast = (Predictor(network, statistics, names, batch_size=20, compile=way) for way in (False, True))
    protocol = TenCrop(shorter_side=SIDE, crop=CROP)
    torch._dynamo.utils.counters.clear()
    for some in (images[:5], images[:1], images):
        np.testing.assert_allclose(fast.predict(some, protocol), plain.predict(some, protocol), atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    center = CenterCrop(shorter_side=SIDE, crop=CROP)  # of another number of views, whose whole batches are others
    np.testing.assert_allclose(fast.predict(images, center), plain.predict(images, center), atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    fast.predict(images, protocol)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
