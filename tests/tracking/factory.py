"""Small trained-looking networks in model folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.data.statistics import InputStatistics
from pipeline.models import build
from pipeline.models.saved import INPUT, Card, save_network
from pipeline.schema import CenterCrop, Evaluation, MultiScale, Protocols, TenCrop

CLASSES = [str(digit) for digit in range(10)]
EVALUATION = Evaluation(
    split="test",
    batch_size=8,
    precision="fp32",
    protocols=Protocols(
        center_crop=CenterCrop(shorter_side=20, crop=16),
        ten_crop=TenCrop(shorter_side=20, crop=16),
        multi_scale=MultiScale(shorter_sides=(16, 20), mirror=True, average="softmax"),
    ),
)
METRICS = {
    "center_crop": {"top1_error": 5.5, "top5_error": 0.25, "n_images": 360},
    "holdout": {"top1_error": 4.5, "top5_error": 0.5, "n_images": 200},
}


def model_folder(root: Path, run: str, seed: int) -> Path:
    """A model folder as training leaves it: random weights, random BN statistics, a mean image."""
    folder = root / run
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    network = build(run.partition("-")[0], len(CLASSES))
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        logits = network.eval()(torch.randn(16, 3, 16, 16) * 50)
        last.weight /= logits.std()  # so that probabilities are neither 0 nor 1
    save_network(folder, network, Card("digits", run, run.partition("-")[0], {}, CLASSES))
    mean = np.random.default_rng(seed).uniform(100, 140, (16, 16, 3)).astype(np.float32)
    InputStatistics(mean=mean).save(folder / INPUT)
    return folder


def images(count: int, seed: int = 0, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    """Random images uint8 (count, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
