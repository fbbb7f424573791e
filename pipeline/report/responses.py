"""Layer responses (the paper's Figure 7): standard deviations of the 3×3 layers' outputs, compared between networks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from pipeline.report import names
from pipeline.report.inputs import Inputs, RunResult


@dataclass(frozen=True)
class Comparison:
    """Two runs' responses, the larger one first as claimed, by their means and by a test of ranks."""

    larger: str
    smaller: str
    larger_mean: float
    smaller_mean: float
    p_value: float
    """Two-sided."""
    ranks: float
    """Above 0 where the ranks go the claimed way, below 0 where they go the other; a few large layers move no rank."""


def with_responses(inputs: Inputs) -> list[RunResult]:
    """The first run of each network that has figures and whose responses were measured."""
    first: dict[str, RunResult] = {}
    for run in inputs.shown:
        if run.responses is not None:
            first.setdefault(run.network, run)
    return list(first.values())


def deviations(run: RunResult) -> np.ndarray:
    """The standard deviations, float64 (layers,), in layer order."""
    assert run.responses is not None
    return np.array([layer.std for layer in run.responses.layers])


def response_links(inputs: Inputs) -> tuple[list[Comparison], list[Comparison]]:
    """Plain against residual of one depth (Wilcoxon's test, by layer); shallower against deeper (Mann–Whitney's)."""
    runs = {run.network: run for run in with_responses(inputs)}
    residual = sorted((n for n in runs if names.kind(n) == "resnet"), key=names.network_order)
    twins = [(f"plain{names.depth(network)}", network) for network in residual]
    against_plain = [_compare(runs[plain], runs[network], paired=True) for plain, network in twins if plain in runs]
    # Of several shortcuts at one depth (resnet34a, resnet34b) the first stands for it.
    by_depth = {names.depth(network): network for network in reversed(residual)}
    deeper = pairwise(by_depth[depth] for depth in sorted(by_depth, key=lambda depth: depth or 0))
    return against_plain, [_compare(runs[first], runs[second], paired=False) for first, second in deeper]


def _compare(larger: RunResult, smaller: RunResult, paired: bool) -> Comparison:
    first, second = deviations(larger), deviations(smaller)
    if paired and len(first) == len(second) and not np.array_equal(first, second):
        difference = first - second
        p_value = float(stats.wilcoxon(difference).pvalue)
        ranks = float((np.sign(difference) * stats.rankdata(np.abs(difference))).sum())
    else:
        found = stats.mannwhitneyu(first, second)
        p_value, ranks = float(found.pvalue), float(found.statistic) - len(first) * len(second) / 2
    return Comparison(larger.name, smaller.name, float(first.mean()), float(second.mean()), p_value, ranks)
