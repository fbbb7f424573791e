"""A prepared store of digits, and a small run on it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Params, parse_params
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.training.session import RunSpec
from tests.composing import compose

SMALL = {"batch_size": 32, "bn_images": 16, "iterations": 12, "curve_every": 2, "test_every": 6}
STEPS = {"kind": "steps", "milestones": [8], "factor": 0.1}


@functools.cache
def composed_digits() -> str:
    """The digits experiment's params.yaml, whatever the one in the working tree was composed for."""
    with tempfile.TemporaryDirectory() as name:
        return compose(Path(name) / "params.yaml", ["experiment=digits"]).read_text(encoding="utf-8")


def small_params(**training: Any) -> Params:
    """The digits experiment, a few iterations long, in fp32 with deterministic kernels."""
    tree = yaml.safe_load(composed_digits())
    changes = {**SMALL, "schedule": STEPS, "precision": "fp32", "deterministic": True, "bn_recompute_images": 64}
    tree["training"].update({**changes, **training})
    tree["runs"] = {"resnet8-s0": {"training": {}}, "plain8-s0": {"training": {}}}
    tree["ensembles"] = {"both": ["resnet8-s0", "plain8-s0"]}
    return parse_params(tree)


def small_spec(store: Path, run: str = "resnet8-s0", **training: Any) -> RunSpec:
    """The specification of such a run on the digits' store."""
    params = small_params(**training)
    network, _, seed = run.partition("-s")
    return RunSpec(
        experiment="digits",
        run=run,
        network=network,
        seed=int(seed),
        store=str(store),
        data_digest=Store.open(store).digest,
        data=params.data,
        augmentation=params.augmentation,
        training=params.training,
        test_split="test",
    )


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the digits' image store."""
    folder = tmp_path_factory.mktemp("digits") / "store"
    prepare(small_params().data, folder)
    return folder


@pytest.fixture
def make_spec(digits_store: Path) -> Callable[..., RunSpec]:
    """Specifications of small runs on the digits."""
    return functools.partial(small_spec, digits_store)
