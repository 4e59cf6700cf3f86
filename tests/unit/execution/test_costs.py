"""Costs by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.execution.costs import MINIMUM_RETURNS, Liquidity, decay_per_bar, impact_fraction

NAN = float("nan")


def test_square_root_law():
    # 4 % a day, one hundredth of the daily volume: 0.04 · 0.1
    assert impact_fraction(1.0, 0.04, 1000.0, 10.0) == pytest.approx(0.004)
    assert impact_fraction(0.5, 0.04, 1000.0, 40.0) == pytest.approx(0.004)


def test_a_bar_as_long_as_the_half_life_weighs_one_half():
    assert decay_per_bar(7.0, 7 * DAY) == 0.5
    assert (1.0 - decay_per_bar(1.0, HOUR)) ** 24 == pytest.approx(0.5)


def test_nothing_is_trusted_before_enough_returns():
    liquidity = Liquidity(1, 0.001, HOUR)
    for t in range(MINIMUM_RETURNS):
        liquidity.update([100.0 + t % 2], [10.0])
        assert liquidity.impact(0, 1.0, 1.0) is None
    liquidity.update([100.0], [10.0])
    assert liquidity.impact(0, 1.0, 1.0) is not None


def test_estimates_are_plain_means_at_first_and_scale_to_a_day():
    closes = 100.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 30)))
    volumes = np.arange(1.0, 31.0)
    liquidity = Liquidity(1, 0.0, HOUR)
    for close, volume in zip(closes, volumes, strict=True):
        liquidity.update([close], [volume])
    returns = closes[1:] / closes[:-1] - 1.0
    expected = math.sqrt(np.mean(returns**2) * 24) * math.sqrt(5.0 / (np.mean(volumes) * 24))
    assert liquidity.impact(0, 1.0, 5.0) == pytest.approx(expected, rel=1e-12)


def test_later_estimates_forget_exponentially():
    liquidity = Liquidity(1, 0.1, HOUR)
    mean = 0.0
    for n, volume in enumerate([4.0] * 40 + [8.0] * 5, start=1):
        liquidity.update([100.0 * (1.01 if n % 2 else 1.0)], [volume])
        mean += max(1.0 / n, 0.1) * (volume - mean)
    alternating = (0.01**2 + (1 - 1 / 1.01) ** 2) / 2  # mean of the two squared returns, about equally weighted
    expected = math.sqrt(alternating * 24) * math.sqrt(1.0 / (mean * 24))
    assert liquidity.impact(0, 1.0, 1.0) == pytest.approx(expected, rel=0.01)


def test_absent_bars_break_the_chain_of_returns_and_leave_volume_alone():
    whole, gappy = Liquidity(1, 0.01, HOUR), Liquidity(1, 0.01, HOUR)
    for t in range(60):
        close = 100.0 + t % 3
        whole.update([close], [10.0])
        gappy.update([close], [10.0])
    gappy.update([NAN], [NAN])
    assert gappy.impact(0, 1.0, 1.0) == whole.impact(0, 1.0, 1.0)
    gappy.update([5000.0], [10.0])  # no return across the gap
    assert gappy.impact(0, 1.0, 1.0) == whole.impact(0, 1.0, 1.0)


def test_instruments_do_not_mix():
    g = np.random.default_rng(1)
    closes, volumes = 100 + g.random((50, 2)), g.random((50, 2))
    both = Liquidity(2, 0.01, HOUR)
    alone = [Liquidity(1, 0.01, HOUR) for _ in range(2)]
    for close, volume in zip(closes.tolist(), volumes.tolist(), strict=True):
        both.update(close, volume)
        for a in range(2):
            alone[a].update(close[a : a + 1], volume[a : a + 1])
    assert_array_equal([both.impact(a, 1.0, 3.0) for a in range(2)], [alone[a].impact(0, 1.0, 3.0) for a in range(2)])


def test_a_market_without_volume_has_no_impact_estimate():
    liquidity = Liquidity(1, 0.01, HOUR)
    for t in range(60):
        liquidity.update([100.0 + t % 3], [0.0])
    assert liquidity.impact(0, 1.0, 1.0) is None
