"""The one-shot game behind the league: each of N players brings q ≥ 0 and earns q·(μ − κ·Σq) (Cournot 1838).

It is the shared market reduced to one auction: price μ below a known fundamental, impact κ, nothing else. Its Nash equilibrium
q* = μ / (κ(N + 1)), of all players alike, is known, and so is its trap: the best answer to the others' last move jumps past it, so that
answering the latest self cycles between monopoly and nothing from N = 3 on, while answering the average of all past selves converges.

On a grid everything is exact: expected pay-offs depend on others only through their mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cournot:
    """N players, μ, κ, and the quantities they may choose, `[A]`."""

    players: int
    demand: float = 1.0
    slope: float = 1.0
    grid: Shares = field(default_factory=lambda: np.linspace(0.0, 1.0, 41))

    @property
    def nash(self) -> float:
        """What each brings in equilibrium."""
        return self.demand / (self.slope * (self.players + 1))

    def payoffs(self, others_mean: float) -> Shares:
        """Expected pay-off of each quantity, `[A]`, if each of the others brings `others_mean` on average."""
        return np.asarray(self.grid * (self.demand - self.slope * (self.grid + (self.players - 1) * others_mean)))

    def exploitability(self, shares: Shares) -> float:
        """What the best answer on the grid earns more than the mixture `shares` `[A]` itself, all others playing the mixture; ≥ 0."""
        payoffs = self.payoffs(float(shares @ self.grid))
        return float(payoffs.max() - shares @ payoffs)


def best_responses(game: Cournot, rounds: int, *, against: str = "average") -> Shares:
    """All players alike answer, round by round; returns the quantities they chose `[rounds]`, the first being the largest on the grid.

    Args:
        against: `average` = of all rounds before (fictitious play), `latest` = of the last round alone.
    """
    chosen = [float(game.grid[-1])]
    for _ in range(rounds - 1):
        others = chosen[-1] if against == "latest" else float(np.mean(chosen))
        chosen.append(float(game.grid[int(np.argmax(game.payoffs(others)))]))
    return np.array(chosen)
