"""The book that `bench risk` shows the gate: fifty instruments, five hundred days of memory, an entry wanted in each."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, HOUR
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState
from cryptoalpha.risk.config import RiskConfig, TailConfig
from cryptoalpha.risk.gate import Review, RiskGate

ASSETS, DAYS = 50, 500
EQUITY = Decimal(1_000_000)
CONFIG = RiskConfig(allow_short=True, no_trade_band=0.001, tail=TailConfig(max_expected_shortfall=0.02))
"""Every limit at its default but three: shorts are allowed, a fiftieth of equity is worth a trade, and the cap on expected shortfall is a
third of its default, so that it is what binds."""


def gate_work(*, assets: int = ASSETS, days: int = DAYS) -> Callable[[], Review]:
    """One review of the whole book, every two hours a new one: all caps, expected shortfall included, and an order for each instrument.

    Raises:
        ConfigError: if the book is not what is to be timed: an order for each instrument, all of them cut by the cap on expected shortfall.
    """
    names = [f"coin{number:02d}/USDT" for number in range(assets)]
    gate = RiskGate(CONFIG, {name: _rules(name) for name in names})
    prices, volatility = _days(gate, names, days)
    clock = days * DAY

    def review() -> Review:
        nonlocal clock
        clock += 2 * HOUR
        decisions = [
            Decision(
                happened_at=clock, known_at=clock, instrument=name, agent="bench", target_weight=(-1.0) ** number * 1.2 / assets,
                confidence=1.0, reason="",
            )
            for number, name in enumerate(names)
        ]  # fmt: skip
        states = {
            name: MarketState(happened_at=clock, known_at=clock, instrument=name, price=float(price), volatility=float(sd))
            for name, price, sd in zip(names, prices, volatility, strict=True)
        }
        portfolio = PortfolioState(happened_at=clock, known_at=clock, cash=EQUITY, positions=(), equity=EQUITY, peak_equity=EQUITY)
        return gate.review(clock, decisions, events=range(assets), states=states, portfolio=portfolio)

    found = review()
    orders = [verdict for verdict in found.verdicts if isinstance(verdict, Order)]
    cut = {order.binding_limit for order in orders}
    if len(orders) != assets or cut != {"expected_shortfall"}:
        raise ConfigError(f"{len(orders)} orders of {assets}, cut by {', '.join(sorted(cut)) or 'nothing'}: nothing is timed")
    return review


def _days(gate: RiskGate, names: list[str], days: int) -> tuple[np.ndarray, np.ndarray]:
    """Show the gate the past; returns last prices and annual volatilities."""
    generator = stream(0, "bench", "risk", "gate")
    shocks = 0.02 * generator.standard_t(4, (days, 1)) + 0.02 * generator.standard_t(4, (days, len(names)))
    returns = np.clip(shocks, -0.4, 0.4)
    prices = 100.0 * np.cumprod(1.0 + returns, axis=0)
    volume = [1e7] * len(names)
    for day, row in enumerate(prices):
        gate.observe((day + 1) * DAY, DAY, names, row.tolist(), volume)
    return prices[-1], returns[-60:].std(axis=0) * float(np.sqrt(DAYS_PER_YEAR))


def _rules(name: str) -> InstrumentRules:
    return InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="bench", base=name.partition("/")[0], quote="USDT", lot=Decimal("0.0001"),
        tick=Decimal("0.01"), min_notional=Decimal(5),
    )  # fmt: skip
