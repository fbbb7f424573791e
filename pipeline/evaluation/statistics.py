"""Intervals for error rates, paired tests on the same images, and the verdict on a published figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

VerdictKind = Literal["reproduced", "higher", "lower", "not compared", "not run"]


@dataclass(frozen=True)
class Interval:
    """A closed range of error rates, in percent."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class PairedTest:
    """McNemar's test of two classifiers on the same images; p-values are two-sided."""

    only_first_wrong: int
    only_second_wrong: int
    p_exact: float
    p_mid: float


@dataclass(frozen=True)
class Seeds:
    """Errors of one network over its seeds, in percent; `std` is the sample's (n - 1), 0 for one seed."""

    errors: tuple[float, ...]
    best: float
    mean: float
    std: float

    @property
    def interval(self) -> Interval:
        """The mean, one std to either side."""
        return Interval(self.mean - self.std, self.mean + self.std)


@dataclass(frozen=True)
class Verdict:
    """Whether a published error was met; `difference` is ours minus the published one, in percentage points."""

    kind: VerdictKind
    ours: float | None = None
    interval: Interval | None = None
    difference: float | None = None


def wilson_interval(errors: int, n_images: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval, in percent, for `errors` wrong among `n_images`.

    Raises ValueError unless 0 <= errors <= n_images, n_images >= 1 and 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} must lie between 0 and 1")
    if n_images < 1 or not 0 <= errors <= n_images:
        raise ValueError(f"{errors} errors among {n_images} images: must be 0 <= errors <= images, images >= 1")
    found = stats.binomtest(errors, n_images).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(100 * float(found.low), 100 * float(found.high))


def error_interval(error: float, n_images: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval, in percent, around an error given in percent of `n_images`."""
    return wilson_interval(round(error * n_images / 100), n_images, confidence)


def mcnemar(first_wrong: np.ndarray, second_wrong: np.ndarray) -> PairedTest:
    """McNemar's exact and mid-p test of two boolean arrays (N,), true where that classifier errs on image i.

    Under the null hypothesis an image that only one of the two gets wrong is as likely to be either's. The mid-p
    counts half the probability of the outcome seen, and is less conservative. ValueError unless both are (N,).
    """
    first, second = np.asarray(first_wrong, dtype=bool), np.asarray(second_wrong, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"arrays of shapes {first.shape} and {second.shape}: must both be (N,), on the same images")
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return PairedTest(0, 0, 1.0, 1.0)
    sides = 1 if only_first == only_second else 2
    as_seen = sides * float(stats.binom.pmf(fewer, n, 0.5))
    exact = min(1.0, 2 * float(stats.binom.cdf(fewer, n, 0.5)))
    return PairedTest(only_first, only_second, exact, exact - as_seen / 2)


def over_seeds(errors: Sequence[float]) -> Seeds:
    """Best and mean ± std of one network's errors over its seeds, as Table 6 gives them; ValueError for none."""
    if not errors:
        raise ValueError("errors: none given; at least one seed is needed")
    values = np.asarray(errors, dtype=np.float64)
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Seeds(tuple(map(float, values)), float(values.min()), float(values.mean()), std)


def our_interval(errors: Sequence[float], n_images: int) -> Interval:
    """The interval that judges a published figure: Wilson's 95% around the mean, or mean ± std where that is wider.

    So another seed never makes the demand much stricter: the std of two or three seeds says little.
    """
    seeds = over_seeds(errors)
    wilson, spread = error_interval(seeds.mean, n_images), seeds.interval
    return Interval(min(wilson.low, spread.low), max(wilson.high, spread.high))


def verdict(published: float, errors: Sequence[float], n_images: int, comparable: bool = True) -> Verdict:
    """Judge our errors, one a seed, in percent of `n_images`, against a published one.

    "reproduced" when the published figure lies within `our_interval`, else "higher" or "lower" by `difference`;
    "not compared" when the data differ (`comparable` false); "not run" without errors.
    """
    if not errors:
        return Verdict("not run")
    ours, interval = over_seeds(errors).mean, our_interval(errors, n_images)
    if not comparable:
        return Verdict("not compared", ours, interval)
    difference = ours - published
    if published in interval:
        return Verdict("reproduced", ours, interval, difference)
    return Verdict("higher" if difference > 0 else "lower", ours, interval, difference)
