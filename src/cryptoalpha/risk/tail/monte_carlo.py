"""Monte Carlo value at risk over a covariance model.

A linear book is projected first: its return is one number with variance `w'Cw`, so one column is drawn instead of A (700 times less work
for 1,000 instruments). What is not linear, such as an option, is revalued on full draws.

Source: Glasserman (2003), "Monte Carlo methods in financial engineering", ch. 9.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.risk.tail.components import checked_book, variance_of
from cryptoalpha.risk.tail.estimate import TailRisk
from cryptoalpha.risk.tail.losses import Floats, checked_level, tail_of_losses, why_beyond

SCENARIOS = 100_000


def monte_carlo_tail(
    weights: ArrayLike,
    covariance: ArrayLike,
    *,
    level: float = 0.99,
    mean: ArrayLike | None = None,
    degrees: float | None = None,
    horizon: int = 1,
    scenarios: int = SCENARIOS,
    seed: int = 0,
) -> TailRisk:
    """VaR and ES of a linear book.

    Args:
        weights: `[A]`, signed fractions of equity.
        covariance: `[A, A]` of one period's returns.
        mean: `[A]` of one period; zero unless given.
        degrees: of the multivariate Student law (> 2), scaled to `covariance`; normal unless given.
        horizon: periods, independent, weights kept; returns are added up.
        scenarios: draws (≥ 1); what so few cannot tell of this level is NaN with a reason.

    Raises:
        DataError: if shapes disagree, something is not finite, or the book's variance is negative.
        ConfigError: for degrees of 2 or fewer, a level outside (0, 1), or fewer than one scenario or period.
    """
    checked_level(level)
    if not isinstance(scenarios, int | np.integer) or not isinstance(horizon, int | np.integer) or scenarios < 1 or horizon < 1:
        raise ConfigError(f"scenarios {scenarios} and horizon {horizon}: expected whole numbers of at least 1")
    w, c, mu = checked_book(weights, covariance, mean)
    spread = math.sqrt(variance_of(w, c))
    drift = float(np.sum(w * mu))
    rng = stream(seed, "risk", "tail", "monte_carlo")
    total = np.zeros(scenarios)
    for _ in range(horizon):
        total += _shocks(rng, (scenarios, 1), degrees)[:, 0]
    reason = why_beyond(scenarios, level)
    var, es = (math.nan, math.nan) if reason else tail_of_losses(-(drift * horizon + spread * total), level)
    return TailRisk(var, es, level, horizon, "monte_carlo", reason)


def correlated_returns(
    covariance: ArrayLike, count: int, *, mean: ArrayLike | None = None, degrees: float | None = None, seed: int = 0
) -> Floats:
    """Draws `[count, A]` of normal or Student returns with this covariance, for what has to be revalued instrument by instrument.

    A covariance that is not quite positive is used without its negative part.

    Raises:
        DataError, ConfigError: as `monte_carlo_tail`.
    """
    if not isinstance(count, int | np.integer) or count < 0:
        raise ConfigError(f"count is {count}, expected a whole number of 0 or more")
    matrix = np.asarray(covariance, dtype=np.float64)
    _, c, mu = checked_book(np.zeros(len(matrix)), matrix, mean)
    values, vectors = np.linalg.eigh(c)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    shocks = _shocks(stream(seed, "risk", "tail", "correlated"), (count, len(c)), degrees)
    return np.asarray(mu + shocks @ root.T)


def _shocks(rng: np.random.Generator, shape: tuple[int, int], degrees: float | None) -> Floats:
    """Standardised shocks; a row shares one draw of the Student law's variance."""
    drawn = rng.standard_normal(shape)
    if degrees is None:
        return drawn
    if not degrees > 2.0:
        raise ConfigError(f"degrees is {degrees}, expected more than 2", hint="with fewer the Student law has no variance")
    return np.asarray(drawn * np.sqrt((degrees - 2.0) / rng.chisquare(degrees, (shape[0], 1))))
