"""The paper's published figures, read from published.yaml."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Metric = Literal["top1_error", "top5_error"]
Percent = Annotated[float, Field(ge=0, le=100)]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedRow(_Facts):
    """A row of a table: errors in percent, None where the paper gives none."""

    label: str
    network: str | None = None
    """The network of this project that the row is of; None for a system that it can't train."""
    other: bool = False
    """Not one of the paper's own networks: cited there for comparison."""
    top1: Percent | None = None
    top5: Percent | None = None
    mean: Percent | None = None
    """Of top-1 errors over seeds; `top1` is then the best of them."""
    std: Percent | None = None
    layers: int | None = None
    parameters: float | None = None
    """In millions."""
    on_test_set: bool = False

    def error(self, metric: Metric) -> float | None:
        """The published error, in percent."""
        return self.top1 if metric == "top1_error" else self.top5

    def comparison(self, metric: Metric) -> float | None:
        """The error against which ours is judged: the mean over seeds where there is one."""
        return self.mean if metric == "top1_error" and self.mean is not None else self.error(metric)


class PublishedTable(_Facts):
    """A table of the paper, and the protocols by which ours are measured for it, the preferred first."""

    title: str
    caption: str
    protocols: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    def of_network(self, network: str) -> PublishedRow:
        """The row of a network; KeyError if it has none."""
        for row in self.rows:
            if row.network == network:
                return row
        raise KeyError(network)


class Published(_Facts):
    """Tables 2 to 6."""

    table2: PublishedTable
    table3: PublishedTable
    table4: PublishedTable
    table5: PublishedTable
    table6: PublishedTable


@cache
def load_published() -> Published:
    """The paper's tables; ValueError if published.yaml is not of their form."""
    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    return Published.model_validate(yaml.safe_load(text))
