"""Limits are positive rates of the work they name."""

from __future__ import annotations

import pytest
import torch

from benchmarks.images import generated
from benchmarks.limits import SIDE, copy_rate, decode_rate, matrix_limit, matrix_rate
from benchmarks.record import Limit


def test_limits_are_rates() -> None:
    assert matrix_rate(torch.float32, rounds=1) > 0
    assert copy_rate(rounds=1, size=2**16) > 0
    assert decode_rate(generated(1), rounds=1) > 0


def test_slow_products_are_measured_on_small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied: list[int] = []
    monkeypatch.setattr("torch.mm", lambda left, right, out: multiplied.append(len(left)))
    monkeypatch.setattr("benchmarks.limits._seconds", lambda _: 0.06)
    assert matrix_rate(torch.bfloat16, rounds=1) > 0
    assert set(multiplied) == {256}
    monkeypatch.setattr("benchmarks.limits._seconds", lambda _: 0.001)
    multiplied.clear()
    assert matrix_rate(torch.bfloat16, rounds=1) > 0
    assert multiplied[-1] == SIDE


@pytest.mark.parametrize(("bf16", "fastest"), [(400.0, "bf16"), (160.0, "fp32")])
def test_the_limit_is_of_the_faster_format(monkeypatch: pytest.MonkeyPatch, bf16: float, fastest: str) -> None:
    rates = {torch.bfloat16: bf16, torch.float32: 200.0}
    monkeypatch.setattr("benchmarks.limits.matrix_rate", rates.__getitem__)
    assert matrix_limit(4.0) == Limit(f"{fastest} matrix rate", max(bf16, 200.0) / 4)
