"""Compiled kernels behind `vectorised.simulate_weights`: the rules of `SimulatedBroker`, row by row, in floats.

Each kernel names the method it is the twin of; the cost formula itself is one function, compiled here. fastmath is off and nothing runs in
parallel, so results are the same on every machine with IEEE floats.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.execution.costs import MINIMUM_RETURNS, impact_fraction
from cryptoalpha.store.tables import Floats, Times

_impact_fraction = njit(cache=True)(impact_fraction)

POSITION, PENDING, CLOSE, VARIANCE, RETURNS, VOLUME, VOLUMES = range(7)
"""Columns of the state of one instrument: units held, signed units still to be filled, last known close, and the running estimates of
`costs.Liquidity` with their counts."""


class Rates(NamedTuple):
    """Numbers of the configuration that the kernels need. `participation` is infinite where there is no limit."""

    taker_fee: float
    half_spread: float
    impact: float
    participation: float
    unknown_slippage: float
    decay: float
    bars_per_day: float
    stale: float
    interval: int
    band: float
    budget_margin: float


class Market(NamedTuple):
    """Columns of the panel, and funding. Shapes: times `[T]`, the rest `[T, A]`."""

    open_time: Times
    known_at: Times
    open: Floats
    close: Floats
    volume: Floats
    present: npt.NDArray[np.bool_]
    funding_at_open: Floats
    funding_inside: Floats


class Ledger(NamedTuple):
    """What the kernels write. Shapes: `[T]` or `[T, A]` as in `WeightsRun`."""

    equity: Floats
    positions: Floats
    ordered: Floats
    filled: Floats
    price: Floats
    fees: Floats
    spread: Floats
    impact: Floats
    funding: Floats


@njit(cache=True)
def _settle_funding(book: Floats, rates: Floats, marks: Floats) -> float:
    """Funding received on what is held; NaN rates settle nothing, an absent mark is the last known close."""
    received = 0.0
    for a in range(len(rates)):
        if book[a, POSITION] != 0.0 and rates[a] == rates[a]:
            mark = marks[a] if marks[a] == marks[a] else book[a, CLOSE]
            received += -book[a, POSITION] * mark * rates[a]
    return received


@njit(cache=True)
def _price(book: Floats, a: int, is_buy: bool, quantity: float, reference: float, volume: float, rates: Rates) -> float:
    """Average price of a fill; twin of `FillModel.price`."""
    move = rates.half_spread
    if rates.impact > 0.0:
        daily_volume = book[a, VOLUME] * rates.bars_per_day
        if volume > 0.0 and book[a, RETURNS] >= MINIMUM_RETURNS and daily_volume > 0.0:
            move += _impact_fraction(rates.impact, math.sqrt(book[a, VARIANCE] * rates.bars_per_day), daily_volume, quantity)
        else:
            move += rates.unknown_slippage
    return reference * (1.0 + move) if is_buy else reference * (1.0 - move)


@njit(cache=True)
def _affordable(
    book: Floats, opens: Floats, a: int, is_buy: bool, quantity: float, price: float, cash: float, rates: Rates
) -> float:  # fmt: skip
    """How much of `quantity` equity covers; twin of `Portfolio.covered`."""
    held = book[a, POSITION]
    closing = min(quantity, abs(held)) if held != 0.0 and (held < 0.0) == is_buy else 0.0
    opening = quantity - closing
    if opening <= 0.0:
        return quantity
    free = cash
    for b in range(len(opens)):
        if book[b, POSITION] < 0.0:
            free += 2.0 * book[b, POSITION] * (opens[b] if opens[b] == opens[b] else book[b, CLOSE])
    if closing > 0.0:
        if is_buy:
            free += closing * (2.0 * opens[a] - price * (1.0 + rates.taker_fee))
        else:
            free += closing * price * (1.0 - rates.taker_fee)
    unit = price * (1.0 + rates.taker_fee)
    budget = free - rates.budget_margin
    if opening * unit <= budget:
        return quantity
    return closing + max(0.0, budget / unit)


@njit(cache=True)
def _trade(book: Floats, due: Times, t: int, cash: float, market: Market, rates: Rates, ledger: Ledger) -> float:
    """Fill what is pending at the opens of row t, sells first; the cash that is left."""
    for is_buy in (False, True):
        for a in range(len(due)):
            pending = book[a, PENDING]
            if pending == 0.0 or (pending > 0.0) != is_buy:
                continue
            late = market.open_time[t] - due[a]
            if late > rates.stale * rates.interval:
                book[a, PENDING] = 0.0
                continue
            if late < 0 or not market.present[t, a]:
                continue
            due[a] = market.open_time[t] + rates.interval
            reference, volume = market.open[t, a], market.volume[t, a]
            quantity = abs(pending)
            if volume > 0.0:
                quantity = min(quantity, rates.participation * volume)
            price = _price(book, a, is_buy, quantity, reference, volume, rates)
            allowed = _affordable(book, market.open[t], a, is_buy, quantity, price, cash, rates)
            if allowed < quantity:
                book[a, PENDING] = 0.0
                if allowed <= 0.0:
                    continue
                quantity = allowed
                price = _price(book, a, is_buy, quantity, reference, volume, rates)
            else:
                book[a, PENDING] = pending - quantity if is_buy else pending + quantity
            signed = quantity if is_buy else -quantity
            fee = quantity * price * rates.taker_fee
            spread = quantity * reference * rates.half_spread
            book[a, POSITION] += signed
            cash -= signed * price + fee
            ledger.filled[t, a], ledger.price[t, a] = signed, price
            ledger.fees[t] += fee
            ledger.spread[t] += spread
            ledger.impact[t] += quantity * abs(price - reference) - spread
    return cash


@njit(cache=True)
def _learn(book: Floats, closes: Floats, volumes: Floats, before: Floats, decay: float) -> None:
    """Take in a closed row; twin of `costs.Liquidity.update`. `before` are the closes of the row before, NaN where absent."""
    for a in range(len(closes)):
        change = closes[a] / before[a] - 1.0
        if change == change:
            book[a, RETURNS] += 1.0
            book[a, VARIANCE] += max(1.0 / book[a, RETURNS], decay) * (change * change - book[a, VARIANCE])
        if volumes[a] == volumes[a]:
            book[a, VOLUMES] += 1.0
            book[a, VOLUME] += max(1.0 / book[a, VOLUMES], decay) * (volumes[a] - book[a, VOLUME])
        if closes[a] == closes[a]:
            book[a, CLOSE] = closes[a]
        before[a] = closes[a]


@njit(cache=True)
def _decide(book: Floats, due: Times, t: int, equity: float, weights: Floats, market: Market, band: float, ordered: Floats) -> None:
    """Turn the weights of row t into pending quantities; twin of `RiskGate` without caps."""
    for a in range(len(due)):
        weight = weights[t, a]
        if weight != weight or not market.present[t, a]:
            continue
        position, heading = book[a, POSITION], book[a, POSITION] + book[a, PENDING]
        target = 0.0
        if weight == 0.0:
            if heading == 0.0:
                continue
        else:
            held = heading * market.close[t, a] / equity
            if weight == held or abs(weight - held) < band:
                continue
            target = weight * equity / market.close[t, a]
        book[a, PENDING] = target - position
        due[a] = market.known_at[t]
        ordered[t, a] = target - position


@njit(cache=True)
def run_weights(weights: Floats, cash: float, market: Market, rates: Rates, ledger: Ledger) -> int:
    """All rows in order; the first row at which nothing is left, or −1."""
    rows, instruments = weights.shape
    book = np.zeros((instruments, 7))
    book[:, CLOSE] = np.nan
    before = np.full(instruments, np.nan)
    due = np.zeros(instruments, np.int64)
    for t in range(rows):
        received = _settle_funding(book, market.funding_at_open[t], market.open[t]) if len(market.funding_at_open) else 0.0
        cash = _trade(book, due, t, cash + received, market, rates, ledger)
        if len(market.funding_inside):
            later = _settle_funding(book, market.funding_inside[t], market.close[t])
            cash += later
            received += later
        _learn(book, market.close[t], market.volume[t], before, rates.decay)
        equity = cash
        for a in range(instruments):
            ledger.positions[t, a] = book[a, POSITION]
            if book[a, POSITION] != 0.0:
                equity += book[a, POSITION] * book[a, CLOSE]
        ledger.funding[t] = received
        ledger.equity[t] = equity
        if equity <= 0.0:
            return t
        _decide(book, due, t, equity, weights, market, rates.band, ledger.ordered)
    return -1
