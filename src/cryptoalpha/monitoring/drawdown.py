"""How far and how long equity lay below its peak.

Pure functions; depths are positive fractions, so `0.2` reads "twenty percent below the peak". Initial wealth counts as a peak: a series
that only falls has a drawdown from its first return on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.ratios import NAN, cagr


@dataclass(frozen=True)
class Drawdown:
    """The deepest fall below a peak. Places count returns: 0 is the start, `k` lies after the k-th return."""

    depth: float
    """Largest loss from a peak, 0–1 (above 1 only if wealth fell below zero)."""
    peak: int
    """Place of the peak before the deepest point."""
    trough: int
    """Place of the deepest point; equals `peak` where equity never fell."""
    recovery: int | None
    """First place at which the peak was reached again; None while it was not."""
    longest_underwater: int
    """Most periods in a row spent below the running peak, anywhere in the series."""


def wealth(returns: ArrayLike) -> Floats:
    """Growth of 1: `[1, 1 + r1, (1 + r1)(1 + r2), …]`, shape `[n + 1]`."""
    return np.concatenate(([1.0], np.cumprod(1.0 + checked_returns(returns))))


def drawdown_curve(returns: ArrayLike) -> Floats:
    """Loss from the running peak after each return, the start included: shape `[n + 1]`, first value 0."""
    w = wealth(returns)
    return 1.0 - w / np.maximum.accumulate(w)


def max_drawdown(returns: ArrayLike) -> Drawdown:
    """The deepest drawdown of a return series; depth 0 where it never fell (and where it is empty).

    Once wealth falls below zero the depth exceeds 1; rolling and streaming drawdowns, which have no place to say so, are NaN then.
    """
    w = wealth(returns)
    peaks = np.maximum.accumulate(w)
    below = w < peaks
    depth = 1.0 - w / peaks
    trough = int(np.argmax(depth))
    peak = int(np.argmax(w[: trough + 1]))
    healed = np.flatnonzero(w[trough:] >= w[peak])
    edges = np.flatnonzero(~below)  # the start is never under water, so gaps between these are the runs below the peak
    longest = int(np.max(np.diff(np.append(edges, below.size)))) - 1
    recovery = trough + int(healed[0]) if healed.size else None
    return Drawdown(float(depth[trough]), peak, trough, recovery, longest)


def calmar_ratio(returns: ArrayLike, *, periods_per_year: float) -> float:
    """CAGR over the depth of the deepest drawdown; NaN where equity never fell or the CAGR is undefined."""
    depth = max_drawdown(returns).depth
    return cagr(returns, periods_per_year=periods_per_year) / depth if depth > 0.0 else NAN
