"""Which position brings the risk: component, marginal and incremental VaR of a linear book, and the same of expected shortfall.

Weights are signed fractions of equity; losses are positive fractions of it. Components sum to the whole (Euler's theorem for functions that
grow in proportion). A negative component is a hedge: an explanation of the book as it is, never a licence to enlarge another position.

Sources: Garman (1996), "Improving on VaR"; Tasche (1999), "Risk contributions and performance measurement".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.monitoring.daily import checked_returns
from cryptoalpha.risk.tail.laws import normal_factors, normal_tail
from cryptoalpha.risk.tail.losses import Floats, checked_level, order_statistic


@dataclass(frozen=True, eq=False)
class Components:
    """Value at risk of a book and what each position adds to it.

    Shapes: `marginal [A]` is the derivative by each weight, `component [A]` weight × marginal, with the sum `value_at_risk`; `incremental
    [A]` is what the value at risk falls by when the position is closed. `shortfall_component [A]` sums to the expected shortfall.
    """

    value_at_risk: float
    expected_shortfall: float
    marginal: Floats
    component: Floats
    incremental: Floats
    shortfall_component: Floats


def component_var(weights: ArrayLike, covariance: ArrayLike, *, level: float = 0.99, mean: ArrayLike | None = None) -> Components:
    """Normal value at risk of a book by position: `w_i (z (Cw)_i / σ − μ_i)`.

    Args:
        weights: `[A]`.
        covariance: `[A, A]` of returns over the horizon that is asked for.
        mean: `[A]`, expected returns; zero unless given.

    Raises:
        DataError: if shapes disagree, something is not finite, or the variance of the book is negative.
    """
    w, c, mu = checked_book(weights, covariance, mean)
    var_factor, es_factor = normal_factors(level)
    pull = _times(c, w)
    spread = math.sqrt(variance_of(w, c, pull))
    slope = pull / spread if spread > 0.0 else np.zeros_like(w)
    marginal = var_factor * slope - mu
    var, es = normal_tail(float(np.sum(w * mu)), spread, level)
    incremental = np.empty_like(w)
    for place in range(w.size):
        without = w.copy()
        without[place] = 0.0
        rest = math.sqrt(variance_of(without, c))
        incremental[place] = var - normal_tail(float(np.sum(without * mu)), rest, level)[0]
    return Components(var, es, marginal, w * marginal, incremental, w * (es_factor * slope - mu))


def incremental_var(
    weights: ArrayLike, change: ArrayLike, covariance: ArrayLike, *, level: float = 0.99, mean: ArrayLike | None = None
) -> float:
    """By how much the normal value at risk of the book rises when `change [A]` is added to its weights: exact, not the derivative.

    Raises:
        DataError: as `component_var`, and for a change of another shape.
    """
    w, c, mu = checked_book(weights, covariance, mean)
    added = checked_returns(change, name="change")
    if added.shape != w.shape:
        raise DataError(f"a change of {added.size} weights for a book of {w.size}", hint="pass one for each, 0 where nothing changes")
    after = w + added
    var_after, var_before = (normal_tail(float(np.sum(book * mu)), math.sqrt(variance_of(book, c)), level)[0] for book in (after, w))
    return var_after - var_before


def scenario_components(weights: ArrayLike, scenarios: Floats, *, level: float = 0.99) -> Components:
    """The same of equally likely `scenarios [S, A]` of simple returns: components are the positions' losses in the days of the tail.

    The value at risk is one day's loss, so its marginal and components are that day's; those of the expected shortfall are means over the
    tail, the day at its edge counting with its share.
    """
    checked_level(level)
    w = checked_returns(weights, name="weights")
    if scenarios.ndim != 2 or scenarios.shape[1] != w.size or not len(scenarios) or not bool(np.isfinite(scenarios).all()):
        raise DataError(f"scenarios have shape {scenarios.shape} for {w.size} weights", hint="pass finite returns `[S, A]`, a row per day")
    parts = -scenarios * w  # [S, A]
    losses = np.sum(parts, axis=1)
    order = np.argsort(losses, kind="stable")
    place = order_statistic(len(losses), level)
    shares = np.zeros(len(losses))  # of each ordered day in the tail
    shares[place + 1 :] = 1.0 / (len(losses) * (1.0 - level))
    shares[place] = 1.0 - shares[place + 1 :].sum()
    tail = np.sum(parts[order] * shares[:, None], axis=0)
    edge = order[place]
    var = float(losses[edge])
    incremental = np.array([var - float(np.partition(losses - parts[:, column], place)[place]) for column in range(w.size)])
    return Components(var, float(tail.sum()), -scenarios[edge], parts[edge], incremental, tail)


def checked_book(weights: ArrayLike, covariance: ArrayLike, mean: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Weights `[A]`, covariance `[A, A]` and mean `[A]` (zero unless given) as finite arrays of shapes that agree.

    Raises:
        DataError: if they are not.
    """
    w = checked_returns(weights, name="weights")
    c = np.asarray(covariance, dtype=np.float64)
    mu = np.zeros(w.size) if mean is None else checked_returns(mean, name="mean")
    if c.shape != (w.size, w.size) or mu.shape != w.shape or not bool(np.isfinite(c).all()):
        raise DataError(
            f"covariance has shape {c.shape} and mean {mu.shape} for {w.size} weights", hint="pass finite `[A, A]` and `[A]` in one order"
        )
    return w, c, mu


def _times(c: Floats, w: Floats) -> Floats:
    """`C w`, its last bits independent of threads."""
    return np.asarray(np.sum(c * w, axis=1))


def variance_of(w: Floats, c: Floats, pull: Floats | None = None) -> float:
    """Variance `w'Cw` of a book; `pull` is `Cw` where known already.

    Raises:
        DataError: if it is negative beyond rounding.
    """
    pull = _times(c, w) if pull is None else pull
    variance = float(np.sum(w * pull))
    if variance < -1e-12 * float(np.sum(np.abs(w * pull))):
        raise DataError(f"the book's variance is {variance:.3g}", hint="the covariance is not positive semi-definite: repair or shrink it")
    return max(variance, 0.0)
