"""The measures year by year and regime by regime: did it earn everywhere, or once?

Returns of one label are strung together in their order. So a drawdown within a regime is that of someone who held the book in that
regime alone and stood aside between, and the bootstrap's blocks run across the seams; with few, long spells neither matters much.

Pure functions; no clock. Rows say how many periods they rest on, and why a measure is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.attribution import calendar_labels
from cryptoalpha.monitoring.bootstrap import LEVEL, RESAMPLES, Interval, sharpe_interval
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drawdown import max_drawdown
from cryptoalpha.monitoring.ratios import NAN, annual_volatility, profit_factor, sharpe_ratio, win_rate
from cryptoalpha.monitoring.undefined import MeasureName, explain_undefined

LEAST_PERIODS = 30
"""Fewest returns for a Sharpe ratio of a row, as for the headline (`comparison.MINIMUM_DAYS`)."""

UNCERTAIN = "uncertain"
"""Label of periods in which no regime was believed enough."""


@dataclass(frozen=True)
class PeriodRow:
    """The measures of all periods with one label."""

    label: str
    periods: int
    share: float
    """Of all periods, 0–1."""
    growth: float
    """Compound return over these periods, a fraction (not per year); NaN where wealth fell below zero."""
    sharpe: Interval
    """Annual Sharpe ratio with its bootstrap interval; NaN for fewer than `least` periods."""
    volatility: float
    """Per year, a fraction."""
    max_drawdown: float
    win_rate: float
    profit_factor: float
    belief: float = 1.0
    """Mean probability given to this regime in its periods; 1 where labels were given."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a measure is NaN, by its name."""


def period_table(
    returns: ArrayLike,
    labels: Sequence[str],
    *,
    periods_per_year: float,
    least: int = LEAST_PERIODS,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[PeriodRow]:
    """One row per label in order of the labels' names, then one of all periods, labelled `all`.

    Args:
        returns: `[n]` simple returns per period.
        labels: `[n]`, what each period belongs to.
        periods_per_year: 365 for daily returns.
        least: fewest returns for a Sharpe ratio.
        seed, resamples, level: of the intervals.

    Raises:
        DataError: if labels and returns differ in length, or a label is `all`.
    """
    r = checked_returns(returns)
    names = np.asarray([str(label) for label in labels], dtype=object)
    if names.size != r.size or "all" in names:
        raise DataError(f"{names.size} labels for {r.size} returns, expected one each and none of them 'all'")
    options = {"periods_per_year": periods_per_year, "level": level}
    rows = [
        _row(label, r[names == label], r.size, least, seed, resamples, **options)
        for label in sorted(set(names.tolist()))
    ]  # fmt: skip
    return [*rows, _row("all", r, r.size, least, seed, resamples, **options)]


def year_table(
    returns: ArrayLike,
    times_ns: ArrayLike,
    *,
    periods_per_year: float,
    least: int = LEAST_PERIODS,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[PeriodRow]:
    """`period_table` by the UTC year in which each period begins (`times_ns`, `[n]`)."""
    labels = calendar_labels(times_ns, by="year")
    return period_table(returns, labels, periods_per_year=periods_per_year, least=least, seed=seed, resamples=resamples)


def regime_table(
    returns: ArrayLike,
    beliefs: ArrayLike,
    names: Sequence[str],
    *,
    periods_per_year: float,
    least_belief: float = 0.5,
    least: int = LEAST_PERIODS,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[PeriodRow]:
    """`period_table` by the regime believed in most, when each period began.

    Args:
        returns: `[n]`.
        beliefs: `[n, K]` probabilities of the regimes, known before the period: its return must not have entered them.
        names: `[K]`.
        least_belief: a period in which no regime reaches this is `uncertain`.

    Raises:
        DataError: for shapes that differ or beliefs that are no probabilities.
        ConfigError: for a `least_belief` outside 0–1.
    """
    r, p = checked_returns(returns), np.asarray(beliefs, dtype=np.float64)
    if not 0.0 <= least_belief <= 1.0:
        raise ConfigError(f"least_belief is {least_belief}, expected 0 to 1")
    if p.shape != (r.size, len(names)):
        raise DataError(f"beliefs {p.shape}, expected {(r.size, len(names))}: one row per return, one column per regime")
    if not bool(np.all((p >= 0.0) & (p <= 1.0))) or not np.allclose(p.sum(axis=1), 1.0, atol=1e-6):
        raise DataError("beliefs must be probabilities that sum to 1 in each row")
    if r.size == 0:
        return period_table(r, [], periods_per_year=periods_per_year, least=least, seed=seed, resamples=resamples)
    top = p.max(axis=1)
    labels = [names[k] if sure >= least_belief else UNCERTAIN for k, sure in zip(p.argmax(axis=1).tolist(), top.tolist(), strict=True)]
    rows = period_table(r, labels, periods_per_year=periods_per_year, least=least, seed=seed, resamples=resamples)
    chosen = np.asarray(labels, dtype=object)
    mean = {label: float(top[chosen == label].mean()) for label in set(labels)} | {"all": float(top.mean())}
    return [PeriodRow(**{**row.__dict__, "belief": mean[row.label]}) for row in rows]


def _row(label: str, r: Floats, total: int, least: int, seed: int, resamples: int, *, periods_per_year: float, level: float) -> PeriodRow:
    estimate = sharpe_ratio(r, periods_per_year=periods_per_year, minimum=least)
    sharpe = Interval(NAN, NAN, NAN, level, NAN, 0, NAN)
    if estimate == estimate:
        sharpe = sharpe_interval(r, periods_per_year=periods_per_year, seed=seed, resamples=resamples, level=level)
    growth = float(np.prod(1.0 + r)) - 1.0 if r.size and not bool(np.any(r < -1.0)) else NAN
    asked: tuple[MeasureName, ...] = ("sharpe_ratio", "annual_volatility", "win_rate", "profit_factor")
    reasons: dict[str, str] = {name: why for name in asked if (why := explain_undefined(name, r, minimum=least)) is not None}
    if growth != growth:
        reasons["growth"] = "wealth fell below zero" if r.size else "no returns"
    return PeriodRow(
        label, r.size, r.size / total if total else NAN, growth, sharpe, annual_volatility(r, periods_per_year=periods_per_year),
        max_drawdown(r).depth, win_rate(r), profit_factor(r), reasons=reasons,
    )  # fmt: skip
