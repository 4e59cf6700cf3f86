"""The same market for whoever moves it: a trade pushes the price, and the push fades.

A scenario tree cannot plan this: what it draws would depend on what is done. So the world becomes one with chance nodes for tree search. A
state is the market's state, the position's index, and the push that is left over from earlier trades: `[x…, p, y]`, y a fraction of price.
Trading Δw pushes the price by `λ Δw`, half of it paid on the way in (the mean of a linear push), and of any push the share `1 − ρ` is gone
a bar later, so that a position is expected to earn `−(1 − ρ) y` a bar besides what the market model says. What stays of the push when a
plan ends is not money: a position is valued as if all of it were gone, or a planner would lift his own book and call it profit.

With λ = 0 this is `learn.search.market_tree.MarketTree` to the last bit, and both back ends plan the same (tests).

Source: Obizhaeva & Wang (2013), "Optimal trading strategy and supply/demand dynamics", for the resilience; here in bars, without a spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.decisions.alphazero.market import TradingModel
from cryptoalpha.decisions.alphazero.state import UNIT, Array
from cryptoalpha.learn.search.contract import Floats, Integers, Outcomes, Roots
from cryptoalpha.learn.search.market_tree import MarketTree, tree_roots


@dataclass(frozen=True)
class MovedMarket:
    """A `contract.ChanceModel` over `[x…, p, y]`.

    Args:
        market: what the market does without us.
        push: λ, fraction of price per weight traded (≥ 0).
        staying: ρ, share of a push that is left a bar later, 0–1.

    Raises:
        ConfigError: for a push below 0 or a share outside 0–1.
    """

    market: TradingModel
    push: float
    staying: float

    def __post_init__(self) -> None:
        if not self.push >= 0.0 or not 0.0 <= self.staying <= 1.0:
            raise ConfigError(f"push {self.push} and staying {self.staying}: expected ≥ 0 and 0 to 1")

    @property
    def actions(self) -> int:
        """As many as there are positions."""
        return len(self.market.positions)

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        """Logits `[n, K]` and values `[n]` of states `[n, WIDTH + 2]`; the push that is left is written off."""
        logits, values = MarketTree(self.market).evaluate(states[:, :-1])
        return logits, (values - self._held(states) * states[:, -1]).astype(np.float32)

    def outcomes(self, states: Floats, actions: Integers, uniforms: Floats) -> Outcomes:
        """Where the market may go, and the expected reward, both with what we did to the price."""
        plain = MarketTree(self.market).outcomes(states[:, :-1], actions, uniforms)
        unit, left = states[:, UNIT].astype(np.float64), states[:, -1].astype(np.float64)
        before = self._held(states)
        after = unit * self.market.positions[actions]
        moved = self.push * (after - before)
        pushed = left + moved
        # What was held gains the push, what is traded half of it; then the push fades under the new position.
        ours = before * moved + 0.5 * (after - before) * moved - after * (1.0 - self.staying) * pushed
        fading = np.broadcast_to((self.staying * pushed)[:, None, None], (*uniforms.shape, 1))
        following = np.concatenate([plain.states, fading], axis=2, dtype=np.float32)
        return Outcomes(following, plain.weights, plain.rewards + ours, plain.discounts, plain.terminal, plain.legal)

    def _held(self, states: Floats) -> Array:
        """Weights held `[n]`."""
        return np.asarray(states[:, UNIT].astype(np.float64) * self.market.positions[states[:, -2].astype(np.int64)])


def moved_roots(roots: Roots, market: TradingModel, pushed: Array | None = None) -> Roots:
    """Roots of a scenario plan as roots of a tree search in a market that we move.

    Args:
        pushed: what is left of earlier pushes `[B]`; None = nothing.
    """
    plain = tree_roots(roots, market)
    left = np.zeros(len(plain.states)) if pushed is None else pushed
    return Roots(np.concatenate([plain.states, left[:, None]], axis=1, dtype=np.float32), legal=plain.legal, names=plain.names)
