"""The risk gate's short way gives what its long way gives, on any book: a limit that comes to bind is never missed."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import DAY, MINUTE
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, PortfolioState
from cryptoalpha.risk import gate as gate_module
from cryptoalpha.risk.caps import CAPS
from cryptoalpha.risk.config import RiskConfig, TailConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.standstill import CONSIDERED, Standstill

CALM, HALF_STORMY = (0.0, 0.0, 1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.5, 0.5, 0.0, 0.0)
"""Beliefs over the six regimes that leave all and less than all of a size."""

NAMES = ("A/USDT", "B/USDT", "C/USDT")
NOW = 10 * DAY + 1_000 * MINUTE
STAMP = {"happened_at": NOW, "known_at": NOW}
RULES = {
    name: InstrumentRules(
        **STAMP, instrument=name, venue="t", base=name[0], quote="USDT", lot=Decimal("0.001"), tick=Decimal("0.01"), min_notional=Decimal(5)
    )
    for name in (*NAMES[:2], "D/USDT")
} | {
    NAMES[2]: InstrumentRules(
        **STAMP, instrument=NAMES[2], venue="t", base="C", quote="USDT", lot=Decimal(1), tick=Decimal("0.01"), min_notional=Decimal(0)
    )
}


def mostly(usual, *odd):
    """`usual` three times out of four."""
    return st.integers(0, 3).flatmap(lambda n: st.one_of(*odd) if n == 0 else st.just(usual))


configs = st.builds(
    RiskConfig,
    sizing=st.sampled_from(["weight", "units"]),
    volatility_target=st.sampled_from([None, 0.1]) | st.floats(0.05, 1.0),
    assumed_correlation=st.floats(0.0, 1.0),
    max_position=st.sampled_from([1.0, 0.25]) | st.floats(0.0, 0.6),
    risk_tolerance=mostly(None, st.floats(0.001, 0.1)),
    max_gross=st.floats(0.0, 1.0),
    allow_short=st.booleans(),
    max_drawdown=mostly(1.0, st.just(0.3)),
    no_trade_band=st.sampled_from([0.0, 0.02, 0.3]),
)


@st.composite
def instruments(draw, config):
    """Position, wanted weight or quantity, price, volatility and age: mostly a standstill, sometimes near it, far from it or odd."""
    price, equity = draw(st.floats(0.5, 60_000.0)), 100_000.0
    position = Decimal(repr(round(draw(st.sampled_from([0.0, 0.3]) | st.floats(-0.6, 0.6)) * equity / price, 3)))
    if config.sizing == "units":
        same, far = float(position), st.floats(-2.0, 2.0)
    else:
        same, far = float(position) * price / equity, st.floats(-1.0, 1.0)
    shrunk = st.floats(0.3, 1.0).map(lambda share: same * share)
    wanted = draw(mostly(same, shrunk, st.just(0.0), far, st.sampled_from([math.nan, math.inf, -0.0])))
    price = draw(mostly(price, st.floats(0.5, 60_000.0), st.sampled_from([math.nan, 0.0, math.inf])))
    volatility = draw(mostly(0.5, st.floats(0.01, 3.0), st.sampled_from([math.nan, 0.0, math.inf])))
    age = draw(mostly(0, st.sampled_from([180, 181]))) * MINUTE
    return position, wanted, price, volatility, age


@st.composite
def reviews(draw):
    """A configuration and what `review` is called with, as keyword arguments."""
    config = draw(configs)
    decided = draw(
        st.lists(mostly("A/USDT", st.sampled_from([*NAMES, "X/USDT"])), min_size=1, max_size=3, unique=draw(mostly(True, st.just(False))))
    )
    rows = {name: draw(instruments(config)) for name in {**dict.fromkeys(NAMES), **dict.fromkeys(decided)}}
    elsewhere = draw(st.sampled_from([(), (("D/USDT", Decimal("0.5")),)]))
    equity = Decimal(draw(mostly(100_000, st.sampled_from([99_123, 60_000]))))
    book = PortfolioState(
        **STAMP,
        cash=equity,
        positions=tuple((name, row[0]) for name, row in rows.items() if row[0]) + elsewhere,
        equity=equity,
        peak_equity=Decimal(100_000),
    )
    regime = draw(mostly((), st.sampled_from([CALM, HALF_STORMY, (0.5, 0.5), (math.nan, *HALF_STORMY[1:])])))
    states = {
        name: MarketState(happened_at=NOW - age, known_at=NOW - age, instrument=name, price=price, volatility=volatility, regime=regime)
        for name, (_, _, price, volatility, age) in rows.items()
        if draw(st.integers(0, 19)) < 19
    }
    mu = draw(mostly(None, st.sampled_from([0.01, 5.0, -1.0])))
    decisions = [
        Decision(**STAMP, instrument=name, agent="x", target_weight=rows[name][1], confidence=1.0, reason="", expected_return=mu)
        for name in decided
    ]
    pending = draw(mostly({}, st.just({"A/USDT": Decimal("0.1")})))
    return config, {"decisions": decisions, "events": range(len(decisions)), "states": states, "portfolio": book, "pending": pending}


@settings(max_examples=200, deadline=None)
@given(case=reviews(), traded=mostly(1e9, st.floats(0.0, 10_000.0)))
def test_the_short_way_gives_what_the_long_way_gives(case, traded):
    config, asked = case
    short, long = RiskGate(config, RULES), RiskGate(config, RULES)
    long._knows_every_cap = False
    for gate in (short, long):
        for day in range(-3, 1):  # what is traded in a day becomes known
            gate.observe(NOW // DAY * DAY + day * DAY, DAY, NAMES, [100.0, 100.0, 100.0], [traded] * 3)
        gate.review(NOW - MINUTE, [], events=[], states={}, portfolio=asked["portfolio"])  # the first review of a day takes the long way
    assert short.review(NOW, **asked) == long.review(NOW, **asked)


def held(**limits):
    """Whether one unit held at a price of 20,000 and an equity of 100,000 stands still."""
    state = {"price": 20_000.0, "volatility": 0.5, "wanted": 1.0, "age": 0, "traded": 1e6, "regime": (), "mu": None} | {
        k: limits.pop(k) for k in list(limits) if k in STATE
    }
    known = NOW - state["age"]
    wanted = Decision(
        **STAMP, instrument="C/USDT", agent="x", target_weight=state["wanted"], confidence=1.0, reason="", expected_return=state["mu"]
    )
    market = MarketState(
        happened_at=0, known_at=known, instrument="C/USDT", price=state["price"], volatility=state["volatility"], regime=state["regime"]
    )
    book = PortfolioState(
        **STAMP, cash=Decimal(80_000), positions=(("C/USDT", Decimal(1)),), equity=Decimal(100_000), peak_equity=Decimal(100_000)
    )
    memory = MarketMemory(TailConfig())
    for day in range(-3, 1):
        memory.observe(NOW // DAY * DAY + day * DAY, DAY, ("C/USDT",), [20_000.0], [state["traded"]])
    return Standstill(RiskConfig(sizing="units", **limits), RULES, 180 * MINUTE, memory).holds(NOW, [wanted], {"C/USDT": market}, book)


STATE = frozenset({"price", "volatility", "wanted", "age", "traded", "regime", "mu"})


def test_a_unit_that_is_held_and_wanted_takes_the_short_way():
    assert held()


@pytest.mark.parametrize(
    "change",
    [
        {"price": 25_001.0},  # drifted past max_position = 0.25
        {"volatility": 1.51},  # 0.2 of equity at most 0.30 / 0.2 = 1.5
        {"age": 181 * MINUTE},
        {"price": math.nan},
        {"wanted": 2.0},
        {"wanted": 0.0},
        {"wanted": math.nan},
        {"wanted": 0.9, "no_trade_band": 0.02},  # 0.02 of equity less: as large as the band
        {"traded": 19.0},  # 1 unit needs 20 a day: a twentieth of a day's volume
        {"regime": HALF_STORMY},
        {"mu": 9.0},
    ],
    ids=lambda change: ",".join(change),
)
def test_whatever_may_change_something_takes_the_long_way(change):
    assert not held(**change)


def test_a_cap_nobody_considered_closes_the_short_way(monkeypatch):
    assert {name for name, _ in CAPS} == CONSIDERED
    forbid = ("forbid", lambda book, config: [0.0] * len(book.proposals))
    monkeypatch.setattr(gate_module, "CAPS", (*CAPS, forbid))
    gate = RiskGate(RiskConfig(), RULES)
    state = MarketState(**STAMP, instrument="C/USDT", price=20_000.0, volatility=0.5)
    book = PortfolioState(
        **STAMP, cash=Decimal(80_000), positions=(("C/USDT", Decimal(1)),), equity=Decimal(100_000), peak_equity=Decimal(100_000)
    )
    wanted = Decision(**STAMP, instrument="C/USDT", agent="x", target_weight=0.2, confidence=1.0, reason="")
    gate.review(NOW - MINUTE, [], events=[], states={}, portfolio=book)
    (order,) = gate.review(NOW, [wanted], events=[7], states={"C/USDT": state}, portfolio=book).verdicts
    assert (order.side, order.quantity, order.binding_limit) == ("sell", Decimal(1), "forbid")


def test_what_may_be_sold_in_a_day_is_asked_anew_every_day():
    """A market that dries up: what was a twentieth of its day is too much the day after, and the short way must see it."""
    config = RiskConfig(volatility_target=None, max_position=1.0, no_trade_band=0.0, tail=TailConfig(max_expected_shortfall=None))
    gate, day = RiskGate(config, RULES), NOW // DAY * DAY
    book = PortfolioState(
        **STAMP, cash=Decimal(80_000), positions=(("A/USDT", Decimal(1)),), equity=Decimal(100_000), peak_equity=Decimal(100_000)
    )

    def look(at):
        wanted = Decision(happened_at=at, known_at=at, instrument="A/USDT", agent="x", target_weight=0.2, confidence=1.0, reason="")
        state = MarketState(happened_at=at, known_at=at, instrument="A/USDT", price=20_000.0, volatility=0.1)
        return gate.review(at, [wanted], events=[7], states={"A/USDT": state}, portfolio=book).verdicts

    for past in range(-3, 1):
        gate.observe(day + past * DAY, DAY, ("A/USDT",), [20_000.0], [30.0])
    assert [look(day + MINUTE), look(day + 2 * MINUTE), look(day + 3 * MINUTE)] == [[], [], []]
    for past in range(1, 60):
        gate.observe(day + past * DAY, DAY, ("A/USDT",), [20_000.0], [0.1])
        gate.review(day + past * DAY, [], events=[], states={}, portfolio=book)  # the first of a day takes the long way
        orders = look(day + past * DAY + MINUTE)
        if orders:
            break
    assert (orders[0].side, orders[0].binding_limit) == ("sell", "liquidity")
