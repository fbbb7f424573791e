"""Error against multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from pipeline.report import names
from pipeline.report.figures import BARS, headline_protocol, network_points
from pipeline.report.inputs import Inputs, RunResult
from pipeline.report.plots import INK, Panel, Plot


def cost_figure(inputs: Inputs) -> Plot | None:
    """Error against multiply-adds of one view, where at least two networks of different cost have figures."""
    protocol = headline_protocol(inputs)
    costs = {run.network: cost for run in inputs.shown if (cost := multiply_adds(run, inputs))}
    if protocol is None or len(set(costs.values())) < 2:
        return None
    caption = (
        f"Top-1 error, {names.protocol_label(protocol)}, against the multiply-adds of convolutions and fully connected"
        f" layers for one training-sized view. {BARS}"
    )
    return Plot("cost", "Error against multiply-adds", caption, (_cost_panel(inputs, protocol, costs),))


def multiply_adds(run: RunResult, inputs: Inputs) -> int | None:
    """Of one view of the size that the run was trained at; None where its record doesn't tell."""
    # Imported here, as it brings torch with it, which nothing else in the report needs.
    from pipeline.models.complexity import complexity_of

    assert run.training is not None
    parameters = run.training.provenance.parameters
    size = _find(parameters, "augmentation", "crop")
    options = _find(parameters, "training", "options") or {}
    if not isinstance(size, int) or not isinstance(options, dict):
        return None
    try:
        return complexity_of(run.network, len(inputs.class_names or ()) or 1000, size, **options).multiply_adds
    except (ValueError, TypeError):
        return None


def _find(tree: Mapping[str, Any], section: str, key: str) -> Any:
    found = tree.get(section)
    return found.get(key) if isinstance(found, Mapping) else None


def _cost_panel(inputs: Inputs, protocol: str, costs: Mapping[str, int]) -> Panel:
    points = {network: point for network, point in network_points(inputs, protocol).items() if network in costs}

    def draw(axes: Axes) -> None:
        for network, (error, interval) in points.items():
            cost = costs[network] / 1e6
            plain = names.kind(network) == "plain"
            bars = [[max(0.0, error - interval.low)], [max(0.0, interval.high - error)]]
            marker, fill = ("s", "none") if plain else ("o", INK)
            axes.errorbar([cost], [error], bars, color=INK, marker=marker, mfc=fill, markersize=5, capsize=3)
            offset, side = ((-7, 0), "right") if plain else ((7, 0), "left")
            style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "ha": side, "va": "center"}
            axes.annotate(names.label(network), (cost, error), offset, **style)
        axes.set(xlabel="multiply-adds (millions)", ylabel="error (%)", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.minorticks_off()
        axes.margins(x=0.3)
        axes.set_ylim(bottom=0)

    return draw
