"""A mean-reverting market small enough to be solved exactly: 31 states, 7 positions, costs, risk aversion.

The market x follows Rouwenhorst's chain (an AR(1) with coefficient φ = 0.9 and innovations of standard deviation 1, on 31 equidistant
points); holding a from x to x' while coming from p earns a·(x' − x) − 0.3·|a − p| − 0.1·a², discounted by γ = 0.95. Here the "return" of a
market is x' − x. Every policy is a table `[31, 7]` and its worth the solution of a linear system, so learned policies are scored without
sampling noise. A state is the index of x (exact in float32); columns behind it are carried along unchanged, so that several learners can be
planned for in one batch.

Source: Rouwenhorst 1995, "Asset pricing implications of equilibrium business cycle models"; Kopecky & Suen 2010, "Finite state
Markov-chain approximations to highly persistent processes", for the recursion.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.search.contract import Booleans, Draws, Floats, Gains

Array = NDArray[np.float64]
Policy = NDArray[np.int64]
Guess = Callable[[Floats], Floats]


def rouwenhorst(states: int, persistence: float) -> Array:
    """Transition matrix `[states, states]` whose chain has this autocorrelation on equidistant points."""
    stay = (1.0 + persistence) / 2.0
    matrix = np.array([[stay, 1.0 - stay], [1.0 - stay, stay]])
    for n in range(3, states + 1):
        bigger = np.zeros((n, n))
        bigger[:-1, :-1] += stay * matrix
        bigger[:-1, 1:] += (1.0 - stay) * matrix
        bigger[1:, :-1] += (1.0 - stay) * matrix
        bigger[1:, 1:] += stay * matrix
        bigger[1:-1] /= 2.0
        matrix = bigger
    return matrix


class OuChain:
    """The market model, its exact solution and the score of any policy.

    Args:
        exact: outcomes are all 31 next states with their exact probabilities, whatever the uniforms; branching must then be 31.
        guess: value at the leaves, `[n, 1]` states → `[n, 7]`; None = 0.
        prior: logits of the prior, `[n, 1]` → `[n, 7, 7]`; None = no opinion.

    Implements `contract.MarketModel`.
    """

    states = 31
    persistence = 0.9
    trade_cost = 0.3
    risk_aversion = 0.1
    discount = 0.95
    allowed: Booleans | None = None

    def __init__(self, *, exact: bool = False, guess: Guess | None = None, prior: Guess | None = None) -> None:
        self.exact = exact
        self.guess = guess
        self.prior = prior
        self.positions = np.linspace(-1.0, 1.0, 7)
        self.flat = 3
        self.spread = float(1.0 / np.sqrt(1.0 - self.persistence**2))
        self.grid = np.linspace(-1.0, 1.0, self.states) * np.sqrt(self.states - 1.0) * self.spread
        self.transitions = rouwenhorst(self.states, self.persistence)
        shares = np.cumsum(self.transitions, axis=1)
        shares[:, -1] = 1.0
        self.ladder = (np.arange(self.states)[:, None] + shares).reshape(-1)  # one sorted array: row i runs from i to i + 1
        self.drift = self.transitions @ self.grid - self.grid
        self.trade_costs = self.trade_cost * np.abs(self.positions[None, :] - self.positions[:, None])[None]

    # --- the model that planners see -----------------------------------------------------------------------------------------------------

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        """Next states through the conditional quantile function, or all of them with their probabilities."""
        here = states[:, 0].astype(np.int64)
        if self.exact:
            if uniforms.shape[1] != self.states:
                raise ConfigError(f"{uniforms.shape[1]} outcomes asked of a chain that gives all {self.states}: branch by {self.states}")
            there = np.broadcast_to(np.arange(self.states), uniforms.shape)
            weights = self.transitions[here]
        else:
            there = self.follow(here[:, None], uniforms)
            weights = np.full(uniforms.shape, 1.0 / uniforms.shape[1])
        returns = self.grid[there] - self.grid[here][:, None]
        following: Floats = np.repeat(states[:, None, :], uniforms.shape[1], axis=1).astype(np.float32, copy=False)
        following[:, :, 0] = there
        return Draws(following, returns, self.drift[here], weights)

    def follow(self, here: NDArray[np.int64], uniforms: Floats) -> NDArray[np.int64]:
        """Next states from `here` below which a share `uniforms` of the next states lies; shapes broadcast."""
        return np.searchsorted(self.ladder, here + uniforms) - self.states * here

    def gains(self, states: Floats, returns: Floats) -> Gains:
        """a·(x' − x) − 0.1·a² for every position a."""
        return Gains(returns[:, :, None] * self.positions - self.risk_aversion * self.positions**2)

    def costs(self, states: Floats) -> Array:
        """0.3·|a − p|, the same in every state: `[1, 7, 7]`."""
        return self.trade_costs

    def values(self, states: Floats) -> Floats:
        """The guess, or zero."""
        return np.zeros((len(states), len(self.positions))) if self.guess is None else self.guess(states)

    def logits(self, states: Floats) -> Floats | None:
        """The prior, if there is one."""
        return None if self.prior is None else self.prior(states)

    # --- its exact solution --------------------------------------------------------------------------------------------------------------

    @cached_property
    def stationary(self) -> Array:
        """How often each state is visited, `[31]`: binomial with 30 trials at one half."""
        row = np.array([1.0])
        for _ in range(self.states - 1):
            row = (np.append(row, 0.0) + np.append(0.0, row)) / 2.0
        return row

    @cached_property
    def rewards(self) -> Array:
        """Expected reward of going from p to a in x: `[31, 7, 7]`."""
        held = self.drift[:, None] * self.positions - self.risk_aversion * self.positions**2
        return np.asarray(held[:, None, :] - self.trade_costs)

    def induct(self, values: Array) -> Array:
        """One step of value iteration: V `[31, 7]` (market, position held) → Q `[31, 7, 7]`."""
        return np.asarray(self.rewards + self.discount * (self.transitions @ values)[:, None, :])

    @cached_property
    def optimal_values(self) -> Array:
        """V* `[31, 7]`, by policy iteration: improved until the policy no longer changes."""
        policy = self.myopic
        while True:
            values = self.worth(policy)
            q = self.induct(values)
            better = q.argmax(axis=2)
            gain = np.take_along_axis(q, better[:, :, None], 2) - np.take_along_axis(q, policy[:, :, None], 2)
            if gain.max() < 1e-12:
                return values
            policy = better

    def worth(self, policy: Policy) -> Array:
        """V of a policy `[31, 7]` (target index by market and position held): solves (I − γ·P)·V = r exactly."""
        markets, held = len(self.grid), len(self.positions)
        x, p = np.divmod(np.arange(markets * held), held)
        action = np.asarray(policy).reshape(-1)
        matrix = np.zeros((markets * held, markets, held))
        matrix[np.arange(markets * held), :, action] = self.transitions[x]
        system = np.eye(markets * held) - self.discount * matrix.reshape(markets * held, -1)
        return np.asarray(np.linalg.solve(system, self.rewards[x, p, action]).reshape(markets, held))

    def score(self, policy: Policy) -> float:
        """Worth of a policy from flat, averaged over the states as often as the market visits them."""
        return float(self.stationary @ self.worth(policy)[:, self.flat])

    @property
    def optimum(self) -> float:
        """The best score possible."""
        return float(self.stationary @ self.optimal_values[:, self.flat])

    @property
    def optimal(self) -> Policy:
        """The best policy."""
        return np.asarray(self.induct(self.optimal_values).argmax(axis=2))

    @property
    def myopic(self) -> Policy:
        """The best policy for somebody who sees one step ahead."""
        return np.asarray(self.rewards.argmax(axis=2))

    def always(self, position: int) -> Policy:
        """Go to one position and stay."""
        return np.full((self.states, len(self.positions)), position)
