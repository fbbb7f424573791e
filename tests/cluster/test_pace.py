"""How often a training is looked at."""

from __future__ import annotations

import pytest

from pipeline.cluster import pace
from pipeline.cluster.pace import LONGEST, Pace


def test_a_short_training_is_looked_at_often_and_a_long_one_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    looks, found = Pace(0.5), []
    for lasted in (0.0, 10.0, 40.0, 3600.0):
        now[0] = 1000.0 + lasted
        found.append(looks.seconds())
    assert found == pytest.approx([0.5, 0.5, 1.2, LONGEST])
