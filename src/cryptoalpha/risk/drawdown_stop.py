"""The drawdown stop: below a share of its peak the book is closed, and stays closed until a person resumes it.

Latched: equity that recovers does not re-open anything. The state is a function of the portfolio states seen so far and of calls to
`resume`, so replaying a journal reproduces it.
"""

from __future__ import annotations

from decimal import Decimal

from cryptoalpha.core.time import iso
from cryptoalpha.core.values import PortfolioState

NAME = "drawdown_stop"


class DrawdownStop:
    """Watch equity against its peak.

    Args:
        max_drawdown: share of the peak (0–1) whose loss trips the stop.
    """

    def __init__(self, max_drawdown: float) -> None:
        self.max_drawdown = max_drawdown
        self.tripped_at: int | None = None
        """When it tripped, UTC ns; None while it is armed."""
        self._keep = 1 - Decimal(repr(max_drawdown))
        self._peak = Decimal(0)
        self._floor = Decimal(0)

    def watch(self, at: int, portfolio: PortfolioState) -> bool:
        """Take in a portfolio state; True while the stop stands."""
        equity = portfolio.equity
        if equity > self._peak:
            self._peak = equity if self._peak else max(equity, portfolio.peak_equity)
            self._floor = self._peak * self._keep
        if self.tripped_at is None and equity <= self._floor:
            self.tripped_at = at
        return self.tripped_at is not None

    def resume(self, portfolio: PortfolioState) -> None:
        """Arm it again, counting from present equity; a person's decision, never automatic."""
        self.tripped_at = None
        self._peak = portfolio.equity
        self._floor = self._peak * self._keep

    @property
    def message(self) -> str:
        """Why nothing may be entered."""
        since = f" since {iso(self.tripped_at)}" if self.tripped_at is not None else ""
        return f"halted{since}: equity fell {self.max_drawdown:.0%} below its peak; entries wait until a person resumes"
