"""Why a measure is NaN, in words. A measure returns NaN exactly where `explain_undefined` returns a reason (a test holds them together)."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drawdown import max_drawdown
from cryptoalpha.monitoring.ratios import cagr, deviation, shortfalls

MeasureName = Literal[
    "sharpe_ratio", "sortino_ratio", "calmar_ratio", "cagr", "annual_volatility", "omega_ratio", "profit_factor", "win_rate"
]


def explain_undefined(
    measure: MeasureName, returns: ArrayLike, *, threshold: float = 0.0, minimum: int = 2, periods_per_year: float = 365.0
) -> str | None:
    """The reason why a measure of these returns is NaN, or None where it is defined.

    Args:
        measure: name of the function in `measures`.
        returns: what was passed to it.
        threshold: its `rf`, `mar` or `threshold`, per period.
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


def _of_sharpe(r: Floats, threshold: float, minimum: int) -> str | None:
    if r.size < max(minimum, 2):
        return f"{r.size} returns, fewer than the {max(minimum, 2)} it needs"
    return "the returns have no volatility" if deviation(r - threshold) == 0.0 else None


def _of_volatility(r: Floats, threshold: float, minimum: int) -> str | None:
    return "one return has no deviation" if r.size < 2 else None


def _of_downside(r: Floats, threshold: float, minimum: int) -> str | None:
    return None if bool(np.any(shortfalls(r, threshold) > 0.0)) else "no return lies below the threshold"


def _of_cagr(r: Floats, threshold: float, minimum: int) -> str | None:
    return "wealth fell below zero" if bool(np.any(r < -1.0)) else None


def _of_calmar(r: Floats, threshold: float, minimum: int) -> str | None:
    if max_drawdown(r).depth == 0.0:
        return "equity never fell below its peak"
    return _of_cagr(r, threshold, minimum)


_REASONS: dict[str, Callable[[Floats, float, int], str | None]] = {
    "sharpe_ratio": _of_sharpe,
    "sortino_ratio": _of_downside,
    "calmar_ratio": _of_calmar,
    "cagr": _of_cagr,
    "annual_volatility": _of_volatility,
    "omega_ratio": _of_downside,
    "profit_factor": _of_downside,
    "win_rate": lambda r, threshold, minimum: None,
}
