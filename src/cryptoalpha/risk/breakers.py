"""Circuit breakers: faults of minutes that stop entries by themselves and let them go on by themselves. Exits never ask them.

    closed ── fault ──▶ open ── quiet ──▶ half_open ── one entry went well, or quiet again ──▶ closed
                          ▲                  │ fault
                          └──────────────────┘

| breaker | of | fault | over when |
|---|---|---|---|
| `stale_feed` | an instrument | no bar for 3 intervals | a bar comes |
| `bad_tick` | an instrument | a move that is not believed (`risk.tick_filter`) | a bar is believed |
| `model_output` | the book | a decision that is not a finite number | quiet, one finite decision |
| `slippage` | the book | costs above the modelled ones (`risk.slippage`) | quiet, one fill |
| `venue` | the book | so many refusals by the venue within a minute | quiet, one fill |
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from cryptoalpha.core.time import MINUTE, iso
from cryptoalpha.core.values import PortfolioState, RiskEvent
from cryptoalpha.risk.config import BreakerConfig
from cryptoalpha.risk.slippage import SlippageMonitor
from cryptoalpha.risk.tick_filter import TickFilter

ZERO = Decimal(0)
BreakerState = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """One breaker; see the module header. Every change returns the event to be journaled, None where nothing changed.

    Args:
        name: the rule that refusals and events carry.
        quiet: time without a fault before one entry is let through, ns.
        instrument: what it is about; empty for the whole book.
    """

    def __init__(self, name: str, quiet: int, instrument: str = "") -> None:
        self.name, self.quiet, self.instrument = name, quiet, instrument
        self.state: BreakerState = "closed"
        self.message = ""
        """Why it opened last."""
        self._since = 0
        self._tried = False

    @property
    def allows_entry(self) -> bool:
        """Whether an entry may pass: any while closed, one while half open."""
        return self.state == "closed" or (self.state == "half_open" and not self._tried)

    def fault(self, at: int, message: str) -> RiskEvent | None:
        """Something went wrong: open, or stay open for longer."""
        self._since, was = at, self.state
        if was == "open":
            return None
        self.message = message
        return self._to(at, "open", message)

    def tick(self, at: int) -> RiskEvent | None:
        """Time has passed."""
        if self.state == "closed" or at - self._since < self.quiet:
            return None
        self._since = at
        if self.state == "open":
            self._tried = False
            return self._to(at, "half_open", "quiet for long enough: one entry may try")
        return self._to(at, "closed", "quiet again")

    def entered(self) -> None:
        """An entry was let through."""
        self._tried = True

    def success(self, at: int) -> RiskEvent | None:
        """What used to fail went well."""
        return self._to(at, "closed", "the try went well") if self.state == "half_open" else None

    def over(self, at: int, message: str) -> RiskEvent | None:
        """The fault itself is gone: close without a try."""
        return None if self.state == "closed" else self._to(at, "closed", message)

    def _to(self, at: int, state: BreakerState, message: str) -> RiskEvent:
        self.state = state
        return RiskEvent(happened_at=at, known_at=at, rule=self.name, state=state, message=message, instrument=self.instrument)


class Breakers:
    """All breakers of one book.

    Args:
        config: thresholds and quiet period.
    """

    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        quiet = int(config.quiet_minutes * MINUTE)
        self.model_output, self.slippage, self.venue = (CircuitBreaker(name, quiet) for name in ("model_output", "slippage", "venue"))
        self._of_book = (self.model_output, self.slippage, self.venue)
        self._of_instrument: dict[tuple[str, str], CircuitBreaker] = {}
        self.ticks = TickFilter(config.bad_tick_score, config.bad_tick_jump)
        days = config.slippage_run_length_days
        self._costs = None if days is None else SlippageMonitor(days)
        self._rejects: deque[int] = deque(maxlen=config.rejects)
        self._events: list[RiskEvent] = []
        self.is_quiet = True
        """Whether all are closed and nothing is to be told."""

    def note_fill(self, at: int, realised: float, modelled: float) -> None:
        """A fill and its cost, as fractions of its value: what it cost and what the cost model expected of it."""
        alarm = "" if self._costs is None else self._costs.update(at, realised - modelled)
        if alarm:
            self._note(self.slippage.fault(at, alarm))
        else:
            self._note(self.slippage.success(at))
        self._note(self.venue.success(at))

    def note_reject(self, at: int) -> None:
        """The venue refused an order."""
        self._rejects.append(at)
        if len(self._rejects) == self.config.rejects and at - self._rejects[0] < MINUTE:
            self._note(self.venue.fault(at, f"the venue refused {self.config.rejects} orders within a minute, last at {iso(at)}"))

    def note_output(self, at: int, fault: str) -> None:
        """Whether what the agents wanted could be used; `fault` says why not and is empty otherwise."""
        if fault:
            self._note(self.model_output.fault(at, fault))
        else:
            self._note(self.model_output.success(at))

    def tick(self, at: int) -> list[RiskEvent]:
        """Time has come to `at`; the events since the last call."""
        for breaker in self._of_book:
            self._note(breaker.tick(at))
        told, self._events = self._events, []
        self.is_quiet = not self._of_instrument and all(breaker.state == "closed" for breaker in self._of_book)
        return told

    def block(self, name: str) -> tuple[str, str] | None:
        """Rule and reason of the first breaker that forbids an entry into the instrument."""
        for breaker in (*self._of_book, *self._of_instrument.values()):
            if breaker.instrument in ("", name) and not breaker.allows_entry:
                return breaker.name, f"entries wait: {breaker.message}"
        return None

    def entered(self) -> None:
        """An entry was ordered."""
        for breaker in self._of_book:
            breaker.entered()

    def believed_price(self, name: str, price: float) -> float:
        """The price to count an instrument at: `price`, or the last one believed while it is in doubt whether that can be."""
        doubt = self.ticks.quarantined.get(name)
        return price if doubt is None else doubt[1]

    def believed_book(self, portfolio: PortfolioState) -> PortfolioState:
        """The book without what a price in quarantine made of its equity.

        Of an instrument whose feed went stale meanwhile the lower of both counts: there may never be a bar that settles it.
        """
        equity = portfolio.equity
        for name, quantity in portfolio.positions:
            doubt = self.ticks.quarantined.get(name)
            if doubt is not None:
                excess = quantity * (Decimal(repr(doubt[0])) - Decimal(repr(doubt[1])))
                equity -= max(excess, ZERO) if ("stale_feed", name) in self._of_instrument else excess
        peak = equity if portfolio.peak_equity <= portfolio.equity else portfolio.peak_equity
        return msgspec.structs.replace(portfolio, equity=equity, peak_equity=peak)

    def take_in(self, at: int, instruments: Sequence[str], close: Sequence[float], odd: dict[int, tuple[str, str]]) -> Sequence[float]:
        """Open and close what the tick filter says of places in the bar; returns the prices that are believed, NaN for the others."""
        believed = list(close)
        for place, (rule, message) in odd.items():
            name = instruments[place]
            if rule:
                key = (rule, name)
                breaker = self._of_instrument.get(key) or CircuitBreaker(rule, 0, name)
                self._of_instrument[key] = breaker
                self._note(breaker.fault(at, message))
                believed[place] = math.nan
            else:
                for key in [key for key in self._of_instrument if key[1] == name]:
                    self._note(self._of_instrument.pop(key).over(at, message))
        return believed

    def _note(self, event: RiskEvent | None) -> None:
        if event is not None:
            self._events.append(event)
            self.is_quiet = False
