"""Do predictions say anything? Information coefficient and directional accuracy, each with its uncertainty.

Pure functions; nothing here knows how a prediction was made. Unobserved pairs are named by a mask, never by NaN.

Sources: Grinold & Kahn (2000); Newey & West (1987); Wilson (1927).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, as_floats, checked_returns
from cryptoalpha.monitoring.ratios import NAN, deviation

CROSS_SECTION = 5
"""Fewest assets for which predictions are ranked across assets at each moment; with fewer they are ranked along time."""


@dataclass(frozen=True)
class InformationCoefficient:
    """Rank correlation of predictions with what happened."""

    mean: float
    """Mean IC, −1 to 1; NaN where nothing varied."""
    t_statistic: float
    """Newey–West t of the mean; NaN for fewer than 3 observations."""
    ratio: float
    """ICIR: mean over standard deviation of the per-period IC, per period (not annualised)."""
    observations: int
    """Periods that entered the mean."""
    lags: int
    cross_sectional: bool


def information_coefficient(
    predictions: ArrayLike,
    realised: ArrayLike,
    *,
    method: Literal["spearman", "pearson"] = "spearman",
    horizon: int = 1,
    observed: ArrayLike | None = None,
) -> InformationCoefficient:
    """Correlation of predictions with realised returns: across assets at each moment where at least five are observed, else along time.

    Args:
        predictions: `[T]` or `[T, A]`, any monotone scale.
        realised: the return each prediction was about, same shape.
        method: `spearman` by default: one outlier in 5,000 moves Pearson from .038 to −.009 and leaves Spearman at .041.
        horizon: periods a prediction looks ahead; overlapping outcomes are correlated, so the Newey–West lag is at least `horizon − 1`.
        observed: True where both are known, same shape; values elsewhere are ignored.

    Along time, each asset's (ranked) series are standardised and their products averaged over assets per period, so the mean of the
    products is the correlation and their series carries the t statistic.

    Raises:
        ConfigError: for an unknown method or a horizon below 1.
        DataError: for shapes that differ or values that are not finite where observed.
    """
    if method not in ("spearman", "pearson") or not isinstance(horizon, int | np.integer) or horizon < 1:
        raise ConfigError(f"method {method!r}, horizon {horizon}: expected 'spearman' or 'pearson' and a whole horizon of at least 1")
    p, r, seen = paired(predictions, realised, observed)
    every = coefficients(p, r, seen, method)
    series, across = every[~np.isnan(every)], p.shape[1] >= CROSS_SECTION
    n = series.size
    lags = min(max(horizon - 1, int(4.0 * (n / 100.0) ** (2.0 / 9.0))), max(n - 1, 0))
    mean = float(series.mean()) if n else NAN
    spread = deviation(series)
    return InformationCoefficient(mean, newey_west_t(series, lags), mean / spread if spread > 0.0 else NAN, n, lags, across)


def paired(predictions: ArrayLike, realised: ArrayLike, observed: ArrayLike | None) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Predictions, outcomes and where both are known, each `[T, A]`, checked as `information_coefficient` says."""
    p, r = _columns(predictions, "predictions"), _columns(realised, "realised")
    seen = np.ones(p.shape, dtype=bool) if observed is None else _columns(observed, "observed").astype(bool)
    if not p.shape == r.shape == seen.shape:
        raise DataError(f"predictions {p.shape}, realised {r.shape} and observed {seen.shape} differ in shape")
    if not (np.isfinite(p[seen]).all() and np.isfinite(r[seen]).all()):
        raise DataError("predictions or realised hold NaN or infinity", hint="mark unobserved pairs in `observed`")
    return p, r, seen


def coefficients(p: Floats, r: Floats, seen: NDArray[np.bool_], method: str = "spearman") -> Floats:
    """The coefficient of each period, `[T]`, NaN where it has none; their mean is the information coefficient."""
    return _across_assets(p, r, seen, method) if p.shape[1] >= CROSS_SECTION else _along_time(p, r, seen, method)


def newey_west_t(values: ArrayLike, lags: int) -> float:
    """t statistic of the mean of a series under autocorrelation up to `lags` (Bartlett weights).

    NaN for fewer than 3 values or no variance.

    Raises:
        ConfigError: for lags below 0 or parts of one.
    """
    if not isinstance(lags, int | np.integer) or lags < 0:
        raise ConfigError(f"lags is {lags}, expected a whole number of 0 or more")
    x = checked_returns(values, name="values")
    n = x.size
    if n < 3 or deviation(x) == 0.0:
        return NAN
    mean = float(x.mean())
    e = x - mean
    long_run = float(np.sum(e * e)) / n  # not `@`: its last bit depends on how many threads the linear algebra has
    for k in range(1, min(lags, n - 1) + 1):
        long_run += 2.0 * (1.0 - k / (lags + 1.0)) * float(np.sum(e[k:] * e[:-k])) / n
    return mean / float(np.sqrt(long_run / n)) if long_run > 0.0 else NAN


