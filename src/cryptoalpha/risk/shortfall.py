"""How far a linear book may grow before its expected shortfall over equally likely scenarios is too large.

The shortfall is that of `tail.losses.tail_of_losses`: the mean of the worst `(1 − α) n` scenarios, the one on the edge counting in part
(Rockafellar & Uryasev, 2000). As a maximum over weights of scenarios it is convex in the book.
"""

from __future__ import annotations

import math

import numpy as np

from cryptoalpha.risk.market_memory import Floats
from cryptoalpha.risk.tail.losses import order_statistic

ROUNDING = 1e-12
"""Relative slack that is given up so that rounding cannot exceed the limit."""


def largest_growth(standing: Floats, growth: Floats, level: float, limit: float) -> float:
    """The largest f in [0, 1] with `ES(standing + f · growth) ≤ limit`; 0 where even f = 0 breaks it.

    Args:
        standing: loss of what stands, `[S]`.
        growth: further loss of all that is to be added, `[S]`, ≥ 0, so that the shortfall never falls as f grows.

    Exact: Newton's method from f = 1 on a function that is convex and piecewise linear. Every tangent lies below it, so each step stays on
    the right of the root, and it ends after as many steps as pieces are crossed (three or four here).
    """
    f = 1.0
    for _ in range(len(standing) + 2):
        value, slope = _value_and_slope(standing, growth, f, level)
        if not value + slope < math.inf:  # no number: nothing is allowed
            return 0.0
        if value <= limit * (1.0 + ROUNDING):
            break
        following = f - (value - limit) / slope if slope > 0.0 else -1.0
        if following <= 0.0:
            return 0.0
        if following >= f:  # no longer told apart by rounding
            break
        f = following
    return f


def _value_and_slope(standing: Floats, growth: Floats, f: float, level: float) -> tuple[float, float]:
    """Shortfall at f and its slope there: the growth's mean over the same worst scenarios."""
    losses = standing + f * growth
    order = np.argsort(losses, kind="stable")
    edge, count = order_statistic(len(losses), level), len(losses)
    worst = order[edge + 1 :]
    whole = 1.0 / (count * (1.0 - level))
    part = 1.0 - whole * len(worst)
    value = part * losses[order[edge]] + whole * np.sum(losses[worst])
    slope = part * growth[order[edge]] + whole * np.sum(growth[worst])
    return float(value), float(slope)
