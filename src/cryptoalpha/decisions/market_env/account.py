"""One step of the accounts of many lanes: from target positions to fills, costs, funding and reward.

The rules are those of `execution.simulated` for a market order: it fills at the next open, moved by half the spread and the square-root
impact, pays the taker's fee, and takes at most a share of the bar's volume; funding settled at the open is owed by what was held before.
Departures: no lots or ticks; what volume did not allow is dropped, since the next decision asks anew; and nothing is cut to what cash
covers, since the grid bounds the position.

The reward of a decision made at a close runs to the next close: the gap to the open on the old position, and the bar on the new one. So
rewards and penalties add up to the log of equity, and no reward knows a price that the observation beside it does not. (Between two opens
it would credit the same trades: a gap does not depend on the decision that precedes it.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.market import Array, Known, Period
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.search.contract import Booleans, Integers


class Books(NamedTuple):
    """The accounts of n lanes. Shapes `[n]`: equity and value of the position at the last close, quote units."""

    equity: Array
    value: Array


class Settled(NamedTuple):
    """What a step did to n accounts. Shapes `[n]`: rewards; costs (spread, impact, fees) and funding received, quote units; penalties, in
    units of the reward; traded notional at the last close, signed; ruined."""

    books: Books
    rewards: Array
    costs: Array
    funding: Array
    penalties: Array
    traded: Array
    ruined: NDArray[np.bool_]


class Accounts:
    """The rules of the books of all lanes; the books themselves are the caller's.

    Args:
        config: grid, reward, ruin.
        costs: what a trade costs.
    """

    def __init__(self, config: EnvironmentConfig, costs: CostConfig) -> None:
        self.config, self.costs = config, costs
        self.positions = np.linspace(-config.largest if config.shorts else 0.0, config.largest, config.positions)
        self.flat = int(np.argmin(np.abs(self.positions)))
        self.positions[self.flat] = 0.0
        self._linear = config.reward == "linear"

    def open(self, buckets: Integers) -> Books:
        """Books that hold these positions of the grid and have paid nothing for them. Shape `[n]`."""
        equity = np.full(len(buckets), self.config.initial_equity)
        return Books(equity, self.positions[buckets] * equity)

    def stakes(self, books: Books) -> Array:
        """What positions are fractions of: equity, or the stake that a linear reward makes whole. Shape `[n]`."""
        return np.full(len(books.equity), self.config.initial_equity) if self._linear else books.equity

    def weights(self, books: Books) -> Array:
        """Positions held as fractions of the stake, at the last close. Shape `[n]`."""
        return books.value / self.stakes(books)

    def buckets(self, books: Books) -> NDArray[np.int64]:
        """The position of the grid that is nearest to what is held. Shape `[n]`."""
        step = self.positions[1] - self.positions[0]
        nearest = np.rint((self.weights(books) - self.positions[0]) / step)
        buckets: NDArray[np.int64] = np.clip(nearest, 0, len(self.positions) - 1).astype(np.int64)
        return buckets

    def mask(self, books: Books) -> Booleans:
        """Which targets are offered: holding, and all that are far enough away. Shape `[n, K]`."""
        far = np.abs(self.positions[None, :] - self.weights(books)[:, None]) >= self.config.minimum_trade
        far[np.arange(len(far)), self.buckets(books)] = True
        return far

    def settle(self, books: Books, actions: Integers, known: Known, period: Period) -> Settled:
        """Trade towards the targets at the open, live through the bar, count.

        Args:
            actions: target on the grid `[n]`; the bucket held, or one that is not offered, trades nothing.
            known: what was known when the actions were chosen.
            period: what happened since.
        """
        stakes, lanes = self.stakes(books), np.arange(len(actions))
        traded = self.positions[actions] * stakes - books.value
        holds = (actions == self.buckets(books)) | ~self.mask(books)[lanes, actions]
        traded = self._within_volume(np.where(holds, 0.0, traded), period)
        held = books.value + traded
        costs = self._costs(traded, known, period)
        funding = -books.value * period.open * period.funding_at_open - held * period.close * period.funding_inside
        before_bar = books.value * (period.open - 1.0) - costs - books.value * period.open * period.funding_at_open
        gains = books.value * (period.open - 1.0) + held * (period.close - period.open) - costs + funding
        penalties = self.config.risk_aversion * (held / stakes) ** 2 * known.variance
        if self._linear:
            after = Books(books.equity + gains, held)
            return Settled(after, gains / stakes - penalties, costs, funding, penalties, traded, np.zeros(len(lanes), dtype=np.bool_))
        ruined = self._ruined(books.equity, held, before_bar, gains, period)
        growth = np.log1p(np.where(ruined, 0.0, gains / stakes))
        rewards = np.where(ruined, -self.config.ruin_loss, growth - penalties)
        after = Books(np.where(ruined, 0.0, books.equity + gains), np.where(ruined, 0.0, held * period.close))
        return Settled(after, rewards, costs, funding, np.where(ruined, 0.0, penalties), traded, ruined)

    def _within_volume(self, traded: Array, period: Period) -> Array:
        """No more than a share of what the bar traded, where that is known."""
        share = self.costs.max_participation
        if share is None:
            return traded
        most = np.where(period.turnover > 0.0, share * period.turnover, np.inf)
        return np.asarray(np.clip(traded, -most, most))

    def _costs(self, traded: Array, known: Known, period: Period) -> Array:
        """Spread, impact and fee of trades `[n]`, quote units; twin of `FillModel.price` and `fee_rate`."""
        size, costs = np.abs(traded), self.costs
        move = np.full(len(size), costs.half_spread)
        if costs.impact > 0.0:
            seen = (period.turnover > 0.0) & (known.daily_turnover > 0.0)
            turnover = np.where(seen, known.daily_turnover, 1.0)
            impact = costs.impact * known.daily_volatility * np.sqrt(size / turnover)
            move += np.where(seen, impact, costs.unknown_volume_slippage)
        price = period.open * (1.0 + np.sign(traded) * move)
        paid: Array = size * (period.open * move + price * costs.taker_fee)
        return paid

    def _ruined(self, equity: Array, held: Array, before_bar: Array, gains: Array, period: Period) -> NDArray[np.bool_]:
        """Nothing left at the close, or less than the maintenance margin at the worst price of the bar, its open included."""
        low = np.minimum(np.minimum(period.low, period.open), period.close)
        high = np.maximum(np.maximum(period.high, period.open), period.close)
        worst = np.where(held > 0.0, low, high)
        lowest = equity + before_bar + held * (worst - period.open)
        margin = self.config.maintenance * np.abs(held) * worst
        return np.asarray((equity + gains <= 0.0) | (lowest <= margin) & (held != 0.0))