@dataclass(frozen=True)
class DirectionalAccuracy:
    """Share of moves whose direction was predicted, with a Wilson interval."""

    rate: float
    low: float
    high: float
    hits: int
    counted: int
    """Moves that happened and were predicted one way or the other."""
    flat_outcomes: int
    """Outcomes without a move: nobody can be right or wrong about their direction, so they are not counted."""
    abstained: int
    """Moves for which the prediction was exactly zero."""


def directional_accuracy(predictions: ArrayLike, realised: ArrayLike, *, flat: float = 0.0, level: float = 0.95) -> DirectionalAccuracy:
    """How often the predicted sign was the sign of the move, among outcomes that moved by more than `flat`.

    Flat outcomes are a third state: counted as "down", they let an always-short predictor score .65 where 30% of outcomes are flat.
    The interval assumes independent outcomes; overlapping horizons need one prediction per horizon.
    """
    p, r = checked_returns(predictions, name="predictions"), checked_returns(realised, name="realised")
    if p.shape != r.shape:
        raise DataError(f"{p.size} predictions for {r.size} outcomes")
    moved = np.abs(r) > flat
    counted = moved & (p != 0.0)
    hits, total = int(np.sum(np.sign(p[counted]) == np.sign(r[counted]))), int(counted.sum())
    low, high = wilson_interval(hits, total, level=level)
    return DirectionalAccuracy(hits / total if total else NAN, low, high, hits, total, int((~moved).sum()), int(moved.sum()) - total)


def wilson_interval(hits: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion; NaN bounds where nothing was counted. 530 of 1000 → (.4990, .5608).

    Raises:
        ConfigError: for hits outside 0–total or a level outside (0, 1).
    """
    if not 0 <= hits <= total or not 0.0 < level < 1.0:
        raise ConfigError(f"{hits} hits of {total} at level {level}: expected 0 to {total}, and a level inside (0, 1)")
    if total == 0:
        return NAN, NAN
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    share = hits / total
    scale = 1.0 + z * z / total
    centre = (share + z * z / (2.0 * total)) / scale
    half = z / scale * float(np.sqrt(share * (1.0 - share) / total + z * z / (4.0 * total * total)))
    return max(0.0, centre - half), min(1.0, centre + half)


def _columns(values: ArrayLike, name: str) -> Floats:
    array = as_floats(values, name=name)
    if array.ndim not in (1, 2):
        raise DataError(f"{name} has shape {array.shape}, expected [T] or [T, assets]")
    return array[:, None] if array.ndim == 1 else array


def _ranks(rows: Floats, seen: NDArray[np.bool_]) -> Floats:
    """Average ranks along the last axis among the observed values; `[N, M]` in and out."""
    values = np.where(seen, rows, np.nan)  # comparisons with NaN are False, so the unobserved count for nobody
    ranks = np.empty(rows.shape)
    step = max(1, 4_000_000 // max(1, rows.shape[1] ** 2))
    for start in range(0, rows.shape[0], step):
        part = values[start : start + step]
        below = (part[:, None, :] < part[:, :, None]).sum(axis=2)
        equal = (part[:, None, :] == part[:, :, None]).sum(axis=2)
        ranks[start : start + step] = below + (equal + 1) / 2.0
    return ranks


def _ranks_of_one(values: Floats) -> Floats:
    """Average ranks of one series; sorted once, so that long series stay cheap."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def _across_assets(p: Floats, r: Floats, seen: NDArray[np.bool_], method: str) -> Floats:
    enough = seen.sum(axis=1) >= CROSS_SECTION
    p, r, seen = p[enough], r[enough], seen[enough]
    if method == "spearman":
        p, r = _ranks(p, seen), _ranks(r, seen)
    count = seen.sum(axis=1, keepdims=True)
    x = np.where(seen, p, 0.0)
    y = np.where(seen, r, 0.0)
    x = np.where(seen, x - x.sum(axis=1, keepdims=True) / count, 0.0)
    y = np.where(seen, y - y.sum(axis=1, keepdims=True) / count, 0.0)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    varied = scale > 0.0  # a moment at which all predictions agree says nothing about the ranking
    out = np.full(enough.size, NAN)
    out[np.flatnonzero(enough)[varied]] = (x * y).sum(axis=1)[varied] / scale[varied]
    return out


def _along_time(p: Floats, r: Floats, seen: NDArray[np.bool_], method: str) -> Floats:
    total, count = np.zeros(p.shape[0]), np.zeros(p.shape[0])
    for asset in range(p.shape[1]):
        at = seen[:, asset]
        x, y = p[at, asset], r[at, asset]
        if method == "spearman":
            x, y = _ranks_of_one(x), _ranks_of_one(y)
        if x.size < 3 or deviation(x) == 0.0 or deviation(y) == 0.0:
            continue
        total[at] += (x - x.mean()) / x.std() * ((y - y.mean()) / y.std())
        count[at] += 1
    used = count > 0
    out = np.full(p.shape[0], NAN)
    out[used] = total[used] / count[used]
    return out
