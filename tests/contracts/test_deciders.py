"""What every fusion and every agent promises: a new one passes by being named in `fusion.method` or `agent.members`.

Hourly bars of three instruments: one lists late, one is silent for a while, one has no volatility once, and all are absent for some hours.
Trading costs nothing, so that whoever plans does something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import get_args

import msgspec
import numpy as np
import pytest

from cryptoalpha.app.deciders import build_agent, build_fusion
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.decisions.config import MEMBERS, FusionConfig
from cryptoalpha.decisions.fusion.contract import EqualWeights, Fusion
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.rule_agent import Agent

Bar = tuple[int, list[MarketState], list[Signal]]

NAMES = ("A/USDT", "B/USDT", "C/USDT")
BARS, LISTED, OUT, SILENT, UNKNOWN = 120, 40, range(70, 74), range(50, 60), 90
CUT = 100
METHODS = get_args(FusionConfig.model_fields["method"].annotation)
COUNCIL = ("rule", "garch", "bootstrap")
SEATS = (*((name,) for name in MEMBERS), COUNCIL)
CONFIG = FusionConfig(horizon_bars=6, half_life_bars=60.0, search=SearchConfig(simulations=8, half_life_bars=60.0, pool_stride_bars=1))
PORTFOLIO = PortfolioState(happened_at=0, known_at=0, cash=Decimal(1), positions=(), equity=Decimal(1), peak_equity=Decimal(1))
encode = msgspec.msgpack.Encoder().encode


def market(*, after: float = 1.0) -> list[Bar]:
    """The bars; from `CUT` on prices are moved by the factor `after`, and so is what is said about them."""
    draw = np.random.default_rng(3)
    moves, heard = 0.01 * draw.standard_normal((BARS, 3)), draw.standard_normal((BARS, 3, 2))
    heard[:-1, :, 0] += 200.0 * moves[1:]  # the first source knows the next bar
    prices = 100.0 * np.exp(np.cumsum(moves, axis=0))
    bars: list[Bar] = []
    for t in range(BARS):
        if t in OUT:
            continue
        at, there = (t + 1) * HOUR, [i for i in range(3) if i != 2 or t >= LISTED]
        states = [
            MarketState(
                happened_at=at - HOUR, known_at=at, instrument=NAMES[i], price=float(prices[t, i]) * (after if t >= CUT else 1.0),
                volatility=math.nan if (t, i) == (UNKNOWN, 0) else 0.9,
            )
            for i in there
        ]  # fmt: skip
        signals = [
            Signal(
                happened_at=at - HOUR, known_at=at, source=f"source {k}", type=("price", "news")[k], instrument=NAMES[i],
                value=float(np.tanh(heard[t, i, k] * (after if t >= CUT else 1.0))), confidence=0.5, predicted_impact=0.0,
                proposed_action="hold", horizon=6 * HOUR,
            )
            for i in there
            for k in range(2)
            if not (i == 1 and t in SILENT)
        ]  # fmt: skip
        bars.append((at, states, signals))
    return bars


def fused_by(fusion: Fusion, bars: Sequence[Bar]) -> list[list[FusedSignal]]:
    told = []
    for at, states, signals in bars:
        n = len(states)
        told.append(fusion.fuse(at, states, signals, state_events=range(n), signal_events=range(n, n + len(signals))))
    return told


def fusion_of(method: str) -> Fusion:
    return build_fusion(CONFIG.model_copy(update={"method": method}))


@pytest.mark.parametrize("method", METHODS)
def test_a_fusion_says_the_same_twice_and_knows_nothing_of_what_comes(method: str) -> None:
    bars, other = market(), market(after=1.7)
    said = fused_by(fusion_of(method), bars)
    assert encode(fused_by(fusion_of(method), bars)) == encode(said)
    before = sum(at <= CUT * HOUR for at, _, _ in bars)
    changed = fused_by(fusion_of(method), other)
    assert encode(changed[:before]) == encode(said[:before])
    assert encode(changed[before:]) != encode(said[before:])


@pytest.mark.parametrize("method", METHODS)
def test_a_fusion_answers_for_every_state_in_order_and_names_its_sources_alone(method: str) -> None:
    bars = market()
    for (at, states, signals), told in zip(bars, fused_by(fusion_of(method), bars), strict=True):
        assert [one.instrument for one in told] == [state.instrument for state in states]
        for place, (one, state) in enumerate(zip(told, states, strict=True)):
            mine = {len(states) + n: signal.source for n, signal in enumerate(signals) if signal.instrument == state.instrument}
            assert (one.known_at, one.happened_at, one.market_state) == (at, state.happened_at, place)
            assert set(one.signals) == set(mine)
            assert {source for source, _ in one.weights} <= set(mine.values())
            assert -1.0 <= one.direction <= 1.0
            assert 0.0 <= one.confidence <= 1.0
            assert one.weights == () or sum(abs(weight) for _, weight in one.weights) == pytest.approx(1.0)
            assert mine or one.direction == 0.0 == one.confidence  # nobody spoke


def decided_by(agent: Agent, bars: Sequence[Bar]) -> list[list[Decision]]:
    told, fusion = [], EqualWeights()
    for at, states, signals in bars:
        n = len(states)
        fused = fusion.fuse(at, states, signals, state_events=range(n), signal_events=range(n, n + len(signals)))
        told.append(agent.decide(at, fused, fused_events=range(50, 50 + n), portfolio=PORTFOLIO, states=states, signals=signals))
    return told


def agent_of(members: tuple[str, ...], *, long_only: bool = False) -> Agent:
    settings = Settings()
    agent = settings.agent.model_copy(update={"members": members, "long_only": long_only, "dead_band": 0.0})
    free = settings.execution.costs.model_copy(update={"taker_fee": 0.0, "half_spread": 0.0, "impact": 0.0})
    execution = settings.execution.model_copy(update={"costs": free})
    return build_agent(settings.model_copy(update={"agent": agent, "execution": execution}), NAMES, interval=HOUR)


@pytest.mark.parametrize("members", SEATS, ids="+".join)
def test_an_agent_decides_the_same_twice_and_knows_nothing_of_what_comes(members: tuple[str, ...]) -> None:
    bars, other = market(), market(after=1.7)
    said = decided_by(agent_of(members), bars)
    assert encode(decided_by(agent_of(members), bars)) == encode(said)
    before = sum(at <= CUT * HOUR for at, _, _ in bars)
    changed = decided_by(agent_of(members), other)
    assert encode(changed[:before]) == encode(said[:before])
    assert encode(changed[before:]) != encode(said[before:])
    assert sum(decision.target_weight != 0.0 for decisions in said for decision in decisions) > 30


@pytest.mark.parametrize("members", SEATS, ids="+".join)
def test_an_agent_decides_about_every_instrument_in_order_and_holds_none_it_cannot_scale(members: tuple[str, ...]) -> None:
    bars = market()
    for (at, states, _), decisions in zip(bars, decided_by(agent_of(members, long_only=True), bars), strict=True):
        assert [one.instrument for one in decisions] == [state.instrument for state in states]
        assert [one.fused for one in decisions] == list(range(50, 50 + len(states)))
        for one, state in zip(decisions, states, strict=True):
            assert one.known_at == at
            assert one.target_weight >= 0.0  # long only
            assert state.volatility > 0.0 or one.target_weight == 0.0
            assert sum(share for _, _, share, _ in one.votes) == pytest.approx(1.0 if one.votes else 0.0)
