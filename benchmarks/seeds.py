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
    return f"training loss {_spread(_losses(ends))}, test error {_spread(_errors(ends))}%"


def verdict(ends: Ends) -> str:
    """Whether each of our ways' means lies within fp32's least and largest, by both figures; fp32 needs two seeds."""
    seeds = len(ends.get(EXACT, []))
    if seeds < 2:
        return f"undecided, as {EXACT} has {seeds} of the two seeds that make a spread"
    outside = [
        f"{way}'s {name}"
        for way, found in ends.items()
        for name, of in (("training loss", _losses), ("test error", _errors))
        if found and way not in (EXACT, CONTROL) and not _within(of(found), of(ends.get(EXACT, [])))
    ]
    where = "fp32's spread over seeds"
    return f"outside {where}: {', '.join(outside)}" if outside else f"all within {where}"


def markdown(ends: Ends) -> str:
    """A row a way: its seeds, both figures, and how likely so large a difference from fp32's mean is by chance."""
    lines = ["| way | seeds | training loss | p | test error, % | p |", "|---|--:|--:|--:|--:|--:|"]
    for way, found in ends.items():
        if not found:
            continue
        cells = [
            cell
            for of in (_losses, _errors)
            for cell in (_spread(of(found)), "" if way == EXACT else _chance(of(found), of(ends.get(EXACT, []))))
        ]
        lines.append(f"| {way} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _losses(ends: Sequence[End]) -> list[float]:
    return [end["training_loss"] for end in ends]


def _errors(ends: Sequence[End]) -> list[float]:
    return [end["test_error"] for end in ends]


def _within(values: Sequence[float], reference: Sequence[float]) -> bool:
    return min(reference) <= statistics.mean(values) <= max(reference)


def _chance(values: Sequence[float], reference: Sequence[float]) -> str:
    """The p-value of Welch's t-test, which takes two of each."""
    if min(len(values), len(reference)) < 2:
        return ""
    return f"{ttest_ind(values, reference, equal_var=False).pvalue:.2g}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"
