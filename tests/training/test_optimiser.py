"""SGD against its formulas, written out by hand."""

import pytest
import torch
from torch import nn

from pipeline.models import build
from pipeline.schema import Optimizer
from pipeline.training.optimiser import build_optimizer, set_rate

PAPER = Optimizer(
    learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, decay_norm_and_bias=True, momentum_form="caffe"
)


def by_hand(form: str, weight: float, gradients: list[float], rates: list[float]) -> float:
    """Caffe: v = 0.9 v + lr (g + 1e-4 w), w -= v.  torch: v = 0.9 v + (g + 1e-4 w), w -= lr v."""
    velocity = 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        full = gradient + 1e-4 * weight
        if form == "caffe":
            velocity = 0.9 * velocity + rate * full
            weight -= velocity
        else:
            velocity = 0.9 * velocity + full
            weight -= rate * velocity
    return weight


@pytest.mark.parametrize("form", ["caffe", "torch"])
def test_momentum_across_a_drop_of_the_rate(form: str) -> None:
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 2.0)
    sgd = build_optimizer(layer, PAPER)
    gradients, rates = [1.0, -0.5, 2.0, 0.3], [0.1, 0.1, 0.01, 0.01]
    for gradient, rate in zip(gradients, rates, strict=True):
        set_rate(sgd, rate, form)
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        sgd.step()
    assert layer.weight.item() == pytest.approx(by_hand(form, 2.0, gradients, rates), abs=1e-12)


def test_the_two_forms_differ_after_the_drop() -> None:
    arguments = (2.0, [1.0, -0.5, 2.0, 0.3], [0.1, 0.1, 0.01, 0.01])
    assert abs(by_hand("caffe", *arguments) - by_hand("torch", *arguments)) > 1e-3


def test_every_weight_decays_in_the_paper_and_only_convolutions_and_fc_where_declared() -> None:
    network = build("resnet8", 10)
    assert [group["weight_decay"] for group in build_optimizer(network, PAPER).param_groups] == [1e-4]
    spared = PAPER.model_copy(update={"decay_norm_and_bias": False})
    decayed, free = build_optimizer(network, spared).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-4, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))
