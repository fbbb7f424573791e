"""Batch normalisation as it is compiled for processors: torch's values and gradients."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.compiled_norm import CompiledBatchNorm2d, batch_norm, for_compiling
from pipeline.models import build
from tests.compiler import needs_compiler

SHAPES = [(4, 3, 5, 6), (2, 16, 80, 70), (1, 5, 3, 1)]


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (made * 3 + torch.arange(shape[1]).reshape(1, -1, 1, 1)).to(dtype).to(memory_format=torch.channels_last)


def norm(channels: int, dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels, momentum=0.3, dtype=dtype)
    assert made.running_mean is not None
    assert made.running_var is not None
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-1, 2, channels))
        made.bias.copy_(torch.linspace(0.5, -0.5, channels))
        made.running_mean.copy_(torch.arange(channels) + 0.1)
        made.running_var.fill_(2)
    return made


def gradients(normalised: Tensor, *of: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, normalised.numel(), dtype=torch.float64).reshape(normalised.shape)
    return list(torch.autograd.grad((normalised.double().sin() * weights).sum(), of))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    layer, inputs = norm(shape[1]), images(shape).requires_grad_()
    near = torch.arange(shape[1], dtype=torch.float64)
    ours, mean, variance = batch_norm(inputs, layer.weight, layer.bias, near, layer.eps)
    theirs = layer(inputs)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(variance, inputs.var((0, 2, 3), correction=0))
    for one, other in zip(
        gradients(ours, inputs, layer.weight, layer.bias),
        gradients(theirs, inputs, layer.weight, layer.bias),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("near", [0.0, 99.0])
def test_variance_far_from_zero_is_exact_when_the_mean_is_about_known(near: float) -> None:
    inputs = (images((8, 2, 64, 64)) + 100).float()
    _, _, variance = batch_norm(inputs, torch.ones(2), torch.zeros(2), torch.full((2,), near), 1e-5)
    true = inputs.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance.double(), true, rtol=1e-6 if near else 1e-3, atol=0)


def test_constant_images_have_no_variance_and_finite_gradients() -> None:
    inputs = torch.full((2, 3, 4, 4), 0.1, requires_grad=True)
    ones = torch.ones(3, requires_grad=True)
    normalised, _, variance = batch_norm(inputs, ones, torch.zeros(3), torch.zeros(3), 1e-5)
    assert (variance >= 0).all()
    assert variance.max() < 1e-8
    assert all(found.isfinite().all() for found in gradients(normalised, inputs, ones))


def test_networks_keep_their_weights_and_compute_as_before_where_they_are_not_compiled() -> None:
    network = build("resnet20", 10)
    other, given = copy.deepcopy(network), images((4, 3, 32, 32), torch.float32)
    layers = [module for module in other.modules() if isinstance(module, nn.BatchNorm2d)]
    assert for_compiling(other) == len(layers) == 19
    assert all(type(layer) is CompiledBatchNorm2d for layer in layers)
    assert torch.equal(network(given), other(given))
    assert {name: tensor.tolist() for name, tensor in network.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in other.state_dict().items()
    }
    assert torch.equal(network.eval()(given), other.eval()(given))


def test_layers_that_keep_no_running_statistics_are_left_alone() -> None:
    layers = nn.Sequential(
        nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(2, momentum=None)
    )
    assert for_compiling(layers) == 0
    assert all(type(layer) is nn.BatchNorm2d for layer in layers)


COMPILED = """
import torch
from torch._dynamo.utils import counters
from pipeline.compiled_norm import CompiledBatchNorm2d
from pipeline.compiling import compiled
from tests.test_compiled_norm import gradients, images, norm
torch.set_num_threads(2)
for dtype in (torch.float32, torch.bfloat16):
    given = images((8, 16, 32, 32), dtype)
    exact, plain, fast = norm(16), norm(16, torch.float32), norm(16, torch.float32)
    network = compiled(fast, torch.device("cpu"), "training.compile")
    assert network is not fast and type(fast) is CompiledBatchNorm2d
    for layer, call, x in ((exact, exact, given.double()), (plain, plain, given), (fast, network, given)):
        x = x.clone().requires_grad_()
        out = call(x)
        layer.found = [out, layer.running_mean, layer.running_var, *gradients(out, x, layer.weight, layer.bias)]
        assert out.dtype == x.dtype and layer.num_batches_tracked == 1
    for true, theirs, ours in zip(exact.found, plain.found, fast.found):
        scale = true.abs().max()
        error, usual = ((ours - true).abs().max() / scale).item(), ((theirs - true).abs().max() / scale).item()
        assert error <= 1.1 * usual + 1e-6, (dtype, true.shape, error, usual)
graphs = counters["stats"]["unique_graphs"]  # the third is that of compiled()'s trial
assert graphs == 3 and not counters["graph_break"], counters
print("done")
"""


@pytest.mark.slow
@needs_compiler
def test_compiled_layers_are_as_exact_as_torchs_uncompiled_ones() -> None:
    """Output, running statistics and gradients, in fp32 and bf16, against fp64."""
    ended = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "done\n", ended.stderr
