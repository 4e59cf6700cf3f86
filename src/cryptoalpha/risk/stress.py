"""What a book would lose if something bad happened again, or for the first time.

Each stress takes the book as it stands and gives profit and loss by position and in total, fractions of equity, losses negative: totals are
sums of their positions, and a book that a stress hurts is hurt no less by a harder one (short of prices that reach zero, where a hedge goes
on paying). Nothing is sold on the way; that is the point.

Weights are signed fractions of equity, `[A]`. Losses that need an estimate (covariance, volumes, past returns) take it from the caller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.monitoring.daily import as_floats
from cryptoalpha.risk.covariance import checked_rows
from cryptoalpha.risk.crises import Crisis
from cryptoalpha.risk.exposure import checked_weights
from cryptoalpha.risk.matrices import Floats, checked_square, checked_variances


@dataclass(frozen=True, eq=False)
class StressResult:
    """Profit and loss under one stress: `by_position [A]` and its sum, fractions of equity; and how it came about, in words."""

    name: str
    by_position: Floats
    what: str

    @property
    def total(self) -> float:
        return float(np.sum(self.by_position))


def historical(weights: ArrayLike, daily_returns: ArrayLike, days: ArrayLike, crisis: Crisis, *, severity: float = 1.0) -> StressResult:
    """The crisis again, held through without trading, at the close of the day on which this book stands lowest.

    Args:
        weights: `[A]`.
        daily_returns: simple returns of each day, `[T, A]`, from the user's own store.
        days: 00:00 UTC at which each begins, ns, `[T]`.
        crisis: one of `CRISES`.
        severity: how many times as far every instrument moves from where it started (≥ 0); no price falls below zero.

    Raises:
        DataMissingError: if the days do not cover the crisis whole, or not for every instrument that is held.
        DataError: for shapes that do not fit.
    """
    w, rows, at = checked_weights(weights), as_floats(daily_returns, name="daily_returns"), np.asarray(days, dtype=np.int64)
    if rows.shape != (len(at), len(w)):
        raise DataError(f"returns {rows.shape} for {len(at)} days and {len(w)} weights")
    _check(severity)
    inside = crisis.covers(at)
    wanted = (crisis.last - crisis.first).days + 1
    if int(inside.sum()) != wanted:
        raise DataMissingError(
            f"{crisis.name} lasted {wanted} days from {crisis.first}, {int(inside.sum())} of them are there",
            hint="fetch or import daily history that goes back further (cryptoalpha data fetch)",
        )
    held = np.flatnonzero(w)
    known = np.isfinite(rows[inside][:, held]).all(axis=0)
    if not known.all():
        raise DataMissingError(f"{np.sum(~known)} of the {len(held)} positions have no returns on all days of {crisis.name}")
    moved = np.zeros((wanted, len(w)))
    moved[:, held] = np.cumprod(1.0 + rows[inside][:, held], axis=0) - 1.0
    path = w * np.maximum(severity * moved, -1.0)
    worst = int(np.argmin(path.sum(axis=1)))
    return StressResult(crisis.name, path[worst], f"{crisis.what}; lowest after day {worst + 1} of {wanted}")


def correlation_shock(weights: ArrayLike, covariance: ArrayLike, *, towards_one: float = 1.0, deviations: float = 3.0) -> StressResult:
    """Correlations turn against the book, and it has a bad day: a loss of `deviations` standard deviations.

    Every pair's correlation moves the given share of the way to +1 where both positions are on one side, to −1 where they are not: what
    was held together falls together, and what was held as a hedge fails. At 1 the loss is `deviations · Σ |w| σ`. Positions share it in
    proportion to what they add to the book's deviation (Euler).

    Args:
        weights: `[A]`.
        covariance: per day (or whatever the deviations are of), `[A, A]`.
        towards_one: share of the way (0–1).
        deviations: how bad (≥ 0).

    Raises:
        DataError: for shapes that do not fit or a matrix that is no covariance.
        ConfigError: for a share outside 0–1 or negative deviations.
    """
    w, c = checked_weights(weights), checked_square(covariance)
    if len(w) != len(c):
        raise DataError(f"{len(w)} weights for a covariance of {len(c)} assets")
    if not 0.0 <= towards_one <= 1.0:
        raise ConfigError(f"towards_one is {towards_one}, expected 0 to 1")
    _check(deviations)
    risk = w * np.sqrt(checked_variances(c))
    together = (1.0 - towards_one) * (w[:, None] * w[None, :] * c) + towards_one * np.abs(risk[:, None] * risk[None, :])
    added = np.sum(together, axis=1)
    variance = float(np.sum(added))
    by_position = -deviations * added / math.sqrt(variance) if variance > 0.0 else np.zeros(len(w))
    return StressResult(
        "correlation", by_position, f"correlations {towards_one:.0%} of the way against the book, {deviations:g} deviations"
    )


def gap(weights: ArrayLike, gaps: ArrayLike, *, severity: float = 1.0, name: str = "gap") -> StressResult:
    """Prices jump before anything can be traded, past every stop: `w · severity · gap`.

    Args:
        weights: `[A]`.
        gaps: simple return of the jump, `[A]` or one for all (≥ −1).
        severity: multiple of it (≥ 0); no price falls below zero.
        name: what to call it.

    Raises:
        DataError: for shapes that do not fit, values that are not finite, or a fall of more than everything.
    """
    w = checked_weights(weights)
    jump = as_floats(gaps, name="gaps")
    jump = np.full(len(w), float(jump)) if jump.ndim == 0 else checked_weights(jump, name="gaps")
    if jump.shape != w.shape or not bool(np.all(jump >= -1.0)):
        raise DataError(f"gaps of shape {jump.shape} for {len(w)} weights: expected a return of −1 or more for each")
    _check(severity)
    jump = np.maximum(severity * jump, -1.0)
    low, high = (float(jump.min()), float(jump.max())) if len(jump) else (0.0, 0.0)
    sizes = f"{low:+.0%}" if low == high else f"{low:+.0%} to {high:+.0%}"
    return StressResult(name, w * jump, f"prices jump by {sizes} at once")


def worst_gap(weights: ArrayLike, size: float) -> StressResult:
    """The jump of this size, up or down for all alike, that hurts the book more; at most everything is lost on the way down."""
    down, up = gap(weights, -min(size, 1.0), name="gap"), gap(weights, size, name="gap")
    return down if down.total <= up.total else up


def liquidity_drought(
    weights: ArrayLike,
    daily_values: ArrayLike,
    volatilities: ArrayLike,
    *,
    equity: float,
    volume_share: float = 0.1,
    impact: float = 1.0,
    half_spread: float = 0.001,
) -> StressResult:
    """What it costs to get out within a day when hardly anybody trades: half the spread, and the square-root impact of the whole position.

    `|w| · (half_spread / volume_share + impact · σ_day · sqrt(|w| equity / (volume_share · daily value)))`, at most the position itself.
    The spread is taken to widen as volume dries up.

    Args:
        weights: `[A]`.
        daily_values: traded per day in quiet times, quote currency, `[A]`; NaN or 0 = nothing, so that a position is lost.
        volatilities: daily, `[A]`.
        equity: quote currency (> 0).
        volume_share: what is left of the volume (0–1].
        impact: coefficient of the square-root law, as the simulated broker's.
        half_spread: in quiet times, fraction of price.

    Raises:
        DataError: for shapes that do not fit or negative volatilities.
        ConfigError: for numbers out of range.

    Source: the square-root law of market impact, as in the simulated broker.
    """
    w, sd = checked_weights(weights), checked_weights(volatilities, name="volatilities")
    traded = as_floats(daily_values, name="daily_values")
    if not w.shape == sd.shape == traded.shape or bool(np.any(sd < 0.0)):
        raise DataError(f"weights {w.shape}, daily values {traded.shape}, volatilities {sd.shape}: expected one size, volatilities ≥ 0")
    if not 0.0 < volume_share <= 1.0 or not 0.0 < equity < math.inf or not impact >= 0.0 or not half_spread >= 0.0:
        raise ConfigError(f"equity {equity}, volume_share {volume_share}, impact {impact}, half_spread {half_spread}: out of range")
    size = np.abs(w)
    known = np.nan_to_num(traded, nan=0.0) > 0.0
    days = size * equity / np.where(known, volume_share * np.where(known, traded, 1.0), 1.0)
    cost = half_spread / volume_share + impact * sd * np.sqrt(days)
    share = np.where(known, np.minimum(cost, 1.0), 1.0)
    return StressResult("liquidity", -size * share, f"out within a day at {volume_share:.0%} of the usual volume")


def exchange_outage(weights: ArrayLike, bar_returns: ArrayLike, bars: int, *, level: float = 0.99) -> StressResult:
    """The venue does not answer for so many bars: of all such stretches of the past, the loss that only `1 − level` of them exceed.

    Args:
        weights: `[A]`.
        bar_returns: simple returns bar by bar, `[T, A]`, complete.
        bars: length of the outage (≥ 1).
        level: quantile (0–1), upwards of the losses and without interpolation, so the result is a stretch that happened.

    Raises:
        DataError: for shapes that do not fit or NaN.
        DataMissingError: if there are fewer bars than the outage is long.
        ConfigError: for bars or a level out of range.
    """
    w, x = checked_weights(weights), checked_rows(bar_returns)
    if x.shape[1] != len(w):
        raise DataError(f"{len(w)} weights for returns of {x.shape[1]} assets")
    if bars < 1 or not 0.0 < level < 1.0:
        raise ConfigError(f"bars {bars} and level {level}: expected at least 1, and between 0 and 1")
    if len(x) < bars:
        raise DataMissingError(f"{len(x)} bars of history for an outage of {bars}")
    stretches: NDArray[np.float64] = np.ones((len(x) - bars + 1, len(w)))
    for offset in range(bars):  # a product per stretch, not a ratio of prices: −100 % may not divide by zero
        stretches *= 1.0 + x[offset : offset + len(stretches)]
    changes = w * (stretches - 1.0)
    order = np.argsort(-changes.sum(axis=1), kind="stable")  # gains first
    place = math.ceil(level * len(order) - 1e-9) - 1
    start = int(order[place])
    what = f"no trading for {bars} bars, as from bar {start}: {level:.4g} of {len(order)} such stretches were no worse"
    return StressResult("outage", changes[start], what)


def _check(severity: float) -> None:
    if not 0.0 <= severity < math.inf:
        raise ConfigError(f"a severity of {severity}, expected 0 or more")
