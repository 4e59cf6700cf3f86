"""What a regime is told from: ten features of trend and ten of volatility, per instrument, in calendar days.

Every trend feature rises when prices rise, every volatility feature when markets grow stormier, so that states can be named by their means.
Returns are measured in σ, the volatility of half-life 10 days; volatility is measured against σ₃₀, the usual level of the instrument: the
exponential mean, half-life 30 days, of the daily mean squared returns of the days that are over. So instruments share one model.

The table, as `REGIME_FEATURES` has it (r: return of one slow row, of an hour or longer; n: its rows in so many days):

| # | name | formula |
|---|---|---|
| 1–5 | `return_1d` `_3d` `_7d` `_14d` `_28d` | ln(close / close k days before) / (σ √rows) |
| 6–7 | `ema_distance_8d` `_32d` | (ln close − EMA of ln close) / (½ σ √span) |
| 8 | `slope_7d` | t of the least-squares slope of ln close over 7 days / √n |
| 9 | `place_28d` | place of ln close between its lowest and highest of 28 days, −1 to 1 |
| 10 | `efficiency_7d` | √n Σ r / Σ abs(r) over 7 days |
| 11–14 | `volatility_12h` `_36h` `_5d` `_15d` | ln of exponential volatility of that half-life / σ₃₀ |
| 15–16 | `range_1d` `_5d` | ln of Parkinson's volatility of highs and lows / σ₃₀ |
| 17 | `absolute_3d` | ln(√(π/2) · mean abs(r) over 3 days / σ₃₀) |
| 18 | `unrest_5d` | standard deviation over 5 days of feature 11 |
| 19 | `largest_1d` | ln(largest abs(r) of a day / σ₃₀) |
| 20 | `span_7d` | ln((highest − lowest ln close of 7 days) / (σ₃₀ √n)) |

Row t depends on bars up to t and on at most `features_reach` rows before it, bit for bit; NaN where history is short.

Sources: Parkinson (1980); Kaufman (1995) for efficiency. The windows are design choices, untuned.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.signals.frame import Frame, rows_in, slow_step
from cryptoalpha.signals.price_bars import LONGEST_GAP
from cryptoalpha.signals.rolling import (
    CUTOFF_HALF_LIVES,
    MINIMUM_SHARE,
    flat_weights,
    half_life_weights,
    last_before,
    logarithm,
    mean_and_deviation,
    ratio,
    rolling_maximum,
    slope_t,
    span_weights,
    weighted_mean,
)
from cryptoalpha.store.tables import Floats

USUAL_HALF_LIFE_DAYS = 30.0
"""Half-life in days of σ₃₀."""

USUAL_GAP_DAYS = 3
"""Days without a usable day over which the last σ₃₀ still counts."""

UNREST_DAYS = 5
"""Days over which `unrest_5d` looks at feature 11, which therefore is needed that much earlier."""

RANGE_DAYS = (1, 5)
"""Days over which highs and lows are looked at, the longest last."""

_SIGMAS, _OHLC = "standard deviations", ("ohlc",)

TREND_FEATURES: tuple[FeatureSpec, ...] = (
    *(FeatureSpec(f"return_{k}d", "trend", f"ln(close / close {k} days before) / (σ √rows)", _SIGMAS, _OHLC) for k in (1, 3, 7, 14, 28)),
    *(FeatureSpec(f"ema_distance_{k}d", "trend", f"(ln close − EMA {k} days) / (½ σ √span)", _SIGMAS, _OHLC) for k in (8, 32)),
    FeatureSpec("slope_7d", "trend", "t of the least-squares slope of ln close over 7 days / √n; 0 when flat", "t value", _OHLC),
    FeatureSpec("place_28d", "trend", "place of ln close between lowest and highest of 28 days; 0 when flat", "−1 to 1", _OHLC),
    FeatureSpec("efficiency_7d", "trend", "√n Σ r / Σ |r| over 7 days; 0 when flat", _SIGMAS, _OHLC),
)

VOLATILITY_FEATURES: tuple[FeatureSpec, ...] = (
    *(
        FeatureSpec(f"volatility_{name}", "volatility", f"ln(exponential volatility, half-life {name} / σ₃₀)", "ln units", _OHLC)
        for name in ("12h", "36h", "5d", "15d")
    ),
    *(FeatureSpec(f"range_{k}d", "volatility", f"ln(Parkinson's volatility of {k} days / σ₃₀)", "ln units", _OHLC) for k in RANGE_DAYS),
    FeatureSpec("absolute_3d", "volatility", "ln(√(π/2) · mean |r| of 3 days / σ₃₀)", "ln units", _OHLC),
    FeatureSpec("unrest_5d", "volatility", "standard deviation over 5 days of volatility_12h", "ln units", _OHLC),
    FeatureSpec("largest_1d", "volatility", "ln(largest |r| of a day / σ₃₀)", "ln units", _OHLC),
    FeatureSpec("span_7d", "volatility", "ln((highest − lowest ln close of 7 days) / (σ₃₀ √n))", "ln units", _OHLC),
)

REGIME_FEATURES = (*TREND_FEATURES, *VOLATILITY_FEATURES)
"""The 20 features in the order of the last axis of `regime_features`."""

TREND, VOLATILITY = slice(0, len(TREND_FEATURES)), slice(len(TREND_FEATURES), len(REGIME_FEATURES))
"""Where each axis' features stand."""


