"""A line of progress a few times a minute."""

from __future__ import annotations

import time

from pipeline.schema import Training
from pipeline.training.distributed import world
from pipeline.training.loop import Trainer


class Progress:
    """Prints, from the first worker, iteration, loss, rate, images a second and the time left."""

    def __init__(self, run: str, recipe: Training, every_seconds: float) -> None:
        self._run, self._recipe, self._every = run, recipe, every_seconds
        self._shown = time.monotonic()
        self._iteration: int | None = None

    def show(self, trainer: Trainer) -> None:
        """Print a line if it is time, or at the last iteration."""
        now = time.monotonic()
        last = trainer.iteration == self._recipe.iterations
        if self._iteration is None:
            self._iteration = trainer.iteration - 1
        if world()[0] or not (last or now - self._shown >= self._every):
            return
        print(self._line(trainer, now), flush=True)
        self._shown, self._iteration = now, trainer.iteration

    def _line(self, trainer: Trainer, now: float) -> str:
        done, goal = trainer.iteration, self._recipe.iterations
        per_second = (done - (self._iteration or 0)) / max(now - self._shown, 1e-9)
        left = (goal - done) / max(per_second, 1e-9)
        return (
            f"{self._run}  iteration {done:,}/{goal:,}  loss {trainer.recent_loss():.3f}  rate {trainer.rate():g}"
            f"  {per_second * self._recipe.batch_size:,.0f} images/s  {duration(left)} left"
        )


def duration(seconds: float) -> str:
    """Seconds as the largest two units of h, min and s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
