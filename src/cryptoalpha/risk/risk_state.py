"""Where the book stands against its limits, and when that is worth a line in the journal.

Limits are told as used and allowed, each in its own unit, on what is held or will be held once pending orders have filled; sizes without
credit for hedges, as the caps judge them. Value at risk and expected shortfall are of what is held, hedges counted as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Order, PortfolioState, RiskState
from cryptoalpha.risk.book import BLIND_LOSS, Book
from cryptoalpha.risk.caps import DAY_ROOT, cluster_of, variance
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.equity_guard import EquityGuard
from cryptoalpha.risk.order_limits import EntryRate
from cryptoalpha.risk.orders import Verdict
from cryptoalpha.risk.tail.losses import tail_of_losses

Limits = list[tuple[str, float, float]]


class Observer:
    """Remembers what was told last, and tells how things stand.

    Args:
        config: the limits.
        guard: knows drawdown and daily loss.
        rate: counts entries.
    """

    def __init__(self, config: RiskConfig, guard: EquityGuard, rate: EntryRate) -> None:
        self._config, self._guard, self._rate = config, guard, rate
        self.binding: dict[str, str] = {}
        """The limit that bound when it was told last, by instrument; nothing for those that nothing bound."""
        self.positions: tuple[tuple[str, Decimal], ...] = ()
        """As of the last review that looked."""
        self._day = -1
        self._told_mode = "armed"

    def is_new(self, at: int, portfolio: PortfolioState) -> bool:
        """Whether positions have changed since the last review, or the mode or the day has."""
        day, positions, mode = at // DAY, portfolio.positions, self._mode()
        if positions is self.positions and day == self._day and mode == self._told_mode:
            return False
        changed = day != self._day or mode != self._told_mode or positions != self.positions
        self._day, self.positions, self._told_mode = day, positions, mode
        return changed

    def tells(self, name: str, binding: str, verdict: Verdict | None) -> bool:
        """Whether how a size came about is worth telling: it led to something, or another limit binds than the last time."""
        told = self.binding.get(name, "")
        if verdict is None and binding == told:
            return False
        if binding:
            self.binding[name] = binding
        else:
            self.binding.pop(name, None)
        return True

    def state(self, at: int, book: Book, verdicts: Sequence[Verdict]) -> RiskState:
        """Where the book stands."""
        limits = [*self._of_positions(book), *self._of_book(book), *self._of_orders(at, book, verdicts), *self._of_equity(book)]
        at_risk, shortfall = self._tail(book)
        regimes = [p.exposure for p in book.proposals]
        return RiskState(
            happened_at=at,
            known_at=at,
            limits=tuple(limits),
            exposure=self._guard.ladder.exposure * min(regimes, default=1.0),
            mode=self._mode(),
            value_at_risk=at_risk,
            expected_shortfall=shortfall,
            level=self._config.tail.level,
        )

    def _mode(self) -> Literal["armed", "reduce_only", "tripping", "tripped"]:
        kill = self._guard.kill.state
        if kill != "armed":
            return kill
        return "reduce_only" if self._guard.daily.is_reduce_only else "armed"

    def _of_positions(self, book: Book) -> Limits:
        """Limits of positions alone: the one that uses most of it."""
        config, stakes = self._config, book.stakes
        limits = [("position_cap", max((s.size for s in stakes), default=0.0), config.max_position)]
        if config.risk_tolerance is not None:
            worst = max((s.size * s.known_volatility for s in stakes), default=0.0)
            limits.append(("risk_tolerance", worst / DAY_ROOT, config.risk_tolerance))
        days = config.orders.max_liquidation_days
        if days is not None:
            names = [s.name for s in stakes if s.name]
            traded = book.memory.daily_value(names).tolist() if names else []
            sizes = [s.size * book.equity for s in stakes if s.name]
            needed = [size / (config.orders.participation * value) for size, value in zip(sizes, traded, strict=True) if value > 0.0]
            limits.append(("liquidity", max(needed, default=0.0), days))
        return limits

    def _of_book(self, book: Book) -> Limits:
        """Limits of all positions together."""
        config, stakes = self._config, book.stakes
        limits = [("gross_cap", sum(s.size for s in stakes), config.max_gross)]
        if config.volatility_target is not None:
            standing = Book(book.equity, [], stakes, book.memory)
            limits.append(("volatility_target", math.sqrt(variance(standing, config.assumed_correlation)[0]), config.volatility_target))
        limits.append(("cluster_cap", self._largest_cluster(book), config.max_cluster))
        if config.tail.max_expected_shortfall is not None:
            used = tail_of_losses(book.losses([(s.name, s.long, s.short) for s in stakes]), config.tail.level)[1] if stakes else 0.0
            limits.append(("expected_shortfall", used, config.tail.max_expected_shortfall))
        if config.max_concentration is not None:
            limits.append(("concentration", sum(s.size * s.size for s in stakes), config.max_concentration))
        if config.max_heat is not None:
            stop = config.stop_volatilities / DAY_ROOT
            limits.append(("heat", sum(s.size * s.known_volatility * stop for s in stakes), config.max_heat))
        return limits

    def _largest_cluster(self, book: Book) -> float:
        """The largest of the sums that `cluster_cap` holds down."""
        if len(book.stakes) < 2:
            return sum((s.size for s in book.stakes), 0.0)
        own = cluster_of(book, self._config)
        return max(sum((s.size for s in book.stakes if own.get(s.name, label) == label), 0.0) for label in {-1, *own.values()})

    def _of_orders(self, at: int, book: Book, verdicts: Sequence[Verdict]) -> Limits:
        """Limits of single orders: the largest of this review."""
        orders, limits = self._config.orders, list[tuple[str, float, float]]()
        price = {p.decision.instrument: p.price for p in book.proposals}
        entries = [v for v in verdicts if isinstance(v, Order) and not v.reduce_only and v.instrument in price]
        if orders.max_notional is not None:
            limits.append(
                ("max_notional", max((float(o.quantity) * price[o.instrument] for o in entries), default=0.0), orders.max_notional)
            )
        if orders.max_entries_per_hour is not None:
            limits.append(("order_rate", float(self._rate.used(at)), float(orders.max_entries_per_hour)))
        return limits

    def _of_equity(self, book: Book) -> Limits:
        """Drawdown, and the day's loss up to where only reductions are left and up to the kill switch."""
        guard = self._guard
        guard.measure(book.equity)
        limits = [("max_drawdown", max(0.0, guard.drawdown), guard.max_drawdown)]
        lost = max(0.0, guard.daily.loss)
        if guard.daily.reduce < math.inf:
            limits.append(("daily_loss", lost, guard.daily.reduce))
        if guard.daily.kill < math.inf:
            limits.append(("daily_loss_kill", lost, guard.daily.kill))
        return limits

    def _tail(self, book: Book) -> tuple[float, float]:
        """Value at risk and expected shortfall of what is held; positions nobody knows the volatility of lose in every scenario."""
        held = [s for s in book.stakes if s.held != 0.0 or not s.name]
        if not held:
            return 0.0, 0.0
        place, returns = book.scenarios()
        total = np.zeros(len(returns))
        for s in held:
            moves = returns[:, place[s.name]] if s.name in place else None
            if moves is None or not math.isfinite(moves[0]):
                total += max(s.size, abs(s.held)) * BLIND_LOSS
            else:
                total -= s.held * moves
        return tail_of_losses(total, self._config.tail.level)
