"""A price taker's world as a world with chance nodes, so that tree search can plan what ScenarioDP plans: each tests the other.

A state is the market's state with the position index behind it, `[x…, p]`; the action is the next position. What an action earns is the
expectation over its outcomes, mean-matched exactly as in a scenario tree, less the cost of the trade: a lucky draw inside the tree is
never mistaken for skill. Ruin and terminal outcomes end the game.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryptoalpha.learn.search import scenario_tree
from cryptoalpha.learn.search.contract import Booleans, Floats, Integers, MarketModel, Outcomes, Roots
from cryptoalpha.learn.search.scenario_tree import Rows

HAIR = 1e-3
"""Difference in logits between holding and the largest trade, where the model has no prior."""

SMALLEST_SPAN = 1e-12
"""Span of a grid below which all its positions are one."""


@dataclass(frozen=True)
class MarketTree:
    """A market model seen as a `contract.ChanceModel`. What it answers is checked by the search, which knows the roots."""

    market: MarketModel

    def __post_init__(self) -> None:
        scenario_tree.check_market(self.market)

    @property
    def actions(self) -> int:
        """As many as there are positions."""
        return len(self.market.positions)

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        """Logits `[n, K]` from the position held and values `[n]` of holding it, from states `[n, X + 1]`."""
        markets, held = self._split(states)
        rows = np.arange(len(held))
        logits, values = self.market.logits(markets), self.market.values(markets)[rows, held].astype(np.float32)
        if logits is None:
            return self._smallest_trade_first(held), values
        return logits[rows, held].astype(np.float32), values

    def outcomes(self, states: Floats, actions: Integers, uniforms: Floats) -> Outcomes:
        """Where the market may go while the position becomes the action, and the expected reward of that."""
        markets, held = self._split(states)
        rows = np.arange(len(held))
        draws = self.market.draw(markets, uniforms)
        said = np.asarray(draws.weights, dtype=np.float64)
        sound = scenario_tree.are_distributions(said)[:, None]
        returns, weights = scenario_tree.matched_returns(replace(draws, weights=np.where(sound, said, 1.0 / said.shape[1])))
        told = np.where(sound, weights, said)  # the search refuses what is no distribution, naming the root
        gains = self.market.gains(markets, returns)
        costs = self.market.costs(markets)
        rewards = (weights * gains.rewards[rows, :, actions]).sum(axis=1) - costs[rows if len(costs) > 1 else 0, held, actions]
        for method, what, flags in (("draw", "terminal", draws.terminal), ("gains", "alive", gains.alive)):
            if flags is not None:
                scenario_tree.check_flags(method, what, flags)
        terminal = np.zeros(weights.shape, dtype=np.bool_) if draws.terminal is None else np.array(draws.terminal, dtype=np.bool_)
        if gains.alive is not None:
            terminal |= ~np.asarray(gains.alive, dtype=np.bool_)[rows, :, actions]
        following = np.concatenate(
            [draws.states, np.broadcast_to(np.asarray(actions)[:, None, None], (*weights.shape, 1))], axis=2, dtype=np.float32
        )
        discounts = np.full(weights.shape, self.market.discount)
        return Outcomes(following, told, rewards, discounts, terminal, self._legal(actions, weights.shape[1]))

    def _split(self, states: Floats) -> tuple[Floats, Rows]:
        return states[:, :-1], states[:, -1].astype(np.int64)

    def _smallest_trade_first(self, held: Rows) -> Floats:
        """Logits `[n, K]` of no opinion: even but for a hair, so that actions nobody has tried are tried in the order of what they trade,
        holding first. Even ones are tried from the lowest position up, and a search that remembers what it paid then leans short."""
        grid = np.asarray(self.market.positions, dtype=np.float64)
        trade = np.abs(grid[None, :] - grid[held][:, None])
        logits: Floats = (-HAIR * trade / max(float(np.ptp(grid)), SMALLEST_SPAN)).astype(np.float32)
        return logits

    def _legal(self, actions: Integers, outcomes: int) -> Booleans | None:
        if self.market.allowed is None:
            return None
        return np.repeat(self.market.allowed[actions][:, None, :], outcomes, axis=1)


def tree_roots(roots: Roots, market: MarketModel) -> Roots:
    """Roots of a scenario plan as roots of a tree search: states `[B, X + 1]`, legal `[B, K]` from the position held.

    Raises:
        ConfigError: the roots have no positions on the grid, or the market's constants cannot be planned with.
    """
    scenario_tree.check_market(market)
    positions = scenario_tree.checked_positions(roots, market)
    states = np.concatenate([roots.states, positions[:, None]], axis=1, dtype=np.float32)
    legal = roots.legal
    if market.allowed is not None:
        allowed: Booleans = np.asarray(market.allowed, dtype=np.bool_)[positions]
        legal = allowed if legal is None else legal & allowed
    return Roots(states, legal=legal, names=roots.names)
