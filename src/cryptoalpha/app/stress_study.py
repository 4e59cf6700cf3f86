"""What if: the largest book of a backtest under every stress of `risk.stress_table`.

Only what was known when that book was held is used: daily closes, traded values and bars up to that moment. So a crisis can be replayed
only if it lay in the stored past by then. Nothing here feeds back into a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryptoalpha.app.report.risk_content import Stress, StressStudy
from cryptoalpha.app.tail_study import daily_closes
from cryptoalpha.core.time import DAY
from cryptoalpha.monitoring.exposure import gross_exposure
from cryptoalpha.risk.market_memory import VALUE_DAYS
from cryptoalpha.risk.stress_table import stress_test
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset, Floats, Times

BAR_DAYS = 365
"""Days before the book from which bars are taken: stretches of an outage, and what is traded in a day."""


def study_stress(dataset: Dataset, instruments: Sequence[str], known_at: Times, weights: Floats, equity: Floats) -> StressStudy:
    """The book at its largest gross exposure (the first of equals), stressed.

    Args:
        known_at: when each bar of the run was known, `[T]`.
        weights: position weights marked to market, `[T, A]`.
        equity: `[T]`; rows without any left are passed over.
    """
    gross = np.where(equity > 0.0, gross_exposure(weights), 0.0)
    t = int(np.argmax(gross)) if len(gross) else 0
    if not gross.any():
        return StressStudy(None)
    at, held = int(np.max(known_at[: t + 1])), weights[t]
    days, returns = daily_returns(dataset, instruments, at)
    panel = _last_bars(dataset, instruments, at)
    with np.errstate(invalid="ignore", divide="ignore"):
        bars = panel.close[1:] / panel.close[:-1] - 1.0
    table = stress_test(held, returns, days, equity=float(equity[t]), daily_values=_daily_values(panel), bar_returns=bars)
    results = [Stress(one.name, one.total, _named(instruments, one.by_position, held), one.what) for one in table.results]
    return StressStudy(at, _named(instruments, held, held), tuple(sorted(results, key=lambda one: one.profit)), table.missing)


def daily_returns(dataset: Dataset, instruments: Sequence[str], at: int) -> tuple[Times, Floats]:
    """Days (their 00:00 UTC, ns, `[D]`) that were over by `at`, and simple returns over each, `[D, A]`; NaN where a close is missing."""
    closes = {name: daily_closes(dataset.bars[name]) for name in instruments}
    ends = np.unique(np.concatenate([own for own, _ in closes.values()]))
    ends = ends[ends <= at]
    returns = np.full((len(ends), len(instruments)), np.nan)
    for a, (own, close) in enumerate(closes.values()):
        inside = np.flatnonzero((own[1:] <= at) & (np.diff(own) == DAY)) + 1
        returns[np.searchsorted(ends, own[inside]), a] = close[inside] / close[inside - 1] - 1.0
    return ends - DAY, returns


def _named(instruments: Sequence[str], values: Floats, held: Floats) -> tuple[tuple[str, float], ...]:
    """What is said of each instrument that is held."""
    return tuple((name, value) for name, value, weight in zip(instruments, values.tolist(), held.tolist(), strict=True) if weight)


def _last_bars(dataset: Dataset, instruments: Sequence[str], at: int) -> Panel:
    panel = build_panel(dataset, since=at - BAR_DAYS * DAY, until=at, instruments=instruments)
    return panel.rows(0, int(np.searchsorted(np.maximum.accumulate(panel.known_at), at, side="right")))


def _daily_values(panel: Panel) -> Floats:
    """Traded in a day, quote currency: the median of the last `VALUE_DAYS` whole days, `[A]`; NaN where no full day is known."""
    ends = -(-panel.known_at // DAY)
    whole = [day for day in np.unique(ends)[1:] if day * DAY <= panel.known_at[-1]][-VALUE_DAYS:]
    if not whole:
        return np.full(len(panel.instruments), np.nan)
    traded = np.nan_to_num(panel.close * panel.volume)
    return np.asarray(np.median([traded[ends == day].sum(axis=0) for day in whole], axis=0), dtype=np.float64)
