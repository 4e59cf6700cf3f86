"""What the gate does while something stands, and how it accounts for it: kill, daily loss, ladder, regime, rate, collar, journal."""

from __future__ import annotations

import math
import time
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR, MINUTE
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState
from cryptoalpha.risk.config import OrderLimitsConfig, RiskConfig
from cryptoalpha.risk.gate import RiskGate

NOW = 100 * DAY + 6 * HOUR
A, B = "A/USDT", "B/USDT"
RULES = {
    name: InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="t", base=name[0], quote="USDT", lot=Decimal("0.01"), tick=Decimal("0.01"),
        min_notional=Decimal(1),
    )
    for name in (A, B)
}  # fmt: skip
WIDE = RiskConfig(max_position=1.0, max_gross=1.0, max_cluster=1.0, allow_short=True, volatility_target=2.0, assumed_correlation=0.0)


def book(equity="1000", peak="1000", **held):
    positions = tuple((f"{base}/USDT", Decimal(units)) for base, units in held.items())
    cash = Decimal(equity) - sum((100 * units for _, units in positions), Decimal(0))
    return PortfolioState(happened_at=0, known_at=0, cash=cash, positions=positions, equity=Decimal(equity), peak_equity=Decimal(peak))


def look(gate, wanted, portfolio, *, at=NOW, pending=None, price=100.0, volatility=0.3, regime=()):
    """Review `{name: weight}`."""
    decisions = [
        Decision(happened_at=at, known_at=at, instrument=name, agent="x", target_weight=weight, confidence=1.0, reason="")
        for name, weight in wanted.items()
    ]
    states = {
        name: MarketState(happened_at=at, known_at=at, instrument=name, price=price, volatility=volatility, regime=regime) for name in RULES
    }
    return gate.review(at, decisions, events=range(len(decisions)), states=states, portfolio=portfolio, pending=pending or {})


def told(review):
    return [(event.rule, event.state) for event in review.events]


def shown(review):
    return [
        (v.instrument, v.side, float(v.quantity), v.reduce_only, v.binding_limit) if isinstance(v, Order) else (v.instrument, v.rule)
        for v in review.verdicts
    ]


def test_while_killed_entries_are_refused_pending_ones_cancelled_and_exits_pass():
    gate = RiskGate(WIDE, RULES)
    gate.kill_switch.trip(NOW, by="me", reason="test", flatten=False)
    review = look(gate, {A: 0.5, B: 0.1}, book(A="2", B="2"), pending={A: Decimal(3)})
    assert shown(review) == [(A, "kill_switch"), (B, "sell", 1.0, True, "")]
    assert review.state.mode == "tripping"
    # an order on its way that nobody decided on is cancelled too; a way out is left alone
    review = look(gate, {}, book(A="2", B="2"), pending={A: Decimal(3), B: Decimal(-1)})
    assert shown(review) == [(A, "kill_switch")]
    review = look(gate, {A: 0.2}, book(A="2", B="1"))
    assert (shown(review), told(review)) == ([], [("kill_switch", "tripped")])
    # of a flip the closing half passes
    assert shown(look(gate, {A: -0.5}, book(A="2"))) == [(A, "sell", 2.0, True, "kill_switch")]
    gate.kill_switch.resume(NOW + 1, by="me", reason="seen")
    assert shown(look(gate, {A: 0.5}, book(A="2"), at=NOW + 1)) == [(A, "buy", 3.0, False, "")]


def test_the_drawdown_limit_kills_and_flattens_and_a_resumption_counts_anew():
    gate = RiskGate(WIDE.model_copy(update={"max_drawdown": 0.2}), RULES)
    look(gate, {}, book("1000", A="2"))
    review = look(gate, {A: 0.5}, book("800", A="2"), at=NOW + HOUR)
    assert told(review) == [("drawdown_ladder", "3"), ("kill_switch", "tripping")]
    assert shown(review) == [(A, "sell", 2.0, True, "kill_switch")]
    review = look(gate, {A: 0.5}, book("800"), at=NOW + 2 * HOUR)
    assert (told(review), shown(review)) == ([("kill_switch", "tripped")], [(A, "kill_switch")])
    gate.kill_switch.resume(NOW + 3 * HOUR, by="me", reason="seen")
    review = look(gate, {A: 0.5}, book("800"), at=NOW + 3 * HOUR)
    assert told(review) == [("drawdown_ladder", "0")]
    assert shown(review) == [(A, "buy", 4.0, False, "")]
    assert ("max_drawdown", 0.0, 0.2) in review.state.limits


