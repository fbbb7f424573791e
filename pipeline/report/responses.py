"""Layer responses (the paper's Figure 7): standard deviations of the 3×3 layers' outputs, compared between networks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import stats

from pipeline.report import names
from pipeline.report.inputs import Inputs, RunResult

Comparison = tuple[str, str, float, float, float]
"""Larger as claimed, smaller as claimed, their mean responses, p-value (two-sided)."""


def with_responses(inputs: Inputs) -> list[RunResult]:
    """The first run of each network whose responses were measured."""
    first: dict[str, RunResult] = {}
    for run in inputs.runs.values():
        if run.responses is not None:
            first.setdefault(run.network, run)
    return list(first.values())


def deviations(run: RunResult) -> np.ndarray:
    """The standard deviations, float64 (layers,), in layer order."""
    assert run.responses is not None
    return np.array([layer.std for layer in run.responses.layers])


def response_links(inputs: Inputs) -> list[Comparison]:
    """Plain against residual of one depth (Wilcoxon's test, by layer); shallower against deeper (Mann–Whitney's)."""
    runs = {run.network: run for run in with_responses(inputs)}
    residual = sorted((n for n in runs if names.kind(n) == "resnet"), key=names.network_order)
    twins = [(f"plain{names.depth(network)}", network) for network in residual]
    pairs = [(runs[plain], runs[network]) for plain, network in twins if plain in runs]
    found = [_compare(first, second, paired=True) for first, second in pairs]
    return found + [_compare(runs[first], runs[second], paired=False) for first, second in pairwise(residual)]


def _compare(larger: RunResult, smaller: RunResult, paired: bool) -> Comparison:
    first, second = deviations(larger), deviations(smaller)
    if paired and len(first) == len(second) and not np.array_equal(first, second):
        p_value = float(stats.wilcoxon(first, second).pvalue)
    else:
        p_value = float(stats.mannwhitneyu(first, second).pvalue)
    return larger.name, smaller.name, float(first.mean()), float(second.mean()), p_value
