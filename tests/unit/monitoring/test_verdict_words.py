"""What a verdict may call convincing, and what it says when nothing happened."""

from __future__ import annotations

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.monitoring.comparison import EquitySeries, compare


def series(returns: list[float]) -> EquitySeries:
    equity = 100.0 * np.cumprod(1.0 + np.array(returns))
    return EquitySeries.of_marks("ours", DAY * np.arange(1, len(equity) + 1), equity, 100.0)


def test_a_book_that_held_nothing_is_said_to_have_made_no_trade():
    verdict = compare(series([0.0] * 60), {}, trials=1).verdict
    assert "made no trade" in verdict
    assert "convincing" not in verdict


def test_a_high_probability_of_skill_does_not_convince_while_the_interval_spans_zero():
    """Gains come in one streak: days are dependent, so the block bootstrap is wide although the deflated Sharpe ratio is high."""
    calm = [0.001, -0.0011] * 40
    found = compare(series([*calm, *([0.004, 0.0035] * 10), *calm]), {}, trials=1)
    assert found.strategy.deflated_sharpe >= 0.95
    assert found.strategy.sharpe.low <= 0.0
    assert "the interval, which does not assume it, is not convinced" in found.verdict
    assert "which is convincing" not in found.verdict


def test_a_steady_gain_convinces():
    found = compare(series([0.004, -0.001, 0.003] * 60), {}, trials=1)
    assert found.strategy.sharpe.low > 0.0
    assert "which is convincing" in found.verdict
