"""What a served model takes at once, by the pixels that its protocols make of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.tracking import inference, scoring
from pipeline.tracking.inference import MOST_SCALED, Model, parts, scaled_pixels
from pipeline.tracking.package import _stage_members
from tests.tracking.factory import EVALUATION, images, model_folder

PROTOCOLS = EVALUATION.protocols.chosen()


def image(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(0), (height, width, 3))


@pytest.mark.parametrize(
    ("protocol", "height", "width", "pixels"),
    [("center_crop", 40, 60, 20 * 30), ("ten_crop", 5, 4, 25 * 20), ("multi_scale", 10, 30, 20 * 60)],
)
def test_pixels_are_counted_as_the_protocol_scales(protocol: str, height: int, width: int, pixels: int) -> None:
    assert scaled_pixels(image(height, width), PROTOCOLS[protocol]) == pixels


def test_images_are_taken_in_parts_and_strips_are_refused() -> None:
    wide = image(20, 20 * 900)  # 360,000 pixels at a shorter side of 20
    found = [len(part) for part in parts([wide] * 60, PROTOCOLS["ten_crop"])]
    assert found == [27, 27, 6]
    assert 27 * 360_000 <= MOST_SCALED < 28 * 360_000
    with pytest.raises(ValueError, match="image 1: 65000x1 is 26000000 pixels once scaled; at most 10000000"):
        list(parts([wide, image(1, 65_000)], PROTOCOLS["center_crop"]))
    with pytest.raises(ValueError, match="images: more than 500000000 pixels once scaled"):
        list(parts([image(20, 20 * 20_000)] * 100, PROTOCOLS["center_crop"]))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A network that was never trained, as it is served."""
    _stage_members(tmp_path / "members", {"resnet8-s0": model_folder(tmp_path, "resnet8-s0", 0)})
    (tmp_path / "evaluation.json").write_text(EVALUATION.model_dump_json())
    return Model(tmp_path / "members", tmp_path / "evaluation.json")


def test_parts_give_what_all_at_once_gives(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.probabilities(images(7), "multi_scale")
    monkeypatch.setattr(inference, "MOST_SCALED", 3 * 400)
    assert [len(part) for part in parts(list(images(7)), PROTOCOLS["multi_scale"])] == [3, 3, 1]
    assert np.abs(model.probabilities(images(7), "multi_scale") - whole).max() < 1e-6


def test_fp32_is_fp32_on_gpus_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    predict = model._members[0].predict

    def watched(*arguments: Any) -> np.ndarray:
        seen.append(torch.backends.cudnn.allow_tf32)
        return predict(*arguments)

    monkeypatch.setattr(model._members[0], "predict", watched)
    with torch.backends.cudnn.flags(allow_tf32=True):  # torch's default
        model.probabilities(images(2), "center_crop")
        assert seen == [False]
        assert torch.backends.cudnn.allow_tf32, "and the process keeps its setting"


def test_a_process_that_is_no_scoring_server_is_left_alone() -> None:
    from mlflow.pyfunc import scoring_server

    before = scoring_server.invocations
    assert scoring.install() is False
    assert scoring_server.invocations is before
