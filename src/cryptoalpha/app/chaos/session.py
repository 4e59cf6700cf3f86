"""The live session of a schedule: engine, live broker and ccxt client, put together as `trade --live` does, with the harness's two clocks.

The engine's clock stands at the bar in hand. The market's clock runs from the end of the last bar that the exchange has shown: by it an
order is stale that was decided on a bar long past.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.chaos.exchange import KEY, SECRET
from cryptoalpha.app.chaos.world import CASH, ScheduledAgent, World
from cryptoalpha.app.engine import Engine
from cryptoalpha.app.venues import Keys, account_venue
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.values import Decision, FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.live.broker import LiveBroker
from cryptoalpha.execution.live.courier import Courier
from cryptoalpha.execution.live.points import Point, Reached
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.venue import Venue
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import OrderLedger, read_summary

START_SECONDS = 20.0
DRAIN_SECONDS = 3.0


class MarketClock:
    """Runs with the machine from the end of the last bar known."""

    def __init__(self, known_at: int = 0) -> None:
        self.known(known_at)

    def known(self, known_at: int) -> None:
        """Another bar is known."""
        self._at, self._since = known_at, time.monotonic_ns()

    def now(self) -> int:
        return self._at + time.monotonic_ns() - self._since


@dataclass
class LiveParts:
    """A session's parts, for whoever drives it."""

    engine: Engine
    broker: LiveBroker
    clock: VirtualClock
    market_clock: MarketClock
    path: Path
    settle_seconds: float

    def drain(self) -> None:
        """Wait until the venue has answered, or is known not to answer, about every order handed over."""
        self.broker.drain(DRAIN_SECONDS)

    def settle(self, seconds: float) -> None:
        """Wait until every order has an ending, for at most so long, then compare the books."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            summary = read_summary(self.path)
            if summary is None or not any(count for state, count in summary.states.items() if state in UNENDED):
                break
            time.sleep(0.02)
        self.compare()
        time.sleep(1.1 * self.settle_seconds)  # what nothing explains must stand that long before it is believed
        self.compare()

    def compare(self) -> None:
        """Compare the venue's books with ours, now; again while the venue gives no answer that can be believed (a ban takes its time)."""
        deadline = time.monotonic() + START_SECONDS
        while not self.broker.compare_now(START_SECONDS) and time.monotonic() < deadline:
            time.sleep(0.05)

    def demand_agreement(self) -> None:
        """At the quiet end the venue's books and ours agree, for the reconciler too.

        Raises:
            VenueError: if entries would still be stopped because they do not.
        """
        halted = self.broker.standing()["halted"]
        if isinstance(halted, dict) and "books" in halted:
            raise VenueError(f"entries are still stopped at the quiet end: {halted['books']}", hint="see what the run said")

    def close(self) -> None:
        """End the venue's thread."""
        self.broker.close()


class Deciding(ScheduledAgent):
    """Passes the point at which something is decided and not written."""

    def __init__(self, world: World, journal: Journal, reached: Reached) -> None:
        super().__init__(world)
        self._journal, self._reached = journal, reached

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        decisions = super().decide(at, fused, fused_events=fused_events, portfolio=portfolio, states=states, signals=signals)
        if decisions and not self._journal.is_replaying:
            self._reached(Point.BEFORE_INTENT)
        return decisions


UNENDED = frozenset({"intent", "unknown", "open", "partial", "canceling"})
Wrap = Callable[[Venue], Venue]


def open_live(
    world: World, journal: Journal, folder: Path, endpoint: str, *, reached: Reached, clock: VirtualClock, known_at: int, wrap: Wrap
) -> LiveParts:
    """Everything started: the venue was asked what became of the orders of the life before.

    Args:
        known_at: end of the last bar that the exchange has shown.
        wrap: stands between the courier and the venue.

    Raises:
        UnclearError: if the venue gives no answers.
    """
    path, market_clock = folder / "journal.sqlite", MarketClock(known_at)
    rules = world.rules

    def alert(name: str, text: str) -> None:
        print(f"alert {name}: {text}", flush=True)

    def make() -> Courier:
        venue = account_venue(ExchangeConfig(endpoint=endpoint), world.execution.live, Keys(KEY, SECRET), seed=world.schedule.seed)
        ledger = OrderLedger(path)
        return Courier(wrap(venue), ledger, rules, world.execution, clock=market_clock, alert=alert, reached=reached)

    broker = LiveBroker(make, journal, rules, world.execution, reached=reached)
    engine = Engine(
        clock=clock,
        fusion=EqualWeights(),
        agent=Deciding(world, journal, reached),
        gate=RiskGate(world.risk, rules, account=f"chaos{world.schedule.seed}"),
        broker=broker,
        portfolio=Portfolio(CASH, list(rules), [name for name, rule in rules.items() if rule.perpetual], may_overdraw=True),
        journal=journal,
    )
    broker.start(START_SECONDS)
    return LiveParts(engine, broker, clock, market_clock, path, world.execution.live.settle_seconds)
