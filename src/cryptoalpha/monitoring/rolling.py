"""Measures of the last `window` returns at every place: Sharpe, Sortino, volatility, win rate, deepest drawdown.

Each equals the measure of the same name in `ratios` and `drawdown`, taken of `returns[t − window + 1 : t + 1]`; places before the window
is full are NaN. Shapes: returns `[n]` → `[n]`. Appending returns changes no earlier value. What is undefined is NaN
(`undefined.explain_rolling` says why); NaN or infinity in the input is refused.

Precision: a deviation of 12,000 returns over windows of 720 is right to 3e-15 relative, with a level of 1e4 under the returns too, where
cumulative sums are wrong by 1 % (`tests/properties/test_rolling_measures.py`). After values that swamp the rest, nine digits are promised
(`rolling_kernels` says how). The kernels are compiled at the first call (cached on disk).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, as_floats, checked_returns
from cryptoalpha.monitoring.ratios import checked_periods
from cryptoalpha.monitoring.rolling_plain import block_of


def rolling_sharpe(returns: ArrayLike, window: int, *, periods_per_year: float, rf: float = 0.0) -> Floats:
    """Annual Sharpe ratio of each window (at least 2 returns); NaN where the window has no volatility. `rf` is per period."""
    from cryptoalpha.monitoring import rolling_kernels

    x, out = _series(returns, window, least=2)
    scale = float(np.sqrt(checked_periods(periods_per_year)))
    return _finished(x, out, rolling_kernels.sharpe(x, window, float(rf), scale, block_of(window), out))


def rolling_volatility(returns: ArrayLike, window: int, *, periods_per_year: float) -> Floats:
    """Annual standard deviation of each window (at least 2 returns); 0 where it does not vary."""
    from cryptoalpha.monitoring import rolling_kernels

    x, out = _series(returns, window, least=2)
    scale = float(np.sqrt(checked_periods(periods_per_year)))
    return _finished(x, out, rolling_kernels.volatility(x, window, scale, block_of(window), out))


def rolling_sortino(returns: ArrayLike, window: int, *, periods_per_year: float, mar: float = 0.0) -> Floats:
    """Annual Sortino ratio of each window; NaN where nothing lies below `mar` (per period) by more than rounding.

    Departure from `sortino_ratio`: shortfalls of the size of rounding are not dropped one by one; their root mean square is judged.
    """
    from cryptoalpha.monitoring import rolling_kernels

    x, out = _series(returns, window, least=1)
    scale = float(np.sqrt(checked_periods(periods_per_year)))
    return _finished(x, out, rolling_kernels.sortino(x, window, float(mar), scale, block_of(window), out))


def rolling_win_rate(returns: ArrayLike, window: int) -> Floats:
    """Share of returns above zero in each window; whole counts, so exact."""
    x, out = _series(checked_returns(returns), window, least=1)
    wins = np.concatenate(([0], np.cumsum(x > 0.0)))
    out[window - 1 :] = (wins[window:] - wins[:-window]) / window
    return out


def rolling_drawdown(returns: ArrayLike, window: int) -> Floats:
    """Depth of the deepest drawdown within each window, the wealth before its first return counting as a peak.

    Positive, 0–1. A window with a return below −1 is NaN: wealth below zero has no fall in percent. Constant work per return, whatever
    the window: depths of neighbouring stretches are joined.
    """
    from cryptoalpha.monitoring import rolling_kernels

    x, out = _series(checked_returns(returns), window, least=1)
    rolling_kernels.drawdown(x, window, out)
    if x.size >= window and bool(np.any(x < -1.0)):
        ruined = np.concatenate(([0], np.cumsum(x < -1.0)))
        out[window - 1 :][ruined[window:] > ruined[:-window]] = np.nan
    return out


def _series(returns: ArrayLike, window: int, *, least: int) -> tuple[Floats, Floats]:
    """The returns as one array, and the result with NaN before the first full window. The kernels see to what is not finite."""
    if not isinstance(window, int | np.integer) or window < least:
        raise ConfigError(f"window is {window}, expected a whole number of at least {least}")
    x = np.ascontiguousarray(as_floats(returns))
    if x.ndim != 1 or x.size < window:
        x = checked_returns(x)
        return x, np.full(x.size, np.nan)
    if not x.flags.writeable:
        x = x.copy()  # to the compiler a read-only array is another type, and every kernel would be compiled again
    out = np.empty(x.size)
    out[: window - 1] = np.nan
    return x, out


def _finished(x: Floats, out: Floats, fine: bool) -> Floats:
    if not fine:
        checked_returns(x)
        raise DataError("returns are too large to square", hint="returns are fractions: 0.02 reads two percent")
    return out