def test_a_bad_day_allows_reductions_only_until_midnight_and_a_worse_one_kills():
    config = WIDE.model_copy(update={"volatility_target": 0.3, "max_drawdown": 1.0})
    gate, unit = RiskGate(config, RULES), 0.3 / math.sqrt(365)
    look(gate, {}, book("1000", A="2"))
    fallen = book(f"{1000 * (1 - 4.1 * unit):.2f}", A="2")
    review = look(gate, {A: 0.5, B: 0.1}, fallen, at=NOW + HOUR, pending={B: Decimal(1)})
    assert told(review) == [("daily_loss", "reduce_only")]
    assert shown(review) == [(A, "daily_loss"), (B, "daily_loss")]
    assert (review.state.mode, gate.kill_switch.stands) == ("reduce_only", False)
    assert shown(look(gate, {A: 0.1}, fallen, at=NOW + 2 * HOUR))[0][:4] == (A, "sell", pytest.approx(1.07, abs=0.011), True)
    review = look(gate, {B: 0.1}, fallen, at=101 * DAY)
    assert told(review) == [("daily_loss", "normal")]
    assert shown(review)[0][:2] == (B, "buy")
    worst = book(f"{float(fallen.equity) * (1 - 8.01 * unit):.2f}", A="2")
    assert told(look(gate, {}, worst, at=101 * DAY + HOUR)) == [("daily_loss", "reduce_only"), ("kill_switch", "tripping")]


def test_ladder_and_regime_scale_what_the_caps_leave_and_are_named():
    config = WIDE.model_copy(update={"max_drawdown": 0.3, "max_position": 0.4, "volatility_target": None, "no_trade_band": 0.0})
    gate = RiskGate(config, RULES)
    look(gate, {}, book("1000"))
    review = look(gate, {A: 0.5}, book("880"), at=NOW + HOUR, regime=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0))
    assert told(review) == [("drawdown_ladder", "1")]
    (sizing,) = review.sizings
    # 0.5 → 0.4 → three quarters of it → half of that
    assert (sizing.requested, sizing.allowed, sizing.binding) == (0.5, pytest.approx(0.15), "regime")
    assert [(name, round(size, 9)) for name, size in sizing.cuts] == [("position_cap", 0.4), ("drawdown_ladder", 0.3), ("regime", 0.15)]
    assert review.state.exposure == pytest.approx(0.375)
    assert float(review.verdicts[0].quantity) == pytest.approx(0.15 * 8.8, abs=0.01)
    review = look(gate, {A: 0.2}, book("880", A="1.76"), at=NOW + 2 * HOUR)
    assert shown(review) == [(A, "sell", pytest.approx(0.44, abs=0.011), True, "drawdown_ladder")]


def test_entries_of_one_hour_are_counted_and_carry_their_worst_price():
    gate = RiskGate(WIDE.model_copy(update={"orders": OrderLimitsConfig(max_entries_per_hour=1, collar=0.1)}), RULES)
    review = look(gate, {A: 0.1, B: 0.1}, book())
    assert shown(review) == [(A, "buy", 1.0, False, ""), (B, "order_rate")]
    assert review.sizings[1].binding == "order_rate"
    assert shown(look(gate, {A: 0.0, B: 0.1}, book(A="1"), at=NOW + HOUR - 1)) == [(A, "sell", 1.0, True, ""), (B, "order_rate")]
    review = look(gate, {A: 0.1, B: 0.1}, book(), at=NOW + HOUR)
    assert shown(review) == [(A, "buy", 1.0, False, ""), (B, "order_rate")]
    assert [order.worst_price for order in review.verdicts if isinstance(order, Order)] == [Decimal(110)]
    # a short, a flip and a reduction: the first two enter
    gate = RiskGate(WIDE, RULES)
    orders = [*look(gate, {A: -0.1, B: -0.1}, book(B="1")).verdicts, *look(gate, {A: 0.1}, book(A="2")).verdicts]
    assert [(order.side, order.worst_price) for order in orders] == [("sell", Decimal(90)), ("sell", Decimal(90)), ("sell", None)]


