"""Value at risk after the fact: what each method would have said of each day, from the days before it, beside what came.

Instruments by their daily closes at 00:00 UTC, with whatever history lies before the period; the book by its own returns; and what its risk
gate said of it at the time, beside what each day did to the positions that it spoke of. Nothing here feeds back into a run. A day on which
nothing printed is left out: the next return spans it. A loss of nothing, said of a book that had held nothing, is no forecast.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from cryptoalpha.app.book_forecasts import JudgedDay
from cryptoalpha.app.period import Period
from cryptoalpha.app.report.risk_content import BOOK, TailSeries, TailStudy, TailTest
from cryptoalpha.core.time import DAY
from cryptoalpha.monitoring.daily import DailyReturns
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.tail.backtests import SIGNIFICANCE, ForecastTest, es_backtest
from cryptoalpha.risk.tail.volatility import START
from cryptoalpha.risk.tail.walk import PORTABLE, WalkForecasts, walk_forecasts
from cryptoalpha.store.tables import BarTable, Dataset, Floats, Times

LEVEL = 0.99
"""Confidence at which instruments are studied."""

DRAWN = "filtered"
"""The method whose forecasts are drawn."""

RESAMPLES = 500
"""Null series of the shortfall test: there is one for every instrument and method, and p is wanted to a hundredth."""

LEAST_EXCESS = 1e-9
"""Of the expected shortfall: an exceedance lies beyond the value at risk, also where both are the same day's loss."""

STATED = "the gate"
"""Method under which the gate's own forecasts stand."""


