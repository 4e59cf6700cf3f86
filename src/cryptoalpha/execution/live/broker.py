"""The broker of a live run, as the engine sees it: orders go out, what became of them comes back with the next bar.

It lives in the engine's thread and holds nothing but what the engine said and was told, so a replay finds it the same: `pending` follows
from orders submitted and outcomes delivered alone, never from what the venue thinks at the moment. Outcomes come from the journal
(`Journal.outcomes`), where the venue's thread wrote them; the row that is written takes them.

While rows are replayed nothing goes out: their orders are remembered, and those without an end are asked for by the venue's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, InstrumentRules, Order, Refusal, Travelling, split_event_id
from cryptoalpha.execution.broker import BarStep, Outcome
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.live.courier import Courier
from cryptoalpha.execution.live.intake import moved_by
from cryptoalpha.execution.live.points import Point, Reached, nobody
from cryptoalpha.execution.live.venue_thread import VenueThread
from cryptoalpha.execution.money import ZERO

FLATTEN = "kill_switch"
"""Binding limit of the orders with which a person closes everything: they are never too late."""
_GRACE_SECONDS = 5.0


class Rows(Protocol):
    """What the broker needs of the run's journal (`store.journal.Journal`)."""

    @property
    def next_row(self) -> int: ...

    def outcomes(self) -> tuple[Travelling, ...]: ...

    def __len__(self) -> int: ...


