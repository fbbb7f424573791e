"""How trainings of several seeds end by several ways, and whether the ways differ by more than the seeds do."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from scipy.stats import ttest_ind

EXACT = "fp32"
"""The way beside which the others are set."""
CONTROL = "usual script"
"""Another program on the same images, which may well end elsewhere."""
LEVEL = 0.05
"""A chance below which a difference is taken for one."""
FIGURES = (("training_loss", "training loss", 3), ("test_error", "test error", 2))
"""Of a training's end: key, words, and decimals shown."""


class End(TypedDict):
    """How one training ended, and where: figures by different code or processors differ by more than rounding."""

    training_loss: float
    test_error: float
    """In percent."""
    seconds: NotRequired[float]
    git_commit: NotRequired[str | None]
    processor: NotRequired[str]


Ends = Mapping[str, Sequence[End]]
"""By way, its trainings, one a seed."""


def described(ends: Sequence[End]) -> str:
    """Both figures over the seeds: mean (least to largest)."""
    return ", ".join(f"{words} {_spread(_values(ends, key), digits)}" for key, words, digits in FIGURES) + "%"


def verdict(ends: Ends) -> str:
    """Whether one of our ways ends elsewhere than fp32 by more than seeds do, by Welch's t-test of both figures.

    Means that lie outside fp32's least and largest are named besides: of a few seeds they often do, by chance.
    """
    exact = ends.get(EXACT, [])
    ours = {way: found for way, found in ends.items() if way not in (EXACT, CONTROL) and found}
    few = [way for way, found in {EXACT: exact, **ours}.items() if len(found) < 2]
    if few or not ours:
        return f"undecided, as it takes two seeds of each: {', '.join(few) or 'there is nothing beside fp32'}"
    pairs = {
        f"{way}'s {words}": (_values(found, key), _values(exact, key))
        for way, found in ours.items()
        for key, words, _ in FIGURES
    }
    chances = {name: _chance(*pair) for name, pair in pairs.items()}
    differing = [f"{name} (p = {chance:.2g})" for name, chance in chances.items() if chance < LEVEL]
    outside = [name for name, pair in pairs.items() if not _within(*pair)]
    return "; ".join(
        [
            f"not fp32's, by more than seeds differ: {', '.join(differing)}"
            if differing
            else f"none differs from fp32 by more than seeds do (least p {min(chances.values()):.2g})",
            f"means outside fp32's least and largest: {', '.join(outside)}"
            if outside
            else "all means lie within fp32's least and largest",
        ]
    )


def markdown(ends: Ends) -> str:
    """A row a way: its seeds, both figures, and how likely so large a difference from fp32's mean is by chance."""
    lines = ["| way | seeds | training loss | p | test error, % | p |", "|---|--:|--:|--:|--:|--:|"]
    for way, found in ends.items():
        if not found:
            continue
        cells = [way, str(len(found))]
        for key, _, digits in FIGURES:
            values, reference = _values(found, key), _values(ends.get(EXACT, []), key)
            told = way != EXACT and min(len(values), len(reference)) > 1
            cells += [_spread(values, digits), f"{_chance(values, reference):.2g}" if told else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _values(ends: Sequence[End], key: str) -> list[float]:
    return [end[key] for end in ends]


def _within(values: Sequence[float], reference: Sequence[float]) -> bool:
    return min(reference) <= statistics.mean(values) <= max(reference)


def _chance(values: Sequence[float], reference: Sequence[float]) -> float:
    """The p-value of Welch's t-test, which takes two of each."""
    return float(ttest_ind(values, reference, equal_var=False).pvalue)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
