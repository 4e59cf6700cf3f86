"""Whole lives of a gate that may take its short way and of one that never does: the same orders, sizes, events and states, bar after bar.

`test_gate_standstill` compares single reviews on odd books; here what a review leaves behind counts: peak, ladder, day, breakers, prices in
doubt, entries of the hour, positions told last. And what a gate promises of every order is checked on the way.
"""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal

import numpy as np

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState
from cryptoalpha.risk.config import BreakerConfig, OrderLimitsConfig, RiskConfig, TailConfig
from cryptoalpha.risk.gate import QUIET, RiskGate
from cryptoalpha.risk.orders import is_cancelled_by

NAMES = ("A", "B", "C")
RULES = {
    name: InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="t", base=name, quote="USDT", lot=Decimal("0.001"), tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )
    for name in NAMES
}  # fmt: skip
BARS = 120
ZERO = Decimal(0)


class Life:
    """One random configuration, market and agent; two gates live through it."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng((17, seed))
        self.config = self.configure()
        self.short, self.long = RiskGate(self.config, RULES), RiskGate(self.config, RULES)
        self.long.guard.is_still = lambda at, equity: False
        self.interval = self.one_of(HOUR, HOUR, 4 * HOUR, DAY)
        self.price = np.array([100.0, 200.0, 50.0])
        self.cash, self.peak, self.equity = Decimal(100_000), Decimal(100_000), Decimal(100_000)
        self.held: dict[str, Decimal] = {}
        self.pending: dict[str, Decimal] = {}
        self.positions: tuple[tuple[str, Decimal], ...] = ()
        self.wanted = dict.fromkeys(NAMES, 0.0)
        self.seen: Counter[str] = Counter()

    def one_of(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def configure(self) -> RiskConfig:
        one_of = self.one_of
        return RiskConfig(
            sizing=one_of("weight", "weight", "units"), volatility_target=one_of(None, 0.3, 0.8), max_position=one_of(0.25, 1.0),
            max_gross=one_of(0.5, 0.98), max_cluster=one_of(0.4, 0.98), risk_tolerance=one_of(None, None, 0.02),
            allow_short=self.chance(0.5), max_drawdown=one_of(0.05, 0.2, 0.35), no_trade_band=one_of(0.0, 0.02, 0.1),
            max_heat=one_of(None, 0.03), max_concentration=one_of(None, 0.1),
            tail=TailConfig(max_expected_shortfall=one_of(None, 0.06, 0.02), least_days=5, method=one_of("filtered", "historical")),
            orders=OrderLimitsConfig(
                max_notional=one_of(None, None, 5000.0), max_entries_per_hour=one_of(None, 3, 60), collar=one_of(None, 0.1, 0.02),
                max_liquidation_days=one_of(None, 1.0),
            ),
            breakers=BreakerConfig(bad_tick_jump=one_of(0.5, 0.05), quiet_minutes=one_of(180.0, 60.0)),
        )  # fmt: skip

    def live(self) -> Counter[str]:
        for t in range(BARS):
            at = 30 * DAY + t * self.interval
            self.move(at)
            if not self.mark():
                break
            self.disturb(at)
            self.judge(at, t)
        return self.seen

    def move(self, at: int) -> None:
        spread = 0.01 * math.sqrt(self.interval / HOUR / 24) * self.one_of(1, 1, 1, 6)
        self.price = self.price * np.exp(self.random.normal(0.0, spread, 3))
        self.close = [float(round(p, 4)) if not self.chance(0.004) else math.nan for p in self.price]
        if self.chance(0.01):
            self.close[0] *= self.one_of(0.4, 1.3, 3.0)
        volume = [float(self.one_of(1e3, 1e5, 1e6)) for _ in NAMES]
        for gate in (self.short, self.long):
            gate.observe(at, self.interval, NAMES, self.close, volume)

    def mark(self) -> bool:
        """Fill some of what is pending, and mark the book as the portfolio does; whether anything is left."""
        before = dict(self.held)
        for name, quantity in list(self.pending.items()):
            filled = (quantity * self.one_of(ZERO, Decimal(1), Decimal("0.5"))).quantize(Decimal("0.001"))
            self.held[name] = self.held.get(name, ZERO) + filled
            self.cash -= filled * self.at_price(name)
            if quantity == filled:
                del self.pending[name]
            else:
                self.pending[name] = quantity - filled
        self.held = {name: held for name, held in self.held.items() if held}
        if self.held != before:
            self.positions = tuple((name, self.held[name]) for name in NAMES if name in self.held)
        self.equity = self.cash + sum((held * self.at_price(name) for name, held in self.held.items()), ZERO)
        self.peak = max(self.peak, self.equity)
        return self.equity > 0

    def at_price(self, name: str) -> Decimal:
        place = NAMES.index(name)
        price = self.close[place]
        return Decimal(repr(price if price == price else float(round(self.price[place], 4))))

    def disturb(self, at: int) -> None:
        kill = self.short.kill_switch
        gates = (self.short, self.long)
        if self.chance(0.004):
            flatten = self.chance(0.5)
            for gate in gates:
                gate.kill_switch.trip(at, by="ann", reason="odd", flatten=flatten)
        elif kill.state == "tripped" and self.chance(0.3):
            self.seen["resumed"] += 1
            for gate in gates:
                gate.kill_switch.resume(at, by="ann", reason="fine")
        if self.chance(0.002):
            for gate in gates:
                for _ in range(5):
                    gate.note_reject(at)
        if self.chance(0.1):
            excess = float(self.random.normal(0.0, 1e-3))
            for gate in gates:
                gate.note_fill(at, realised=0.001 + excess, modelled=0.001)

    def decide(self, at: int) -> list[Decision]:
        mu = self.one_of(*[None] * 80, 0.1)
        units = self.config.sizing == "units"
        for name in NAMES:
            if self.chance(0.06):
                self.wanted[name] = float(self.one_of(0.0, 10.0, 50.0, 120.0, -40.0) if units else self.one_of(0.0, 0.1, 0.25, 0.4, -0.2))
            elif self.chance(0.85) and name in self.held and (units or self.wanted[name]):
                held = float(self.held[name])
                self.wanted[name] = held if units else held * float(self.at_price(name)) / float(self.equity)
        return [
            Decision(
                happened_at=at, known_at=at, instrument=name, agent="x", confidence=1.0, reason="", expected_return=mu,
                target_weight=math.nan if self.chance(0.0005) else self.wanted[name],
            )
            for name in NAMES
            if not self.chance(0.05)
        ]  # fmt: skip

    def judge(self, at: int, t: int) -> None:
        regime = self.one_of(*[()] * 60, (0.5, 0.5, 0.0), (1.0, 0.0, 0.0))
        states = {
            name: MarketState(
                happened_at=at - 4 * HOUR, known_at=at - (4 * HOUR if self.chance(0.002) else 0), instrument=name,
                price=float(self.at_price(name)), volatility=math.nan if self.chance(0.002) else self.one_of(0.3, 0.5, 0.5, 0.5, 0.8),
                regime=regime,
            )
            for name in NAMES
        }  # fmt: skip
        book = PortfolioState(
            happened_at=at, known_at=at, cash=self.cash, positions=self.positions, equity=self.equity, peak_equity=self.peak
        )
        decisions = self.decide(at)
        asked = {"events": range(len(decisions)), "states": states, "portfolio": book, "pending": dict(self.pending)}
        quick, slow = self.short.review(at, decisions, **asked), self.long.review(at, decisions, **asked)
        # text, because NaN equals itself there
        assert repr(quick) == repr(slow), t
        self.seen["quick"] += quick is QUIET
        self.seen["slow"] += slow is not QUIET
        self.seen["in doubt"] += bool(self.short.breakers.ticks.quarantined)
        self.seen["killed"] += self.short.kill_switch.stands
        wanted = {decision.instrument: decision.target_weight for decision in decisions}
        for verdict in quick.verdicts:
            name = verdict.instrument
            if not isinstance(verdict, Order):
                if name in self.pending and is_cancelled_by(verdict.rule, self.pending[name], self.held.get(name, ZERO)):
                    del self.pending[name]
                continue
            self.seen["orders"] += 1
            change, held = verdict.quantity if verdict.side == "buy" else -verdict.quantity, self.held.get(name, ZERO)
            shrinks = abs(held + change) < abs(held) and (held + change) * held >= 0
            assert verdict.reduce_only == shrinks
            assert shrinks or not (self.short.kill_switch.stands or self.short.guard.daily.is_reduce_only)
            assert shrinks or float(held + change) * wanted[name] >= 0.0
            assert (verdict.worst_price is None) == (shrinks or self.config.orders.collar is None)
            self.pending[name] = change


def test_the_short_way_and_the_long_way_live_the_same_life():
    seen: Counter[str] = Counter()
    for seed in range(18):
        seen += Life(seed).live()
    assert seen["orders"] > 200
    assert seen["quick"] > 200
    assert min(seen["in doubt"], seen["killed"], seen["resumed"]) > 0
