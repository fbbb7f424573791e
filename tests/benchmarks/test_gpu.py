"""The GPU's benchmark runs on a machine that has torch, torchvision, numpy and pyarrow alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import ITERATIONS, Row, describe

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


def test_minutes_of_the_schedule_follow_from_the_rate() -> None:
    rates = {"ours": 128 * ITERATIONS / 240, "peer": 1.0, "ratio": 1.0, "ratio_min": 1.0, "ratio_max": 1.0}
    row = Row("resnet20, CIFAR training", unit="images/s", limit="l", limit_value=1, limit_fraction=1, **rates)
    assert "64,000 iterations in 4.0 min" in describe(row)
