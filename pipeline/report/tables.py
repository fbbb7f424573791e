"""Tables as data, and their CSV and Markdown forms."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

Tone = Literal["", "good", "bad", "muted", "strong"]
RowKind = Literal["", "published", "absent"]


@dataclass(frozen=True)
class Column:
    """A column; neighbours of one `group` stand under a common heading."""

    key: str
    label: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell's text, and what it means to the reader."""

    text: str
    tone: Tone = ""
    code: bool = False


@dataclass(frozen=True)
class Row:
    """Cells by their column's key; a column without one is blank."""

    cells: Mapping[str, Cell]
    kind: RowKind = ""

    def cell(self, key: str) -> Cell:
        """The cell of a column."""
        return self.cells.get(key, Cell(""))


@dataclass(frozen=True)
class Table:
    """A table; `name` is its file's."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    groups: tuple[tuple[str, int], ...] = field(init=False)
    """The groups' labels and spans; empty when no column has a group."""

    def __post_init__(self) -> None:
        assert len({column.key for column in self.columns}) == len(self.columns), f"{self.name}: two columns of one key"
        spans = [(group, len(list(columns))) for group, columns in groupby(self.columns, key=lambda c: c.group)]
        object.__setattr__(self, "groups", tuple(spans) if any(group for group, _ in spans) else ())


def with_data(table: Table, dataset: str) -> Table:
    """The table with a last column that names the data in each row, for a form without room for a caption."""
    rows = tuple(replace(row, cells={**row.cells, "data": Cell(dataset)}) for row in table.rows)
    return replace(table, columns=(*table.columns, Column("data", "data", numeric=False)), rows=rows)


def to_csv(table: Table) -> str:
    """Comma-separated, a header line first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_headings(table))
    writer.writerows([row.cell(column.key).text for column in table.columns] for row in table.rows)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table, without title or caption."""
    lines = [
        _line([escape_markdown(heading) for heading in _headings(table)]),
        _line(["---:" if column.numeric else ":---" for column in table.columns]),
    ]
    lines += [_line([_markdown_cell(row.cell(column.key)) for column in table.columns]) for row in table.rows]
    return "\n".join(lines) + "\n"


def escape_markdown(text: str, strip: bool = True) -> str:
    """Text that Markdown shows as it is, on one line, without white space around it unless told otherwise."""
    line = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", line.strip() if strip else line)


def _headings(table: Table) -> list[str]:
    return [f"{column.group} {column.label}".strip() for column in table.columns]


def _markdown_cell(cell: Cell) -> str:
    if cell.code:
        return f"`{cell.text}`"
    text = escape_markdown(cell.text)
    return f"**{text}**" if text and cell.tone in ("good", "bad", "strong") else text


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