def features_reach(interval: int) -> int:
    """Rows before t, for bars of `interval` ns, beyond which nothing can change the features of t."""
    days = CUTOFF_HALF_LIVES * USUAL_HALF_LIFE_DAYS + USUAL_GAP_DAYS + 2  # a day for the one that is not over, one for its bounds
    return rows_in(days, interval) + (LONGEST_GAP + 2) * slow_step(interval)


def regime_features(frame: Frame) -> Floats:
    """The features of every row from `frame.first` on, NaN before. `[T, A, 20]`; NaN where masked, never infinite."""
    values = np.full((*frame.shape, len(REGIME_FEATURES)), np.nan)
    values[frame.first :] = newest_features(frame)
    return values


def newest_features(frame: Frame) -> Floats:
    """The same without the rows before `frame.first`: a live bar asks for one of thousands. `[T − first, A, 20]`."""
    columns = []
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # absurd bars overflow here and are masked below
        earlier = frame.beginning(max(0, frame.first - rows_in(UNREST_DAYS + 1, frame.panel.interval) - slow_step(frame.panel.interval)))
        fast = [earlier.slow_volatility(0.5), *(frame.slow_volatility(half_life) for half_life in (1.5, 5.0, 15.0))]
        spans = _slow_spans(frame)
        for a in range(len(frame.panel.instruments)):
            close, unit = frame.slow_log_close[a], frame.slow_unit_return[a]
            trend = _trend(frame, close, frame.slow_sigma[a])
            columns.append((*trend, *_volatility(frame, close, unit, spans[a], [speed[a] for speed in fast])))
    place = np.searchsorted(frame.slow_rows, np.arange(frame.first, len(frame.panel)), side="right") - 1  # the newest slow row known
    values = np.empty((len(place), len(columns), len(REGIME_FEATURES)))
    for a, own in enumerate(columns):
        for f, column in enumerate(own):
            values[:, a, f] = np.where(place >= 0, column[np.maximum(place, 0)], np.nan) if column.size else np.nan
    values[~np.isfinite(values)] = np.nan
    values[~frame.usable[frame.first :]] = np.nan
    return values


def _rows(frame: Frame, days: float) -> int:
    """Rows of the slow grid in so many days."""
    return max(1, round(days * DAY / frame.slow_interval))


def _tail(frame: Frame, column: Floats, window: int) -> tuple[int, Floats]:
    """Where the windows that somebody looks at begin, and the column from there."""
    begin = max(0, frame.slow_first - window)
    return begin, np.ascontiguousarray(column[begin:])


def _padded(begin: int, tail: Floats) -> Floats:
    return np.concatenate((np.full(begin, np.nan), tail))


def _highest_and_lowest(frame: Frame, close: Floats, days: float) -> tuple[Floats, Floats]:
    window = _rows(frame, days)
    begin, tail = _tail(frame, close, window)
    return _padded(begin, rolling_maximum(tail, window)), _padded(begin, -rolling_maximum(-tail, window))


def _trend(frame: Frame, close: Floats, sigma: Floats) -> tuple[Floats, ...]:
    """Features 1–10, on the slow grid. `[S]` each."""
    returns, start = [], max(0, frame.slow_first - _rows(frame, 28) - LONGEST_GAP)
    late = np.ascontiguousarray(close[start:])
    for days in (1, 3, 7, 14, 28):
        before, age = last_before(late, _rows(frame, days), LONGEST_GAP)
        returns.append(_padded(start, (late - before) / np.sqrt(age) / sigma[start:]))
    distances = []
    for days in (8, 32):
        span = max(2.0, days * DAY / frame.slow_interval)
        distances.append((close - frame.slow_mean(close, span_weights(span))) / (sigma * (0.5 * math.sqrt(span))))
    week = _rows(frame, 7)
    begin, tail = _tail(frame, close, week)
    slope = _padded(begin, slope_t(tail, week)) / math.sqrt(week)
    highest, lowest = _highest_and_lowest(frame, close, 28)
    place = ratio(2.0 * (close - lowest), highest - lowest, flat=1.0) - 1.0
    step = close - last_before(close, 1, LONGEST_GAP)[0]
    path = frame.slow_mean(np.abs(step), flat_weights(week))
    efficiency = math.sqrt(week) * ratio(frame.slow_mean(step, flat_weights(week)), path, flat=0.0)
    return (*returns, *distances, slope, place, efficiency)


