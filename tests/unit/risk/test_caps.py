"""Each cap by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from cryptoalpha.core.values import Decision
from cryptoalpha.risk.book import Book, Proposal, only_reduces
from cryptoalpha.risk.caps import CAPS, gross_cap, position_cap, short_forbidden, volatility_target
from cryptoalpha.risk.config import RiskConfig


def proposal(wanted: float, held: float = 0.0, volatility: float = 0.5) -> Proposal:
    decision = Decision(happened_at=0, known_at=0, instrument="X", agent="a", target_weight=wanted, confidence=1.0, reason="")
    return Proposal(decision, 0, wanted, held, 100.0, volatility, Decimal(0), Decimal(0), only_reduces(wanted, held))


def book(*proposals: Proposal, elsewhere: list[tuple[float, float]] | None = None) -> Book:
    return Book(1000.0, list(proposals), elsewhere or [])


@pytest.mark.parametrize(
    ("wanted", "held", "expected"),
    [(0.1, 0.2, True), (0.2, 0.2, True), (0.0, 0.2, True), (0.3, 0.2, False), (-0.1, 0.2, False), (-0.1, -0.2, True), (0.0, 0.0, True)],
)
def test_a_change_reduces_if_it_is_smaller_on_the_same_side(wanted, held, expected):
    assert only_reduces(wanted, held) is expected


def test_no_position_is_larger_than_the_cap():
    assert position_cap(book(proposal(0.9), proposal(-0.9)), RiskConfig(max_position=0.25)) == [0.25, 0.25]


def test_a_single_position_may_have_the_target_volatility():
    assert volatility_target(book(proposal(1.0, volatility=0.6)), RiskConfig(volatility_target=0.3)) == [pytest.approx(0.5)]


def test_two_equal_positions_share_the_target_by_their_correlation():
    # both 0.5 at 60 %: variance = 2·0.3²·(1+ρ) = 0.27 for ρ = 0.5 against 0.09, so the factor is sqrt(1/3)
    config = RiskConfig(volatility_target=0.3, assumed_correlation=0.5)
    limits = volatility_target(book(proposal(0.5, volatility=0.6), proposal(-0.5, volatility=0.6)), config)
    assert limits == [pytest.approx(0.5 / math.sqrt(3))] * 2


def test_what_is_held_elsewhere_uses_up_volatility_first():
    # held: 0.2 of risk; entry risk 0.5; fully correlated: factor = (0.3 − 0.2) / 0.5
    config = RiskConfig(volatility_target=0.3, assumed_correlation=1.0)
    assert volatility_target(book(proposal(1.0, volatility=0.5), elsewhere=[(0.4, 0.5)]), config) == [pytest.approx(0.2)]
    assert volatility_target(book(proposal(1.0, volatility=0.5), elsewhere=[(0.8, 0.5)]), config) == [0.0]
    assert volatility_target(book(proposal(0.1, volatility=0.5), elsewhere=[(0.9, math.nan)]), config) == [pytest.approx(0.1)]


def test_a_reduction_is_not_scaled_but_counts():
    config = RiskConfig(volatility_target=0.3, assumed_correlation=1.0)
    reduction, entry = proposal(0.4, held=0.8, volatility=0.5), proposal(1.0, volatility=0.5)
    assert volatility_target(book(reduction, entry), config) == [pytest.approx(0.6), pytest.approx(0.2)]
    assert volatility_target(book(proposal(0.1, held=0.2, volatility=math.nan)), config) == [math.inf]


def test_zero_volatility_and_no_target_limit_nothing():
    assert volatility_target(book(proposal(0.5, volatility=0.0)), RiskConfig(volatility_target=0.3)) == [0.5]
    assert volatility_target(book(proposal(0.5)), RiskConfig(volatility_target=None)) == [math.inf]


def test_entries_share_what_is_left_of_the_gross():
    config = RiskConfig(max_gross=0.9)
    limits = gross_cap(book(proposal(0.6), proposal(-0.3), proposal(0.1, held=0.2), elsewhere=[(-0.2, 0.5)]), config)
    # 0.9 − 0.2 − 0.1 = 0.6 of room for 0.9 of entries
    assert limits == [pytest.approx(0.4), pytest.approx(0.2), math.inf]
    assert gross_cap(book(proposal(0.6)), config) == [math.inf]
    assert gross_cap(book(proposal(0.6), elsewhere=[(0.95, 0.5)]), config) == [0.0]


def test_a_forbidden_short_is_nothing_and_covering_one_is_free():
    shorts = book(proposal(-0.2), proposal(0.2), proposal(-0.1, held=-0.3))
    assert short_forbidden(shorts, RiskConfig()) == [0.0, math.inf, math.inf]
    assert short_forbidden(shorts, RiskConfig(allow_short=True)) == [math.inf] * 3


def test_every_cap_has_its_own_name():
    assert len({name for name, _ in CAPS}) == len(CAPS)
    assert all(name == cap.__name__ for name, cap in CAPS)
