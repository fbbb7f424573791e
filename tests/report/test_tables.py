"""Tables and their written forms."""

import csv
import io

from pipeline.report.tables import Cell, Column, Row, Table, escape_markdown, to_csv, to_markdown

TABLE = Table(
    "t",
    "A title",
    (Column("name", "name", numeric=False), Column("a", "top-1", "one"), Column("b", "95%", "one"), Column("c", "n")),
    (
        Row({"name": Cell('a, "quoted" | piped\nname'), "a": Cell("1.25", "strong"), "c": Cell("400")}),
        Row({"name": Cell("make it", code=True)}, "absent"),
    ),
)


def test_groups_span_neighbours():
    assert TABLE.groups == (("", 1), ("one", 2), ("", 1))
    assert Table("t", "", (Column("a", "a"),), ()).groups == ()


def test_csv_reads_back():
    header, first, second = csv.reader(io.StringIO(to_csv(TABLE)))
    assert header == ["name", "one top-1", "one 95%", "n"]
    assert first == ['a, "quoted" | piped\nname', "1.25", "", "400"]
    assert second == ["make it", "", "", ""]


def test_markdown_keeps_a_row_on_a_line():
    assert to_markdown(TABLE).splitlines() == [
        "| name | one top-1 | one 95% | n |",
        "| :--- | ---: | ---: | ---: |",
        r'| a, "quoted" \| piped name | **1.25** |  | 400 |',
        "| `make it` |  |  |  |",
    ]


def test_markdown_is_not_html():
    assert escape_markdown("<b>*x*_y_") == r"\<b>\*x\*\_y\_"
