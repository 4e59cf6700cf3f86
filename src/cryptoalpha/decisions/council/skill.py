"""Who has earned a say: the out-of-sample skill of each member, paired, forgetting, and shrunk towards equal shares.

Every member keeps a book of its own on paper: the targets it named, held from the close of the bar it named them on, drifting with
prices, traded only where the target left the no-trade band, charged per unit traded. After `horizon_bars` the log growth of each book is
one outcome. An outcome is known when its last price is; nothing in it was known to the member when it decided.

With `g` the outcomes and `d_k = g_k − mean_j g_j` the paired differences, means and variances forget exponentially and
`t_k = mean(d_k) / se(d_k)`. A share is `∝ exp(z_k)`, `z_k = t_k · max(0, 1 − floor / t_k²)` (the non-negative garrote, Breiman 1995): a
difference that noise explains is no difference at all, so without evidence the prior stands, and the prior is equal shares, which is hard
to beat out of sample (DeMiguel, Garlappi & Uppal 2009). A member whose own growth lies below zero by more than √loss_floor standard errors
gets nothing; where that holds of all, the prior stands: whether to trade at all is for the members and the risk gate to say.

Departures: books are marked at closes, not filled at the next open, and members are compared by growth as they sized themselves, not per
unit of risk: what a share buys is a member's book, leverage included.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cryptoalpha.decisions.council.config import CouncilConfig
from cryptoalpha.store.tables import Floats

RUIN = -0.99
"""Least return of a paper book in one bar: its logarithm must exist."""


class PaperBook:
    """What a member would hold and earn. Weights are signed fractions of its own equity.

    Args:
        cost: paid per unit traded, fraction of notional.
        band: changes of a weight smaller than this are not traded, closing excepted.
    """

    def __init__(self, *, cost: float, band: float) -> None:
        self._cost, self._band = cost, band
        self._held: dict[str, float] = {}
        self.growth = 0.0
        """Log growth since it was last taken."""

    def mark(self, returns: Mapping[str, float]) -> None:
        """Earn the simple return of each instrument that has one; the others stand still."""
        earned = 0.0
        for name, change in returns.items():
            earned += self._held.get(name, 0.0) * change
        earned = max(earned, RUIN)
        self.growth += float(np.log1p(earned))
        for name, weight in self._held.items():
            self._held[name] = weight * (1.0 + returns.get(name, 0.0)) / (1.0 + earned)

    def trade(self, targets: Mapping[str, float]) -> None:
        """Move to the targets of the instruments named, and pay for it."""
        traded = 0.0
        for name, target in targets.items():
            change = abs(target - self._held.get(name, 0.0))
            if change > self._band or (target == 0.0 and change > 0.0):
                traded += change
                self._held[name] = target
        self.growth += float(np.log1p(max(-self._cost * traded, RUIN)))

    def take_growth(self) -> float:
        """Log growth since the last call."""
        growth, self.growth = self.growth, 0.0
        return growth


class Skill:
    """Shares of `members` members, learned from the outcomes of their paper books. Shares are `[K]`, ≥ 0, and sum to 1."""

    def __init__(self, members: int, config: CouncilConfig) -> None:
        self._config = config
        self._forget = 0.5 ** (1.0 / config.half_life_outcomes)
        self._weight = self._weight_squared = 0.0
        self._own: Floats = np.zeros((2, members))  # weighted sums of outcomes and of their squares
        self._paired: Floats = np.zeros((2, members))
        self.outcomes = 0
        self.shares: Floats = np.full(members, 1.0 / members)

    def learn(self, growth: Floats) -> None:
        """Take in one outcome of every member, `[K]`, and set the shares anew."""
        paired = growth - growth.mean()
        self._weight = self._forget * self._weight + 1.0
        self._weight_squared = self._forget**2 * self._weight_squared + 1.0
        self._own = self._forget * self._own + np.stack([growth, growth**2])
        self._paired = self._forget * self._paired + np.stack([paired, paired**2])
        self.outcomes += 1
        if self.outcomes >= self._config.least_outcomes:
            self.shares = self._shares()

    def paired_t(self) -> Floats:
        """t statistic of each member's growth against the mean of all, `[K]`; 0 where nothing varied."""
        return self._t(self._paired)

    def own_t(self) -> Floats:
        """t statistic of each member's own growth, `[K]`; 0 where nothing varied."""
        return self._t(self._own)

    def _t(self, sums: Floats) -> Floats:
        mean = sums[0] / self._weight
        effective = self._weight**2 / self._weight_squared
        spread = np.maximum(sums[1] / self._weight - mean**2, 0.0) * effective / max(effective - 1.0, 1.0)
        error = np.sqrt(spread / effective)
        found: Floats = np.where(error > 1e-12, mean / np.where(error > 1e-12, error, 1.0), 0.0)
        return found

    def _shares(self) -> Floats:
        floor = self._config.noise_floor
        t = self.paired_t()
        square = t**2
        kept = np.where(square > floor, 1.0 - floor / np.where(square > 0.0, square, 1.0), 0.0)
        score = kept * t
        raw: Floats = np.exp(score - score.max())
        is_bad = (own := self.own_t()) < 0.0
        is_bad &= own**2 > self._config.loss_floor
        if is_bad.all():
            return np.full(len(t), 1.0 / len(t))
        raw[is_bad] = 0.0
        return np.asarray(raw / raw.sum())
