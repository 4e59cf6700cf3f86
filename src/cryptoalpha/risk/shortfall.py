"""Expected shortfall of a linear book over equally likely scenarios, and how far a book may grow before it is too large.

`ES_α(L) = VaR + mean(max(L − VaR, 0)) / (1 − α)` with VaR the ⌈αn⌉-th smallest loss (Rockafellar & Uryasev, 2000): the mean of the worst
`(1 − α) n` scenarios, the one on the edge counting in part. As a maximum over weights of scenarios it is convex in the book.
"""

from __future__ import annotations

import math

import numpy as np

from cryptoalpha.risk.market_memory import Floats

ROUNDING = 1e-12
"""Relative slack that is given up so that rounding cannot exceed the limit."""


def tail(losses: Floats, level: float) -> tuple[float, float]:
    """Value at risk and expected shortfall at `level` of losses `[S]`, losses positive; NaN, NaN without any."""
    if len(losses) == 0:
        return math.nan, math.nan
    ordered = np.sort(losses)
    at_risk = float(ordered[_edge(len(losses), level)])
    return at_risk, at_risk + float(np.mean(np.maximum(losses - at_risk, 0.0))) / (1.0 - level)


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
    edge, count = _edge(len(losses), level), len(losses)
    worst = order[edge + 1 :]
    whole = 1.0 / (count * (1.0 - level))
    part = 1.0 - whole * len(worst)
    value = part * losses[order[edge]] + whole * np.sum(losses[worst])
    slope = part * growth[order[edge]] + whole * np.sum(growth[worst])
    return float(value), float(slope)


def _edge(count: int, level: float) -> int:
    """Place of the value at risk among sorted losses."""
    return min(max(math.ceil(level * count - 1e-9) - 1, 0), count - 1)
