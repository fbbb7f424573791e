"""A registered model as plain torch modules, and as one file: ONNX, torch.export, TorchScript."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from pipeline.data.statistics import normalise
from pipeline.schema import SingleView
from pipeline.tracking import export as exporting
from pipeline.tracking.loading import load_modules
from tests.tracking.factory import EVALUATION, METRICS, images, model_folder
from tests.tracking.test_registry import ABOUT, new_run, register, register_model

pytestmark = pytest.mark.slow

URI = "models:/digits-resnet8@best"
RUN = """
import sys, numpy, torch
images = numpy.load(sys.argv[2])
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    found = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"images": images})[0]
elif sys.argv[1].endswith(".pt2"):
    found = torch.export.load(sys.argv[1]).module()(torch.from_numpy(images)).detach().numpy()
else:
    found = torch.jit.load(sys.argv[1])(torch.from_numpy(images)).detach().numpy()
assert "pipeline" not in sys.modules
numpy.save(sys.argv[3], found)
"""
BY_SIZE = EVALUATION.model_copy(
    update={"protocols": EVALUATION.protocols.model_copy(update={"single_view": SingleView(), "center_crop": None})}
)
"""Protocols of which one takes an image as it is: what an exported file does."""


def test_the_networks_load_as_plain_modules(tracking: str, tmp_path: Path) -> None:
    register(model_folder(tmp_path, "resnet8-s0", 0), new_run(), evaluation=BY_SIZE)
    (member,), evaluation = load_modules(URI)
    assert not member.network.training
    assert member.card.network == "resnet8"
    assert evaluation == BY_SIZE
    batch = images(4, size=(16, 16))
    with torch.no_grad():
        found = member.network(normalise(torch.from_numpy(batch), member.statistics)).softmax(1).numpy()
    assert np.abs(found - mlflow.pyfunc.load_model(URI).predict(batch)).max() < 1e-5


def test_a_tampered_file_is_not_loaded(tracking: str, tmp_path: Path) -> None:
    register(model_folder(tmp_path / "trained", "resnet8-s0", 0), new_run())
    (path,) = (tmp_path / "mlartifacts").rglob("weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"weights.safetensors: SHA-256 .* was altered"):
        load_modules(URI)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pt"])
def test_an_exported_file_predicts_alone_what_the_registered_model_does(
    tracking: str, tmp_path: Path, suffix: str
) -> None:
    if suffix == ".onnx" and not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript")):
        pytest.skip("the packages of the extra 'export' are not installed")
    members = {f"resnet8-s{seed}": model_folder(tmp_path, f"resnet8-s{seed}", seed) for seed in range(2)}
    register_model("digits-ensemble", "digits", members, new_run(), METRICS, BY_SIZE, ABOUT)
    file = tmp_path / f"model{suffix}"
    assert exporting.export("models:/digits-ensemble/1", file, side=16) < 1e-5
    np.save(tmp_path / "images.npy", images(7, size=(16, 16)))
    words = [sys.executable, "-c", RUN, str(file), str(tmp_path / "images.npy"), str(tmp_path / "found.npy")]
    subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, check=True, timeout=600)
    expected = mlflow.pyfunc.load_model("models:/digits-ensemble/1").predict(images(7, size=(16, 16)))
    assert np.abs(np.load(tmp_path / "found.npy") - expected).max() < 1e-5


def test_a_file_that_differs_is_not_left_behind(tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(model_folder(tmp_path / "trained", "resnet8-s0", 0), new_run())
    suffix, write, read = exporting.FORMATS["torchscript"]

    def wrong(module: torch.nn.Module, example: torch.Tensor, file: Path) -> None:
        module.mean_0 += 1
        write(module, example, file)

    monkeypatch.setitem(exporting.FORMATS, "torchscript", (suffix, wrong, read))
    with pytest.raises(ValueError, match=r"model.pt: probabilities differ from models:/digits-resnet8@best's by"):
        exporting.export(URI, tmp_path / "model.pt")
    assert not list(tmp_path.glob("*model.pt*"))
    with pytest.raises(ValueError, match=r"no format goes by '.h5'; give one of onnx, torch_export, torchscript"):
        exporting.export(URI, tmp_path / "model.h5")
