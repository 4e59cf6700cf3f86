"""The daily loss: after a day that is far beyond its volatility, positions may only be reduced until 00:00 UTC; further, all is closed.

The unit is one daily standard deviation of the target volatility, `σ* / √365`. The day's start is the equity at 00:00 UTC, or the last one
known before it. What becomes known at 00:00 exactly still belongs to the day that ends, so bars of a day are judged by their own day.
"""

from __future__ import annotations

import math

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, iso
from cryptoalpha.core.values import RiskEvent
from cryptoalpha.risk.config import BreakerConfig

NAME = "daily_loss"


class DailyLoss:
    """See the module header.

    Args:
        config: `daily_loss_reduce` and `daily_loss_kill`, in daily standard deviations.
        volatility_target: annual; None measures nothing.
    """

    def __init__(self, config: BreakerConfig, volatility_target: float | None) -> None:
        unit = math.nan if volatility_target is None else volatility_target / math.sqrt(DAYS_PER_YEAR)
        self.unit = unit
        """One daily standard deviation, fraction of equity; NaN without a target."""
        self.reduce = math.inf if config.daily_loss_reduce is None or unit != unit else config.daily_loss_reduce * unit
        self.kill = math.inf if config.daily_loss_kill is None or unit != unit else config.daily_loss_kill * unit
        self.is_reduce_only = False
        self.is_fatal = False
        """Whether the last update found a loss at which the kill switch trips."""
        self.loss = 0.0
        """Lost since the day's start, fraction of the equity then (negative: gained)."""
        self.start = math.nan
        """Equity at the day's start."""
        self.midnight = 0
        """When the running day ends, UTC ns."""

    def update(self, at: int, equity: float, before: float) -> RiskEvent | None:
        """Take in an equity and the one known before it (NaN: none); the event if the mode changed."""
        self.is_fatal = False
        event = self._new_day(at, equity, before) if at >= self.midnight else None
        self._judge(equity)
        if self.loss >= self.reduce and not self.is_reduce_only:
            self.is_reduce_only = True
            event = self._event(
                at, "reduce_only", f"{self.loss:.2%} lost since 00:00 UTC: positions may only be reduced until the next day"
            )
        return event

    def restart(self, at: int, equity: float) -> RiskEvent | None:
        """Count from present equity until the running day ends, because a person resumed."""
        self.start, self.loss, was = equity, 0.0, self.is_reduce_only
        self.midnight = (at // DAY + 1) * DAY
        self.is_reduce_only = False
        return self._event(at, "normal", "resumed: the day counts from present equity") if was else None

    def _new_day(self, at: int, equity: float, before: float) -> RiskEvent | None:
        self._judge(equity)  # the last move of the day that ends
        self.start = equity if at % DAY == 0 or before != before else before
        self.loss, self.midnight, was = 0.0, (at // DAY + 1) * DAY, self.is_reduce_only
        self.is_reduce_only = False
        return self._event(at, "normal", f"a new day since {iso(at - at % DAY)}") if was else None

    def _judge(self, equity: float) -> None:
        if self.start == self.start:
            self.loss = 1.0 - equity / self.start if self.start > 0.0 else 0.0
            self.is_fatal = self.is_fatal or self.loss >= self.kill

    def _event(self, at: int, state: str, message: str) -> RiskEvent:
        return RiskEvent(happened_at=at, known_at=at, rule=NAME, state=state, message=message)
