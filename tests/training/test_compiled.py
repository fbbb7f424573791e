"""Compiled training: the same losses, and none the worse without a compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = """
import json, sys
import torch
from torch import nn
from pipeline.training.loop import Material, Trainer
from tests.training.material import CPU, batches, recipe, run
torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(768, 10), nn.Sigmoid())
wanted = recipe(compile=sys.argv[1] == "compile", deterministic=False)
training = Trainer(Material(network, batches(16), 64, seed=0), wanted, CPU)
run(training, 3)
print(json.dumps([point.training_loss for point in training.curve]))
"""


def _losses(way: str, **environment: str) -> tuple[list[float], str]:
    ended = subprocess.run(
        [sys.executable, "-c", TRAIN, way],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stderr


@pytest.fixture(scope="module")
def plain() -> list[float]:
    return _losses("as it is")[0]


@pytest.mark.slow
def test_without_a_compiler_training_goes_on_with_one_warning(plain: list[float], tmp_path: Path) -> None:
    losses, told = _losses("compile", CXX="no-such-compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert losses == plain
    assert told.count("training.compile: going on uncompiled, as compiling fails: InvalidCxxCompiler") == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_losses_are_those_of_the_network_as_it_is(plain: list[float]) -> None:
    losses, told = _losses("compile", TORCH_LOGS="output_code")
    assert losses == pytest.approx(plain, abs=1e-4)
    assert "going on uncompiled" not in told
    assert "Output code" in told
