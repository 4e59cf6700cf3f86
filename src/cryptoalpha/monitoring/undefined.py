"""Why a measure is NaN, in words. A measure returns NaN exactly where `explain_undefined` returns a reason (a test holds them together).

Results with fields of their own carry theirs: `SignalQuality.reason`, `BacktestOverfitting.reason`, `PeriodRow.reasons`; streaming
measures answer `StreamingMetrics.explain`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drawdown import max_drawdown
from cryptoalpha.monitoring.ratios import cagr, deviation, rounding_noise, shortfalls
from cryptoalpha.monitoring.significance import sharpe_moments

MeasureName = Literal[
    "sharpe_ratio",
    "sortino_ratio",
    "calmar_ratio",
    "cagr",
    "annual_volatility",
    "omega_ratio",
    "profit_factor",
    "win_rate",
    "probabilistic_sharpe_ratio",
    "deflated_sharpe_ratio",
    "min_track_record_length",
]

TOO_LARGE = "the returns are too large to square"

RollingName = Literal["rolling_sharpe", "rolling_sortino", "rolling_volatility", "rolling_win_rate", "rolling_drawdown"]


def explain_undefined(
    measure: MeasureName, returns: ArrayLike, *, threshold: float = 0.0, minimum: int = 2, periods_per_year: float = 365.0
) -> str | None:
    """The reason why a measure of these returns is NaN, or None where it is defined.

    Args:
        measure: name of the function in `measures`.
        returns: what was passed to it.
        threshold: its `rf`, `mar`, `threshold` or `benchmark`, per period.
        minimum: its `minimum` (Sharpe only).
        periods_per_year: its `periods_per_year` (CAGR and Calmar only).

    Raises:
        ConfigError: if the measure is not known.
    """
    r = checked_returns(returns)
    reason = _REASONS.get(measure)
    if reason is None:
        raise ConfigError(f"no measure is called {measure!r}", hint=f"known: {', '.join(_REASONS)}")
    if r.size == 0:
        return "no returns"
    why = reason(r, threshold, minimum)
    if why is None and measure in ("cagr", "calmar_ratio") and isnan(cagr(r, periods_per_year=periods_per_year)):
        return "growth per year is too large to represent"
    return why


def explain_rolling(measure: RollingName, returns: ArrayLike, window: int, place: int, *, threshold: float = 0.0) -> str | None:
    """The reason why a rolling measure is NaN at a place of the series, or None where it is defined.

    Args:
        measure: name of the function in `measures`.
        returns, window: what was passed to it.
        place: index into its result.
        threshold: its `rf` or `mar`.

    Raises:
        ConfigError: if the measure is not known, or there is no such place.
    """
    r = checked_returns(returns)
    if measure not in _ROLLING or not 0 <= place < r.size:
        raise ConfigError(
            f"no rolling measure {measure!r} at place {place} of {r.size}", hint=f"known: {', '.join(_ROLLING)}; places count from 0"
        )
    if place < window - 1:
        return f"{place + 1} returns, fewer than the {window} of the window"
    return _ROLLING[measure](r[place - window + 1 : place + 1], threshold, 2)


def _of_sharpe(r: Floats, threshold: float, minimum: int) -> str | None:
    if r.size < max(minimum, 2):
        return f"{r.size} returns, fewer than the {max(minimum, 2)} it needs"
    spread = deviation(r - threshold)
    return TOO_LARGE if isnan(spread) else "the returns have no volatility" if spread == 0.0 else None


def _of_volatility(r: Floats, threshold: float, minimum: int) -> str | None:
    return "one return has no deviation" if r.size < 2 else TOO_LARGE if isnan(deviation(r)) else None


def _of_downside(r: Floats, threshold: float, minimum: int) -> str | None:
    return None if bool(np.any(shortfalls(r, threshold) > 0.0)) else "no return lies below the threshold"


def _of_cagr(r: Floats, threshold: float, minimum: int) -> str | None:
    return "wealth fell below zero" if bool(np.any(r < -1.0)) else None


def _of_calmar(r: Floats, threshold: float, minimum: int) -> str | None:
    if max_drawdown(r).depth == 0.0:
        return "equity never fell below its peak"
    return _of_cagr(r, threshold, minimum)


def _of_probability(r: Floats, threshold: float, minimum: int) -> str | None:
    why = _of_sharpe(r, 0.0, 2)
    if why is None and isnan(sharpe_moments(r).variance):
        return "the returns are so lopsided that their Sharpe ratio has no variance"
    return why


def _of_track_record(r: Floats, threshold: float, minimum: int) -> str | None:
    why = _of_sharpe(r, 0.0, 2)
    if why is None and not sharpe_moments(r).sharpe > threshold:
        return "the Sharpe ratio does not exceed the benchmark, however long the record"
    return why or _of_probability(r, threshold, minimum)


def _of_rolling_downside(r: Floats, threshold: float, minimum: int) -> str | None:
    short = np.maximum(threshold - r, 0.0)
    downside = float(np.sqrt(np.mean(short * short)))
    return None if downside > rounding_noise(r) else "no return lies below the threshold"


_ROLLING: dict[str, Callable[[Floats, float, int], str | None]] = {
    "rolling_sharpe": _of_sharpe,
    "rolling_sortino": _of_rolling_downside,
    "rolling_volatility": _of_volatility,
    "rolling_win_rate": lambda r, threshold, minimum: None,
    "rolling_drawdown": _of_cagr,
}

_REASONS: dict[str, Callable[[Floats, float, int], str | None]] = {
    "sharpe_ratio": _of_sharpe,
    "sortino_ratio": _of_downside,
    "calmar_ratio": _of_calmar,
    "cagr": _of_cagr,
    "annual_volatility": _of_volatility,
    "omega_ratio": _of_downside,
    "profit_factor": _of_downside,
    "win_rate": lambda r, threshold, minimum: None,
    "probabilistic_sharpe_ratio": _of_probability,
    "deflated_sharpe_ratio": _of_probability,
    "min_track_record_length": _of_track_record,
}
