"""How many workers the nodes of a cluster hold."""

import pytest

from pipeline.cluster.capacity import places, require_room

NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}, {"CPU": 4.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ({"CPU": 1}, 15),
        ({"CPU": 2}, 4 + 1 + 2),
        ({"CPU": 2, "GPU": 1}, 2 + 0 + 1),
        ({"CPU": 1, "GPU": 0.1}, 8 + 0 + 4),
        ({"CPU": 4, "GPU": 0.0}, 2 + 0 + 1),
        ({"CPU": 9}, 0),
    ],
)
def test_workers_lie_on_one_node_each(each: dict[str, float], expected: int) -> None:
    assert places(NODES, each) == expected


def test_nothing_is_refused_where_the_cluster_adds_nodes_by_itself() -> None:
    require_room(1000, {"CPU": 1000.0}, patience=None)
