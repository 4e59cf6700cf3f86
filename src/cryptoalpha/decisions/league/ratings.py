"""Who beats whom: pay-off matrix with standard errors, Elo from it, and what a best response would gain (exploitability).

Elo here is made of pay-offs, not of wins: over paired episodes a member's chance to earn more than another is w; the ratings r maximise the
likelihood of 1 / (1 + 10^((r_j − r_i)/400)) for the scores w_ij, each pair counted as `PAIR_GAMES` games plus one draw, so that a member
that always wins stays finite. Their mean is 1,500. Where everybody beats somebody (a cycle), all are equal: Elo sees no cycles, the
pay-off matrix does.

Source: Bradley & Terry (1952); Hunter (2004), "MM algorithms for generalized Bradley-Terry models", for the iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10, sqrt

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError

Matrix = NDArray[np.float64]

PAIR_GAMES = 100.0
"""Games that one pair's score stands for."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error; `low`, `high` at 95 % confidence (normal: episodes are independent)."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: NDArray[np.float64] | NDArray[np.int64]) -> Estimate:
        """From independent values.

        Raises:
            ConfigError: if there are fewer than two.
        """
        if len(values) < 2:
            raise ConfigError(f"{len(values)} episodes have no standard error, expected at least 2")
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) / sqrt(len(values)))

    @property
    def low(self) -> float:
        return self.mean - 1.96 * self.error

    @property
    def high(self) -> float:
        return self.mean + 1.96 * self.error


def elo(scores: Matrix, *, rounds: int = 10_000, tolerance: float = 1e-10) -> Matrix:
    """Ratings `[K]` from scores `[K, K]`, where `scores[i, j]` in 0–1 is how often i earned more than j (half for a draw) and
    `scores[j, i] = 1 − scores[i, j]`; the diagonal is not read.

    Raises:
        ConfigError: if the scores do not fit together.
    """
    count = len(scores)
    off = ~np.eye(count, dtype=np.bool_)
    if scores.shape != (count, count) or not np.allclose((scores + scores.T)[off], 1.0) or (scores[off] < 0.0).any():
        raise ConfigError("scores must be a square of shares whose pairs sum to 1")
    games = np.where(off, PAIR_GAMES + 1.0, 0.0)
    wins = np.where(off, PAIR_GAMES * scores + 0.5, 0.0).sum(axis=1)
    strength = np.ones(count)
    for _ in range(rounds if count > 1 else 0):
        following = wins / (games / (strength[:, None] + strength[None, :])).sum(axis=1)
        following /= np.exp(np.log(following).mean())
        done = float(np.abs(np.log(following / strength)).max()) < tolerance
        strength = following
        if done:
            break
    return np.array([1500.0 + 400.0 * log10(one) for one in strength])
