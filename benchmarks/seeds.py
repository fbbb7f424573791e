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
    return f"training loss {_spread(_losses(ends), 3)}, test error {_spread(_errors(ends), 2)}%"


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
        f"{way}'s {name}": (of(found), of(exact))
        for way, found in ours.items()
        for name, of in (("training loss", _losses), ("test error", _errors))
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
        cells = [
            cell
            for of, digits in ((_losses, 3), (_errors, 2))
            for cell in (
                _spread(of(found), digits),
                "" if way == EXACT else _told_chance(of(found), of(ends.get(EXACT, []))),
            )
        ]
        lines.append(f"| {way} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _losses(ends: Sequence[End]) -> list[float]:
    return [end["training_loss"] for end in ends]


def _errors(ends: Sequence[End]) -> list[float]:
    return [end["test_error"] for end in ends]


def _within(values: Sequence[float], reference: Sequence[float]) -> bool:
    return min(reference) <= statistics.mean(values) <= max(reference)


def _chance(values: Sequence[float], reference: Sequence[float]) -> float:
    """The p-value of Welch's t-test, which takes two of each."""
    return float(ttest_ind(values, reference, equal_var=False).pvalue)


def _told_chance(values: Sequence[float], reference: Sequence[float]) -> str:
    return f"{_chance(values, reference):.2g}" if min(len(values), len(reference)) > 1 else ""


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