class LiveBroker:
    """Implements `execution.broker.Broker`.

    Args:
        make: makes the courier, in the thread that the broker starts.
        journal: of the run, with the rows of earlier processes; they are replayed before anything new happens.
        rules: of every instrument that may be traded.
    """

    def __init__(
        self,
        make: Callable[[], Courier],
        journal: Rows,
        rules: Mapping[str, InstrumentRules],
        config: ExecutionConfig,
        *,
        reached: Reached = nobody,
    ) -> None:
        self._journal, self._rules, self._config, self._reached = journal, dict(rules), config, reached
        self._courier: Courier | None = None
        self._make = make
        self._thread = VenueThread(self._made)
        self._stored = len(journal)
        self._left: dict[str, tuple[str, Decimal]] = {}
        self._told: dict[str, Decimal] = {}
        self._interval = 0

    def _made(self) -> Courier:
        self._courier = self._make()
        return self._courier

    # ── from start to end ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Open the venue and take up what an earlier process left.

        Raises:
            ConfigError: if the key may withdraw, or may not trade.
            VenueError: if the venue does not answer.
        """
        self._thread.start(timeout_seconds)

    def close(self, *, cancel_entries: bool = False, timeout_seconds: float = 30.0) -> None:
        """Send nothing more, wait for answers under way, end the thread. Orders at the venue stay, entries only unless `cancel_entries`.

        What is not answered in time is asked for at the next start: that is said, and is no error.
        """
        try:
            if cancel_entries and self._thread.is_alive:
                self.cancel_entries_now(wait_seconds=timeout_seconds)
        finally:
            self._thread.close(timeout_seconds)

    def drain(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until everything handed over was answered by the venue, or its fate is known to be unknown; whether it was in time."""
        return self._thread.call(lambda: self._at_venue.errands.idle(timeout_seconds), timeout_seconds + _GRACE_SECONDS)

    def compare_now(self, timeout_seconds: float = 30.0) -> bool:
        """Compare the venue's books with ours at once; whether the venue gave an answer that can be believed."""
        self._thread.call(lambda: self._at_venue.watch.compare(), timeout_seconds)
        return not self._at_venue.watch.is_in_doubt

    def demand_well(self) -> None:
        """Raises what ended the venue's thread, if anything did: nobody looks after orders any more. Waits for nothing."""
        self._thread.demand_alive()

    def standing(self) -> Mapping[str, object]:
        """How things stand at the venue, for people: why entries are halted (by what it is about), when the books were last compared (UTC
        ns, 0: never), whether that is in doubt, whether the stream is up, the clocks' difference, how many orders of others and of ours
        are open. Asks nobody; any thread may call it. Empty before the start."""
        return {} if self._courier is None else self._courier.standing()

    def cancel_entries_now(self, *, wait_seconds: float = 0.0) -> None:
        """Take back every order that could enlarge a position, at once and whatever the engine knows. It is told with the next bar."""
        self._hand(lambda courier: courier.cancel_entries())
        if wait_seconds:
            self.drain(wait_seconds)

    # ── the engine's side ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, order: Order, event: int) -> None:
        """Hand an order over; it replaces what is left of older ones of its instrument. A replayed row's order is only remembered.

        Raises:
            ConfigError: if the instrument has no rules.
            VenueError: if nobody looks after orders any more.
        """
        if order.instrument not in self._rules:
            raise ConfigError(f"order {order.client_id}: no rules for {order.instrument}", hint="the venue does not list it")
        self._left[order.client_id] = order.instrument, order.quantity if order.side == "buy" else -order.quantity
        if split_event_id(event)[0] <= self._stored:
            return
        self._reached(Point.AFTER_INTENT)
        told, expires = self._told.get(order.instrument, ZERO), self._expiry(order)
        self._hand(lambda courier: courier.submit(order, event, told=told, expires=expires))

    def cancel(self, instrument: str) -> None:
        """Ask for the end of what is left of an instrument's orders. They stay pending until their end was told."""
        if self._is_replaying or not any(name == instrument for name, _ in self._left.values()):
            return
        self._hand(lambda courier: courier.cancel(instrument))

    def pending(self) -> dict[str, Decimal]:
        """Signed quantity that may still be filled, by instrument, as far as the engine was told."""
        left: dict[str, Decimal] = {}
        for name, quantity in self._left.values():
            left[name] = left.get(name, ZERO) + quantity
        return {name: quantity for name, quantity in left.items() if quantity}

    def on_bar(self, step: BarStep) -> list[Outcome]:
        """Ask the venue, for a limited time, then tell what happened since the last bar.

        Raises:
            VenueError: if nobody looks after orders any more.
        """
        self._interval = step.interval
        if not self._is_replaying:
            seconds = self._config.live.settle_seconds
            self._thread.call(lambda: self._at_venue.look(seconds), 2 * seconds + _GRACE_SECONDS)
        outcomes = in_order([self._told_at(step.at, value) for value in self._journal.outcomes()], step.instruments)
        self._reached(Point.TOLD)
        return outcomes

    # ── within ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _is_replaying(self) -> bool:
        return self._journal.next_row <= self._stored

    @property
    def _at_venue(self) -> Courier:
        assert self._courier is not None  # the thread runs
        return self._courier

    def _hand(self, work: Callable[[Courier], Coroutine[Any, Any, None]]) -> None:
        """Have the courier do it, beside everything else, begun in the order of these calls."""
        self._thread.post(lambda: self._at_venue.errands.hand(work(self._at_venue)))

    def _expiry(self, order: Order) -> int | None:
        """Engine time after which it is not sent; None: never too late."""
        if order.reduce_only and order.binding_limit == FLATTEN:
            return None
        return order.known_at + round(self._config.stale_after_intervals * self._interval)

    def _told_at(self, at: int, value: Travelling) -> Outcome:
        """Count an outcome; it became known to the engine with this bar."""
        if not isinstance(value, Fill | FundingPayment | Refusal | Adjustment):
            raise ConfigError(f"the venue's inbox holds {value}, which is nothing that happens to an account")
        if isinstance(value, Fill | Refusal) and value.client_id in self._left:
            name, left = self._left[value.client_id]
            if isinstance(value, Fill):
                rest = left - (value.quantity if value.side == "buy" else -value.quantity)
                self._left[value.client_id] = name, rest
            if isinstance(value, Refusal) or rest * left <= 0:  # all of it, or more
                del self._left[value.client_id]
        if isinstance(value, Fill | Adjustment):
            self._told[value.instrument] = self._told.get(value.instrument, ZERO) + moved_by(value, self._rules)
        if isinstance(value, Refusal):
            return msgspec.structs.replace(value, happened_at=min(value.happened_at, at), known_at=at)
        return msgspec.structs.replace(value, known_at=max(value.happened_at, at))


def in_order(told: Sequence[Outcome], instruments: Sequence[str]) -> list[Outcome]:
    """What one bar tells, in one order however the answers came in: trades as they happened, sells before the buys they pay for; then ends
    of orders. Funding and adjustments keep their place, for they were counted on what was held at it."""
    places, segment = [], 0
    for value in told:
        if isinstance(value, Fill):
            at = instruments.index(value.instrument) if value.instrument in instruments else len(instruments)
            places.append((segment, value.happened_at, value.side == "buy", at))
        elif isinstance(value, Refusal):
            places.append((len(told), 0, False, 0))
        else:
            places.append((segment + 1, 0, False, 0))
            segment += 2
    return [told[i] for i in sorted(range(len(told)), key=places.__getitem__)]