def _volatility(frame: Frame, close: Floats, unit: Floats, span: Floats, fast: list[Floats]) -> tuple[Floats, ...]:
    """Features 11–20, on the slow grid. `[S]` each."""
    usual = logarithm(usual_volatility(frame, unit))
    logs = [logarithm(speed) - usual for speed in fast]
    ranges = []
    for days in RANGE_DAYS:
        square = frame.slow_mean(span * span / (4.0 * math.log(2.0)), flat_weights(_rows(frame, days)))
        ranges.append(0.5 * logarithm(square) - usual)
    size = np.abs(unit)
    absolute = logarithm(math.sqrt(math.pi / 2.0) * frame.slow_mean(size, flat_weights(_rows(frame, 3)))) - usual
    window = max(2, _rows(frame, UNREST_DAYS))
    begin, tail = _tail(frame, logarithm(fast[0]), window)
    unrest = _padded(begin, mean_and_deviation(tail, window)[1])
    begin, tail = _tail(frame, size, _rows(frame, 1))
    largest = logarithm(_padded(begin, rolling_maximum(tail, _rows(frame, 1)))) - usual
    highest, lowest = _highest_and_lowest(frame, close, 7)
    wide = logarithm((highest - lowest) / math.sqrt(_rows(frame, 7))) - usual
    return (*logs, *ranges, absolute, unrest, largest, wide)


def usual_volatility(frame: Frame, unit: Floats) -> Floats:
    """σ₃₀ per row of the slow grid: what was usual on the days that were over. `[S]` → `[S]`.

    By whole days, so that nine months of memory cost nothing; a day counts if four fifths of its rows have a return.
    """
    ends = (frame.panel.open_time + frame.panel.interval)[frame.slow_rows]
    if not ends.size:
        return np.empty(0)
    day = (ends - 1) // DAY - (ends[0] - 1) // DAY
    squares = _daily_mean(unit * unit, day, max(1.0, MINIMUM_SHARE * DAY / frame.slow_interval))
    mean = weighted_mean(squares, half_life_weights(USUAL_HALF_LIFE_DAYS))
    newest = np.sqrt(last_before(mean, 0, USUAL_GAP_DAYS)[0])
    over = np.where(ends % DAY == 0, day, day - 1)  # the last day that is over at this row, −1 before the first
    return np.where(over >= 0, newest[np.maximum(over, 0)], np.nan)


@njit(cache=True)
def _daily_mean(x: Floats, day: npt.NDArray[np.int64], needed: float) -> Floats:
    """Mean of the finite values of each day, NaN below `needed` of them. `[S]`, `[S]` rising from 0 → `[D]`."""
    days = day[-1] + 1
    total, count = np.zeros(days), np.zeros(days)
    for s in range(x.size):
        if np.isfinite(x[s]):
            total[day[s]] += x[s]
            count[day[s]] += 1.0
    out = np.full(days, np.nan)
    for d in range(days):
        if count[d] > 0.0 and count[d] >= needed - 1e-9:
            out[d] = total[d] / count[d]
    return out


def _slow_spans(frame: Frame) -> tuple[Floats, ...]:
    """ln(high / low) of each row of the slow grid that the ranges look at, NaN before; wicks bounded. `[S]` each."""
    step, seen = slow_step(frame.panel.interval), max(0, frame.slow_first - _rows(frame, RANGE_DAYS[-1]))
    first = max(0, int(frame.slow_rows[seen]) - step + 1) if seen < len(frame.slow_rows) else 0
    spans = []
    for bars in frame.bars:
        high, low = bars.bounded(first)
        spans.append(logarithm(_largest_in_bucket(high, frame.slow_rows, step) / -_largest_in_bucket(-low, frame.slow_rows, step)))
    return tuple(spans)


@njit(cache=True)
def _largest_in_bucket(x: Floats, ends: npt.NDArray[np.int64], step: int) -> Floats:
    """The largest finite value among the `step` rows that end at each of `ends`. `[T]`, `[m]` → `[m]`."""
    out = np.full(ends.size, np.nan)
    for k in range(ends.size):
        for t in range(max(0, ends[k] - step + 1), ends[k] + 1):
            if np.isfinite(x[t]) and not out[k] >= x[t]:
                out[k] = x[t]
    return out
