"""Every verdict in long form, for programs."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.paper_tables import Comparison
from pipeline.report.tables import Cell, Column, Row, Table

KEYS = ("table", "row", "metric", "published", "ours", "low", "high", "difference", "verdict")


def verdicts_table(comparisons: Sequence[Comparison]) -> Table:
    """A row a published figure of the paper's own; errors in percent, the difference in points."""
    rows = [Row({key: Cell(text) for key, text in zip(KEYS, _values(c), strict=True)}) for c in comparisons]
    columns = tuple(Column(key, key, numeric=key not in ("table", "row", "metric", "verdict")) for key in KEYS)
    return Table("verdicts", "Verdicts", columns, tuple(rows))


def _values(comparison: Comparison) -> list[str]:
    verdict = comparison.verdict
    low, high = (verdict.interval.low, verdict.interval.high) if verdict.interval else (None, None)
    numbers = (verdict.ours, low, high, verdict.difference)
    return [
        comparison.table,
        comparison.label,
        comparison.metric,
        f"{comparison.published:.2f}",
        *("" if number is None else f"{number:.4f}" for number in numbers),
        verdict.kind,
    ]
