"""The paper's figures from our own runs: curves against iterations, error against depth, layer responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.evaluation.statistics import error_interval, over_seeds
from pipeline.report import names
from pipeline.report.inputs import Inputs, RunResult
from pipeline.report.plots import INK, SERIES, Panel, Plot
from pipeline.report.responses import deviations, with_responses

RIGHT_PANEL = ("resnet110", "resnet1202")


def paper_figures(inputs: Inputs) -> list[Plot]:
    """Those figures for which there are records."""
    found = [curves_figure(inputs), depth_figure(inputs), responses_figure(inputs)]
    return [plot for plot in found if plot is not None]


def curves_figure(inputs: Inputs) -> Plot | None:
    """Figure 6 (or 4): plain nets left, residual ones in the middle, 110 against 1202 layers right, on one y axis."""
    runs = [run for run in inputs.runs.values() if run.history is not None]
    sides = [[run for run in runs if names.kind(run.network) == kind] for kind in ("plain", "resnet")]
    if not any(sides):
        return None
    thin = any(names.family(run.network) == "imagenet" for run in runs)
    top = _ceiling(runs)
    colours = _colours(runs)
    titles = ["Plain nets", "Residual nets"]
    if {run.network for run in runs} >= set(RIGHT_PANEL):
        sides.append([run for run in runs if run.network in RIGHT_PANEL])
        titles.append("110 against 1202 layers")
    panels = [_curves_panel(title, side, top, colours, thin) for title, side in zip(titles, sides, strict=True) if side]
    training = "Thin" if thin else "Dashed"
    caption = (
        f"{training}: training error, over augmented mini-batches since the point before."
        " Bold: test error of one view. Errors above the axis are not displayed."
    )
    title = f"Training and test error against iterations (as the paper's Figure {4 if thin else 6})"
    return Plot("figure4" if thin else "figure6", title, caption, tuple(panels))


def _curves_panel(
    title: str, runs: Sequence[RunResult], top: float, colours: dict[int, str], thin: bool
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for run in runs:
            assert run.history is not None
            colour = colours[names.depth(run.network) or 0]
            style = {"linewidth": 0.8} if thin else {"linewidth": 1.1, "linestyle": (0, (3, 2))}
            axes.plot(*_points(run.history, "training_error"), color=colour, **style)
            axes.plot(*_points(run.history, "test_error"), color=colour, linewidth=2.0)
        axes.set(title=title, xlabel="iterations", ylabel="error (%)", ylim=(0, top))
        axes.set_xlim(left=0)
        networks = sorted({run.network for run in runs}, key=names.network_order)
        handles = [Line2D([], [], color=colours[names.depth(n) or 0], label=names.label(n)) for n in networks]
        axes.legend(handles=handles, loc="upper right")

    return draw


def _points(history: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    known = history[["iteration", column]].dropna()
    return known["iteration"].to_numpy(), known[column].to_numpy()


def _ceiling(runs: Sequence[RunResult]) -> float:
    """A common y axis that shows the second half of every curve below 60%, as the paper's leaves plain-110 out."""
    highest = 10.0
    for run in runs:
        assert run.history is not None
        for column in ("training_error", "test_error"):
            iterations, values = _points(run.history, column)
            late = values[iterations >= 0.5 * iterations.max()] if len(values) else values
            highest = max([highest, *late[late <= 60]])
    return min(100.0, 10 * math.ceil(1.3 * highest / 10))


def _colours(runs: Sequence[RunResult]) -> dict[int, str]:
    """A colour a depth, so that plain and residual twins have the same."""
    depths = sorted({names.depth(run.network) or 0 for run in runs})
    return {depth: SERIES[number % len(SERIES)] for number, depth in enumerate(depths)}


def depth_figure(inputs: Inputs) -> Plot | None:
    """Error against depth, plain and residual nets, with intervals."""
    depths = {names.depth(run.network) for run in inputs.shown if names.kind(run.network) != "other"}
    protocol = headline_protocol(inputs)
    if len(depths) < 2 or protocol is None:
        return None
    bars = "Bars: Wilson's 95% interval of one seed, mean ± std of several."
    caption = f"Top-1 error, {names.protocol_label(protocol)}. {bars}"
    return Plot("depth", "Error against depth", caption, (_depth_panel(inputs, protocol),))


def _depth_panel(inputs: Inputs, protocol: str) -> Panel:
    def draw(axes: Axes) -> None:
        ticks: set[int] = set()
        for kind, colour, marker in (("plain", SERIES[1], "s"), ("resnet", SERIES[0], "o")):
            points = _depth_points(inputs, kind, protocol)
            if not points:
                continue
            x, y, low, high = map(np.array, zip(*points, strict=True))
            ticks |= set(x.tolist())
            bars = np.stack([y - low, high - y]).clip(min=0)
            label = "plain" if kind == "plain" else "ResNet"
            axes.errorbar(x, y, yerr=bars, color=colour, marker=marker, markersize=5, capsize=3, label=label)
        axes.set(xlabel="layers", ylabel="error (%)", xscale="log")
        axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.legend()

    return draw


def _depth_points(inputs: Inputs, kind: str, protocol: str) -> list[tuple[float, float, float, float]]:
    """(layers, error, low, high) a network; of several of one depth (shortcuts A, B, C) each has its own."""
    networks = dict.fromkeys(run.network for run in inputs.shown if names.kind(run.network) == kind)
    points = []
    for network in networks:
        found = [run.errors[protocol] for run in inputs.of_network(network) if protocol in run.errors]
        if not found:
            continue
        seeds = over_seeds([errors.top1_error for errors in found])
        interval = error_interval(seeds.mean, found[0].n_images) if len(found) == 1 else seeds.interval
        points.append((float(names.depth(network) or 0), seeds.mean, interval.low, interval.high))
    return points


def headline_protocol(inputs: Inputs) -> str | None:
    """The protocol that figures speak of: single view, else 10-crop, else the first there is."""
    preferred = [p for p in ("single_view", "ten_crop", *inputs.protocols) if p in inputs.protocols]
    return preferred[0] if preferred else None


def responses_figure(inputs: Inputs) -> Plot | None:
    """Figure 7: standard deviations of layer responses in layer order, and sorted by size."""
    runs = with_responses(inputs)
    if not runs:
        return None
    caption = "Outputs of each 3×3 layer after BN and before ReLU or addition. Dashed: plain nets."
    panels = (_responses_panel(runs, "In layer order", False), _responses_panel(runs, "Sorted by size", True))
    return Plot("figure7", "Standard deviations of layer responses (as the paper's Figure 7)", caption, panels)


def _responses_panel(runs: Sequence[RunResult], title: str, in_order_of_size: bool) -> Panel:
    colours = _colours(runs)

    def draw(axes: Axes) -> None:
        for run in runs:
            values = deviations(run)
            if in_order_of_size:
                values = np.sort(values)[::-1]
            style = (0, (3, 2)) if names.kind(run.network) == "plain" else "solid"
            colour = colours.get(names.depth(run.network) or 0, INK)
            axes.plot(
                np.arange(1, len(values) + 1), values, color=colour, linestyle=style, label=names.label(run.network)
            )
        axes.set(title=title, xlabel="layer", ylabel="std")
        axes.set_ylim(bottom=0)
        axes.legend()

    return draw
