"""Which images an iteration sees, as a pure function of the seed and the iteration."""

from __future__ import annotations

import functools

import numpy as np

_ORDER, _AUGMENTATION = 0, 1


class Plan:
    """An endless chain of shuffled epochs, cut into batches that may straddle two epochs.

    Every image comes once an epoch. Nothing depends on what was drawn before, so a training resumed at any iteration,
    with any number of workers, sees what an undisturbed one would have seen.
    """

    def __init__(self, n_images: int, batch_size: int, seed: int) -> None:
        if n_images < 1 or batch_size < 1 or seed < 0:
            raise ValueError(f"a plan needs images, a batch size and a seed, not {n_images}, {batch_size}, {seed}")
        self.n_images, self.batch_size, self.seed = n_images, batch_size, seed
        self._permutation = functools.lru_cache(maxsize=2)(self._shuffled)

    def indices(self, iteration: int) -> np.ndarray:
        """The batch's positions among the training images, int64 (batch_size,)."""
        if iteration < 0:
            raise ValueError(f"iteration {iteration} is negative")
        start = iteration * self.batch_size
        stop = start + self.batch_size
        epochs = range(start // self.n_images, (stop - 1) // self.n_images + 1)
        chain = self._permutation(epochs[0])
        if len(epochs) > 1:
            chain = np.concatenate([self._permutation(epoch) for epoch in epochs])
        offset = start - epochs[0] * self.n_images
        return chain[offset : offset + self.batch_size]

    def generator(self, iteration: int) -> np.random.Generator:
        """The source of the iteration's augmentation draws."""
        return self._random(_AUGMENTATION, iteration)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return self._random(_ORDER, epoch).permutation(self.n_images)

    def _random(self, purpose: int, position: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(purpose, position))
        return np.random.Generator(np.random.PCG64(sequence))

    def __reduce__(self) -> tuple[type[Plan], tuple[int, int, int]]:
        return Plan, (self.n_images, self.batch_size, self.seed)
