"""Oracles A and B through the whole loop: signal, fusion, agent, risk, journal, broker give the orders of the vectorised path."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.app.bench.oracle_market import BARS, CASH, EQUITY, FEE, ORDERS, oracle_bars, oracle_panel
from cryptoalpha.app.bench.oracle_run import run_loop, wanted_units
from cryptoalpha.execution.vectorised import simulate_units
from cryptoalpha.store.journal import Journal

FILL = {"A": "signal_close", "B": "next_open"}
SLICE = 60_000


def ema(values, span):
    """Exponential mean with alpha 2/(span + 1), seeded with the first value. Plain loop: the second way of the vectorised one."""
    alpha, level, out = 2.0 / (span + 1.0), float(values[0]), np.empty(len(values))
    for i, value in enumerate(values.tolist()):
        level += alpha * (value - level)
        out[i] = level
    return out


def both_ways(market, bars_used, path):
    """The first bars of the market through the loop and through the vectorised path."""
    bars = oracle_bars(market)
    close = np.ascontiguousarray(bars[:bars_used, 3])
    units = wanted_units(ema(close, 60), ema(close, 240))
    with Journal(path, durable=False, header={}) as journal:
        loop = run_loop(oracle_panel(bars).rows(0, bars_used), units, journal, fill=FILL[market])
    fast = simulate_units(np.ascontiguousarray(bars[:bars_used, 0]), close, units, fee=FEE, cash=CASH, fill=FILL[market])
    return loop, fast, units


def assert_equal_trades(loop, fast, market, units):
    sides = np.where(fast.quantity > 0, "buy", "sell").tolist()
    orders = [(row, side, Decimal(1)) for row, side in zip(fast.index.tolist(), sides, strict=True)]
    # a change on the last row is ordered, but no bar follows to fill it
    assert loop.orders[: len(orders)] == orders
    assert len(loop.orders) - len(orders) == (units[-1] != units[-2] and market == "B")
    assert [(fill.side, float(fill.price), float(fill.fee)) for fill in loop.fills] == [
        (side, price, pytest.approx(fee, abs=1e-8)) for side, price, fee in zip(sides, fast.price.tolist(), fast.fee.tolist(), strict=True)
    ]
    # a fill at the signal's close is booked one bar later: compare where no order is being filled
    rows = np.arange(len(fast.equity)) if market == "B" else np.setdiff1d(np.arange(len(fast.equity)), fast.index)
    assert_allclose(loop.equity[rows], fast.equity[rows], rtol=0, atol=1e-4)


@pytest.mark.parametrize("market", ["A", "B"])
def test_the_loop_trades_what_the_vectorised_path_trades(market, tmp_path):
    loop, fast, units = both_ways(market, SLICE, tmp_path / "journal.sqlite")
    assert loop.rows == SLICE
    assert len(loop.orders) > 250
    assert_equal_trades(loop, fast, market, units)


def test_the_same_run_gives_the_same_journal_however_it_is_committed(tmp_path):
    digests = [both_ways("A", 3_000, path)[0].digest for path in (tmp_path / "journal.sqlite", None)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("market", [pytest.param("A", marks=pytest.mark.slow), "B"])
def test_a_year_of_minutes_gives_the_known_orders_and_equity(market, tmp_path):
    loop, fast, units = both_ways(market, BARS, tmp_path / "journal.sqlite")
    assert loop.rows == BARS
    assert len(loop.orders) == ORDERS
    assert loop.equity[-1] == pytest.approx(EQUITY[market], abs=0.01)
    assert_equal_trades(loop, fast, market, units)
