"""One run's training put together: store, loader, network, recipe, on this worker."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.data.loader import TrainingLoader
from pipeline.data.splits import holdout_indices, training_indices
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Split, Store
from pipeline.evaluation.predictor import Predictor, Protocol
from pipeline.models.saved import INPUT, Card, save_network
from pipeline.models.zoo import build
from pipeline.paths import HISTORY, RECORD
from pipeline.provenance import digest_of, hardware, now
from pipeline.schema import Augmentation, Data, SingleView, Training
from pipeline.storage import write_json
from pipeline.training.checkpoints import check_identity, read_checkpoint, write_checkpoint
from pipeline.training.curve import write_history
from pipeline.training.distributed import world
from pipeline.training.loop import ErrorCount, Material, Trainer
from pipeline.training.precision import make_deterministic

MOST_VIEWS = 512
PIXELS_AT_ONCE = 32 * 224**2
"""Of the views that go through the network at once as test errors are measured, besides training's own memory."""


@dataclass(frozen=True)
class RunSpec:
    """All that determines a run's result; it travels to the workers."""

    experiment: str
    run: str
    network: str
    seed: int
    store: str
    """Absolute path of the folder with the image store's manifest; the shards lie there or where it says."""
    data_digest: str
    data: Data
    augmentation: Augmentation
    training: Training
    test_split: str
    """The split of the curve's test error."""
    code: dict[str, Any] = field(default_factory=dict)
    """The commit that trains, as provenance has it; a training may be continued by another."""

    def identity(self) -> dict[str, Any]:
        """What must be equal for a training to be continued: network, recipe and data."""
        return {
            "experiment": self.experiment,
            "network": self.network,
            "seed": self.seed,
            "data_digest": self.data_digest,
            "holdout": self.data.holdout.model_dump(mode="json"),
            "mean": self.data.mean.model_dump(mode="json"),
            "augmentation": self.augmentation.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
        }

    def parameters(self) -> dict[str, Any]:
        """The resolved parameters, as a result's provenance keeps them."""
        return {**self.identity(), "run": self.run, "data": self.data.model_dump(mode="json")}


