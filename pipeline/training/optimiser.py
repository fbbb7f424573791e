"""Stochastic gradient descent with momentum and weight decay, as the paper's solver does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.schema import Optimizer


def build_optimizer(network: nn.Module, optimizer: Optimizer) -> torch.optim.SGD:
    """SGD over the network's parameters (paper, section 3.4); weight decay on all of them unless the recipe says not.

    A parameter of one dimension (BN's scale and shift, a bias) is left undecayed where `decay_norm_and_bias` is false.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in network.parameters():
        free = parameter.ndim <= 1 and not optimizer.decay_norm_and_bias
        (plain if free else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": optimizer.weight_decay}]
    if plain:
        groups.append({"params": plain, "weight_decay": 0.0})
    return torch.optim.SGD(
        groups, lr=optimizer.learning_rate, momentum=optimizer.momentum, nesterov=optimizer.nesterov, fused=True
    )


def set_rate(sgd: torch.optim.SGD, rate: float, form: str) -> None:
    """Give the coming step its learning rate.

    With `form` "caffe" the velocity holds lr·g, so that a drop of the rate leaves past steps' share as it was; torch's
    velocity holds g alone. Scaling torch's velocity by old/new rate at each change makes the two the same.
    """
    old = sgd.param_groups[0]["lr"]
    if old == rate:
        return
    for group in sgd.param_groups:
        group["lr"] = rate
    if form == "caffe":
        _scale_velocity(sgd, old / rate)


def _scale_velocity(sgd: torch.optim.SGD, factor: float) -> None:
    for state in sgd.state.values():
        velocity = state.get("momentum_buffer")
        if isinstance(velocity, torch.Tensor):
            velocity.mul_(factor)
