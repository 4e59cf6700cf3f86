"""What is known of two assets at a bar: how their returns went together, and which of them went first.

Over windows that end at the bar: correlation per window; over the longest window also the slope of i on j, the correlation of i with j one
bar earlier (j leads) and one bar later (i leads), and the share of bars that both have. Returns are `AssetBars.unit_return`: across a gap
with the variance of one bar.

Row t depends on the rows of its windows alone, each summed afresh from the newest row to the oldest: running sums would depend on where the
history starts. So a value is the same to the last bit from whatever row a frame begins, and later rows change nothing.

NaN where one of the two has no bar, where less than 80 % of a window is there, or where a return never varies.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.signals.rolling import MINIMUM_SHARE
from cryptoalpha.store.tables import Floats

Floats32 = npt.NDArray[np.float32]

_TOLERANCE = 1.0 - 1e-12


def pair_feature_names(windows: tuple[int, ...]) -> tuple[str, ...]:
    """The features in the order of the last axis of `pair_features`."""
    longest = max(windows)
    correlations = tuple(f"correlation_{window}" for window in windows)
    return (*correlations, f"beta_{longest}", f"follows_{longest}", f"leads_{longest}", f"overlap_{longest}")


def pair_features(returns: Floats, windows: tuple[int, ...], begin: int = 0) -> Floats32:
    """The features of every ordered pair at rows from `begin` on. Shapes: returns `[T, N]` → `[T − begin, N, N, F]`.

    The diagonal compares an asset with itself: correlation and slope 1, autocorrelation of one bar, share of its own bars.
    """
    rows, assets = returns.shape
    longest = max(windows)
    ordered = np.array(sorted(set(windows)), np.int64)
    place = np.searchsorted(ordered, np.array(windows))
    out = np.full((rows - begin, assets, assets, len(windows) + 4), np.nan, np.float32)
    before = np.full_like(returns, np.nan)
    before[1:] = returns[:-1]
    columns = [np.ascontiguousarray(returns[:, a]) for a in range(assets)]
    earlier = [np.ascontiguousarray(before[:, a]) for a in range(assets)]
    with np.errstate(over="ignore"):
        for i in range(assets):
            for j in range(assets):
                if i <= j:
                    correlation, slopes, share = windowed(columns[i], columns[j], ordered, begin)
                    out[:, i, j, : len(windows)] = out[:, j, i, : len(windows)] = correlation[:, place]
                    out[:, i, j, -4], out[:, j, i, -4] = slopes[:, 0], slopes[:, 1]
                    out[:, i, j, -1] = out[:, j, i, -1] = share
                lagged = windowed(columns[i], earlier[j], np.array([longest]), begin)[0][:, 0]
                out[:, i, j, -3] = out[:, j, i, -2] = lagged
    there = np.isfinite(returns[begin:])
    out[~(there[:, :, None] & there[:, None, :])] = np.nan
    out[~np.isfinite(out)] = np.nan
    return out


def trailing_correlation(returns: Floats, window: int) -> Floats:
    """Correlation of every pair over the rows t − window + 1 … t. `[T, N]` → `[T, N, N]`; the diagonal is NaN."""
    rows, assets = returns.shape
    out = np.full((rows, assets, assets), np.nan)
    for i in range(assets):
        for j in range(i + 1, assets):
            of = windowed(np.ascontiguousarray(returns[:, i]), np.ascontiguousarray(returns[:, j]), np.array([window]), 0)[0][:, 0]
            out[:, i, j] = out[:, j, i] = of
    return out


@njit(cache=True)
def windowed(y: Floats, x: Floats, windows: npt.NDArray[np.int64], begin: int) -> tuple[Floats, Floats, Floats]:
    """Moments of two series over windows that end at each row from `begin` on; `windows` ascending, all in one pass over the longest.

    Shapes: `[T]`, `[T]`, `[W]` → correlation `[T − begin, W]`; slope of y on x and of x on y `[T − begin, 2]` and share of rows that both
    have `[T − begin]`, over the longest window. The end row itself may be absent: that is the caller's to mask.

    Values enter as they are, not as differences from a mean: returns have means far below their deviation, so nothing cancels.
    """
    rows, count_of = y.size, windows.size
    correlation = np.full((rows - begin, count_of), np.nan)
    slopes = np.full((rows - begin, 2), np.nan)
    share = np.full(rows - begin, np.nan)
    first = max(0, begin - windows[count_of - 1] + 1)
    products = np.zeros((rows, 6))  # rows before `first` are nobody's
    for t in range(first, rows):
        if np.isfinite(x[t]) and np.isfinite(y[t]):
            products[t, 0], products[t, 1], products[t, 2] = 1.0, x[t], y[t]
            products[t, 3], products[t, 4], products[t, 5] = x[t] * x[t], y[t] * y[t], x[t] * y[t]
    for t in range(begin, rows):
        n = s_x = s_y = s_xx = s_yy = s_xy = 0.0
        newest = t
        for w in range(count_of):
            for j in range(newest, max(-1, t - windows[w]), -1):
                n += products[j, 0]
                s_x += products[j, 1]
                s_y += products[j, 2]
                s_xx += products[j, 3]
                s_yy += products[j, 4]
                s_xy += products[j, 5]
            newest = min(newest, max(-1, t - windows[w]))
            enough = n >= 3.0 and n >= MINIMUM_SHARE * windows[w] * _TOLERANCE
            if w == count_of - 1:
                share[t - begin] = n / windows[w]
            if not enough:
                continue
            c_xx, c_yy, c_xy = s_xx - s_x * s_x / n, s_yy - s_y * s_y / n, s_xy - s_x * s_y / n
            if c_xx > 0.0 and c_yy > 0.0:
                correlation[t - begin, w] = min(1.0, max(-1.0, c_xy / math.sqrt(c_xx * c_yy)))
                if w == count_of - 1:
                    slopes[t - begin, 0], slopes[t - begin, 1] = c_xy / c_xx, c_xy / c_yy
    return correlation, slopes, share
