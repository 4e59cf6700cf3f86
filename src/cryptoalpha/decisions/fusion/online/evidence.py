"""Is the challenger better? A test that may be looked at after every lesson.

Decisions are judged in pairs: what the champion lost less what the challenger lost on the same decision. Neighbouring decisions share most
of their horizon, so they are averaged over blocks of one horizon, which hardly overlap; the mean of the blocks is compared with a lower
bound that holds at all times together, so that asking every week does not find by patience what is not there.

Lower bound of n blocks with mean m and standard deviation s (one-sided, confidence 1 − α):

    m − s·√(2 (n ρ² + 1)/(n² ρ²) · ln(1 + √(n ρ² + 1)/(2 α)))

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence sequences",
Annals of Statistics, one-sided boundary (appendix B). It is asymptotic: with fewer than `LEAST_BLOCKS` blocks nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError

LEAST_BLOCKS = 10
"""Blocks below which a normal bound is not believed."""

TIGHTEST_AT = 30
"""Number of blocks at which the bound is tightest: a month of days."""


@dataclass(frozen=True)
class Evidence:
    """What has been found out. `low`: lower bound of the mean advantage of the challenger, −∞ while there is too little."""

    decisions: int
    blocks: int
    mean: float
    low: float

    @property
    def is_better(self) -> bool:
        """Whether the challenger has proved better."""
        return self.low > 0.0

    def words(self) -> str:
        """In one line."""
        if not self.blocks:
            return "has no outcome to be compared on yet"
        lead = (
            f"is {'ahead of' if self.mean > 0.0 else 'behind'} the champion by {abs(self.mean):.4f}"
            if self.mean
            else "is level with the champion"
        )
        over = f"a decision over {self.decisions} decisions" if self.mean else f"over {self.decisions} decisions"
        if self.low == -math.inf:
            return f"{lead} {over}: too few to say whether that is chance"
        proof = "beyond chance" if self.is_better else "not beyond chance"
        return f"{lead} {over}, {proof} (at least {self.low:+.4f})"


class PairedTest:
    """Collects paired differences and says what they prove.

    Args:
        block: decisions of one block: the bars of one horizon.
        confidence: one-sided, above 0.5 and below 1.
        least: decisions below which nothing is claimed.

    Raises:
        ConfigError: for a block below 1 or another confidence.
    """

    def __init__(self, block: int, *, confidence: float, least: int = 0) -> None:
        if block < 1 or not 0.5 < confidence < 1.0:
            raise ConfigError(f"blocks of {block} decisions at confidence {confidence} prove nothing")
        self.block, self.confidence, self.least = block, confidence, least
        self._open: list[float] = []
        self._means: list[float] = []
        self._decisions = 0

    def add(self, differences: NDArray[np.float64]) -> None:
        """Differences in the order of time: what the champion lost less what the challenger lost."""
        self._decisions += len(differences)
        self._open.extend(differences.tolist())
        while len(self._open) >= self.block:
            self._means.append(float(np.mean(self._open[: self.block])))
            del self._open[: self.block]

    def found(self) -> Evidence:
        """What is proved by now."""
        means = np.array(self._means)
        low = -math.inf
        if len(means) >= LEAST_BLOCKS and self._decisions >= self.least:
            low = float(means.mean()) - float(means.std(ddof=1)) * boundary(len(means), 1.0 - self.confidence)
        return Evidence(self._decisions, len(means), float(means.mean()) if len(means) else 0.0, low)


def boundary(n: int, alpha: float) -> float:
    """Half-width of the one-sided bound after n blocks, in standard deviations of a block."""
    rho2 = _tightest(alpha) / TIGHTEST_AT
    return math.sqrt(2.0 * (n * rho2 + 1.0) / (n**2 * rho2) * math.log1p(math.sqrt(n * rho2 + 1.0) / (2.0 * alpha)))


def _tightest(alpha: float) -> float:
    """n ρ² at which the boundary is about narrowest (the paper's approximation, its equation 24 with 2 α)."""
    return -2.0 * math.log(2.0 * alpha) + math.log(-2.0 * math.log(2.0 * alpha) + 1.0)
