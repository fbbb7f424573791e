"""One run's training put together: what may be continued, by what it was trained, what its curve is measured with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline.data.prepare import prepare
from pipeline.data.store import Split, Store
from pipeline.schema import CenterCrop
from pipeline.training import precision, session
from pipeline.training.checkpoints import differences
from pipeline.training.session import RunSpec, Session, views_at_once
from tests.cluster.conftest import small_params, small_spec
from tests.training.material import CPU

ROOT = Path(__file__).parents[2]
CODE = {"git_commit": "a" * 40, "git_dirty": False}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A small training on the digits."""
    folder = tmp_path_factory.mktemp("digits") / "store"
    prepare(small_params().data, folder)
    return replace(small_spec(folder, deterministic=False), code=CODE)


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all values that are no mappings."""
    for key, value in tree.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) and value else [(*path, key)]


def without(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The tree with another value at one place."""
    head, *rest = path
    return {**tree, head: without(tree[head], tuple(rest)) if rest else "another"}


class Dumped:
    """A section whose values need not be valid."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.__dict__.update({key: Dumped(value) for key, value in values.items() if isinstance(value, dict)})

    def model_dump(self, **_: object) -> dict[str, Any]:
        return self.values


def test_each_parameter_that_the_train_stage_depends_on_is_part_of_what_may_be_continued(spec: RunSpec) -> None:
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]["train"]["params"]
    # runs.* is in `training`; the split is what the curve is measured on, and trains nothing.
    assert set(listed) == {
        *("data.holdout", "data.mean", "augmentation", "training", "runs.${item.run}", "evaluation.split")
    }
    identity = spec.identity()
    for section in ("data.holdout", "data.mean", "augmentation", "training"):
        field, _, part = section.partition(".")
        values = getattr(spec, field).model_dump(mode="json")
        for path in leaves(values[part] if part else values, (part,) if part else ()):
            changed = replace(spec, **{field: Dumped(without(values, path))})
            assert differences(identity, changed.identity()), f"{section}: {path}"


def test_sittings_tell_which_code_and_how_many_workers_trained_from_where(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Session(spec, device=CPU)
    list(first.trainer.advance(3))
    first.checkpoint(tmp_path)

    again = Session(spec, device=CPU)
    again.restore(tmp_path)
    list(again.trainer.advance(5))
    again.checkpoint(tmp_path)

    monkeypatch.setattr(session, "world", lambda: (0, 2))
    by_another = Session(replace(spec, code={"git_commit": "b" * 40, "git_dirty": True}), device=CPU)
    by_another.restore(tmp_path)
    by_another.save_model(tmp_path)
    sittings = json.loads((tmp_path / "train.json").read_text())["sittings"]
    told = [[one[key] for key in ("from_iteration", "git_commit", "git_dirty", "workers")] for one in sittings]
    assert told == [[0, "a" * 40, False, 1], [5, "b" * 40, True, 2]]
    assert {one["torch"] for one in sittings} == {torch.__version__}
    assert json.loads((tmp_path / "state.json").read_text())["sittings"] == sittings[:1]


def test_curve_errors_are_measured_in_the_number_format_that_trains(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic = replace(spec, training=spec.training.model_copy(update={"precision": "auto"}))
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: True)
    begun = Session(automatic, device=CPU)
    begun.checkpoint(tmp_path)
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: False)
    resumed = Session(automatic, device=CPU)
    assert resumed._predictor(resumed.trainer.network).precision == "fp32"
    resumed.restore(tmp_path)
    assert resumed._predictor(resumed.trainer.network).precision == "bf16"


def test_large_views_are_tested_few_at_a_time(spec: RunSpec) -> None:
    def sized(crop: int) -> RunSpec:
        view = CenterCrop(shorter_side=crop + crop // 7, crop=crop)
        return replace(spec, training=spec.training.model_copy(update={"curve_view": view}))

    assert [views_at_once(sized(size)) for size in (32, 56, 224, 448, 4000)] == [512, 512, 32, 8, 1]
    assert views_at_once(spec) == 512


def test_a_split_without_labels_is_refused_before_training(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    of_split = Split.labels.func
    tested = Store.open(spec.store).split("test").n_images

    def labels(split: Split) -> np.ndarray:
        found = of_split(split)
        return np.full(tested, -1) if split.n_images == tested else found

    monkeypatch.setattr(Split, "labels", property(labels))
    with pytest.raises(ValueError, match=r"evaluation\.split: 'test' has no labels"):
        Session(spec, device=CPU)