def test_a_decision_that_is_no_number_stops_all_entries_for_a_while():
    gate = RiskGate(WIDE, RULES)
    review = look(gate, {A: math.nan, B: 0.1}, book(A="1"))
    assert [one[1] for one in shown(review)] == ["not_finite", "model_output"]
    assert told(review) == [("model_output", "open")]
    review = look(gate, {A: 0.0, B: 0.1}, book(A="1"), at=NOW + MINUTE)
    assert shown(review) == [(A, "sell", 1.0, True, ""), (B, "model_output")]
    assert told(look(gate, {}, book(A="1"), at=NOW + 3 * HOUR + MINUTE)) == [("model_output", "half_open")]


def test_a_half_open_breaker_lets_one_entry_through_and_no_second():
    gate = RiskGate(WIDE, RULES)
    look(gate, {}, book())
    for _ in range(5):
        gate.note_reject(NOW)
    assert shown(look(gate, {A: 0.1, B: 0.1}, book(), at=NOW + MINUTE)) == [(A, "venue"), (B, "venue")]
    assert shown(look(gate, {A: 0.1, B: 0.1}, book(), at=NOW + 4 * HOUR)) == [(A, "buy", 1.0, False, ""), (B, "venue")]
    assert shown(look(gate, {B: 0.1}, book(A="1"), at=NOW + 4 * HOUR + MINUTE)) == [(B, "venue")]
    gate.note_fill(NOW + 4 * HOUR + 2 * MINUTE, realised=0.001, modelled=0.001)
    assert shown(look(gate, {B: 0.1}, book(A="1"), at=NOW + 4 * HOUR + 2 * MINUTE)) == [(B, "buy", 1.0, False, "")]


def test_what_nobody_knows_the_volatility_of_loses_in_every_scenario():
    review = look(RiskGate(WIDE, RULES), {}, book(A="2", B="-1"), volatility=math.nan)
    # 0.12 of 0.2 and of 0.1, on either side
    assert (review.state.value_at_risk, review.state.expected_shortfall) == (pytest.approx(0.036), pytest.approx(0.036))


def test_sizes_are_told_when_something_comes_of_them_or_another_limit_binds():
    gate = RiskGate(WIDE.model_copy(update={"max_position": 0.3, "no_trade_band": 0.0}), RULES)
    first = look(gate, {A: 0.5}, book())
    assert [(s.instrument, s.binding, s.allowed, s.held) for s in first.sizings] == [(A, "position_cap", 0.3, 0.0)]
    assert first.state is not None
    filled = book(A="3")
    second = look(gate, {A: 0.5}, filled, at=NOW + MINUTE)  # nothing to do, the same limit binds; but positions have changed
    assert (second.verdicts, second.sizings, second.state is not None) == ([], [], True)
    third = look(gate, {A: 0.5}, filled, at=NOW + 2 * MINUTE)
    assert (third.verdicts, third.sizings, third.state) == ([], [], None)
    fourth = look(gate, {A: 0.3}, filled, at=NOW + 3 * MINUTE)
    assert [s.binding for s in fourth.sizings] == [""]
    assert look(gate, {A: 0.3}, filled, at=101 * DAY).state is not None


