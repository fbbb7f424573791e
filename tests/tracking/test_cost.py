"""What logging costs, in processor time, which other work on the machine does not change."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from pipeline.models import build
from pipeline.training.precision import autocast, resolve_precision
from tests.tracking.test_runs import begin

pytestmark = pytest.mark.slow

POINTS, EVERY = 40, 25
"""Curve points, and the iterations from one to the next in the preset of the smallest networks."""


def test_logging_costs_less_than_a_percent_of_the_steps_it_is_about(tracking: str) -> None:
    training = begin()
    assert training._outbox.flush(200)
    of_caller, of_all = [], []
    for i in range(1, POINTS + 1):
        row = {"iteration": i * EVERY, "training_loss": 1 / i, "test_error": 3.0, "learning_rate": 0.1}
        before, started = time.process_time(), time.thread_time()
        training.log_curves([row])
        of_caller.append(time.thread_time() - started)
        assert training._outbox.flush(100)
        of_all.append(time.process_time() - before)
    assert training.finish(limit=60)
    steps = EVERY * seconds_a_step()
    assert statistics.median(of_caller) < 0.0001 * steps, "the training waits for no more than to queue a message"
    assert statistics.median(of_all) < 0.01 * steps, "all of it, database and thread; 0.3 to 0.5% where it was measured"


def seconds_a_step() -> float:
    """Processor time of a training step of ResNet-20 on 64 images of 16x16, in the format that is the faster here."""
    device = torch.device("cpu")
    precision = resolve_precision("auto", device)
    network, images = build("resnet20", 10), torch.randn(64, 3, 16, 16)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    taken = []
    for _ in range(6):
        started = time.thread_time()
        optimiser.zero_grad()
        with autocast(precision, device):
            loss = torch.nn.functional.cross_entropy(network(images), torch.randint(10, (64,)))
        loss.backward()
        optimiser.step()
        taken.append(time.thread_time() - started)
    return statistics.median(taken)
