"""How figures look, and their SVG and PNG forms: the same bytes for the same input."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Panel = Callable[[Axes], None]
INK, RULE, PAPER = "#1f2328", "#d0d7de", "#ffffff"
SERIES = ("#2f81c7", "#d9722e", "#2e9e73", "#a05cc4", "#c9a227", "#d1476b", "#5a7f8c", "#8c6d46")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "figures",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Plot:
    """A figure of one or more panels side by side; `name` is its files'."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    size: tuple[float, float] = (4.9, 3.6)
    """Of one panel, in inches."""


def to_svg(plot: Plot, note: str | None) -> str:
    """A standalone SVG on white, its text as outlines, the note beneath."""
    with mpl.rc_context({**STYLE, "svg.fonttype": "path"}):
        return _svg(_figure(plot, plot.panels, note), facecolor=PAPER)


def to_png(plot: Plot, note: str | None) -> bytes:
    """A PNG of 144 dots an inch on white, the note beneath."""
    with mpl.rc_context(STYLE):
        data = io.BytesIO()
        figure = _figure(plot, plot.panels, note)
        figure.savefig(data, format="png", dpi=144, facecolor=PAPER, metadata={"Software": None})
        return data.getvalue()


def to_inline_svgs(plot: Plot) -> list[str]:
    """An SVG element a panel, for a page: transparent, in the page's own ink and rules, sized by the page."""
    with mpl.rc_context({**STYLE, "svg.fonttype": "none"}):
        drawn = [_svg(_figure(plot, (panel,), None), transparent=True) for panel in plot.panels]
    return [_inline(svg, f"{plot.name}-{number}") for number, svg in enumerate(drawn)]


def _figure(plot: Plot, panels: tuple[Panel, ...], note: str | None) -> Figure:
    width, height = plot.size
    figure = Figure(figsize=(width * len(panels), height + (0.3 if note else 0)))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes)
    if note:
        figure.supxlabel(note, fontsize=7.5, x=0.01, ha="left", wrap=True)
    return figure


def _svg(figure: Figure, **options: object) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, **options)  # type: ignore[arg-type]
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _inline(svg: str, prefix: str) -> str:
    """Strip the document's head and fixed size, keep ids apart from other figures', and take the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("'DejaVu Sans'", "var(--font)")
    return svg.replace(INK, "currentColor").replace(RULE, "var(--rule)")
