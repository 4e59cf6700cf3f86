"""Where a backtest's result came from: by calendar year, by state of the market, by instrument.

States of the market are those a regime model believed in at the beginning of each day, where one was running; else they are told from
daily closes known by then: whether the mean of the instruments stands above or below its level 50 days before, and whether its volatility
of 20 days is above or below the median of all days so far. Either way no day's own return enters its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.report.risk_content import InstrumentRow
from cryptoalpha.app.tail_study import daily_closes
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import REGIMES, TRENDS, VOLATILITIES
from cryptoalpha.monitoring.attribution import CostEntries
from cryptoalpha.monitoring.daily import DailyReturns
from cryptoalpha.monitoring.period_tables import PeriodRow, period_table, regime_table, year_table
from cryptoalpha.store.tables import Dataset, Floats, Times

TREND_DAYS, VOLATILITY_DAYS, LEAST_MEDIAN_DAYS = 50, 20, 60
LEAST_COVERED = 0.9
"""Share of days that must have a belief for regimes to be told from it."""

UNKNOWN = "too little history"


def by_year(book: DailyReturns, seed: int) -> tuple[PeriodRow, ...]:
    """The strategy year by year (the year in which a day begins), and all of it."""
    return tuple(year_table(book.returns, book.days, periods_per_year=DAYS_PER_YEAR, seed=seed))


def by_regime(
    dataset: Dataset, instruments: Sequence[str], book: DailyReturns, beliefs: Sequence[tuple[int, tuple[float, ...]]], seed: int
) -> tuple[PeriodRow, ...]:
    """The strategy by state of the market at the beginning of each day.

    Args:
        beliefs: moment and probabilities over `core.values.REGIMES`, once a day. Where nearly all days have one, the rows are the five
            named regimes, those of trend and those of volatility, over these days: each day counts once on either axis.
    """
    options = {"periods_per_year": DAYS_PER_YEAR, "seed": seed}
    believed = {at // DAY: belief for at, belief in beliefs if at % DAY == 0 and len(belief) == len(REGIMES)}
    there = np.array([day in believed for day in (book.days // DAY).tolist()], dtype=np.bool_)
    if there.size and there.mean() >= LEAST_COVERED:
        cells = np.array([believed[day] for day in (book.days[there] // DAY).tolist()]).reshape(-1, len(TRENDS), len(VOLATILITIES))
        tables = [
            regime_table(book.returns[there], cells.sum(axis=summed), names, **options)
            for summed, names in ((2, TRENDS), (1, VOLATILITIES))
        ]
        return (*(row for row in tables[0] if row.label != "all"), *tables[1])
    return tuple(period_table(book.returns, market_states(dataset, instruments, book.days), **options))


def market_states(dataset: Dataset, instruments: Sequence[str], days: Times) -> list[str]:
    """The state of the market at the beginning of each day, from closes known by then. `days [n]`, 00:00 UTC."""
    ends, index = _index(dataset, instruments)
    logs = np.log(index)
    moves = np.diff(logs, prepend=np.nan) if len(logs) else logs
    states = np.full(len(ends), UNKNOWN, dtype=object)
    spread = np.full(len(ends), np.nan)
    for d in range(VOLATILITY_DAYS, len(ends)):
        spread[d] = float(np.std(moves[d - VOLATILITY_DAYS + 1 : d + 1], ddof=1))
        if d >= TREND_DAYS and d >= VOLATILITY_DAYS + LEAST_MEDIAN_DAYS:
            trend = "rising" if logs[d] > logs[d - TREND_DAYS] else "falling"
            states[d] = f"{trend}, {'volatile' if spread[d] > np.median(spread[VOLATILITY_DAYS : d + 1]) else 'calm'}"
    place = np.searchsorted(ends, days, side="right") - 1
    return [str(states[p]) if p >= 0 else UNKNOWN for p in place.tolist()]


def _index(dataset: Dataset, instruments: Sequence[str]) -> tuple[Times, Floats]:
    """Midnights, and the wealth of holding the instruments that have a price in equal parts, from 1. `[D]` each."""
    closes = {name: dict(zip(*(one.tolist() for one in daily_closes(dataset.bars[name])), strict=True)) for name in instruments}
    ends = sorted(set().union(*closes.values()))
    if not ends:
        return np.empty(0, np.int64), np.empty(0)
    level, index = 1.0, []
    for before, now in zip([ends[0], *ends], ends, strict=False):
        moves = [own[now] / own[before] - 1.0 for own in closes.values() if before in own and now in own]
        level *= 1.0 + (sum(moves) / len(moves) if moves else 0.0)
        index.append(level)
    return np.array(ends, dtype=np.int64), np.array(index)


def by_instrument(recorder: Recorder, years: float) -> tuple[InstrumentRow, ...]:
    """What each instrument brought and cost, dearest first; the rows add up to the whole.

    Args:
        years: length of the run.
    """
    cash, held = dict.fromkeys(recorder.instruments, Decimal(0)), dict(recorder.last.positions) if recorder.last else {}
    for fill in recorder.fills:
        notional = fill.quantity * fill.price
        cash[fill.instrument] += (notional if fill.side == "sell" else -notional) - fill.fee
    for payment in recorder.funding:
        cash[payment.instrument] += payment.amount
    marks = dict(zip(recorder.instruments, recorder.final_closes().tolist(), strict=True))
    fills, none = [fill.instrument for fill in recorder.fills], Decimal(0)
    table = CostEntries(
        fees=[*(fill.fee for fill in recorder.fills), *(none for _ in recorder.funding)],
        spread=[*(fill.spread_cost for fill in recorder.fills), *(none for _ in recorder.funding)],
        impact=[*(fill.impact_cost for fill in recorder.fills), *(none for _ in recorder.funding)],
        traded=[*(fill.quantity * fill.price for fill in recorder.fills), *(none for _ in recorder.funding)],
        funding=[*(none for _ in recorder.fills), *(payment.amount for payment in recorder.funding)],
    ).by_label([*fills, *(payment.instrument for payment in recorder.funding)])
    equity = float(np.mean(recorder.equity))
    return tuple(
        InstrumentRow(
            instrument=line.label,
            net=float(cash[line.label]) + float(held.get(line.label, none)) * marks[line.label],
            fees=float(line.fees),
            spread=float(line.spread),
            impact=float(line.impact),
            funding_received=float(line.funding),
            traded=float(line.traded),
            fills=fills.count(line.label),
            turnover=line.turnover(equity) / years,
        )
        for line in table.lines
    )
