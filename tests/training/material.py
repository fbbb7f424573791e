"""Small trainings for the tests: seeded random images, and the paper's recipe in miniature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pipeline.models import build
from pipeline.schema import Training
from pipeline.training.distributed import world
from pipeline.training.loop import Material, Trainer

CPU = torch.device("cpu")
RECIPE: dict[str, Any] = {
    "batch_size": 16,
    "bn_images": 8,
    "iterations": 20,
    "optimizer": {
        "learning_rate": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay_norm_and_bias": True,
        "momentum_form": "caffe",
    },
    "schedule": {"kind": "steps", "milestones": [10, 15], "factor": 0.1},
    "warmup": None,
    "bn_recompute_images": 32,
    "label_smoothing": 0.0,
    "precision": "fp32",
    "compile": False,
    "deterministic": True,
    "curve_every": 1,
    "test_every": 5,
    "curve_view": None,
    "options": {},
}


def recipe(**changes: Any) -> Training:
    """The recipe with some keys changed."""
    return Training.model_validate({**RECIPE, **changes})


def batches(size: int, side: int = 16, classes: int = 10):
    """Mini-batches of `size` images, a class's pattern in noise, by iteration alone; this worker's share of each."""
    patterns = torch.randn(classes, 3, side, side, generator=torch.Generator().manual_seed(0))

    def from_iteration(start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rank, workers = world()
        share = slice(rank * size // workers, (rank + 1) * size // workers)
        while True:
            generator = torch.Generator().manual_seed(start)
            labels = torch.randint(classes, (size,), generator=generator)
            images = 40 * patterns[labels] + 20 * torch.randn(size, 3, side, side, generator=generator)
            yield images[share].contiguous(memory_format=torch.channels_last), labels[share]
            start += 1

    return from_iteration


def trainer(network: str = "resnet8", material: dict[str, Any] | None = None, **changes: Any) -> Trainer:
    """A trainer over random images."""
    wanted = recipe(**changes)
    torch.manual_seed(0)
    parts = {"batches": batches(wanted.batch_size), "epoch_images": 64, "seed": 0, **(material or {})}
    return Trainer(Material(network=build(network, 10), **parts), wanted, CPU)


def run(training: Trainer, until: int) -> None:
    """Advance to an iteration."""
    for _ in training.advance(until):
        pass
