"""A rank's share of each batch as uint8 views, made here or in loader processes: the same either way."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.augment import Draws, draw
from pipeline.data.errors import StoreError
from pipeline.data.nvjpeg import RawImages
from pipeline.data.plan import Plan
from pipeline.data.store import Split
from pipeline.data.views import cut, training_view, view_of
from pipeline.schema import Augmentation
from pipeline.storage import StorageError

T = TypeVar("T")


class LoaderError(RuntimeError):
    """A loader process came to its end while it was needed."""


@dataclass(frozen=True)
class Share:
    """What one rank loads of every batch."""

    split: Split
    indices: np.ndarray
    """Positions in the split of the images to train on."""
    plan: Plan
    augmentation: Augmentation
    start: int
    stop: int
    """The rank's rows of a batch."""

    def images(self, iteration: int) -> np.ndarray:
        """Positions in the split of the rank's images of a batch."""
        return self.indices[self.plan.indices(iteration)[self.start : self.stop]]

    def draws(self, iteration: int) -> Draws:
        """Drawn for the whole batch, so that a rank's do not depend on the number of ranks."""
        whole = draw(self.plan.generator(iteration), self.plan.batch_size, self.augmentation)
        return whole.part(self.start, self.stop)


@dataclass(frozen=True)
class Failure:
    """What went wrong in a loader process, in words."""

    message: str
    passing: bool
    """Of the storage, which may come back: no fault of the store's."""


class Encoded(Dataset[RawImages | Failure]):
    """The images of each iteration, encoded, for a device that decodes them itself."""

    def __init__(self, share: Share) -> None:
        self._share = share

    def __getitem__(self, iteration: int) -> RawImages | Failure:
        try:
            return RawImages.of(self._share.split.encoded(int(image)) for image in self._share.images(iteration))
        except (ValueError, OSError) as error:
            return Failure(f"iteration {iteration}: {error}", isinstance(error, StorageError))


class Views(Dataset[Tensor | Failure]):
    """The uint8 views (n, crop, crop, 3) of each iteration."""

    def __init__(self, share: Share, *, reuse_memory: bool = False) -> None:
        """With `reuse_memory` a batch is overwritten by the next one."""
        self._share, self._reuse_memory = share, reuse_memory
        self._memory: Tensor | None = None

    def __getitem__(self, iteration: int) -> Tensor | Failure:
        try:
            return self._views(iteration)
        except (StoreError, StorageError, ValueError) as error:
            return Failure(str(error), isinstance(error, StorageError))

    def _views(self, iteration: int) -> Tensor:
        share, crop = self._share, self._share.augmentation.crop
        draws, images = share.draws(iteration), share.images(iteration)
        views = self._empty((len(images), crop, crop, 3))
        for row, image in enumerate(images):
            views[row] = self._view(int(image), draws, row)
        return views

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        if self._memory is not None:
            return self._memory
        views = torch.empty(shape, dtype=torch.uint8)
        self._memory = views if self._reuse_memory else None
        return views

    def _view(self, image: int, draws: Draws, row: int) -> Tensor:
        split, crop = self._share.split, self._share.augmentation.crop
        if split.shape is not None:
            pixels = torch.from_numpy(split.image(image).copy())
            return cut(pixels, view_of(*split.shape[:2], draws, row, crop), crop)
        try:
            return training_view(split.encoded(image), draws, row, crop)
        except StorageError:
            raise
        except (ValueError, OSError) as error:
            raise StoreError(f"{split.describe(image)}: no view can be made of it: {error}") from error


def batches_of(batches: Dataset[T | Failure], start: int, processes: int, pin: bool) -> Iterator[T]:
    """The batches of iterations `start`, `start` + 1, …, in that order, made by this process or by `processes` others.

    LoaderError when one of them is killed; StorageError where the storage is away, StoreError for what cannot be
    loaded otherwise.
    """
    here = map(batches.__getitem__, itertools.count(start))
    items = _in_processes(batches, start, processes, pin) if processes else here
    for item in items:
        if isinstance(item, Failure):
            raise (StorageError if item.passing else StoreError)(item.message)
        yield item


def _in_processes(batches: Dataset[T | Failure], start: int, processes: int, pin: bool) -> Iterator[T | Failure]:
    # spawned, not forked: clients of S3 and CUDA do not survive a fork
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=_From(start),
        num_workers=processes,
        multiprocessing_context="spawn",
        pin_memory=pin,
        worker_init_fn=_end_by_exit,
    )
    iterator = iter(loader)
    while not isinstance(item := _next_or_death(iterator), _Death):
        yield item
    # while torch's iterator lives, and its error's traceback keeps it alive, every ended child raises the error again
    del iterator
    raise LoaderError(f"a loader process ended early, killed or out of memory: {item.message}")


def _end_by_exit(worker: int) -> None:
    """Have this loader process end without destroying C++'s global objects, as a forked one does.

    Destroying them aborts now and then, as a thread still runs; torch then raises an error in the process that trains.
    """
    last = -100  # after the queues' own finalizers, which send what is left
    Finalize(None, os._exit, args=(0,), exitpriority=last)


@dataclass(frozen=True)
class _Death:
    """A loader process has ended."""

    message: str


def _next_or_death(iterator: Iterator[T | Failure]) -> T | Failure | _Death:
    try:
        return next(iterator)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        return _Death(str(error))


class _From:
    """Iterations from the first one, without end."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._start)
