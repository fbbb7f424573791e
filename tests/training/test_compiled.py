"""Compiled training: the same losses, and none the worse without a compiler."""

from __future__ import annotations

import json
import os
import re
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


CODE = """
import torch
from torch import nn
from pipeline.compiling import compiled
torch.set_num_threads(2)
layers = [(nn.Conv2d(n, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()) for n in (3, 16, 16)]
network = nn.Sequential(*(module for layer in layers for module in layer)).to(memory_format=torch.channels_last)
images = torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last)
compiled(network, torch.device("cpu"), "training.compile")(images).mean((2, 3)).square().sum().backward()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_threads_share_the_sums_of_a_bn_with_16_channels_by_images() -> None:
    """In the generated code, forward and backward: two sums in registers at once, and no running variance."""
    settings = {**os.environ, "TORCH_LOGS": "output_code", "OMP_NUM_THREADS": "2"}
    settings["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    told = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=Path(__file__).parents[2],
        env=settings,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    code = re.sub(r"^.*\[__output_code\]", "", told, flags=re.MULTILINE)
    loops = re.findall(
        r"#pragma omp for\s+for\(int64_t x0=[^;]+; x0<static_cast<int64_t>\(64L\)(.*?)\.store\(", code, re.DOTALL
    )
    sums = [loop for loop in loops if "tmp_acc1_vec = tmp_acc1_vec + " in loop]
    assert len(sums) >= 2
    assert "welford_combine" not in code
