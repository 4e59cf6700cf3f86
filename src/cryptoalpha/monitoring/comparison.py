"""A strategy beside its baselines, over the same days, with intervals and a verdict in plain words.

A difference in Sharpe is judged by its paired bootstrap interval: "beats" needs the whole interval above zero. Whatever falls short of
that is said to fall short, whichever way the point estimate leans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAYS_PER_YEAR, day_of
from cryptoalpha.monitoring.bootstrap import (
    LEVEL,
    RESAMPLES,
    Interval,
    drawdown_interval,
    growth_interval,
    sharpe_difference,
    sharpe_interval,
)
from cryptoalpha.monitoring.daily import DailyReturns, daily_returns
from cryptoalpha.monitoring.drawdown import Drawdown, calmar_ratio, max_drawdown
from cryptoalpha.monitoring.ratios import NAN, annual_volatility, cagr, profit_factor, sortino_ratio, win_rate
from cryptoalpha.monitoring.significance import (
    deflated_sharpe_ratio,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)
from cryptoalpha.monitoring.undefined import MeasureName, explain_undefined

MINIMUM_DAYS = 30
"""Fewest daily returns for a headline Sharpe ratio; with fewer it is NaN and the report says so."""

CONVINCING = 0.95
"""Deflated Sharpe ratio asked for before a strategy counts as more than luck."""

Outcome = Literal["beats", "ahead, within the noise", "behind, within the noise", "loses to", "cannot be compared with"]


@dataclass(frozen=True, eq=False)
class EquitySeries:
    """One equity curve and what it cost to produce."""

    name: str
    daily: DailyReturns
    costs: float = NAN
    """Fees, spread and impact paid less funding received, as a fraction of initial equity; NaN if unknown."""
    turnover: float = NAN
    """Share of the book traded per year (`measures.turnover`); NaN if unknown."""

    @classmethod
    def of_marks(
        cls, name: str, times_ns: ArrayLike, equity: ArrayLike, initial: float, *, costs: float = NAN, turnover: float = NAN
    ) -> EquitySeries:
        """From marked-to-market equity at bar closes (see `daily_returns`)."""
        return cls(name, daily_returns(times_ns, equity, initial), costs, turnover)


@dataclass(frozen=True)
class Assessment:
    """Everything measured about one equity curve. Fractions per year where a rate is meant; losses positive."""

    name: str
    days: int
    total_return: float
    sharpe: Interval
    cagr: Interval
    drawdown: Drawdown
    max_drawdown: Interval
    volatility: float
    sortino: float
    calmar: float
    win_rate: float
    profit_factor: float
    probabilistic_sharpe: float
    """Probability that the true Sharpe ratio is positive."""
    deflated_sharpe: float
    """Probability that it exceeds the best of `trials` worthless trials."""
    min_track_record_days: float
    costs: float
    turnover: float
    undefined: tuple[tuple[str, str], ...] = ()
    """Measures that are NaN, and why."""


@dataclass(frozen=True)
class Difference:
    """The strategy's annual Sharpe ratio minus a baseline's."""

    baseline: str
    sharpe: Interval
    outcome: Outcome
    words: str


@dataclass(frozen=True)
class Comparison:
    """A strategy, its baselines, and what may be said about them."""

    strategy: Assessment
    baselines: tuple[Assessment, ...]
    differences: tuple[Difference, ...]
    trials: int
    first_day: str
    last_day: str
    verdict: str
    """One paragraph in plain words; it names every baseline that is not beaten."""


def compare(
    strategy: EquitySeries,
    baselines: Mapping[str, EquitySeries],
    trials: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Comparison:
    """Measure a strategy and its baselines over the same days.

    Args:
        strategy: the chosen run.
        baselines: by the name to print.
        trials: variants of the strategy ever tried on this data, this one included; deflates its Sharpe ratio.
        seed: of the bootstrap.
        resamples, level: of every interval.

    Raises:
        DataError: if a baseline covers other days than the strategy, or there is no full day at all.
    """
    days = strategy.daily.days
    if days.size == 0:
        raise DataError(f"{strategy.name} has no full day to measure", hint="choose a period of at least one whole UTC day")
    for name, series in baselines.items():
        if not np.array_equal(series.daily.days, days):
            raise DataError(f"baseline {name!r} covers {_span(series.daily)}, but {strategy.name!r} covers {_span(strategy.daily)}")
    own = assess(strategy, trials=trials, seed=seed, resamples=resamples, level=level)
    others = tuple(
        assess(EquitySeries(name, series.daily, series.costs, series.turnover), trials=1, seed=seed, resamples=resamples, level=level)
        for name, series in baselines.items()
    )
    differences = tuple(
        _difference(own, strategy.daily, other, baselines[other.name].daily, seed=seed, resamples=resamples, level=level)
        for other in others
    )
    verdict = _verdict(own, differences, trials)
    return Comparison(own, others, differences, trials, day_of(int(days[0])), day_of(int(days[-1])), verdict)


def assess(series: EquitySeries, *, trials: int = 1, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> Assessment:
    """Every headline measure of one equity curve."""
    r, year = series.daily.returns, float(DAYS_PER_YEAR)
    enough = r.size >= MINIMUM_DAYS
    moments = sharpe_moments(r)
    undefined: list[tuple[str, str]] = []
    names: tuple[MeasureName, ...] = ("sharpe_ratio", "cagr", "annual_volatility", "sortino_ratio", "calmar_ratio", "profit_factor")
    for name in names:
        reason = explain_undefined(name, r, minimum=MINIMUM_DAYS)
        if reason is not None:
            undefined.append((name, reason))
    fall = max_drawdown(r)
    growth = cagr(r, periods_per_year=year)
    if enough:
        sharpe = sharpe_interval(r, periods_per_year=year, seed=seed, resamples=resamples, level=level)
        per_year = growth_interval(r, periods_per_year=year, seed=seed, resamples=resamples, level=level)
        depth = drawdown_interval(r, seed=seed, resamples=resamples, level=level)
    else:
        sharpe, per_year, depth = (_unknown(value, level) for value in (NAN, growth, fall.depth))
    return Assessment(
        name=series.name,
        days=r.size,
        total_return=float(series.daily.equity[-1] / series.daily.equity[0]) - 1.0,
        sharpe=sharpe,
        cagr=per_year,
        drawdown=fall,
        max_drawdown=depth,
        volatility=annual_volatility(r, periods_per_year=year),
        sortino=sortino_ratio(r, periods_per_year=year),
        calmar=calmar_ratio(r, periods_per_year=year),
        win_rate=win_rate(r),
        profit_factor=profit_factor(r),
        probabilistic_sharpe=probabilistic_sharpe_ratio(moments) if enough else NAN,
        deflated_sharpe=deflated_sharpe_ratio(moments, trials=trials) if enough else NAN,
        min_track_record_days=min_track_record_length(moments) if enough else NAN,
        costs=series.costs,
        turnover=series.turnover,
        undefined=tuple(undefined),
    )


def _unknown(estimate: float, level: float) -> Interval:
    return Interval(estimate, NAN, NAN, level, 1.0, 0, NAN)


def _difference(
    own: Assessment, ours: DailyReturns, other: Assessment, theirs: DailyReturns, *, seed: int, resamples: int, level: float
) -> Difference:
    if np.isnan(own.sharpe.estimate) or np.isnan(other.sharpe.estimate):
        gap = _unknown(NAN, level)
    else:
        gap = sharpe_difference(
            ours.returns, theirs.returns, periods_per_year=float(DAYS_PER_YEAR), seed=seed, resamples=resamples, level=level
        )
    outcome = _outcome(gap)
    if outcome == "cannot be compared with":
        side = own if np.isnan(own.sharpe.estimate) else other
        reason = dict(side.undefined).get("sharpe_ratio", "too few returns")
        return Difference(other.name, gap, outcome, f"cannot be compared with {other.name}: Sharpe of {side.name} is undefined, {reason}")
    lead = {
        "beats": f"beats {other.name}",
        "ahead, within the noise": f"is ahead of {other.name}, but within the noise",
        "behind, within the noise": f"does not beat {other.name}",
        "loses to": f"loses to {other.name}",
    }[outcome]
    words = (
        f"{lead}: Sharpe {own.sharpe.estimate:.2f} against {other.sharpe.estimate:.2f}, "
        f"difference {gap.estimate:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    )
    return Difference(other.name, gap, outcome, words)


def _outcome(gap: Interval) -> Outcome:
    if np.isnan(gap.estimate) or np.isnan(gap.low):
        return "cannot be compared with"
    if gap.low > 0.0:
        return "beats"
    if gap.high < 0.0:
        return "loses to"
    return "ahead, within the noise" if gap.estimate > 0.0 else "behind, within the noise"


def _verdict(own: Assessment, differences: tuple[Difference, ...], trials: int) -> str:
    """What a reader may conclude, the bad news included."""
    if own.total_return == 0.0 and not own.volatility > 0.0:
        return f"{own.name}: it made no trade, so there is nothing to measure; equity stayed what it was."
    if np.isnan(own.sharpe.estimate):
        return f"{own.name}: no Sharpe ratio, {dict(own.undefined).get('sharpe_ratio', 'too few returns')}. Nothing can be concluded."
    percent = f"{own.sharpe.level:.0%}"
    parts = [f"{own.name}: Sharpe {own.sharpe.estimate:.2f} ({percent} interval {own.sharpe.low:+.2f} to {own.sharpe.high:+.2f})"]
    if own.sharpe.low > 0.0:
        parts[0] += ", above zero."
    elif own.sharpe.high < 0.0:
        parts[0] += ", below zero: it loses money beyond what chance explains."
    else:
        parts[0] += ", not distinguishable from zero."
    counted = "one trial" if trials == 1 else f"{trials} trials"
    parts.append(f"Probability of skill after {counted}: {own.deflated_sharpe:.2f}, {_weight_of(own)}.")
    groups: tuple[tuple[Outcome, str], ...] = (
        ("beats", "Beats"),
        ("ahead, within the noise", "Ahead, but within the noise, of"),
        ("behind, within the noise", "Does not beat"),
        ("loses to", "Loses to"),
        ("cannot be compared with", "Cannot be compared with"),
    )
    for outcome, words in groups:
        named = [d.baseline for d in differences if d.outcome == outcome]
        if named:
            parts.append(f"{words}: {', '.join(named)}.")
    return " ".join(parts)


def _weight_of(own: Assessment) -> str:
    """How convincing the deflated Sharpe ratio is. It takes days as independent; the bootstrap interval does not, and has the last word."""
    if own.deflated_sharpe < CONVINCING:
        return f"where {CONVINCING} would be convincing"
    return (
        "which is convincing"
        if own.sharpe.low > 0.0
        else "if days were independent; the interval, which does not assume it, is not convinced"
    )


def _span(daily: DailyReturns) -> str:
    return f"{day_of(int(daily.days[0]))} to {day_of(int(daily.days[-1]))} ({len(daily)} days)" if len(daily) else "no full day"
