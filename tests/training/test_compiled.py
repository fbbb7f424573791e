"""Compiled training: the same course, on two workers too, and none the worse without a compiler."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from pipeline.training.loop import Material, Trainer
from tests.compiler import needs_compiler
from tests.training.material import CPU, batches, recipe, run


def a_training(compile: bool) -> Trainer:
    """Of a network with BN, two parts a mini-batch, more than DistributedDataParallel's first bucket holds."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(4096, 80), nn.ReLU(), nn.Linear(80, 10))
    return Trainer(Material(network, batches(16), 64, seed=0), recipe(compile=compile, deterministic=False), CPU)


def course(training: Trainer, iterations: int = 3) -> list[float]:
    """Losses, then BN's running mean and variance."""
    run(training, iterations)
    buffers = training.network.state_dict()
    losses = [point.training_loss for point in training.curve]
    return losses + buffers["1.running_mean"].tolist() + buffers["1.running_var"].tolist()


TRAIN = """
import json, sys
from tests.training.test_compiled import a_training, course
print(json.dumps(course(a_training(sys.argv[1] == "compile"))))
"""


def _course(way: str, **environment: str) -> tuple[list[float], str]:
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
    return _course("as it is")[0]


@pytest.mark.slow
def test_without_a_compiler_training_goes_on_with_one_warning(plain: list[float], tmp_path: Path) -> None:
    found, told = _course("compile", CXX="no-such-compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert found == plain
    assert told.count("training.compile: going on uncompiled, as compiling fails: InvalidCxxCompiler") == 1


@pytest.mark.slow
@needs_compiler
def test_compiled_course_is_that_of_the_network_as_it_is(plain: list[float]) -> None:
    found, told = _course("compile", TORCH_LOGS="output_code")
    assert found == pytest.approx(plain, rel=1e-4, abs=1e-4)
    assert "going on uncompiled" not in told
    assert "Output code" in told


def _worker(rank: int, workers: int, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{out}.rendezvous", rank=rank, world_size=workers)
    found = course(a_training(compile=True))
    if rank == 0:
        out.write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


@pytest.mark.slow
@needs_compiler
def test_two_workers_take_the_compiled_course_of_one(plain: list[float], tmp_path: Path) -> None:
    mp.spawn(_worker, (2, tmp_path / "two"), nprocs=2)
    found = json.loads((tmp_path / "two").read_text(encoding="utf-8"))
    assert found[:3] == pytest.approx(plain[:3], abs=1e-4), "losses: BN's running statistics are each worker's own"


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
@needs_compiler
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
    assert "welford_combine" not in code
    _, forward, backward = re.split(r"# AOT ID: \['\d+_(?:forward|backward)'\]", code)
    by_images = r"#pragma omp for\s+for\(int64_t x0=[^;]+; x0<static_cast<int64_t>\(64L\)(.*?)\.store\("
    for part in (forward, backward):
        loops = re.findall(by_images, part, re.DOTALL)
        assert any("tmp_acc1_vec = tmp_acc1_vec + " in loop for loop in loops)
