"""The gate's value at risk of the book, judged by the book it was said of.

At the first step of a day (UTC) the gate says what the book it then holds may lose within a day. Orders of that very step fill after it,
so the day's own return is that of another book. Judged is therefore the hypothetical profit and loss of backtesting under Basel's rules:
what the positions held when the forecast was made would have brought, unchanged, from their prices then to their prices at the first step
of the next day, without trades, fees and funding, as a fraction of the equity then. A day on which nothing was held, or the gate could not
tell, or a price is missing at either end, or that was shorter or longer than a day by more than an hour, is no forecast and is left out.

Everything is read from the rows of a journal, so a report and the metrics of a loop at work count the same days. Only the first row of a
day is looked at.

Source: Basel Committee on Banking Supervision (2019), "Minimum capital requirements for market risk", MAR32 (hypothetical P&L).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import MarketState, PortfolioState, RiskState, Travelling

TOLERANCE = HOUR
"""By how much the time between two first steps may differ from a day."""


@dataclass(frozen=True)
class JudgedDay:
    """One day that had a forecast, and what it did to the book that the forecast was of. Losses are positive fractions of equity."""

    day: int
    """00:00 UTC at which the day began, ns."""
    loss: float
    value_at_risk: float
    expected_shortfall: float
    level: float

    @property
    def is_exceeded(self) -> bool:
        return self.loss > self.value_at_risk


@dataclass(frozen=True)
class _Open:
    """A forecast that waits for its day to end: quantity and price by instrument."""

    at: int
    equity: float
    held: dict[str, tuple[float, float]]
    said: RiskState


class BookForecasts:
    """Feed it every row of a run, in order; it answers with the day that the row ended, where that day had a forecast."""

    def __init__(self) -> None:
        self._day: int | None = None
        self._open: _Open | None = None

    def take(self, at: int, values: Sequence[Travelling]) -> JudgedDay | None:
        """One row: its time (UTC ns) and what it holds."""
        if at // DAY == self._day:
            return None
        self._day = at // DAY
        prices = {one.instrument: one.price for one in values if type(one) is MarketState}
        judged = _judged(self._open, at, prices)
        self._open = _opened(at, values, prices)
        return judged


def _opened(at: int, values: Sequence[Travelling], prices: dict[str, float]) -> _Open | None:
    portfolio = next((one for one in values if type(one) is PortfolioState), None)
    said = next((one for one in values if type(one) is RiskState), None)
    if portfolio is None or said is None or not said.value_at_risk > 0.0 or not portfolio.equity > 0:
        return None
    held = {name: (float(quantity), prices.get(name, 0.0)) for name, quantity in portfolio.positions if quantity}
    if not held or min(price for _, price in held.values()) <= 0.0:
        return None
    return _Open(at, float(portfolio.equity), held, said)


def _judged(opened: _Open | None, at: int, prices: dict[str, float]) -> JudgedDay | None:
    if opened is None or abs(at - opened.at - DAY) > TOLERANCE or any(name not in prices for name in opened.held):
        return None
    gain = sum(quantity * (prices[name] - price) for name, (quantity, price) in opened.held.items())
    said = opened.said
    return JudgedDay(opened.at // DAY * DAY, -gain / opened.equity, said.value_at_risk, said.expected_shortfall, said.level)
