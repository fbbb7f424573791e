"""The learning rate by iteration: steps, plateau, and warm-up until training has taken hold."""

from __future__ import annotations

from typing import Any

from pipeline.schema import Plateau, Steps, Warmup


class Schedule:
    """The rate at an iteration, given the errors of the curve points so far (paper, sections 3.4 and 4.2).

    `rate(iteration)` is the rate of the 0-based iteration about to run; `observe` is told each point of the curve,
    which a plateau schedule and a warm-up act on. Its state goes into checkpoints.
    """

    def __init__(self, learning_rate: float, schedule: Steps | Plateau, warmup: Warmup | None) -> None:
        self._base = learning_rate
        self._schedule = schedule
        self._warmup = warmup
        self._warming = warmup is not None
        self._drops = 0
        self._lowest: float | None = None
        self._since_lowest = 0

    def rate(self, iteration: int) -> float:
        """The learning rate of `iteration` (0-based): the milestone 32,000 is the first iteration at the new rate."""
        if self._warming and self._warmup is not None:
            return self._warmup.learning_rate
        if isinstance(self._schedule, Steps):
            passed = sum(iteration >= milestone for milestone in self._schedule.milestones)
            return self._base * self._schedule.factor**passed
        return self._base * self._schedule.factor**self._drops

    @property
    def warming(self) -> bool:
        """Whether the warm-up goes on, so that neither milestones nor a plateau have lowered the rate."""
        return self._warming

    def observe(self, training_error: float, holdout_error: float | None = None) -> None:
        """Take in a curve point's errors in percent; None where it was not measured there."""
        if self._warming and self._warmup is not None:
            self._warming = training_error >= self._warmup.until_training_error
            return
        if isinstance(self._schedule, Plateau):
            self._watch(self._schedule, training_error, holdout_error)

    def _watch(self, plateau: Plateau, training_error: float, holdout_error: float | None) -> None:
        error = training_error if plateau.watch == "training_error" else holdout_error
        if error is None:
            return
        if self._lowest is None or error < self._lowest - plateau.threshold:
            self._lowest, self._since_lowest = error, 0
            return
        self._since_lowest += 1
        if self._since_lowest >= plateau.patience and self._drops < plateau.drops:
            self._drops, self._since_lowest = self._drops + 1, 0

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {
            "warming": self._warming,
            "drops": self._drops,
            "lowest": self._lowest,
            "since_lowest": self._since_lowest,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self._warming, self._drops = state["warming"], state["drops"]
        self._lowest, self._since_lowest = state["lowest"], state["since_lowest"]
