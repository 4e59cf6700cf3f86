"""A/B comparison: intervals by hand and by a slower way, and how often they are wrong when one looks all the time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.ab import (
    asymptotic_sequence,
    binary_sequence,
    bounded_sequence,
    compare_counts,
    compare_values,
)
from cryptoalpha.lifecycle.rollout.peeking import wrong_at_some_look
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, ArmCounts


def test_binary_sequence_is_where_the_mixture_is_less_than_20_times_as_likely():
    low, high = binary_sequence(3, 20, 0.05)
    mixture = math.exp(math.lgamma(3.5) + math.lgamma(17.5) - math.lgamma(21)) / math.pi

    def likelihood(p: float) -> float:
        return p**3 * (1 - p) ** 17

    assert mixture / likelihood(low) == pytest.approx(20.0)
    assert mixture / likelihood(high) == pytest.approx(20.0)
    assert low < 0.15 < high
    assert binary_sequence(0, 0, 0.05) == (0.0, 1.0)
    assert binary_sequence(0, 50, 0.05)[0] == 0.0
    assert binary_sequence(50, 50, 0.05)[1] == 1.0
    with pytest.raises(ConfigError):
        binary_sequence(3, 2, 0.05)


def test_bounded_sequence_of_one_value_by_hand():
    # λ₁ = min(√(2 ln 40 / (¼ · 1 · ln 2)), ½) = ½; centre 1; radius (ln 40 + (1 − ½)² · (−ln ½ − ½)) / ½ > 1
    assert bounded_sequence([1.0], 0.05) == (0.0, 1.0)
    values = [0.6] * 500
    stake, bar = 0.5, math.log(40)
    low, high = bounded_sequence(values, 0.05)
    assert low < 0.6 < high
    assert high - low < 2 * (bar + 500 * 0.0) / (500 * stake) * 1.5  # equal values: the variance part all but vanishes
    wide = bounded_sequence([2 * value - 1 for value in values], 0.05, lowest=-1.0, highest=1.0)
    assert wide == pytest.approx((2 * low - 1, 2 * high - 1))
    with pytest.raises(ConfigError):
        bounded_sequence([1.1], 0.05)


def test_asymptotic_sequence_is_wider_than_the_fixed_interval_by_little():
    low, high = asymptotic_sequence(0.1, 0.01**2, 1000, 0.05)
    assert (low + high) / 2 == pytest.approx(0.1)
    assert 1.4 < (high - low) / (2 * 1.96 * 0.01) < 1.7


@pytest.mark.parametrize(("kind", "runs"), [("binary", 400), ("bounded", 100), ("unbounded", 100)])
@pytest.mark.slow
def test_looking_all_the_time_fools_the_fixed_interval_and_not_the_sequence(kind, runs):
    wrong = np.array([wrong_at_some_look(kind, run, seed=7) for run in range(runs)])
    always, fixed = wrong.mean(axis=0)
    assert always <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert fixed > 0.12


def test_a_real_difference_is_found_and_named():
    random = np.random.default_rng(1)
    better = compare_values(
        "score", list(random.beta(2, 5, 3000)), list(random.beta(5, 2, 3000)), alpha=0.05, larger_is_better=True, bounds=(0.0, 1.0)
    )  # fmt: skip
    assert better.verdict == "better"
    assert better.always_valid[0] < 3 / 7 < better.always_valid[1]
    assert compare_values("loss", [1.0, 2.0] * 500, [2.0, 3.0] * 500, alpha=0.05, larger_is_better=False).verdict == "worse"
    few = compare_values("loss", [1.0, 2.0], [2.0, 3.0], alpha=0.05, larger_is_better=False)
    assert few.always_valid == (-math.inf, math.inf)
    with pytest.raises(ConfigError):
        compare_values("loss", [math.nan], [1.0], alpha=0.05, larger_is_better=False)


def test_counts_of_a_split_are_compared():
    counts = {STABLE: ArmCounts(requests=1000, failures={"error": 10}, late=5), CANARY: ArmCounts(requests=1000, failures={"nan": 100})}
    failed, late = compare_counts(counts, alpha=0.05)
    assert (failed.control, failed.treatment, failed.verdict) == (0.01, 0.1, "worse")
    assert (late.control_size, late.treatment_size, late.verdict) == (990, 900, "open")
