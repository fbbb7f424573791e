"""Ray Train's controller in the driver: how often it looks at the workers."""

from __future__ import annotations

import pytest

from pipeline.cluster import pace
from pipeline.cluster.controller import _Controller
from pipeline.cluster.pace import LONGEST


def test_a_short_training_is_looked_at_often_and_a_long_one_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    made = object.__new__(_Controller)
    made._health_check_interval_s = 0.2
    found = []
    for lasted in (0.0, 10.0, 60.0, 3600.0):
        now[0] = 1000.0 + lasted
        found.append(made._health_check_interval_s)
    assert found == pytest.approx([0.2, 0.2, 0.6, LONGEST])
