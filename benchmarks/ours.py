"""This project's own training, as the benchmarks run it: the presets' recipes, a store, the loader and the loop."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pipeline.data.loader import TrainingLoader
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.memory import reuse_freed_memory
from pipeline.models import build
from pipeline.models.complexity import complexity_of
from pipeline.schema import Augmentation, Mean, Training
from pipeline.training.loop import Material, Trainer

PRESETS = Path(__file__).parents[1] / "conf" / "experiment"
ENDLESS = 10**9
WAYS = {"no": (False,), "yes": (True,), "both": (False, True)}
"""By --compile: whether ours is compiled, in one measurement after the other."""


def add_compile_option(parser: argparse.ArgumentParser) -> None:
    """The option whose choices `WAYS` spells out."""
    parser.add_argument("--compile", default="both", choices=tuple(WAYS), help="ours with torch.compile")


def described(compile: bool, precision: str) -> str:
    """What a measurement's name says of ours beside the usual."""
    return "".join(f", {word}" for word, on in (("compiled", compile), ("fp32", precision == "fp32")) if on)


def preset(experiment: str) -> dict[str, Any]:
    """The tree of a preset in conf/experiment."""
    tree = yaml.safe_load((PRESETS / f"{experiment}.yaml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def recipe(experiment: str, batch_size: int, bn_images: int, **changes: Any) -> Training:
    """The preset's recipe, another mini-batch, uncompiled, without warm-up, endless and with no testing in between."""
    endless = {"iterations": ENDLESS, "test_every": ENDLESS - ENDLESS % preset(experiment)["training"]["curve_every"]}
    mini_batch = {"batch_size": batch_size, "bn_images": bn_images, "warmup": None}
    return Training.model_validate(
        {**preset(experiment)["training"], "compile": False, **mini_batch, **endless, **changes}
    )


def training_steps(store: Path, experiment: str, network: str, training: Training, processes: int) -> Iterator[int]:
    """The iterations of our loop on a prepared store, endlessly; each item is the number done."""
    reuse_freed_memory()  # as a training's worker does
    opened, tree = Store.open(store), preset(experiment)
    split = opened.split("train")
    loader = TrainingLoader(
        split,
        np.arange(split.n_images),
        augmentation=Augmentation.model_validate(tree["augmentation"]),
        statistics=InputStatistics.of_store(opened, Mean.model_validate(tree["data"]["mean"])),
        batch_size=training.batch_size,
        seed=0,
        processes=processes,
    )
    torch.manual_seed(0)
    made = build(network, len(opened.manifest.class_names))
    material = Material(network=made, batches=loader.batches, epoch_images=split.n_images, seed=0)
    return Trainer(material, training, torch.device("cpu")).advance(ENDLESS)


def gigaflops(network: str, num_classes: int, size: int, *, training: bool) -> float:
    """10^9 floating-point operations an image: two a multiply-add, and in training three times the forward's."""
    forward = 2e-9 * complexity_of(network, num_classes, size).multiply_adds
    return 3 * forward if training else forward
