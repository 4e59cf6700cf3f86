"""Watches equity: its peak, the drawdown ladder, the daily loss, and the loss at which the kill switch trips.

One object for all of them, because nearly always none has anything to say: while equity lies between its peak and the nearest of all
thresholds, two comparisons are enough. The kill switch latches; this does not: what it finds it finds again from the equity of the next
bar, so replaying a journal reproduces it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from cryptoalpha.core.values import PortfolioState, RiskEvent
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.daily_loss import DailyLoss
from cryptoalpha.risk.kill_switch import KillSwitch
from cryptoalpha.risk.ladder import DrawdownLadder

BY = "risk"
"""Who tripped the kill switch."""


class EquityGuard:
    """See the module header.

    Args:
        config: the limits.
        kill: what `max_drawdown` and `breakers.daily_loss_kill` trip, with everything to be closed.
    """

    def __init__(self, config: RiskConfig, kill: KillSwitch) -> None:
        self.kill = kill
        self.max_drawdown = config.max_drawdown
        self.ladder = DrawdownLadder(config.ladder, config.max_drawdown)
        self.daily = DailyLoss(config.breakers, config.volatility_target)
        self.drawdown = 0.0
        """Loss from the peak as of the last time anything could have changed, 0–1."""
        self._keep = 1 - Decimal(repr(config.max_drawdown))
        self._peak = Decimal(0)
        self._alert = Decimal(0)
        self._seen: Decimal | None = None
        self._midnight = 0
        self.is_calm = True
        """Whether ladder and daily loss leave everything as it is."""
        self._was_spent = self._was_fatal = False

    def is_still(self, at: int, equity: Decimal) -> bool:
        """Whether this equity changes nothing, nothing is in force and the day goes on; it has then been taken in."""
        if at < self._midnight and self.is_calm and (equity is self._seen or self._alert < equity <= self._peak):
            self._seen = equity
            return True
        return False

    def resume(self, at: int, portfolio: PortfolioState) -> Sequence[RiskEvent]:
        """A person has resumed: what has been beyond its limit since the last time counts from present equity.

        After the drawdown limit that is peak, ladder and day; after the day's, the day. What was within its limit goes on counting: a kill
        for another reason gives back nothing of what may still be lost.
        """
        events = []
        if self._was_spent:
            self._peak, self.drawdown = portfolio.equity, 0.0
            events.append(self.ladder.restart(at))
        if self._was_spent or self._was_fatal:
            events.append(self.daily.restart(at, float(portfolio.equity)))
        self._was_spent = self._was_fatal = False
        self._settle()
        return [event for event in events if event is not None]

    def measure(self, value: float) -> None:
        """Bring `drawdown` and `daily.loss` up to date for who wants to know them at this equity."""
        self.drawdown = 1.0 - value / float(self._peak) if self._peak > 0 else 0.0
        if self.daily.start > 0.0:
            self.daily.loss = 1.0 - value / self.daily.start

    def watch(self, at: int, portfolio: PortfolioState) -> Sequence[RiskEvent]:
        """Take in a portfolio state; the events of what changed."""
        equity = portfolio.equity
        if equity > self._peak:
            self._peak = equity if self._peak else max(equity, portfolio.peak_equity)
        before = math.nan if self._seen is None else float(self._seen)
        self._seen = equity
        value = float(equity)
        self.drawdown = 1.0 - value / float(self._peak) if self._peak > 0 else 0.0
        events = [self.ladder.update(at, self.drawdown), self.daily.update(at, value, before)]
        if equity <= self._peak * self._keep:
            self._was_spent = True
            events.append(self._trip(at, f"equity fell {100.0 * self.max_drawdown:g}% below its peak"))
        if self.daily.is_fatal:
            self._was_fatal = True
            events.append(self._trip(at, f"{self.daily.kill / self.daily.unit:g} daily standard deviations were lost in one day"))
        self._settle()
        return [event for event in events if event is not None]

    def _trip(self, at: int, reason: str) -> RiskEvent | None:
        return self.kill.trip(at, by=BY, reason=reason, flatten=True)

    def _settle(self) -> None:
        """The equity down to which nothing can happen, a hair above the nearest threshold."""
        self._midnight = self.daily.midnight
        self.is_calm = self.ladder.rung == 0 and not self.daily.is_reduce_only
        peak, start = float(self._peak), self.daily.start
        nearest = peak * (1.0 - min((*self.ladder.depths, self.max_drawdown)))
        limit = min(self.daily.reduce, self.daily.kill)
        if limit < 1.0 and start == start:
            nearest = max(nearest, start * (1.0 - limit))
        self._alert = Decimal(repr(nearest + 1e-9 * abs(nearest)))