class Session:
    """A worker's part in the training of one run."""

    def __init__(self, spec: RunSpec, *, device: torch.device, loader_processes: int = 0) -> None:
        if spec.training.deterministic:
            make_deterministic()
        elif device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # tries its kernels once, as all mini-batches are of one size
        self.spec = spec
        self._store = Store.open(spec.store)
        self._check_store()
        self._statistics = InputStatistics.of_store(self._store, spec.data.mean)
        self._train = self._store.split("train")
        self.device = device
        self.trainer = Trainer(self._material(loader_processes), spec.training, device)
        self._sittings = [self._sitting()]

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint; DamagedCheckpointError or, for another training's, ValueError."""
        tensors, values = read_checkpoint(folder)
        check_identity(values, self.spec.identity())
        self.trainer.restore(tensors, values)
        self._sittings = _joined(values.get("sittings", []), self._sitting())

    def checkpoint(self, folder: Path) -> None:
        """Write the state into `folder`; all workers must call it, the first one writes."""
        tensors, values = self.trainer.state()
        if world()[0] == 0:
            write_checkpoint(folder, tensors, {**values, "sittings": self._sittings, "identity": self.spec.identity()})

    def save_model(self, folder: Path) -> None:
        """Write the model folder: weights, what rebuilds them, input statistics, curves, the training's record."""
        self._statistics.save(folder / INPUT)
        write_history(folder / HISTORY, self.trainer.curve)
        spec = self.spec
        names = list(self._store.manifest.class_names)
        card = Card(spec.experiment, spec.run, spec.network, dict(spec.training.options), names)
        digest = save_network(folder, self.trainer.network, card)
        write_json(folder / RECORD, self._record(digest))

    def _record(self, weights_sha256: str) -> dict[str, Any]:
        """What the worker knows of the finished training; the stage adds provenance."""
        spec, last = self.spec, self.trainer.curve[-1]
        return {
            "experiment": spec.experiment,
            "run": spec.run,
            "network": spec.network,
            "seed": spec.seed,
            "identity": digest_of(spec.identity()),
            "iterations": self.trainer.iteration,
            "training_loss": last.training_loss,
            "training_error": last.training_error,
            "test_error": last.test_error,
            "warmup_ended": None if spec.training.warmup is None else not self.trainer.warming,
            "parameters": sum(parameter.numel() for parameter in self.trainer.network.parameters()),
            "weights_sha256": weights_sha256,
            "wall_seconds": round(self.trainer.seconds, 3),
            "precision": self.trainer.precision,
            "hardware": hardware(),
            "workers": world()[1],
            "sittings": self._sittings,
        }

    def _sitting(self) -> dict[str, Any]:
        """By what the training goes on from its present iteration."""
        return {
            "from_iteration": self.trainer.iteration,
            "started": now().isoformat(timespec="seconds"),
            **self.spec.code,
            "torch": torch.__version__,
            "hardware": hardware(),
            "workers": world()[1],
        }

    def _check_store(self) -> None:
        if self._store.digest != self.spec.data_digest:
            raise ValueError(
                f"{self.spec.store}: on {platform.node()} the image store's digest is {self._store.digest}, not"
                f" {self.spec.data_digest} as where this training was set up: prepare it again, or bring it there"
            )

    def _material(self, loader_processes: int) -> Material:
        spec, (rank, workers) = self.spec, world()
        indices = training_indices(self._train.labels, spec.data.holdout)
        loader = TrainingLoader(
            self._train,
            indices,
            augmentation=spec.augmentation,
            statistics=self._statistics,
            batch_size=spec.training.batch_size,
            seed=spec.seed,
            rank=rank,
            world_size=workers,
            processes=loader_processes,
            device=self.device,
        )
        held_out = holdout_indices(self._train.labels, spec.data.holdout)
        return Material(
            network=self._network(),
            batches=loader.batches,
            epoch_images=len(indices),
            seed=spec.seed,
            test_errors=self._counter(self._store.split(spec.test_split)),
            holdout_errors=self._counter(self._train, held_out) if self.spec.data.holdout.kept else None,
        )

    def _network(self) -> nn.Module:
        torch.manual_seed(self.spec.seed)
        return build(self.spec.network, len(self._store.manifest.class_names), **self.spec.training.options)

    def _counter(self, split: Split, indices: np.ndarray | None = None) -> ErrorCount:
        chosen = np.arange(split.n_images) if indices is None else indices
        if not (split.labels[chosen] >= 0).any():
            raise ValueError(f"evaluation.split: '{self.spec.test_split}' has no labels to measure test errors by")
        return error_counter(split, chosen, self._predictor, self.spec.training.curve_view or SingleView())

    def _predictor(self, network: nn.Module) -> Predictor:
        return Predictor(
            network,
            self._statistics,
            self._store.manifest.class_names,
            device=self.device,
            precision=self.trainer.precision,
            batch_size=views_at_once(self.spec),
        )


def views_at_once(spec: RunSpec) -> int:
    """Of how many images test errors are measured by one forward pass: with ImageNet's crops as a GPU trains on."""
    view = spec.training.curve_view
    size = view.crop if view else spec.augmentation.crop
    return max(1, min(MOST_VIEWS, PIXELS_AT_ONCE // size**2))


def _joined(sittings: list[dict[str, Any]], sitting: dict[str, Any]) -> list[dict[str, Any]]:
    """The sittings with one more, where it differs from the last in more than its beginning."""
    beginning = ("from_iteration", "started")
    if sittings and all(sittings[-1].get(key) == sitting[key] for key in sitting if key not in beginning):
        return sittings
    return [*sittings, sitting]


def error_counter(
    split: Split, indices: np.ndarray, predictor: Callable[[nn.Module], Predictor], protocol: Protocol
) -> ErrorCount:
    """Counts the errors of this worker's share of the labelled images among `indices`, 1,024 in memory at once."""
    rank, workers = world()
    mine = indices[split.labels[indices] >= 0][rank::workers]

    def count(network: nn.Module) -> tuple[int, int]:
        looking = predictor(network)
        wrong = 0
        for part in np.array_split(mine, math.ceil(len(mine) / 1024) or 1):
            found = looking.predict(split.images(part, torch.get_num_threads()), protocol)
            wrong += int((found.argmax(1) != split.labels[part]).sum())
        return wrong, len(mine)

    return count
