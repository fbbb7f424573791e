"""The published figures: their form, and where the paper's own tables must agree."""

import pytest

from pipeline.models.complexity import complexity_of
from pipeline.report.published import PublishedRow, load_published


def test_every_table_is_there_with_its_rows():
    published = load_published()
    rows = {name: len(getattr(published, name).rows) for name in type(published).model_fields}
    assert rows == {"table2": 4, "table3": 10, "table4": 10, "table5": 6, "table6": 12}


PAPER = {
    "table2": {"plain18": 27.94, "resnet18a": 27.88, "plain34": 28.54, "resnet34a": 25.03},
    "table3": {
        "plain34": (28.54, 10.02),
        "resnet34a": (25.03, 7.76),
        "resnet34b": (24.52, 7.46),
        "resnet34c": (24.19, 7.40),
        "resnet50": (22.85, 6.71),
        "resnet101": (21.75, 6.05),
        "resnet152": (21.43, 5.71),
    },
    "table4": {
        "resnet34b": (21.84, 5.71),
        "resnet34c": (21.53, 5.60),
        "resnet50": (20.74, 5.25),
        "resnet101": (19.87, 4.60),
        "resnet152": (19.38, 4.49),
    },
    "table6": {
        "resnet20": 8.75,
        "resnet32": 7.51,
        "resnet44": 7.17,
        "resnet56": 6.97,
        "resnet110": 6.43,
        "resnet1202": 7.93,
    },
}
"""The paper's own networks, typed from its tables: top-1, and top-5 where it gives both."""


def test_the_papers_own_figures_are_those_of_its_tables():
    published = load_published()
    for name, expected in PAPER.items():
        rows = [row for row in getattr(published, name).rows if row.network and not row.other]
        both = isinstance(next(iter(expected.values())), tuple)
        assert {row.network: (row.top1, row.top5) if both else row.top1 for row in rows} == expected
    (ensemble,) = [row for row in published.table5.rows if not row.other]
    assert ensemble.top5 == 3.57


def test_table_3_repeats_table_2():
    published = load_published()
    for network in ("plain34", "resnet34a"):
        assert published.table3.of_network(network).top1 == published.table2.of_network(network).top1


def test_multi_scale_beats_ten_crop_for_every_network_in_both():
    published = load_published()
    ours = [row for row in published.table4.rows if row.network and not row.other]
    assert len(ours) == 5
    for row in ours:
        ten_crop = published.table3.of_network(row.network)
        assert row.top1 < ten_crop.top1
        assert row.top5 < ten_crop.top5


@pytest.mark.slow
def test_parameters_of_table_6_are_the_networks_to_the_printed_digits():
    for row in load_published().table6.rows:
        if row.network and row.network.startswith("resnet"):
            millions = complexity_of(row.network, 10, 32).parameters / 1e6
            assert millions == pytest.approx(row.parameters, abs=0.05 if row.parameters > 1 else 0.006)


def test_resnet_110_is_judged_by_its_mean():
    row = load_published().table6.of_network("resnet110")
    assert (row.error("top1_error"), row.comparison("top1_error")) == (6.43, 6.61)
    assert row.comparison("top5_error") is None


def test_a_row_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="top_one"):
        PublishedRow.model_validate({"label": "x", "top_one": 3.0})
    with pytest.raises(ValueError, match="less than or equal to 100"):
        PublishedRow.model_validate({"label": "x", "top1": 101.0})
    with pytest.raises(KeyError):
        load_published().table2.of_network("resnet50")
