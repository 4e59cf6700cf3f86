"""Episodes side by side: the one loop behind the single environment (one lane) and the vectorised one (many).

Clock: bars up to t are known → a target is chosen → it fills at the open of t + 1 → the reward runs to the close of t + 1, which is the
next thing known. An observation is the market's features and the position held, as a fraction of the stake.

All chance of an episode is drawn when it begins, from the generator of its lane: where the market starts, the position it starts with, one
uniform per step. So a lane's episodes depend on its own seed and on nothing its agent or its neighbours do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.decisions.market_env.account import Accounts, Books, Settled
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.market import Array, Known, Market
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.search.contract import Booleans, Integers

OBSERVED_WEIGHT = 10.0
"""Positions are observed within ± this many times the largest of the grid; beyond, an account is all but ruined."""

OPTIONS = ("place", "position")
"""What a reset may be told: places `[P]` or `[n, P]` and positions on the grid (a number or `[n]`) to start from."""


class Stepped(NamedTuple):
    """What a step of B lanes gave; shapes `[B]`."""

    settled: Settled
    terminated: Booleans
    truncated: Booleans


class Lanes:
    """B episodes of a market.

    Args:
        market: what stands behind; shared, since it keeps nothing.
        config: grid, horizon, reward.
        costs: what a trade costs.
        count: B.
    """

    def __init__(self, market: Market, config: EnvironmentConfig, costs: CostConfig, count: int) -> None:
        self.market, self.config, self.count = market, config, count
        self.accounts = Accounts(config, costs)
        bound = OBSERVED_WEIGHT * config.largest
        self.low = np.append(market.low, -bound).astype(np.float32)
        self.high = np.append(market.high, bound).astype(np.float32)
        self.books = self.accounts.open(np.full(count, self.accounts.flat))
        self.ages = np.zeros(count, dtype=np.int64)
        """Decisions made in the running episodes `[B]`."""
        self.ended = np.ones(count, dtype=np.bool_)
        """Lanes whose episode is over, `[B]`; so is every one before its first reset."""
        self._uniforms = np.zeros((count, config.horizon if market.by_chance else 0))
        self.places = np.empty((count, 0))
        self._known: Known | None = None

    def reset(self, lanes: Integers, generators: Sequence[np.random.Generator], options: dict[str, Any] | None = None) -> None:
        """Begin anew in these lanes, each by its own generator.

        Raises:
            ConfigError: an option that nobody knows, or a place or position that does not exist.
        """
        options = options or {}
        strange = sorted(set(options) - set(OPTIONS))
        if strange:
            raise ConfigError(f"a market environment has no reset option {', '.join(strange)}", hint=f"it knows {', '.join(OPTIONS)}")
        drawn = np.stack([generators[lane].random(2 + self._uniforms.shape[1]) for lane in lanes])
        if "place" in options:
            places = np.asarray(options["place"], dtype=np.float64)
            places = np.array(np.broadcast_to(places, (len(lanes), places.shape[-1])))
        else:
            places = self.market.begin(drawn[:, 0], self.config.horizon)
        if len(self.places) != self.count or self.places.shape[1] != places.shape[1]:
            self.places = np.zeros((self.count, places.shape[1]))
        self.places[lanes] = places
        books = self.accounts.open(self._first_buckets(drawn[:, 1], options))
        for kept, fresh in zip(self.books, books, strict=True):
            kept[lanes] = fresh
        self._uniforms[lanes] = drawn[:, 2:]
        self.ages[lanes] = 0
        self.ended[lanes] = False
        self._known = None

    def _first_buckets(self, uniforms: Array, options: dict[str, Any]) -> NDArray[np.int64]:
        grid = len(self.accounts.positions)
        if "position" in options:
            asked = np.broadcast_to(np.asarray(options["position"], dtype=np.int64), uniforms.shape)
            if ((asked < 0) | (asked >= grid)).any():
                raise ConfigError(f"no position {asked.max()} on a grid of {grid}", hint="positions are counted from 0")
            return np.array(asked)
        if self.config.start == "anywhere":
            return (uniforms * grid).astype(np.int64)
        return np.full(len(uniforms), self.accounts.flat)

    @property
    def known(self) -> Known:
        """What all lanes can see now."""
        if self._known is None:
            self._known = self.market.known(self.places)
        return self._known

    def observations(self) -> NDArray[np.float32]:
        """Features and position held, within the bounds of the observation space: `[B, F + 1]`, always a new array."""
        weights = self.accounts.weights(self._living())
        seen = np.concatenate([self.known.features, weights[:, None]], axis=1)
        observed: NDArray[np.float32] = np.clip(seen, self.low, self.high).astype(np.float32)
        return observed

    def masks(self) -> Booleans:
        """Targets on offer `[B, K]`; after ruin all, since nothing is traded any more."""
        return self.accounts.mask(self._living())

    def buckets(self) -> NDArray[np.int64]:
        """Grid position nearest to what is held `[B]`."""
        return self.accounts.buckets(self._living())

    def _living(self) -> Books:
        """The books, with a whole stake where everything is lost: flat, whatever one divides by."""
        equity, value = self.books
        return Books(np.where(equity > 0.0, equity, self.config.initial_equity), value) if self.config.reward == "log" else self.books

    def step(self, actions: Integers) -> Stepped:
        """One decision in every lane.

        Raises:
            ConfigError: an action off the grid, or a lane whose episode is over.
        """
        if self.ended.any():
            raise ConfigError(
                f"the episode of lane {int(np.argmax(self.ended))} is over, or never began", hint="reset it before the next step"
            )
        if ((actions < 0) | (actions >= len(self.accounts.positions))).any():
            raise ConfigError(f"actions {actions} on a grid of {len(self.accounts.positions)}", hint="positions are counted from 0")
        uniforms = np.zeros(self.count)
        if self.market.by_chance:
            uniforms = self._uniforms[np.arange(self.count), self.ages]
        known = self.known
        self.places, period = self.market.follow(self.places, uniforms)
        settled = self.accounts.settle(self.books, actions, known, period)
        self.books = settled.books
        self.ages += 1
        self._known = None
        terminated = settled.ruined | period.ended
        truncated = (self.ages >= self.config.horizon) & ~terminated
        self.ended = terminated | truncated
        return Stepped(settled, terminated, truncated)

    def info(self, settled: Settled | None) -> dict[str, NDArray[Any]]:
        """What is told beside observations, each `[B, ...]` and new.

        The mask (int8, as `Discrete.sample` wants it), equity, weight and bucket held, and of the last step costs, funding, penalty and
        notional traded (0 after a reset).
        """
        nothing = np.zeros(self.count)
        costs, funding, penalties, traded = settled[2:6] if settled is not None else (nothing,) * 4
        return {
            "action_mask": self.masks().astype(np.int8),
            "equity": self.books.equity.copy(),
            "position": self.accounts.weights(self._living()),
            "bucket": self.buckets(),
            "costs": costs.copy(),
            "funding": funding.copy(),
            "penalty": penalties.copy(),
            "traded": traded.copy(),
        }

    def state(self) -> dict[str, Any]:
        """Where all lanes stand, without their generators."""
        return {
            "places": self.places.copy(),
            "equity": self.books.equity.copy(),
            "value": self.books.value.copy(),
            "ages": self.ages.copy(),
            "uniforms": self._uniforms.copy(),
            "ended": self.ended.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.places, self.ages, self._uniforms, self.ended = (np.array(state[name]) for name in ("places", "ages", "uniforms", "ended"))
        self.books = Books(np.array(state["equity"]), np.array(state["value"]))
        self._known = None
