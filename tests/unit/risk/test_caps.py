"""Each cap by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Decision
from cryptoalpha.risk.book import Book, Proposal, only_reduces, stake
from cryptoalpha.risk.caps import (
    CAPS,
    cluster_cap,
    concentration,
    gross_cap,
    heat,
    kelly,
    liquidity,
    position_cap,
    short_forbidden,
    volatility_target,
)
from cryptoalpha.risk.config import OrderLimitsConfig, RiskConfig, TailConfig
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.order_limits import max_notional


def proposal(
    wanted: float, held: float = 0.0, volatility: float = 0.5, *, name: str = "X", heading: float | None = None, mu: float | None = None
) -> Proposal:
    decision = Decision(
        happened_at=0, known_at=0, instrument=name, agent="a", target_weight=wanted, confidence=1.0, reason="", expected_return=mu
    )
    own = stake(name, held, held if heading is None else heading, volatility)
    standing = own.long if wanted > 0 else own.short if wanted < 0 else 0.0
    return Proposal(
        decision, 0, wanted, held, 100.0, volatility, Decimal(0), Decimal(0), only_reduces(wanted, held), standing,
        max(0.0, abs(wanted) - standing),
    )  # fmt: skip


def book(*proposals: Proposal, elsewhere: list[tuple[float, float]] | None = None, memory: MarketMemory | None = None) -> Book:
    """Positions nobody decided on are called Z0, Z1 …"""
    named = [stake(p.decision.instrument, p.held, p.held, p.volatility) for p in proposals if p.held]
    others = [stake(f"Z{i}", weight, weight, volatility) for i, (weight, volatility) in enumerate(elsewhere or [])]
    return Book(1000.0, list(proposals), named + others, memory or MarketMemory(TailConfig()))


@pytest.mark.parametrize(
    ("wanted", "held", "expected"),
    [(0.1, 0.2, True), (0.2, 0.2, True), (0.0, 0.2, True), (0.3, 0.2, False), (-0.1, 0.2, False), (-0.1, -0.2, True), (0.0, 0.0, True)],
)
def test_a_change_reduces_if_it_is_smaller_on_the_same_side(wanted, held, expected):
    assert only_reduces(wanted, held) is expected


def test_no_position_is_larger_than_the_cap():
    assert position_cap(book(proposal(0.9), proposal(-0.9, name="Y")), RiskConfig(max_position=0.25)) == [0.25, 0.25]


def test_a_single_position_may_have_the_target_volatility():
    assert volatility_target(book(proposal(1.0, volatility=0.6)), RiskConfig(volatility_target=0.3)) == [pytest.approx(0.5)]


def test_two_equal_positions_share_the_target_by_their_correlation():
    # both 0.5 at 60 %: variance = 2·0.3²·(1+ρ) = 0.27 for ρ = 0.5 against 0.09, so the factor is sqrt(1/3)
    config = RiskConfig(volatility_target=0.3, assumed_correlation=0.5)
    limits = volatility_target(book(proposal(0.5, volatility=0.6), proposal(-0.5, volatility=0.6, name="Y")), config)
    assert limits == [pytest.approx(0.5 / math.sqrt(3))] * 2


def test_what_is_held_elsewhere_uses_up_volatility_first():
    # held: 0.2 of risk; entry risk 0.5; fully correlated: factor = (0.3 − 0.2) / 0.5
    config = RiskConfig(volatility_target=0.3, assumed_correlation=1.0)
    assert volatility_target(book(proposal(1.0, volatility=0.5), elsewhere=[(0.4, 0.5)]), config) == [pytest.approx(0.2)]
    assert volatility_target(book(proposal(1.0, volatility=0.5), elsewhere=[(0.8, 0.5)]), config) == [0.0]
    # what nobody knows the volatility of counts as 100 % a year: nothing is left
    assert volatility_target(book(proposal(0.1, volatility=0.5), elsewhere=[(0.9, math.nan)]), config) == [0.0]


def test_a_reduction_is_not_scaled_and_frees_nothing_before_it_is_done():
    config = RiskConfig(volatility_target=0.3, assumed_correlation=1.0)
    # 0.4 of risk stand until they are sold, although 0.2 are wanted
    reduction, entry = proposal(0.4, held=0.8, volatility=0.5), proposal(1.0, volatility=0.5, name="Y")
    assert volatility_target(book(reduction, entry), config) == [pytest.approx(0.6), 0.0]
    reduction = proposal(0.2, held=0.4, volatility=0.5)
    assert volatility_target(book(reduction, entry), config) == [pytest.approx(0.6), pytest.approx(0.2)]
    assert volatility_target(book(proposal(0.1, held=0.2, volatility=math.nan)), config) == [math.inf]


def test_growth_beside_a_position_counts_with_it():
    # 0.2 held at 50 %, 0.6 wanted: (0.2 + f 0.4) 0.5 ≤ 0.2 at f = 0.5, whatever the correlation
    for rho in (0.0, 0.5, 1.0):
        config = RiskConfig(volatility_target=0.2, assumed_correlation=rho)
        assert volatility_target(book(proposal(0.6, held=0.2)), config) == [pytest.approx(0.4)]


def test_zero_volatility_and_no_target_limit_nothing():
    assert volatility_target(book(proposal(0.5, volatility=0.0)), RiskConfig(volatility_target=0.3)) == [math.inf]
    assert volatility_target(book(proposal(0.5)), RiskConfig(volatility_target=None)) == [math.inf]


def test_entries_share_what_is_left_of_the_gross():
    config = RiskConfig(max_gross=0.9)
    entries = proposal(0.6), proposal(-0.3, name="Y"), proposal(0.1, held=0.2, name="W")
    # 0.9 − 0.2 − 0.2 = 0.5 of room for 0.9 of entries: what W gives up is not free yet
    assert gross_cap(book(*entries, elsewhere=[(-0.2, 0.5)]), config) == [pytest.approx(1 / 3), pytest.approx(1 / 6), math.inf]
    assert gross_cap(book(proposal(0.6)), config) == [math.inf]
    assert gross_cap(book(proposal(0.6), elsewhere=[(0.95, 0.5)]), config) == [0.0]


def test_of_a_flip_both_sides_count_and_what_is_held_is_never_cut_by_the_book():
    config = RiskConfig(max_gross=0.5)
    assert gross_cap(book(proposal(-0.4, held=0.3)), config) == [pytest.approx(0.2)]
    assert gross_cap(book(proposal(0.5, held=0.3), elsewhere=[(0.4, 0.5)]), config) == [pytest.approx(0.3)]


def test_kelly_caps_what_an_agent_expects_too_little_of():
    config = RiskConfig(kelly_scale=0.25)
    # a quarter of 0.2 / 0.25 is 0.2
    entries = [proposal(0.9, mu=0.2), proposal(-0.9, mu=-0.2), proposal(-0.9, mu=0.2), proposal(0.9), proposal(0.9, mu=math.nan)]
    assert [kelly(book(entry), config)[0] for entry in entries] == [pytest.approx(0.2), pytest.approx(0.2), 0.0, math.inf, 0.0]
    odd = [proposal(0.9, mu=0.2, volatility=0.0), proposal(0.9, held=0.3, mu=0.2, volatility=math.nan), proposal(0.0, held=0.3, mu=-1.0)]
    assert [kelly(book(entry), config)[0] for entry in odd] == [math.inf, 0.3, math.inf]


def test_concentration_and_heat_by_hand():
    # 0.3² + (f 0.4)² ≤ 0.13 at f = ½
    config = RiskConfig(max_concentration=0.13, max_heat=None)
    assert concentration(book(proposal(0.4), elsewhere=[(-0.3, 0.5)]), config) == [pytest.approx(0.2)]
    assert concentration(book(proposal(0.4)), RiskConfig()) == heat(book(proposal(0.4)), RiskConfig()) == [math.inf]
    # stops two daily deviations of 0.02 away: 0.3 · 0.04 + f · 0.4 · 0.04 ≤ 0.02 at f = ½
    daily = 0.02 * math.sqrt(365)
    config = RiskConfig(max_heat=0.02, stop_volatilities=2.0)
    assert heat(book(proposal(0.4, volatility=daily), elsewhere=[(0.3, daily)]), config) == [pytest.approx(0.2)]


def remembering(days: int, *, volume: float = 1.0, twins: tuple[str, ...] = ("X", "Y")) -> MarketMemory:
    """Daily bars: twins move together, everybody else by himself."""
    memory, rng = MarketMemory(TailConfig(least_days=30)), np.random.default_rng(3)
    names = (*twins, "Z0", "Z1")
    price = np.full(len(names), 100.0)
    for day in range(1, days + 1):
        move = rng.normal(0.0, 0.03, len(names))
        move[: len(twins)] = move[0]
        price *= 1.0 + move
        memory.observe(day * DAY, DAY, names, price.tolist(), [volume] * len(names))
    return memory


def test_a_cluster_is_one_bet():
    config = RiskConfig(max_cluster=0.5, max_gross=0.9)
    memory = remembering(200)
    # X and Y are one bet with 0.2 standing: 0.3 of room for 0.6; Z0 is another
    entries = proposal(0.2, held=0.2), proposal(-0.6, name="Y"), proposal(0.5, name="Z0")
    assert cluster_cap(book(*entries, memory=memory), config) == [math.inf, pytest.approx(0.3), math.inf]
    # who is not known is not known to be apart
    assert cluster_cap(book(*entries), config) == [math.inf, pytest.approx(0.6 * 0.3 / 1.1), pytest.approx(0.5 * 0.3 / 1.1)]
    assert cluster_cap(book(*entries, memory=memory), RiskConfig()) == [math.inf] * 3
    # a stranger counts in every cluster and is held to the narrowest, but links nobody: X and Y have 0.3 of room for 0.8, Z0 0.5 for 0.7
    strange = *entries, proposal(0.2, name="N")
    assert cluster_cap(book(*strange, memory=memory), config) == [
        math.inf, pytest.approx(0.6 * 3 / 8), pytest.approx(0.5 * 5 / 7), pytest.approx(0.2 * 3 / 8),
    ]  # fmt: skip


def test_a_volatility_without_bounds_counts_as_unknown():
    config = RiskConfig(max_heat=0.1, stop_volatilities=math.sqrt(365))  # the stop of an unknown volatility is 1 away
    for odd in (math.inf, math.nan, -0.5):
        assert heat(book(proposal(0.4, volatility=odd)), config) == [pytest.approx(0.1)]
        assert heat(book(proposal(0.4, volatility=odd), elsewhere=[(0.05, odd)]), config) == [pytest.approx(0.05)]
    assert volatility_target(book(proposal(0.4, volatility=-0.5)), RiskConfig(volatility_target=3.0)) == [0.0]


def test_a_position_can_be_sold_in_time():
    config = RiskConfig(orders=OrderLimitsConfig(participation=0.05, max_liquidation_days=2.0))
    memory = MarketMemory(TailConfig())
    for day in range(1, 8):
        memory.observe(day * DAY, DAY, ("X",), [100.0], [20.0])
    # 2,000 a day: a tenth of it is 200 of 1,000; nothing is known of Y
    assert liquidity(book(proposal(0.9), proposal(0.9, name="Y"), memory=memory), config) == [pytest.approx(0.2), math.inf]
    off = RiskConfig(orders=OrderLimitsConfig(max_liquidation_days=None))
    assert liquidity(book(proposal(0.9), memory=memory), off) == [math.inf]


def test_no_entry_is_larger_than_the_notional():
    config = RiskConfig(orders=OrderLimitsConfig(max_notional=100.0))
    entries = proposal(0.9), proposal(0.9, held=0.3), proposal(-0.9, held=0.3), proposal(0.2, held=0.3)
    assert [max_notional(book(entry), config)[0] for entry in entries] == [
        pytest.approx(0.1),
        pytest.approx(0.4),
        pytest.approx(0.1),
        math.inf,
    ]


def test_a_forbidden_short_is_nothing_and_covering_one_is_free():
    shorts = book(proposal(-0.2), proposal(0.2), proposal(-0.1, held=-0.3), proposal(-0.5, held=-0.3))
    assert short_forbidden(shorts, RiskConfig()) == [0.0, math.inf, math.inf, 0.3]
    assert short_forbidden(shorts, RiskConfig(allow_short=True)) == [math.inf] * 4


def test_every_cap_has_its_own_name():
    assert len({name for name, _ in CAPS}) == len(CAPS)
    assert all(name == cap.__name__ for name, cap in CAPS)
