"""The rule agent's sizes, worked out by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from cryptoalpha.core.values import FusedSignal, PortfolioState
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.decisions.rule_agent import RuleAgent

PORTFOLIO = PortfolioState(happened_at=0, known_at=0, cash=Decimal(1), positions=(), equity=Decimal(1), peak_equity=Decimal(1))


def wanted(direction: float, volatility: float, *, book_size: int = 1, **settings: object) -> tuple[float, str]:
    fused = FusedSignal(
        happened_at=0, known_at=0, instrument="BTC/USDT", sentiment=0.0, direction=direction, volatility=volatility,
        confidence=0.4, urgency=0.0, weights=(),
    )  # fmt: skip
    agent = RuleAgent(AgentConfig(**{"smoothing_half_life_bars": 0.0, **settings}), book_size=book_size)
    (decision,) = agent.decide(7, [fused], fused_events=[12], portfolio=PORTFOLIO, states=[], signals=[])
    assert decision.fused == 12
    return decision.target_weight, decision.reason


def test_full_conviction_in_one_instrument_takes_the_target_volatility():
    assert wanted(1.0, 0.60)[0] == pytest.approx(0.5)  # 30 % wanted of a 60 % instrument


def test_a_perfectly_correlated_book_shares_the_target_equally():
    assert wanted(1.0, 0.60, book_size=4, assumed_correlation=1.0)[0] == pytest.approx(0.5 / 4)


def test_an_uncorrelated_book_shares_it_by_the_square_root():
    assert wanted(1.0, 0.60, book_size=4, assumed_correlation=0.0)[0] == pytest.approx(0.5 / 2)


def test_a_weak_opinion_is_none():
    assert wanted(0.05, 0.60) == (0.0, "no opinion")


def test_short_only_where_allowed():
    assert wanted(-1.0, 0.60) == (0.0, "long only")
    assert wanted(-1.0, 0.60, long_only=False)[0] == pytest.approx(-0.5)


@pytest.mark.parametrize("volatility", [math.nan, 0.0])
def test_unknown_volatility_means_no_position(volatility: float):
    assert wanted(1.0, volatility) == (0.0, "volatility unknown")


def test_directions_are_averaged_with_the_stated_half_life():
    agent = RuleAgent(AgentConfig(smoothing_half_life_bars=3.0, dead_band=0.0), book_size=1)
    fused = FusedSignal(
        happened_at=0,
        known_at=0,
        instrument="BTC/USDT",
        sentiment=0.0,
        direction=1.0,
        volatility=0.30,
        confidence=1.0,
        urgency=0.0,
        weights=(),
    )
    weights = [agent.decide(t, [fused], fused_events=[1], portfolio=PORTFOLIO, states=[], signals=[])[0].target_weight for t in range(6)]
    assert weights[2] == pytest.approx(0.5)  # one half-life
    assert weights[5] == pytest.approx(0.75)  # two