def daily_closes(table: BarTable) -> tuple[Times, Floats]:
    """Midnights (UTC ns) that end a day on which a bar was known, and the last close known by then. `[D]` each."""
    known = np.maximum.accumulate(table.known_at)
    ends = -(-known // DAY) * DAY
    last = np.flatnonzero(np.append(ends[1:] != ends[:-1], True)) if len(ends) else np.empty(0, np.int64)
    if len(last) and known[last[-1]] != ends[last[-1]]:  # the day that is still running
        last = last[:-1]
    return ends[last], table.close[last]


def study_tails(
    dataset: Dataset,
    instruments: Sequence[str],
    period: Period,
    book: DailyReturns,
    judged: Sequence[JudgedDay],
    config: TailConfig,
) -> TailStudy:
    """Every method on every instrument and on the book, over the days of the period.

    Args:
        book: the daily returns of the run.
        judged: what the gate said of the book at the beginning of each day, beside what the day did to that book (`book_forecasts`).
        config: `history_days` are drawn from where there are so many, `least_days` at least.
    """
    tests, series = list[TailTest](), list[TailSeries]()
    studied = [(BOOK, book.days + DAY, book.returns)]
    for name in instruments:
        ends, close = daily_closes(dataset.bars[name])
        inside = ends <= period.until
        ends, close = ends[inside], close[inside]
        studied.append((name, ends[1:], close[1:] / close[:-1] - 1.0))
    for subject, ends, returns in studied:
        for forecasts in _walk(ends, returns, period.since, config):
            walked = _of_something(forecasts) if subject == BOOK else forecasts
            if subject == BOOK and not walked.made.any():
                continue
            tests.append(tail_test(subject, walked))
            if walked.method == DRAWN and walked.made.any():
                series.append(_series(subject, walked, ends))
    if stated := _stated(judged):
        tests.insert(sum(test.subject == BOOK for test in tests), tail_test(BOOK, stated))
    return TailStudy(LEVEL, tuple(tests), tuple(series))


def _walk(ends: Times, returns: Floats, since: int, config: TailConfig) -> list[WalkForecasts]:
    """Forecasts of the days of the period. With less history than is wanted, forecasts draw from what there is, and begin later."""
    before = int(np.searchsorted(ends, since, side="right"))
    window = max(START, min(config.history_days, max(config.least_days, before)))
    if len(returns) <= window:
        return []
    walked = walk_forecasts(returns, level=LEVEL, window=window, fit_window=max(window, 1_000), methods=PORTABLE, decay=config.decay)
    return [one.between(before, len(returns)) for one in walked.values()]


def _of_something(walked: WalkForecasts) -> WalkForecasts:
    """Without the days for which a loss of nothing was forecast, since nothing had been held."""
    some = walked.value_at_risk > 0.0
    var, es = (np.where(some, one, math.nan) for one in (walked.value_at_risk, walked.expected_shortfall))
    return dataclasses.replace(walked, value_at_risk=var, expected_shortfall=es)


def _series(subject: str, walked: WalkForecasts, ends: Times) -> TailSeries:
    made = walked.made
    days = ends[walked.first : walked.first + len(made)] - DAY  # a day bears its own date, not that of the midnight which ends it
    return TailSeries(subject, walked.method, days[made], -walked.losses[made], walked.value_at_risk[made])


def _stated(judged: Sequence[JudgedDay]) -> WalkForecasts | None:
    """What the gate said at the beginning of each day of the book it held; None where it never said anything of a book."""
    if not judged:
        return None
    losses, var, es = np.array([(one.loss, one.value_at_risk, one.expected_shortfall) for one in judged]).T
    return WalkForecasts(STATED, judged[0].level, 0, losses, var, es)


def tail_test(subject: str, walked: WalkForecasts) -> TailTest:
    """How the forecasts of one method did."""
    made = walked.made
    kupiec, alone, both = walked.kupiec(), walked.independence(), walked.coverage()
    days, expected = int(made.sum()), (1.0 - walked.level) * float(made.sum())
    shortfall = shortfall_test(walked)
    if kupiec.reason is not None:
        verdict = f"cannot be told: {kupiec.reason}"
    elif not kupiec.accepts():
        verdict = "too many: days were worse than forecast" if walked.exceedances > expected else "too few: forecasts were too cautious"
    elif alone.reason is None and not alone.accepts():
        verdict = "about as many as forecast, but they came together"
    elif shortfall.p_value < SIGNIFICANCE:
        verdict = "about as many as forecast, but they lost more than expected"
    else:
        verdict = "about as many as forecast, and they came alone" if walked.exceedances else "none, which so few days allow"
    return TailTest(
        subject=subject,
        method=walked.method,
        level=walked.level,
        days=days,
        refused=walked.refused,
        exceedances=walked.exceedances,
        expected=expected,
        mean_value_at_risk=float(walked.value_at_risk[made].mean()) if days else math.nan,
        kupiec_p=kupiec.p_value,
        christoffersen_p=alone.p_value,
        coverage_p=both.p_value,
        verdict=verdict,
        shortfall_z=shortfall.statistic,
        shortfall_p=shortfall.p_value,
    )


def shortfall_test(walked: WalkForecasts) -> ForecastTest:
    """Whether days beyond the value at risk lost as much as the expected shortfall says: Acerbi and Szekely's second test.

    The null is drawn from the forecasts themselves: a day exceeds its value at risk with the promised chance, and then by an exponential
    excess whose mean is the expected shortfall's. Every method states these two figures and not every one a law; what a law adds beyond
    them hardly moves the statistic, whose spread is nearly all of the number of exceedances. Days without a positive expected shortfall
    are left out.
    """
    some = walked.expected_shortfall > 0.0  # false for NaN
    losses, var, es = walked.losses[some], walked.value_at_risk[some], walked.expected_shortfall[some]
    beyond, chance = np.maximum(es - var, LEAST_EXCESS * es), 1.0 - walked.level

    def simulate(rng: np.random.Generator) -> Floats:
        return np.where(rng.random(losses.size) < chance, var + beyond * rng.standard_exponential(losses.size), var)

    return es_backtest(losses, var, es, level=walked.level, simulate=simulate, resamples=RESAMPLES)


def passes(test: TailTest) -> bool:
    """Whether Kupiec's test accepts the number of exceedances at 5 %."""
    return test.kupiec_p >= SIGNIFICANCE
