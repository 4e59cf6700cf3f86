"""The market that a league shares: all orders of an auction meet at once, move the price together, and nothing is lost on the way.

    price      = fundamental + fading noise + λ·(all that was ever bought, net)        λ = `permanent_impact`
    fill       = price + (λ + η)·Σ Δq ± half spread                                     η = `temporary_impact`
    delivery   = fundamental after the last auction

All Δq of an auction are decided without knowledge of each other. A fill pays the price that the auction itself makes, so no round trip
earns from its own impact: buying x and selling it again loses (λ + 2η)x² + 2·half spread·x. A liquidity account takes the other side of
every fill. Inventories are whole lots, prices whole ticks and cash their products in 64-bit integers, so that the cash and the inventories
of all accounts together are 0 after every auction, exactly.

Public are the prices before and after each past auction (hence their difference, the impact), the fundamental's start and the rules;
nobody sees present orders, and only a player that says `knows_fundamental` sees the fundamental.

Source: Almgren & Chriss (2001), "Optimal execution of portfolio transactions", for linear impact in two parts; Huberman & Stanzl (2004),
"Price manipulation and quasi-arbitrage", for what linear impact must not allow. Departures: simultaneous auctions, delivery at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.decisions.league.belief import PublicFilter
from cryptoalpha.decisions.league.config import LeagueMarketConfig

Lots = NDArray[np.int64]
Numbers = NDArray[np.float64]

START = 100_000
"""Fundamental at the start of every episode, ticks; published."""


@dataclass(frozen=True, eq=False)
class Luck:
    """All chance of B episodes, drawn beforehand: the same luck meets other players in a paired comparison.

    Shapes: moves `[steps + 1, B, 2]` standard normal (fundamental, noise), lots `[steps, B, seats]` uniform in (0, 1), one for each
    player's own dice.
    """

    moves: Numbers
    lots: Numbers

    @classmethod
    def draw(cls, config: LeagueMarketConfig, episodes: int, seats: int, random: np.random.Generator) -> Luck:
        return cls(random.normal(size=(config.steps + 1, episodes, 2)), random.random((config.steps, episodes, seats)))


@dataclass(frozen=True, eq=False)
class View:
    """What may be known before an auction. Shapes: all `[B]`, ticks; `number` counts auctions from 0.

    `estimate` is the public filter's mispricing, `impact` what past auctions moved the price by, `change` the last change of the price,
    `pressure` the last auction's own move (0 before the first). `fundamental` is None but for players that know it.
    """

    number: int
    steps_left: int
    price: NDArray[np.int64]
    estimate: Numbers
    impact: Numbers
    change: Numbers
    pressure: Numbers
    fundamental: Numbers | None = None


@dataclass(frozen=True, eq=False)
class Auction:
    """What came of an auction: `traded` `[B, seats]` lots after limits, `paid` `[B, seats]` ticks per lot, `moved` `[B]` price impact."""

    traded: Lots
    paid: Lots
    moved: Numbers


class SharedMarket:
    """B episodes side by side, N seats each, all at the same auction.

    Shapes:
        inventories, cash `[B, seats]`; liquidity_inventory, liquidity_cash `[B]` (int64, lots and ticks · lots).

    Raises:
        ConfigError: for luck of another size, or orders of another shape.
    """

    def __init__(self, config: LeagueMarketConfig, luck: Luck) -> None:
        steps, episodes, seats = luck.lots.shape
        if steps != config.steps or luck.moves.shape != (steps + 1, episodes, 2):
            raise ConfigError(f"luck for {steps} auctions, the market has {config.steps}")
        self.config, self.luck, self.filter = config, luck, PublicFilter.of(config)
        self.number = 0
        self.inventories = np.zeros((episodes, seats), np.int64)
        self.cash = np.zeros((episodes, seats), np.int64)
        self.liquidity_inventory = np.zeros(episodes, np.int64)
        self.liquidity_cash = np.zeros(episodes, np.int64)
        self.fundamental = np.full(episodes, float(START))
        fixed = config.mispricing_start
        start = config.mispricing_volatility * luck.moves[0, :, 1] if fixed is None else np.full(episodes, fixed)
        self.noise: Numbers = np.asarray(start, np.float64)
        self.bought = np.zeros(episodes, np.int64)
        self.price = self._quote()
        self.estimate = self.filter.begin(self._seen())
        self.change: Numbers = np.zeros(episodes)
        self.pressure: Numbers = np.zeros(episodes)

    @property
    def is_over(self) -> bool:
        """Whether all auctions were held."""
        return self.number == self.config.steps

    @property
    def impact(self) -> Numbers:
        """What past auctions moved the price by, `[B]` ticks."""
        moved: Numbers = np.asarray(self.config.permanent_impact * self.bought, np.float64)
        return moved

    def view(self, *, knows_fundamental: bool = False) -> View:
        """What a player may know now."""
        return View(
            self.number, self.config.steps - self.number, self.price, self.estimate, self.impact, self.change, self.pressure,
            self.fundamental if knows_fundamental else None,
        )  # fmt: skip

    def trade(self, wanted: Lots) -> Auction:
        """Hold one auction: `wanted` `[B, seats]` are the inventories that the players would like to hold after it."""
        if wanted.shape != self.inventories.shape or self.is_over:
            raise ConfigError(
                f"orders {list(wanted.shape)} at auction {self.number}, expected {list(self.inventories.shape)} before the end"
            )
        config = self.config
        traded = np.clip(wanted, -config.limit, config.limit) - self.inventories
        total = traded.sum(axis=1)
        paid = (self.price + np.rint(config.impact * total).astype(np.int64))[:, None] + config.half_spread * np.sign(traded)
        self.inventories += traded
        self.cash -= traded * paid
        self.liquidity_inventory -= total
        self.liquidity_cash += (traded * paid).sum(axis=1)
        self._pass_time(total)
        return Auction(traded, paid, config.permanent_impact * total)

    def deliver(self) -> tuple[Lots, Lots]:
        """Wealth of the players `[B, seats]` and of the liquidity account `[B]` with inventories at the fundamental value; together 0."""
        worth = np.rint(self.fundamental).astype(np.int64)
        return self.cash + self.inventories * worth[:, None], self.liquidity_cash + self.liquidity_inventory * worth

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from here (arrays and a count)."""
        return {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in vars(self).items() if name in _KEPT} | {
            "moves": self.luck.moves,
            "lots": self.luck.lots,
        }

    @classmethod
    def restored(cls, config: LeagueMarketConfig, state: dict[str, Any]) -> SharedMarket:
        """A market that goes on from `state`."""
        market = cls(config, Luck(state["moves"], state["lots"]))
        for name in _KEPT:
            setattr(market, name, int(state[name]) if name == "number" else np.copy(state[name]))
        return market

    def _pass_time(self, total: Lots) -> None:
        config, (walk, fade) = self.config, self.luck.moves[self.number + 1].T
        before, seen = self.price, self._seen()
        self.number += 1
        self.bought = self.bought + total
        self.fundamental = self.fundamental + config.drift + config.fundamental_volatility * walk
        phi = config.mispricing_persistence
        self.noise = np.asarray(phi * self.noise + config.mispricing_volatility * (1.0 - phi**2) ** 0.5 * fade)
        self.price = self._quote()
        self.change = (self.price - before).astype(np.float64)
        self.pressure = np.asarray(config.permanent_impact * total, np.float64)
        self.estimate = self.filter.follow(self.estimate, seen, self._seen(), self.number)

    def _quote(self) -> Lots:
        quote: Lots = np.rint(self.fundamental + self.noise + self.impact).astype(np.int64)
        return quote

    def _seen(self) -> Numbers:
        """The price above the start, less impact: what the filter reads."""
        return np.asarray(self.price - START - self.impact, np.float64)


_KEPT = (
    "number", "inventories", "cash", "liquidity_inventory", "liquidity_cash", "fundamental", "noise", "bought", "price", "estimate",
    "change", "pressure",
)  # fmt: skip