def test_the_state_names_every_configured_limit_with_what_is_used():
    config = WIDE.model_copy(
        update={
            "max_gross": 0.9, "max_cluster": 0.8, "max_concentration": 0.5, "max_heat": 0.2, "risk_tolerance": 0.1,
            "orders": OrderLimitsConfig(max_notional=500.0),
        }
    )  # fmt: skip
    gate = RiskGate(config, RULES)
    for day in range(95, 101):
        gate.observe(day * DAY, DAY, (A, B), [100.0, 100.0], [40.0, 40.0])
    review = look(gate, {A: 0.2, B: 0.1}, book("900", A="2", B="-2"))
    limits = {name: (used, allowed) for name, used, allowed in review.state.limits}
    daily, size = 0.3 / math.sqrt(365), 200 / 900
    # worth 4,000 a day, a twentieth of it may be taken: 200 takes a day
    assert limits["liquidity"] == (pytest.approx(1.0), 1.0)
    assert limits["position_cap"] == (pytest.approx(size), 1.0)
    assert limits["gross_cap"] == (pytest.approx(2 * size), 0.9)
    assert limits["cluster_cap"] == (pytest.approx(2 * size), 0.8)
    assert limits["volatility_target"] == (pytest.approx(size * 0.3 * math.sqrt(2)), 2.0)
    assert limits["risk_tolerance"] == (pytest.approx(size * daily), 0.1)
    assert limits["concentration"] == (pytest.approx(2 * size**2), 0.5)
    assert limits["heat"] == (pytest.approx(2 * size * daily * 2), 0.2)
    assert limits["max_drawdown"] == (pytest.approx(0.1), 0.35)
    # with nobody's past all move together along a normal law: the hedge holds in the account, and is no credit in the cap,
    # where half of the tail is A's and half B's: 2 φ(2.2414) / 0.025
    assert (review.state.value_at_risk, review.state.expected_shortfall) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    assert limits["expected_shortfall"][0] == pytest.approx(size * daily * 2.592, rel=0.02)
    assert {"order_rate", "max_notional", "daily_loss", "daily_loss_kill"} <= limits.keys()


def test_a_whole_book_of_fifty_is_reviewed_in_time():
    names = tuple(f"C{i}/USDT" for i in range(50))
    rules = {
        name: InstrumentRules(
            happened_at=0, known_at=0, instrument=name, venue="t", base=name[:-5], quote="USDT", lot=Decimal("0.001"),
            tick=Decimal("0.01"), min_notional=Decimal(5),
        )
        for name in names
    }  # fmt: skip
    gate, rng, price = RiskGate(RiskConfig(max_cluster=0.5, no_trade_band=0.0), rules), np.random.default_rng(0), np.full(50, 100.0)
    for day in range(1, 560):
        price = price * (1.0 + np.clip(rng.standard_t(4, 50) * 0.02, -0.4, 0.4))
        gate.observe(day * DAY, DAY, names, price.tolist(), [1e6] * 50)
    at, spent = 559 * DAY + HOUR, []
    now = dict(zip(names, price.tolist(), strict=True))
    cash = Decimal(100_000)
    for turn in range(12):
        stamp = {"happened_at": at + turn * HOUR, "known_at": at + turn * HOUR}
        decisions = [
            Decision(**stamp, instrument=name, agent="x", target_weight=w, confidence=1.0, reason="")
            for name, w in zip(names, rng.uniform(0.02, 0.2, 50), strict=True)
        ]
        states = {name: MarketState(**stamp, instrument=name, price=now[name], volatility=0.8) for name in names}
        portfolio = PortfolioState(**stamp, cash=cash, positions=(), equity=cash, peak_equity=cash)
        started = time.process_time()
        review = gate.review(at + turn * HOUR, decisions, events=range(50), states=states, portfolio=portfolio)
        spent.append(time.process_time() - started)
        assert [type(verdict) for verdict in review.verdicts] == [Order] * 50
    print(f"a review of 50 assets: {sorted(spent)[6] * 1e3:.1f} ms, {review.verdicts[0].binding_limit} binds")
    assert sorted(spent)[6] < 0.05  # the target is 10 ms on a quiet machine; `bench risk` measures it
