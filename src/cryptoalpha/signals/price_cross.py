"""Price features 45–50: one asset against the rest of its book, and the hour of the week.

The market of an asset is the plain mean of the other assets' unit returns at the same bar: leaving the asset out keeps small books from
explaining an asset by itself. A book of one asset has no market; its four cross features are masked.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.signals.price_bars import LONGEST_GAP, AssetBars
from cryptoalpha.signals.rolling import beta_and_correlation, flat_weights, last_before, ratio, weighted_mean
from cryptoalpha.store.tables import Floats, Times

_BOOK = ("ohlc", "book")

WEEK = 7 * DAY
_MONDAY = 4 * DAY  # the epoch was a Thursday: the first Monday 00:00 lies four days later

CROSS = (
    FeatureSpec("market_beta_128", "cross", "least-squares slope over 128 bars of r on the mean r of the other assets", "ratio", _BOOK),
    FeatureSpec("market_correlation_128", "cross", "correlation over 128 bars of r with the mean r of the others", "−1 to 1", _BOOK),
    FeatureSpec(
        "idiosyncratic_return_8", "cross", "√8 · mean₈[r − market_beta_128 · mean r of the others] / σ", "standard deviations", _BOOK
    ),
    FeatureSpec(
        "return_rank_32", "cross", "rank of ln(close / close 32 bars before) in the book, ties shared", "−1 lowest to 1 highest", _BOOK
    ),
)

CALENDAR = (
    FeatureSpec("hour_of_week_sin", "calendar", "sin 2π (time of bar open since Monday 00:00 UTC) / week", "−1 to 1", ("time",)),
    FeatureSpec("hour_of_week_cos", "calendar", "cos of the same angle", "−1 to 1", ("time",)),
)

SPECS = (*CROSS, *CALENDAR)


def cross_columns(book: tuple[AssetBars, ...]) -> tuple[tuple[Floats, ...], ...]:
    """The features of `CROSS` for every asset of a book: for each asset four columns `[T]`."""
    returns = np.stack([bars.unit_return for bars in book], axis=1)
    moves = np.stack([bars.log_close - last_before(bars.log_close, 32, LONGEST_GAP)[0] for bars in book], axis=1)
    markets, ranks = mean_of_others(returns), centred_ranks(moves)
    return tuple(_against(bars, np.ascontiguousarray(markets[:, a]), ranks[:, a]) for a, bars in enumerate(book))


def _against(bars: AssetBars, market: Floats, rank: Floats) -> tuple[Floats, ...]:
    own = bars.unit_return
    beta, correlation = beta_and_correlation(own, market, 128, bars.first)
    both = np.where(np.isfinite(market), own, np.nan)
    mean_own = weighted_mean(both, flat_weights(8))
    mean_market = weighted_mean(np.where(np.isfinite(own), market, np.nan), flat_weights(8))
    idiosyncratic = ratio(math.sqrt(8.0) * (mean_own - beta * mean_market), bars.sigma)
    return beta, correlation, idiosyncratic, rank


def calendar_columns(open_time: Times) -> tuple[Floats, Floats]:
    """The features of `CALENDAR`, `[T]` each."""
    return hour_of_week(open_time.astype(np.int64), _MONDAY, WEEK)


@njit(cache=True)
def hour_of_week(open_time: Times, monday: int, week: int) -> tuple[Floats, Floats]:
    """Sine and cosine of the place in the week; one by one, as NumPy's vector code may round differently by array length."""
    sine, cosine = np.empty(open_time.size), np.empty(open_time.size)
    for t in range(open_time.size):
        angle = 2.0 * math.pi * (((open_time[t] - monday) % week) / week)
        sine[t], cosine[t] = math.sin(angle), math.cos(angle)
    return sine, cosine


@njit(cache=True)
def mean_of_others(returns: Floats) -> Floats:
    """Mean over the other assets that have a value, row by row. `[T, A]` → `[T, A]`; NaN where there is no other."""
    out = np.full(returns.shape, np.nan)
    rows, assets = returns.shape
    for t in range(rows):
        for a in range(assets):
            total, count = 0.0, 0
            for b in range(assets):
                if b != a and np.isfinite(returns[t, b]):
                    total += returns[t, b]
                    count += 1
            if count > 0:
                out[t, a] = total / count
    return out


@njit(cache=True)
def centred_ranks(values: Floats) -> Floats:
    """Rank among the assets that have a value, −1 lowest to 1 highest, ties sharing the middle. `[T, A]` → `[T, A]`; NaN below two."""
    out = np.full(values.shape, np.nan)
    rows, assets = values.shape
    for t in range(rows):
        for a in range(assets):
            if not np.isfinite(values[t, a]):
                continue
            balance, others = 0, 0
            for b in range(assets):
                if b != a and np.isfinite(values[t, b]):
                    others += 1
                    if values[t, b] < values[t, a]:
                        balance += 1
                    elif values[t, b] > values[t, a]:
                        balance -= 1
            if others > 0:
                out[t, a] = balance / others
    return out
