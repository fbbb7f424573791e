"""Intervals and tests against closed forms, enumerations and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.statistics import (
    Interval,
    error_interval,
    mcnemar,
    our_interval,
    over_seeds,
    verdict,
    wilson_interval,
)


def wilson_by_formula(errors: int, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, errors / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * (centre - half), 100 * (centre + half)


@given(st.integers(1, 50000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_closed_form(case):
    errors, n = case
    found = wilson_interval(errors, n)
    assert (found.low, found.high) == pytest.approx(wilson_by_formula(errors, n), abs=1e-6)
    assert -1e-9 <= found.low <= 100 * errors / n + 1e-9
    assert 100 * errors / n - 1e-9 <= found.high <= 100 + 1e-9


def test_wilson_covers_the_true_rate_about_95_times_in_100():
    rng = np.random.default_rng(0)
    draws = rng.binomial(500, 0.07, size=1000)
    covered = [7.0 in wilson_interval(int(k), 500) for k in draws]
    assert 0.93 < np.mean(covered) < 0.98


@pytest.mark.parametrize(("errors", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_refuses_impossible_counts(errors, n):
    with pytest.raises(ValueError, match="errors among"):
        wilson_interval(errors, n)


def test_wilson_refuses_impossible_confidence():
    with pytest.raises(ValueError, match="confidence"):
        wilson_interval(1, 10, confidence=1.0)


def test_error_interval_counts_back_from_percent():
    assert error_interval(100 * 31 / 360, 360) == wilson_interval(31, 360)


def p_by_enumeration(b: int, c: int) -> tuple[float, float]:
    """Exact and mid-p over all 2^(b+c) equally likely ways the discordant images can fall."""
    n, distance = b + c, abs(b - c)
    outcomes = [abs(2 * sum(bits) - n) for bits in itertools.product((0, 1), repeat=n)]
    exact = np.mean([d >= distance for d in outcomes])
    return exact, exact - np.mean([d == distance for d in outcomes]) / 2


@pytest.mark.parametrize(("b", "c"), [(1, 0), (3, 3), (2, 7), (0, 9), (6, 5), (8, 1)])
def test_mcnemar_is_the_enumeration(b, c):
    first = np.array([True] * b + [False] * c + [True] * 4 + [False] * 5)
    second = np.array([False] * b + [True] * c + [True] * 4 + [False] * 5)
    found = mcnemar(first, second)
    exact, mid = p_by_enumeration(b, c)
    assert (found.only_first_wrong, found.only_second_wrong) == (b, c)
    assert found.p_exact == pytest.approx(exact)
    assert found.p_mid == pytest.approx(mid)


def test_mcnemar_of_equals_says_nothing():
    wrong = np.array([True, False, True])
    assert mcnemar(wrong, wrong).p_exact == 1.0
    assert mcnemar(np.array([True, False]), np.array([False, True])).p_exact == 1.0


def test_mcnemar_refuses_other_images():
    with pytest.raises(ValueError, match="same images"):
        mcnemar(np.zeros(3, bool), np.zeros(4, bool))


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_symmetric_and_mid_p_is_smaller(b, c):
    first, second = np.r_[np.ones(b), np.zeros(c)].astype(bool), np.r_[np.zeros(b), np.ones(c)].astype(bool)
    there, back = mcnemar(first, second), mcnemar(second, first)
    assert (there.p_exact, there.p_mid) == (back.p_exact, back.p_mid)
    assert 0 <= there.p_mid <= there.p_exact <= 1


def test_over_seeds_is_table_6s_form():
    found = over_seeds([6.43, 6.5, 6.7, 6.8, 6.62])
    assert found.best == 6.43
    assert found.mean == pytest.approx(6.61)
    assert found.std == pytest.approx(math.sqrt(sum((x - 6.61) ** 2 for x in found.errors) / 4))
    assert over_seeds([5.0]).std == 0.0
    with pytest.raises(ValueError, match="at least one"):
        over_seeds([])


def test_our_interval_is_wilsons_around_the_mean_or_the_spread_of_seeds_where_that_is_wider():
    assert our_interval([8.75], 10000) == error_interval(8.75, 10000)
    far_apart = our_interval([8.0, 9.0], 10000)
    assert far_apart == Interval(pytest.approx(8.5 - math.sqrt(0.5)), pytest.approx(8.5 + math.sqrt(0.5)))
    assert our_interval([8.74, 8.76], 10000) == error_interval(8.75, 10000)


@pytest.mark.parametrize(
    ("errors", "comparable", "kind", "difference"),
    [
        ([], True, "not run", None),
        ([8.9], True, "reproduced", 0.15),
        ([9.9], True, "higher", 1.15),
        ([7.9], True, "lower", -0.85),
        ([8.5, 9.1], True, "reproduced", 0.05),
        ([9.0, 9.02], True, "reproduced", 0.26),
        ([9.4, 9.42], True, "higher", 0.66),
        ([7.0, 10.0], True, "reproduced", -0.25),
        ([8.9], False, "not compared", None),
    ],
)
def test_verdict(errors, comparable, kind, difference):
    found = verdict(8.75, errors, 10000, comparable)
    assert found.kind == kind
    assert found.difference == (None if difference is None else pytest.approx(difference))
