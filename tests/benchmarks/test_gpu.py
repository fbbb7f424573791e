"""The GPU's benchmark runs on a machine that has torch, torchvision, numpy and pyarrow alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import ITERATIONS, Row, describe
from benchmarks.gpu_steps import our_steps
from tests.training.material import CPU, RECIPE, batches, run, trainer

ALONE = """
import importlib.abc, runpy, sys

class Refuse(importlib.abc.MetaPathFinder):
    names = {"ray", "mlflow", "dvc", "pydantic", "rich", "fsspec", "s3fs", "simplejpeg", "safetensors", "psutil",
             "yaml", "matplotlib", "filelock"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.slow
def test_it_runs_with_torch_alone(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = ["--device", "cpu", "--quick", "--cifar", "resnet8", "--imagenet", "resnet18b", "--json", str(out)]
    command = [sys.executable, "-c", ALONE, *options]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(out.read_text())
    assert [row["name"].split(", ")[1] for row in found] == ["CIFAR training", "training at 224", "ten-crop evaluation"]
    assert all(row["ours"] > 0 and row["peer"] > 0 and row["name"].endswith(", eager") for row in found)
    assert ended.stdout.splitlines()[-1] == f"ratio: {found[0]['ratio']:.2f}"


def test_ours_takes_the_pipelines_iterations() -> None:
    """Passes of BN's images whose gradients add up, and one update: the trainer's own losses."""
    losses = []
    for parts in (16, 8):
        optimizer = {**RECIPE["optimizer"], "learning_rate": 1e-4}
        training = trainer("resnet8", bn_images=parts, optimizer=optimizer, precision="bf16")
        run(training, 6)
        steps = our_steps("resnet8", 10, batches(16)(0), parts, CPU, "eager")
        sums = [next(steps).clone() for _ in range(6)]
        summed = np.diff([0.0, *(float(each[0]) for each in sums)]) / 16
        assert [point.training_loss for point in training.curve] == pytest.approx(summed.tolist(), rel=1e-4)
        losses.append(summed)
    assert not np.allclose(losses[0], losses[1], rtol=1e-4), "BN over 16 images and over 8 differ"


def test_a_row_that_does_not_fit_into_memory_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(bench: object, network: str, options: object) -> Row:
        if network == "large":
            raise torch.OutOfMemoryError
        return Row(network, 2.0, 1.0, "images/s", 2.0, 2.0, 2.0, "l", 4.0, 0.5)

    monkeypatch.setattr("benchmarks.gpu._cifar", row)
    out = tmp_path / "found.json"
    gpu.main(["--device", "cpu", "--quick", "--cifar", "large", "small", "--imagenet", "--json", str(out)])
    assert [found["name"] for found in json.loads(out.read_text())] == ["small"]
    assert capsys.readouterr().out.endswith("large: not enough memory for row\nratio: 2.00\n")


def test_minutes_of_the_schedule_follow_from_the_rate() -> None:
    rates = {"ours": 128 * ITERATIONS / 240, "peer": 1.0, "ratio": 1.0, "ratio_min": 1.0, "ratio_max": 1.0}
    row = Row("resnet20, CIFAR training", unit="images/s", limit="l", limit_value=1, limit_fraction=1, **rates)
    assert "64,000 iterations in 4.0 min" in describe(row)
