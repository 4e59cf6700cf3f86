"""What the council learns of its members, worked out by hand: paper books, t statistics, and when an outcome counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.council.config import CouncilConfig
from cryptoalpha.decisions.council.skill import RUIN, PaperBook, Skill

approx = pytest.approx


def test_a_paper_book_pays_for_what_it_trades_earns_what_it_holds_and_drifts_with_prices():
    book = PaperBook(cost=0.002, band=0.05)
    book.trade({"a": 0.5, "b": -0.2})
    assert book.take_growth() == approx(math.log(1.0 - 0.002 * 0.7))
    book.mark({"a": 0.10, "b": 0.05})  # 0.05 − 0.01
    assert book.take_growth() == approx(math.log(1.04))
    book.mark({"a": 0.10})  # b has no price; a has drifted to 0.5 · 1.1 / 1.04 of what there is now
    assert book.take_growth() == approx(math.log1p(0.10 * 0.55 / 1.04))
    held = {"a": 0.55 / 1.04 * 1.1 / (1.0 + 0.055 / 1.04), "b": -0.21 / 1.04 / (1.0 + 0.055 / 1.04)}
    book.trade({"a": held["a"] + 0.04, "b": -0.4})  # the first within the band
    assert book.take_growth() == approx(math.log(1.0 - 0.002 * (0.4 + held["b"])))
    book.mark({"a": 0.10, "b": 0.10})
    assert book.take_growth() == approx(math.log1p(0.10 * (held["a"] - 0.4)))


def test_a_small_position_is_closed_although_the_band_is_wider():
    book = PaperBook(cost=0.01, band=0.05)
    book.trade({"a": 0.06})
    book.mark({"a": -0.5})
    book.take_growth()
    book.trade({"a": 0.0})
    assert book.take_growth() == approx(math.log(1.0 - 0.01 * 0.03 / 0.97))
    book.mark({"a": 0.5})
    assert book.take_growth() == 0.0


def test_a_book_that_lost_more_than_there_was_still_has_a_logarithm():
    book = PaperBook(cost=0.0, band=0.0)
    book.trade({"a": 2.0})
    book.mark({"a": -0.9})
    assert book.take_growth() == approx(math.log1p(RUIN))


def test_t_statistics_are_those_of_weighted_means_and_shares_follow_from_them():
    """NumPy's covariance with reliability weights is the second way: weights 0.5^(age / 20)."""
    config = CouncilConfig(half_life_outcomes=20.0, least_outcomes=2, noise_floor=1.5, loss_floor=1e6)
    growth = 0.01 * stream(4, "skill").standard_normal((50, 3)) + np.array([0.004, 0.0, -0.003])
    skill = Skill(3, config)
    for row in growth:
        skill.learn(row)
    weights = 0.5 ** (np.arange(len(growth))[::-1] / 20.0)

    def t_of(values: np.ndarray) -> float:
        effective = weights.sum() ** 2 / (weights**2).sum()
        return float(np.average(values, weights=weights) / math.sqrt(np.cov(values, aweights=weights) / effective))

    own = [t_of(growth[:, k]) for k in range(3)]
    paired = [t_of(growth[:, k] - growth.mean(axis=1)) for k in range(3)]
    assert skill.own_t() == approx(own)
    assert skill.paired_t() == approx(paired)
    scores = np.array([t * max(0.0, 1.0 - 1.5 / t**2) for t in paired])
    assert len(set(scores.tolist())) == 3
    assert skill.shares == approx(np.exp(scores) / np.exp(scores).sum())


def test_nobody_has_earned_anything_before_the_least_number_of_outcomes():
    skill = Skill(2, CouncilConfig(least_outcomes=5, noise_floor=0.1))
    for k in range(5):
        assert skill.shares.tolist() == [0.5, 0.5]
        skill.learn(np.array([0.02 + 0.001 * (k % 2), 0.01]))
    assert skill.shares[0] > 0.99
