"""The training loop: plain torch, by iterations, on one process or as one of several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.compiling import compiled
from pipeline.schema import Training
from pipeline.training.batchnorm import recompute_statistics, split_batch
from pipeline.training.curve import CurvePoint
from pipeline.training.distributed import any_worker, average_buffers, replicate, sum_over_workers, world
from pipeline.training.loss import TrainingLoss, main_logits
from pipeline.training.optimiser import build_optimizer, set_rate
from pipeline.training.precision import autocast, resolve_precision
from pipeline.training.schedule import Schedule

Batches = Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]]
"""From a 0-based iteration on, endlessly: this worker's images (n, 3, H, W) and labels (n,) of each mini-batch."""

ErrorCount = Callable[[nn.Module], tuple[int, int]]
"""Of this worker's share of a labelled set: images classified wrongly, and images."""


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Material:
    """What a training works on."""

    network: nn.Module
    batches: Batches
    epoch_images: int
    """Training images, by which epochs are counted."""
    seed: int
    test_errors: ErrorCount | None = None
    holdout_errors: ErrorCount | None = None


class Trainer:
    """Trains a network by its recipe (paper, sections 3.4 and 4.2).

    `advance` runs iterations; `state` and `restore` carry everything between sittings; `finish` recomputes BN
    statistics. Every source of chance is a function of seed and iteration, so that a training resumed anywhere, on any
    number of workers, takes the same course but for rounding. Only BN's moving averages depend on how many parts of a
    mini-batch one worker has: with them the curve's test and holdout errors are measured, and a plateau's rate where it
    watches the latter; in the end `bn_recompute_images` replaces them.
    """

    def __init__(self, material: Material, recipe: Training, device: torch.device) -> None:
        rank, workers = world()
        self._share = _share(recipe, workers)
        self._material, self._recipe, self._device, self._rank = material, recipe, device, rank
        self.precision = _common_precision(recipe.precision, device)
        self.network = material.network.to(device).to(memory_format=torch.channels_last)
        self._sgd = build_optimizer(self.network, recipe.optimizer)
        inner = compiled(self.network, device, "training.compile") if recipe.compile else self.network
        self._replica = replicate(inner, device)
        self._schedule = Schedule(recipe.optimizer.learning_rate, recipe.schedule, recipe.warmup)
        self._loss = TrainingLoss(recipe.label_smoothing)
        self._sums = torch.zeros(3, device=device, dtype=torch.float64)  # loss, wrong, images since the last point
        self.iteration = 0
        self.seconds = 0.0
        self.curve: list[CurvePoint] = []

    def advance(self, until: int) -> Iterator[int]:
        """Run iterations up to `until`, yielding the number done after each; curve points appear in `curve`."""
        self._replica.train()
        started, before = time.monotonic(), self.seconds
        stream = self._material.batches(self.iteration)
        while self.iteration < until:
            images, labels = next(stream)
            self._step(images, labels)
            self.iteration += 1
            self.seconds = before + time.monotonic() - started
            if self.iteration % self._recipe.curve_every == 0 or self.iteration == self._recipe.iterations:
                self._add_point()
            yield self.iteration

    def finish(self) -> None:
        """Recompute BN statistics over training images, if the recipe says so; the weights stay as they are."""
        wanted = self._recipe.bn_recompute_images
        if not wanted:
            average_buffers(self.network)
            return
        stream = self._material.batches(self._recipe.iterations)
        mini_batches = math.ceil(wanted / self._recipe.batch_size)
        parts = (part for _ in range(mini_batches) for part in split_batch(next(stream)[0], self._recipe.bn_images))
        recompute_statistics(self.network, parts)

    def rate(self) -> float:
        """The learning rate of the coming iteration."""
        return self._schedule.rate(self.iteration)

    @property
    def warming(self) -> bool:
        """Whether the warm-up goes on."""
        return self._schedule.warming

    def recent_loss(self) -> float:
        """Mean loss of this worker's images since the last curve point, or of the last point."""
        loss, _, images = self._sums.tolist()
        if images:
            return loss / images
        return self.curve[-1].training_loss if self.curve else math.nan

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything that `restore` needs: tensors, and JSON values. BN statistics are averaged over the workers."""
        average_buffers(self.network)
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, velocity in self._velocities().items():
            tensors[f"velocity.{name}"] = velocity
        tensors["sums"] = sum_over_workers(self._sums)
        values = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "learning_rate": self._sgd.param_groups[0]["lr"],
            "precision": self.precision,
            "schedule": self._schedule.state(),
            "curve": [asdict(point) for point in self.curve],
        }
        return tensors, values

    def restore(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from a `state`, on any number of workers."""
        weights = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        self.network.load_state_dict(weights)
        for name, parameter in self.network.named_parameters():
            velocity = tensors.get(f"velocity.{name}")
            if velocity is not None:
                # The fused kernels walk memory, so that the velocity must lie as its parameter does.
                self._sgd.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(velocity)
        self._sums = tensors["sums"].to(self._device) * (self._rank == 0)
        self.iteration, self.seconds = values["iteration"], values["seconds"]
        # What 'auto' came to where the training began, so that its course is one.
        self.precision = values.get("precision", self.precision)
        for group in self._sgd.param_groups:
            group["lr"] = values["learning_rate"]
        self._schedule.restore(values["schedule"])
        self.curve = [CurvePoint(**point) for point in values["curve"]]

    def _velocities(self) -> dict[str, torch.Tensor]:
        found = {}
        for name, parameter in self.network.named_parameters():
            velocity = self._sgd.state.get(parameter, {}).get("momentum_buffer")
            if velocity is not None:
                found[name] = velocity
        return found

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """One iteration: this worker's share in parts of `bn_images`, their gradients added up, one update."""
        set_rate(self._sgd, self.rate(), self._recipe.optimizer.momentum_form)
        self._sgd.zero_grad(set_to_none=True)
        size = self._recipe.bn_images
        starts = range(0, self._share, size)
        for number, start in enumerate(starts, self._rank * len(starts)):
            torch.manual_seed(_part_seed(self._material.seed, self.iteration, number))
            part = slice(start, start + size)
            with self._sync_gradients(last=start == starts[-1]):
                self._backward(images[part], labels[part])
        self._sgd.step()

    def _backward(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        with autocast(self.precision, self._device):
            outputs = self._replica(images)
        loss = self._loss(outputs, labels)
        (loss * (len(images) / self._share)).backward()
        with torch.no_grad():
            wrong = (main_logits(outputs).argmax(1) != labels).sum()
            images_seen = torch.full((), len(images), device=self._device)
            self._sums += torch.stack([loss.detach() * len(images), wrong, images_seen])

    def _sync_gradients(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self._replica, DistributedDataParallel):
            return nullcontext()
        return self._replica.no_sync()

    def _add_point(self) -> None:
        loss, wrong, images = sum_over_workers(self._sums).tolist()
        self._sums.zero_()
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} at iteration {self.iteration}: lower training.optimizer.learning_rate or set"
                " training.warmup"
            )
        tested = self.iteration % self._recipe.test_every == 0 or self.iteration == self._recipe.iterations
        holdout_error = self._error(self._material.holdout_errors) if tested else None
        point = CurvePoint(
            iteration=self.iteration,
            epoch=self.iteration * self._recipe.batch_size / self._material.epoch_images,
            learning_rate=self._sgd.param_groups[0]["lr"],
            training_loss=loss / images,
            training_error=100 * wrong / images,
            test_error=self._error(self._material.test_errors) if tested else None,
            holdout_error=holdout_error,
            images_per_second=self._speed(images),
            seconds=self.seconds,
        )
        self.curve.append(point)
        self._schedule.observe(point.training_error, holdout_error)

    def _speed(self, images: float) -> float:
        spent = self.seconds - (self.curve[-1].seconds if self.curve else 0.0)
        return images / spent if spent > 0 else 0.0

    def _error(self, count: ErrorCount | None) -> float | None:
        if count is None:
            return None
        average_buffers(self.network)
        self.network.eval()
        counts = torch.tensor(count(self.network), device=self._device, dtype=torch.float64)
        self._replica.train()
        wrong, images = sum_over_workers(counts).tolist()
        return 100 * wrong / images


def _common_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """One for all workers: where 'auto' is fp32 on any of them, it is on all."""
    found = resolve_precision(precision, device)
    return "fp32" if any_worker(found == "fp32", device) else found


def _share(recipe: Training, workers: int) -> int:
    """Images of each mini-batch that fall to one worker."""
    parts = recipe.batch_size // recipe.bn_images
    if parts % workers:
        raise ValueError(
            f"cluster.workers: {workers} cannot share training.batch_size {recipe.batch_size} in parts of"
            f" training.bn_images {recipe.bn_images}: {parts} parts must divide evenly"
        )
    return recipe.batch_size // workers


def _part_seed(seed: int, iteration: int, part: int) -> int:
    """Seed of dropout in a part of a mini-batch: the same whichever worker has it, and nothing else need be kept."""
    return (seed * 1_000_003 + iteration) * 4_096 + part
