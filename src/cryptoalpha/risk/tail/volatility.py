"""The variance expected of each day from the days before it, by exponential weights, and simulated paths of it.

Source: J. P. Morgan, RiskMetrics (1996). Departure: it starts from the mean of the first 20 squares, not from one.
"""

from __future__ import annotations

import math

import numpy as np

from cryptoalpha.risk.tail.losses import Floats

DECAY = 0.94
START = 20


def ewma_variances(returns: Floats, decay: float = DECAY, start: int = START) -> Floats:
    """`v [n + 1]` of returns `[n]`: `v[t]` is the variance expected of day t, `v[n]` that of the next; NaN with fewer than `start` returns.

    `v' = decay v + (1 − decay) r²`, means being taken as zero. From `v[start]` on a value depends on earlier returns only; the first ones
    are the mean of the first `start` squares, rescaled days rather than forecasts.
    """
    variances = np.empty(len(returns) + 1)
    if len(returns) < start:
        variances.fill(math.nan)
        return variances
    variance = float(np.mean(np.square(returns[:start])))
    variances[0] = variance
    for day, square in enumerate(np.square(returns).tolist(), start=1):
        variance = decay * variance + (1.0 - decay) * square
        variances[day] = variance
    return variances


def simulated_paths(scores: Floats, variance: float, *, omega: float, reaction: float, memory: float, mean: float = 0.0) -> Floats:
    """Compounded simple returns `[P]` of paths driven by standardised shocks `scores [P, H]`.

    A day's return is `mean + √h z`, and `h' = omega + reaction (√h z)² + memory h` from `variance`. No day loses more than everything.
    """
    wealth, h = np.ones(len(scores)), np.full(len(scores), variance)
    for day in range(scores.shape[1]):
        shock = np.sqrt(h) * scores[:, day]
        wealth *= np.maximum(1.0 + mean + shock, 0.0)
        h = omega + reaction * shock * shock + memory * h
    return np.asarray(wealth - 1.0)
