"""What a benchmark found, as its script prints it and as results/benchmarks.json keeps it."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.storage import read_json, write_json


@dataclass(frozen=True)
class Measurement:
    """One figure beside its peer's and beside the machine's limit, all in `unit`; None where there is no such thing."""

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None = None
    """Median over interleaved pairs of ours/peer."""
    ratio_min: float | None = None
    ratio_max: float | None = None
    limit: str | None = None
    """What bounds it, in words."""
    limit_value: float | None = None
    limit_fraction: float | None = None
    """Of the limit measured on the spot, how much is reached."""


@dataclass(frozen=True)
class Limit:
    """A rate that no code exceeds on this machine, in the measurement's own unit."""

    name: str
    value: float


@dataclass(frozen=True)
class Pairs:
    """Rates of interleaved rounds: the i-th of ours and of the peer's were taken one after the other."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    def ratios(self) -> list[float]:
        """ours/peer of each pair."""
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]

    def measurement(self, name: str, unit: str, limit: Limit | None = None) -> Measurement:
        """The medians as one record."""
        ours, ratios = statistics.median(self.ours), self.ratios()
        return Measurement(
            name,
            ours,
            statistics.median(self.peer),
            unit,
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            limit.name if limit else None,
            limit.value if limit else None,
            ours / limit.value if limit else None,
        )


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """The option by which `python -m benchmarks` collects what its scripts find."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there as well")


def finish(found: Sequence[Measurement], file: Path | None) -> None:
    """Print a table, write `file` if there is one, and end with the line `ratio: <ours/peer>` of the first pair."""
    console().print(table(found))
    if file is not None:
        write_json(file, [asdict(measurement) for measurement in found])
    ratios = [measurement.ratio for measurement in found if measurement.ratio is not None]
    if ratios:
        print(f"ratio: {ratios[0]:.2f}")


def console() -> Console:
    """Wide enough for the table where the output is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=150)


def read(file: Path) -> list[Measurement]:
    """What a script wrote."""
    return [Measurement(**values) for values in read_json(file)]


def as_json(found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The form of results/benchmarks.json, figures to four significant digits."""
    return [{key: _rounded(value) for key, value in asdict(measurement).items()} for measurement in found]


def table(found: Sequence[Measurement]) -> Table:
    """Ours beside the peer's and the limit."""
    made = Table(title="Speed: ours, the peer's, the machine's limit")
    for heading in ("benchmark", "unit", "ours", "peer", "ratio (min–max)", "limit", "reached"):
        made.add_column(heading, justify="left" if heading in ("benchmark", "unit", "limit") else "right")
    for m in found:
        made.add_row(m.name, m.unit, _figure(m.ours), _figure(m.peer), _range(m), _limit(m), _percent(m.limit_fraction))
    return made


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The table of docs/performance.md from the records in results/benchmarks.json."""
    lines = ["| benchmark | unit | ours | peer | ratio (min–max) | limit | reached |", "|---|---|--:|--:|--:|---|--:|"]
    for m in (Measurement(**values) for values in found):
        cells = (_figure(m.ours), _figure(m.peer), _range(m), _limit(m), _percent(m.limit_fraction))
        lines.append(f"| {m.name} | {m.unit} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _range(m: Measurement) -> str:
    if m.ratio is None:
        return ""
    if m.ratio_min == m.ratio_max:  # of one round
        return f"{m.ratio:.2f}"
    return f"{m.ratio:.2f} ({m.ratio_min:.2f}–{m.ratio_max:.2f})"


def _limit(m: Measurement) -> str:
    return "" if m.limit is None else f"{m.limit}: {_figure(m.limit_value)}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.0f}%"


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
