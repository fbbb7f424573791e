"""Limits are positive rates of the work they name."""

from __future__ import annotations

import torch

from benchmarks.images import generated
from benchmarks.limits import copy_rate, decode_rate, matrix_rate


def test_limits_are_rates() -> None:
    assert matrix_rate(torch.float32, rounds=1, side=64) > 0
    assert copy_rate(rounds=1, size=2**16) > 0
    assert decode_rate(generated(1), rounds=1) > 0
