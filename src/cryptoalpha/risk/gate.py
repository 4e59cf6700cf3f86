"""The risk gate: every decision becomes an order, a refusal that names its rule, or nothing where nothing needs to change.

Promises:
* A size is within every cap, keeps its sign, and is rounded down to the lot, never up. A cap added to `caps.CAPS` makes no size larger
  within a review; only where `max_entries_per_hour` is spent may an entry that it refuses leave its turn to another one.
* Whatever part of the orders fills, in whatever order, no cap of the book is exceeded, at the prices of the review, that was not exceeded
  before, and none that was is made worse; fees and prices move equity meanwhile, and with it what a size is of it. Hence a rotation's entry
  waits: what is sold frees room only when it *is* sold, at the next review.
* A change that only makes a position smaller is refused by no limit, also while killed. It needs a fresh price, for it says how much to
  sell; closing needs none. Stopped are reductions below the venue's lot and minimum, second decisions and what is no number.
* Nothing is entered on a market state that is missing, stale or says no price, or no volatility where a target asks for one, nor on a
  decision that is no number anybody could mean.
* A price in doubt moves nothing: while the tick filter has one in quarantine, its instrument counts at the last price believed, for sizes,
  peak, drawdown and the day's loss. A crash that large acts a bar later.
* The same bars, decisions and states give the same orders, ids included, and the same account of how they came about.

Rules by name: `duplicate_decision`, `unknown_instrument`, `not_finite`, `no_market_state`, `kill_switch`, `daily_loss`, those of
`risk.breakers` and `risk.caps`, `drawdown_ladder`, `regime`, `order_rate`, `lot`, `min_notional`, and `superseded` (nothing to trade, but
the rest of an earlier order is wanted no longer). `orders.collar` becomes the `Order.worst_price` of entries; the broker holds them to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState, Refusal, RiskEvent, RiskState, Sizing
from cryptoalpha.risk import daily_loss, kill_switch, ladder
from cryptoalpha.risk.admission import Admission
from cryptoalpha.risk.book import Book, Proposal
from cryptoalpha.risk.breakers import Breakers
from cryptoalpha.risk.caps import CAPS
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.equity_guard import EquityGuard
from cryptoalpha.risk.kill_switch import KillSwitch, may_enter
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.order_limits import EntryRate
from cryptoalpha.risk.orders import SUPERSEDED, ZERO, OrderMaker, Verdict, refuse
from cryptoalpha.risk.risk_state import Observer
from cryptoalpha.risk.standstill import CONSIDERED, Standstill

NOTHING: Mapping[str, Decimal] = {}


class Review(msgspec.Struct, gc=False):
    """What one review came to. `verdicts` are acted on; the rest is journaled so that each cut can be explained.

    `sizings` are given for decisions that led to an order or refusal, and where another limit binds than the last time one was given for
    the instrument. `state` is given with an order, a refusal or an event, when positions or the mode have changed, and at the first review
    of a day.
    """

    verdicts: list[Verdict]
    sizings: list[Sizing] = []
    events: list[RiskEvent] = []
    state: RiskState | None = None


QUIET = Review([])
"""What a review came to in which nothing happened. It is shared: nobody may change a review."""


class RiskGate:
    """See the module header.

    Args:
        config: the limits.
        rules: lot, tick and minimum of every instrument that may be traded.
        account: name that enters the order ids, so that two accounts never share one.
    """

    def __init__(self, config: RiskConfig, rules: Mapping[str, InstrumentRules], *, account: str = "main") -> None:
        self.config = config
        self.kill_switch = KillSwitch()
        """Whoever trips or resumes it journals the event. After a resumption, what was beyond its limit, drawdown or day, counts from the
        equity of the next review (`EquityGuard.resume`)."""
        self.memory = MarketMemory(config.tail)
        self.guard = EquityGuard(config, self.kill_switch)
        self.breakers = Breakers(config.breakers)
        self._rules = rules
        self._universe = tuple(rules)
        self._orders = OrderMaker(config, rules, account)
        self._rate = EntryRate(config.orders.max_entries_per_hour)
        self._admission = Admission(config, rules, guard=self.guard, breakers=self.breakers, memory=self.memory, rate=self._rate)
        self._observer = Observer(config, self.guard, self._rate)
        self._standstill = Standstill(config, rules, self._admission.max_age, self.memory)
        self._look = self.breakers.ticks.observe
        self._resumed_at: int | None = None
        self._knows_every_cap = {name for name, _ in CAPS} <= CONSIDERED

    def observe(self, at: int, interval: int, instruments: Sequence[str], close: Sequence[float], volume: Sequence[float]) -> None:
        """Take in one closed bar of the market, whether anything is decided on it or not. NaN where a bar is absent.

        Args:
            at: when the bar was known, UTC ns.
            interval: its length, ns.
            close: last prices, one per instrument.
            volume: traded in the bar, base units.
        """
        odd = self._look(instruments, close)
        if odd:
            close = self.breakers.take_in(at, instruments, close, odd)
        self.memory.observe(at, interval, instruments, close, volume)

    def note_fill(self, at: int, *, realised: float, modelled: float) -> None:
        """What a fill cost and what the cost model expected, both as fractions of its value."""
        self.breakers.note_fill(at, realised, modelled)

    def note_reject(self, at: int) -> None:
        """The venue refused an order (not: cash or bars were missing)."""
        self.breakers.note_reject(at)

    def review(
        self,
        at: int,
        decisions: Sequence[Decision],
        events: Sequence[int],
        states: Mapping[str, MarketState],
        portfolio: PortfolioState,
        pending: Mapping[str, Decimal] = NOTHING,
    ) -> Review:
        """Judge all decisions of one moment together.

        Args:
            at: the clock, UTC ns.
            events: event id of each decision.
            states: what is known of each instrument.
            portfolio: the book, marked at `at`.
            pending: signed quantity of earlier orders still to be filled (`Broker.pending`). While they head for what is wanted they are
                left to work; an order in the result replaces them; after a refusal the caller cancels (`Broker.cancel`) those that
                `orders.is_cancelled_by` says: what may enter, never a way out because of a limit.

        Raises:
            ConfigError: if there are not as many events as decisions.
        """
        if len(decisions) != len(events):
            raise ConfigError(f"{len(decisions)} decisions came with {len(events)} event ids")
        if (
            not pending
            and portfolio.positions is self._observer.positions
            and self.kill_switch.resumed_at is self._resumed_at
            and self.kill_switch.tripped_at is None
            and self.breakers.is_quiet
            and self.guard.is_still(at, portfolio.equity)
            and (
                not decisions
                or (self._knows_every_cap and not self._observer.binding and self._standstill.holds(at, decisions, states, portfolio))
            )
        ):
            return QUIET
        if self.breakers.ticks.quarantined:
            portfolio = self.breakers.believed_book(portfolio)
        changed = self._watch(at, portfolio)
        told = [*changed, *self.breakers.tick(at)]
        positions = dict(portfolio.positions)
        if self.kill_switch.stands:
            self._settle(at, positions, pending, states, told)
        news = self._observer.is_new(at, portfolio) or bool(told)
        book = Book(float(portfolio.equity), [], [], self.memory, self._universe)
        verdicts: list[Verdict] = []
        if self.kill_switch.stands and self.kill_switch.flatten:
            self._close_all(at, decisions, events, positions, pending, states, verdicts)
        else:
            self._admission.admit(at, decisions, events, states, positions, pending, book, verdicts)
        late = self.breakers.tick(at)
        news = news or bool(late)
        if book.proposals or verdicts or news:
            self._admission.lay_stakes(book, portfolio, positions, pending, states)
        sizings = self._size(at, book, verdicts)
        self._cancel_entries(at, positions, pending, verdicts)
        state = self._observer.state(at, book, verdicts) if verdicts or news else None
        return Review(verdicts, sizings, told + late, state)

    def _watch(self, at: int, portfolio: PortfolioState) -> Sequence[RiskEvent]:
        """Show equity to those who watch it; after a resumption they count from here."""
        if self.kill_switch.resumed_at is self._resumed_at:
            return self.guard.watch(at, portfolio)
        self._resumed_at = self.kill_switch.resumed_at
        return [*self.guard.resume(at, portfolio), *self.guard.watch(at, portfolio)]

    def _size(self, at: int, book: Book, verdicts: list[Verdict]) -> list[Sizing]:
        """Cut every proposal to the smallest of its caps, leave what ladder and regime leave, and turn it into an order."""
        if not book.proposals:
            return []
        limits = [(name, cap(book, self.config)) for name, cap in CAPS]
        sizings = []
        for j, p in enumerate(book.proposals):
            # what a cap cannot say it does not allow
            cuts = [(name, max(0.0, allowed[j])) for name, allowed in limits if not allowed[j] >= abs(p.wanted)]
            size, binding = self._smallest(p, cuts)
            verdict, size, binding = self._judge(at, p, size, binding, book.equity)
            if verdict is not None:
                verdicts.append(verdict)
            if self._observer.tells(p.decision.instrument, binding, verdict):
                sizings.append(
                    Sizing(
                        happened_at=at, known_at=at, instrument=p.decision.instrument, requested=p.wanted,
                        held=p.held if p.price == p.price else math.nan,
                        allowed=math.copysign(size, p.wanted), cuts=tuple(cuts), binding=binding, decision=p.event,
                    )
                )  # fmt: skip
        return sizings

    def _smallest(self, p: Proposal, cuts: list[tuple[str, float]]) -> tuple[float, str]:
        """Size left by all caps, multipliers and blocks, and the one that decided; multipliers and block are added to the cuts."""
        wanted = abs(p.wanted)
        if wanted == 0.0:
            return 0.0, ""
        size, binding = wanted, ""
        for name, allowed in cuts:
            if allowed < size:
                size, binding = allowed, name
        share = size / wanted
        if p.block and p.kept < wanted:
            cuts.append((p.block, p.kept))
        for name, left in ((ladder.NAME, self.guard.ladder.exposure), ("regime", p.exposure)):
            if left < 1.0:
                size *= left
                cuts.append((name, size))
                if left < share:
                    share, binding = left, name
        if p.block and p.kept <= size:
            size, binding = p.kept, p.block
        return size, binding

    def _judge(self, at: int, p: Proposal, size: float, binding: str, equity: float) -> tuple[Verdict | None, float, str]:
        """The verdict on one proposal, with the size and the limit that decided in the end."""
        if p.block and binding == p.block:
            if p.kept == 0.0 and p.position:  # the other side is closed, nothing is entered on this one
                return self._orders.resize(at, p, 0.0, binding, equity), 0.0, binding
            if not p.pending and abs(p.wanted - p.held) < self.config.no_trade_band:
                return None, size, binding
            return refuse(at, p.decision, p.event, p.block, p.reason), size, binding
        verdict = self._orders.resize(at, p, math.copysign(size, p.wanted), binding, equity)
        if self.kill_switch.stands and isinstance(verdict, Refusal) and verdict.rule == SUPERSEDED and not may_enter(p.pending, p.position):
            return None, size, binding  # a way out that is on its way stays, also where nobody wants it any more
        if isinstance(verdict, Order) and not verdict.reduce_only:
            # an entry of this review may have been the last one
            p.block, p.reason = self._admission.block(at, p.decision.instrument)
            if p.block:
                return self._judge(at, p, p.kept, p.block, equity)
            self._rate.count(at)
            self.breakers.entered()
        return verdict, size, binding

    def _close_all(
        self,
        at: int,
        decisions: Sequence[Decision],
        events: Sequence[int],
        positions: Mapping[str, Decimal],
        pending: Mapping[str, Decimal],
        states: Mapping[str, MarketState],
        verdicts: list[Verdict],
    ) -> None:
        """After a kill that flattens: close what is held, refuse everything that is not a way out."""
        for decision, event in zip(decisions, events, strict=True):
            if decision.target_weight != 0.0 and decision.instrument not in positions:
                verdicts.append(refuse(at, decision, event, kill_switch.NAME, self.kill_switch.message))
        for name, position in positions.items():
            order = self._orders.close(at, name, position, kill_switch.NAME, self._admission.last_price(name, states))
            if order is not None and pending.get(name, ZERO) != (-order.quantity if position > 0 else order.quantity):
                verdicts.append(order)

    def _cancel_entries(self, at: int, positions: Mapping[str, Decimal], pending: Mapping[str, Decimal], verdicts: list[Verdict]) -> None:
        """While nothing may be entered at all, orders on their way are no exception: a refusal makes the caller cancel them."""
        if not pending or not (self.kill_switch.stands or self.guard.daily.is_reduce_only):
            return
        rule, why = (
            (kill_switch.NAME, self.kill_switch.message)
            if self.kill_switch.stands
            else (daily_loss.NAME, "positions may only be reduced today")
        )
        judged = {verdict.instrument for verdict in verdicts}
        verdicts.extend(
            Refusal(happened_at=at, known_at=at, instrument=name, rule=rule, message=f"{name}: {why}")
            for name, quantity in pending.items()
            if name not in judged and may_enter(quantity, positions.get(name, ZERO))
        )

    def _settle(
        self,
        at: int,
        positions: Mapping[str, Decimal],
        pending: Mapping[str, Decimal],
        states: Mapping[str, MarketState],
        told: list[RiskEvent],
    ) -> None:
        """Tell the kill switch how far it has come. What cannot be sold does not keep it from settling, but is named."""
        entering = any(may_enter(quantity, positions.get(name, ZERO)) for name, quantity in pending.items())
        stuck = {name: self._orders.why_stuck(name, q, self._admission.last_price(name, states)) for name, q in positions.items()}
        left = ", ".join(f"{name} {positions[name]} ({why})" for name, why in stuck.items() if why)
        event = self.kill_switch.settle(at, pending=entering, flat=all(stuck.values()), left=left)
        if event is not None:
            told.append(event)
