"""The paper's figures from our own runs: curves against iterations, error against depth, layer responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.evaluation.statistics import Interval, our_interval, over_seeds
from pipeline.report import names
from pipeline.report.inputs import CURVES, Inputs, RunResult
from pipeline.report.plots import INK, SERIES, Panel, Plot
from pipeline.report.responses import deviations, with_responses

RIGHT_PANEL = ("resnet110", "resnet1202")
BARS = "Bars: Wilson's 95% interval, or mean ± std over several seeds where that is wider."
NOT_DISPLAYED = "plain110"
DepthPoint = tuple[float, float, float, float]
LineStyle = str | tuple[float, Sequence[float]]


def paper_figures(inputs: Inputs) -> list[Plot]:
    """Those figures for which there are records."""
    found = [curves_figure(inputs), responses_figure(inputs), depth_figure(inputs)]
    return [plot for plot in found if plot is not None]


def curves_figure(inputs: Inputs) -> Plot | None:
    """Figure 6 (or 4): plain nets left, residual ones in the middle, 110 against 1202 layers right, on one y axis."""
    runs = [run for run in inputs.shown if run.history is not None]
    sides = [[run for run in runs if names.kind(run.network) == kind] for kind in ("plain", "resnet")]
    if not any(sides):
        return None
    thin = any(names.family(run.network) == "imagenet" for run in runs)
    top = _ceiling(runs)
    colours = colours_of(run.network for run in runs)
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
    title: str, runs: Sequence[RunResult], top: float, colours: dict[str, str], thin: bool
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for run in runs:
            assert run.history is not None
            colour = colours[run.network]
            style = {"linewidth": 0.8} if thin else {"linewidth": 1.1, "linestyle": (0, (3, 2))}
            axes.plot(*_points(run.history, "training_error"), color=colour, **style)
            axes.plot(*_points(run.history, "test_error"), color=colour, linewidth=2.0)
        axes.set(title=title, xlabel="iterations", ylabel="error (%)", ylim=(0, top))
        axes.set_xlim(left=0)
        networks = sorted({run.network for run in runs}, key=names.network_order)
        handles = [Line2D([], [], color=colours[n], label=names.label(n)) for n in networks]
        axes.legend(handles=handles)

    return draw


def _points(history: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    known = history[["iteration", column]].dropna()
    return known["iteration"].to_numpy(), known[column].to_numpy()


def _ceiling(runs: Sequence[RunResult]) -> float:
    """A common y axis that shows the second half of every curve but plain-110's, which the paper leaves out too."""
    highest = 5.0
    for run in runs:
        if run.history is None or run.network == NOT_DISPLAYED:
            continue
        for column in CURVES:
            iterations, values = _points(run.history, column)
            highest = max([highest, *values[iterations > iterations.max(initial=0) / 2]])
    return min(100.0, 10 * math.ceil(1.25 * highest / 10))


def colours_of(networks: Iterable[str]) -> dict[str, str]:
    """A colour a network, plain and residual twins the same."""
    ordered = sorted(set(networks), key=lambda network: (names.depth(network) or 0, names.size(network)))
    sizes = list(dict.fromkeys(map(names.size, ordered)))
    return {network: SERIES[sizes.index(names.size(network)) % len(SERIES)] for network in ordered}


def depth_figure(inputs: Inputs) -> Plot | None:
    """Error against depth, plain and residual nets, with intervals."""
    depths = {names.depth(run.network) for run in inputs.shown if names.kind(run.network) != "other"}
    protocol = headline_protocol(inputs)
    if len(depths) < 2 or protocol is None:
        return None
    caption = f"Top-1 error, {names.protocol_label(protocol)}. {BARS}"
    return Plot("depth", "Error against depth", caption, (_depth_panel(inputs, protocol),))


def _depth_panel(inputs: Inputs, protocol: str) -> Panel:
    def draw(axes: Axes) -> None:
        ticks: set[float] = set()
        for kind, label, marker, line in (("plain", "plain", "s", (0, (3, 2))), ("resnet", "ResNet", "o", "solid")):
            points = _depth_points(inputs, kind, protocol)
            if points:
                _draw_depths(axes, points, label, marker, line)
            ticks |= {point[0] for point in points}
        axes.set(xlabel="layers", ylabel="error (%)", xscale="log")
        axes.set_xticks(sorted(ticks), [f"{tick:.0f}" for tick in sorted(ticks)])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.legend()

    return draw


def _draw_depths(axes: Axes, points: Sequence[DepthPoint], label: str, marker: str, line: LineStyle) -> None:
    """A marker a network; the line takes the last of each depth (of shortcuts A, B, C)."""
    x, y, low, high = map(np.array, zip(*points, strict=True))
    bars = np.stack([y - low, high - y]).clip(min=0)
    axes.errorbar(x, y, bars, color=INK, linestyle="none", capsize=3, linewidth=1.2)
    axes.plot(x, y, color=INK, marker=marker, markersize=4, linestyle="none")
    path = dict(zip(x.tolist(), y.tolist(), strict=True))
    axes.plot(list(path), list(path.values()), color=INK, linewidth=1.2, linestyle=line)
    axes.plot([], [], color=INK, marker=marker, markersize=4, linewidth=1.2, linestyle=line, label=label)


def _depth_points(inputs: Inputs, kind: str, protocol: str) -> list[DepthPoint]:
    """(layers, error, low, high) a network; several of one depth (shortcuts A, B, C) have a point each."""
    points = network_points(inputs, protocol).items()
    return [
        (float(names.depth(network) or 0), error, interval.low, interval.high)
        for network, (error, interval) in points
        if names.kind(network) == kind
    ]


def network_points(inputs: Inputs, protocol: str) -> dict[str, tuple[float, Interval]]:
    """By network, in the report's order: mean error over its seeds and the interval that judges it, in percent."""
    points = {}
    for network in dict.fromkeys(run.network for run in inputs.shown):
        found = [run.errors[protocol] for run in inputs.of_network(network) if protocol in run.errors]
        if found:
            errors = [each.top1_error for each in found]
            points[network] = over_seeds(errors).mean, our_interval(errors, found[0].n_images)
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
    colours = colours_of(run.network for run in runs)

    def draw(axes: Axes) -> None:
        for run in runs:
            values = deviations(run)
            if in_order_of_size:
                values = np.sort(values)[::-1]
            style = (0, (3, 2)) if names.kind(run.network) == "plain" else "solid"
            layers = np.arange(1, len(values) + 1)
            label = names.label(run.network)
            axes.plot(layers, values, color=colours[run.network], linestyle=style, label=label)
        axes.set(title=title, xlabel="layer", ylabel="std")
        axes.set_ylim(bottom=0)
        axes.legend()

    return draw
