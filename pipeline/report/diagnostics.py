"""What the networks get wrong: reliability of their probabilities, and which classes they confuse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pipeline.report import names
from pipeline.report.figures import colours_of, headline_protocol
from pipeline.report.inputs import Inputs, RunResult
from pipeline.report.mistakes import class_name
from pipeline.report.outcomes import Outcome, Outcomes
from pipeline.report.plots import INK, SERIES, Panel, Plot

BINS = 10
MOST_CLASSES = 20
"""A confusion matrix of more classes can't be read."""
LONGEST_NAME = 20
"""Of a class, in letters: longer ones would leave no room for the matrix."""
MOST_LINES = len(SERIES)


def headline_run(inputs: Inputs) -> RunResult | None:
    """The run that is looked at in detail: the first seed of the deepest residual net, whatever its error."""
    candidates = [run for run in inputs.shown if names.kind(run.network) == "resnet"] or inputs.shown
    deepest = max((names.depth(run.network) or 0 for run in candidates), default=0)
    return next((run for run in candidates if (names.depth(run.network) or 0) == deepest), None)


def diagnostic_plots(inputs: Inputs, outcomes: Outcomes) -> list[Plot]:
    """Reliability of every network's first seed; the confusion matrix of the deepest residual net."""
    protocol = headline_protocol(inputs)
    if protocol is None:
        return []
    found = [reliability_figure(inputs, outcomes, protocol), confusion_figure(inputs, outcomes, protocol)]
    return [plot for plot in found if plot is not None]


def reliability(outcome: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy (both in [0, 1]) and count of the images in each filled bin of confidence."""
    bins = np.clip((outcome.confidence * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    filled = count > 0
    confidence = np.bincount(bins, outcome.confidence.astype(np.float64), BINS)[filled] / count[filled]
    accuracy = np.bincount(bins, ~outcome.wrong, BINS)[filled] / count[filled]
    return confidence, accuracy, count[filled]


def calibration_error(outcome: Outcome) -> float:
    """Expected calibration error, in percent: how far confidence and accuracy lie apart, on the average image."""
    confidence, accuracy, count = reliability(outcome)
    return 100 * float(np.sum(count * np.abs(confidence - accuracy)) / count.sum())


def reliability_figure(inputs: Inputs, outcomes: Outcomes, protocol: str) -> Plot | None:
    """Accuracy against confidence."""
    first: dict[str, Outcome] = {}
    for run in inputs.shown:
        outcome = outcomes.of(run.name, protocol) if run.network not in first else None
        if outcome is not None:
            first[run.network] = outcome
    if not first:
        return None
    shown = dict(list(first.items())[-MOST_LINES:])
    caption = (
        f"{names.protocol_label(protocol).capitalize()}, first seed of each network, {BINS} bins; on the diagonal,"
        " confidence is as high as it should be. ECE: expected calibration error, in percentage points."
    )
    if left_out := [names.label(network) for network in first if network not in shown]:
        caption += f" For want of room not drawn: {', '.join(left_out)}."
    return Plot("reliability", "Reliability of the probabilities", caption, (_reliability_panel(shown),), (4.9, 4.2))


def _reliability_panel(found: dict[str, Outcome]) -> Panel:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        colours = colours_of(list(found))
        for network, outcome in found.items():
            confidence, accuracy, _ = reliability(outcome)
            label = f"{names.label(network)}, ECE {calibration_error(outcome):.1f}"
            dashed = (0, (3, 2)) if names.kind(network) == "plain" else "solid"
            axes.plot(
                confidence,
                accuracy,
                color=colours[network],
                linestyle=dashed,
                marker="o",
                markersize=3.5,
                label=label,
            )
        axes.set(xlabel="mean confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend()

    return draw


def confusion(outcome: Outcome) -> np.ndarray:
    """Counts, int64 (classes, classes): rows are the labels, columns the predictions."""
    flat = outcome.labels * outcome.classes + outcome.predicted
    return np.bincount(flat, minlength=outcome.classes**2).reshape(outcome.classes, outcome.classes)


def confusion_figure(inputs: Inputs, outcomes: Outcomes, protocol: str) -> Plot | None:
    """The confusion matrix, in counts."""
    run = headline_run(inputs)
    outcome = outcomes.of(run.name, protocol) if run else None
    if run is None or outcome is None or outcome.classes > MOST_CLASSES:
        return None
    classes = [_short(class_name(number, inputs.class_names)) for number in range(outcome.classes)]
    caption = f"{run.name}, {names.protocol_label(protocol)}: images by their class and the class they were taken for."
    panel = _confusion_panel(confusion(outcome), classes)
    return Plot("confusion", "Confusion matrix", caption, (panel,), (4.9, 4.6))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _confusion_panel(counts: np.ndarray, classes: Sequence[str]) -> Panel:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right, wrong = to_rgb(SERIES[0]), to_rgb(SERIES[1])

    def draw(axes: Axes) -> None:
        n = len(classes)
        colours = [[(*(right if i == j else wrong), _shade(shares[i, j])) for j in range(n)] for i in range(n)]
        x, y = np.meshgrid(np.arange(n + 1) - 0.5, np.arange(n + 1) - 0.5)
        axes.pcolormesh(x, y, np.array(colours), edgecolors="none")
        for i, j in np.argwhere(counts):
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=7.5)
        axes.set_xticks(range(n), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(n), classes)
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set(xlabel="taken for", ylabel="class", aspect="equal")

    return draw


def _shade(share: float) -> float:
    """Opacity: strong enough for one image to be seen, and for the count to be read on top."""
    return 0.0 if share == 0 else 0.12 + 0.48 * float(np.sqrt(share))
