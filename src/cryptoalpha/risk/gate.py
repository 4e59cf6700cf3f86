"""The risk gate: every decision becomes an order, a refusal that names its rule, or nothing where nothing needs to change.

Promises:
* A size is within every cap, keeps its sign, and is rounded down to the lot, never up; an added cap never makes it larger.
* A change that only makes a position smaller is never refused by a limit, also while halted; only the venue's own minimum can stop it.
* Nothing is entered on a market state that is missing, stale or NaN, nor on a decision that is not a finite number.
* The same decisions and states give the same orders, ids included.

Rules by name: `duplicate_decision`, `unknown_instrument`, `not_finite`, `no_market_state`, `drawdown_stop`, those of `risk.caps`, `lot`,
`min_notional`, and `superseded` (nothing to trade, but the rest of an earlier order is wanted no longer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import MINUTE
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState, Refusal, RiskEvent, RiskState, Sizing
from cryptoalpha.risk import drawdown_stop
from cryptoalpha.risk.book import Book, Proposal, only_reduces
from cryptoalpha.risk.caps import CAPS
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.drawdown_stop import DrawdownStop
from cryptoalpha.risk.kill_switch import KillSwitch
from cryptoalpha.risk.rounding import client_order_id, round_to_lot
from cryptoalpha.risk.standstill import CONSIDERED, Standstill

Verdict = Order | Refusal
ZERO = Decimal(0)
NOTHING: Mapping[str, Decimal] = {}


class Review(msgspec.Struct, gc=False):
    """What one review came to. `verdicts` are acted on; the rest is journaled so that each cut can be explained.

    `state` is given where it should be journaled: with an order, a fill or at the first review of a day.
    """

    verdicts: list[Verdict]
    sizings: list[Sizing] = []
    events: list[RiskEvent] = []
    state: RiskState | None = None


class RiskGate:
    """See the module header.

    Args:
        config: the limits.
        rules: lot, tick and minimum of every instrument that may be traded.
        account: name that enters the order ids, so that two accounts never share one.
    """

    def __init__(self, config: RiskConfig, rules: Mapping[str, InstrumentRules], *, account: str = "main") -> None:
        self.config = config
        self.stop = DrawdownStop(config.max_drawdown)
        self.kill_switch = KillSwitch()
        self._rules = rules
        self._account = account
        self._max_age = int(config.max_state_age_minutes * MINUTE)
        self._standstill = Standstill(config, rules, self._max_age)
        self._knows_every_cap = {name for name, _ in CAPS} <= CONSIDERED

    @property
    def is_halted(self) -> bool:
        """Whether the drawdown stop stands."""
        return self.stop.tripped_at is not None

    def resume(self, portfolio: PortfolioState) -> None:
        """Lift the drawdown stop and count from present equity."""
        self.stop.resume(portfolio)

    def observe(self, at: int, interval: int, instruments: Sequence[str], close: Sequence[float], volume: Sequence[float]) -> None:
        """Take in one closed bar of the market, whether anything is decided on it or not. NaN where a bar is absent.

        Args:
            at: when the bar was known, UTC ns.
            interval: its length, ns.
            close: last prices, one per instrument.
            volume: traded in the bar, base units.
        """

    def review(
        self,
        at: int,
        decisions: Sequence[Decision],
        *,
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
                left to work; an order in the result replaces them, and a refusal means that the caller cancels them (`Broker.cancel`).

        Raises:
            ConfigError: if there are not as many events as decisions.
        """
        return Review(self._judge(at, decisions, events, states, portfolio, pending))

    def _judge(
        self,
        at: int,
        decisions: Sequence[Decision],
        events: Sequence[int],
        states: Mapping[str, MarketState],
        portfolio: PortfolioState,
        pending: Mapping[str, Decimal],
    ) -> list[Verdict]:
        halted = self.stop.watch(at, portfolio)
        if not decisions and not (halted and (portfolio.positions or pending)):
            return []
        if len(decisions) != len(events):
            raise ConfigError(f"{len(decisions)} decisions came with {len(events)} event ids")
        if self._knows_every_cap and not (halted or pending) and self._standstill.holds(at, decisions, states, portfolio):
            return []
        positions = dict(portfolio.positions)
        verdicts: list[Verdict] = []
        if halted:
            self._close_all(at, decisions, events, positions, pending, verdicts)
            return verdicts
        book = Book(float(portfolio.equity), [], [])
        seen: set[str] = set()
        for decision, event in zip(decisions, events, strict=True):
            name = decision.instrument
            if name in seen:
                verdicts.append(self._refuse(at, decision, event, "duplicate_decision", "a second decision for it in one review"))
                continue
            seen.add(name)
            admitted = self._admit(at, decision, event, states.get(name), positions.get(name, ZERO), pending.get(name, ZERO), book.equity)
            if isinstance(admitted, Proposal):
                book.proposals.append(admitted)
            else:
                verdicts.append(admitted)
        decided = {p.decision.instrument for p in book.proposals}
        if pending or not positions.keys() <= decided:
            book.held_elsewhere = self._held_elsewhere(portfolio, positions, pending, states, decided)
        self._size(at, book, verdicts)
        return verdicts

    def _admit(
        self, at: int, decision: Decision, event: int, state: MarketState | None, position: Decimal, pending: Decimal, equity: float
    ) -> Proposal | Refusal:
        """A decision that can be sized, or why it cannot."""
        if decision.instrument not in self._rules:
            return self._refuse(at, decision, event, "unknown_instrument", "no lot and tick are known for it")
        wanted = decision.target_weight
        if not math.isfinite(wanted):
            return self._refuse(at, decision, event, "not_finite", f"{decision.agent} wants {wanted}")
        price = state.price if state is not None and at - state.known_at <= self._max_age else math.nan
        if state is None or not 0.0 < price < math.inf:
            if wanted == 0.0 and position:  # closing needs no price
                return Proposal(decision, event, 0.0, math.copysign(1.0, position), math.nan, math.nan, position, pending, True)
            return self._refuse(at, decision, event, "no_market_state", "its market state is missing, stale or without a price")
        if self.config.sizing == "units":
            wanted = wanted * price / equity
        held = float(position) * price / equity
        reducing = only_reduces(wanted, held)
        if not reducing and state.volatility != state.volatility and self.config.volatility_target is not None:
            return self._refuse(at, decision, event, "no_market_state", "too little history to know its volatility")
        return Proposal(decision, event, wanted, held, price, state.volatility, position, pending, reducing)

    def _held_elsewhere(
        self,
        portfolio: PortfolioState,
        positions: Mapping[str, Decimal],
        pending: Mapping[str, Decimal],
        states: Mapping[str, MarketState],
        decided: set[str],
    ) -> list[tuple[float, float]]:
        """Weight and volatility of what nobody decided on now, counting orders on their way. Positions whose price is unknown share what
        equity is left unexplained."""
        equity = float(portfolio.equity)
        unexplained = equity - float(portfolio.cash)
        rows: list[tuple[float, float]] = []
        blind = False
        for name in {**positions, **pending}:
            held = float(positions.get(name, ZERO))
            state = states.get(name)
            if state is None or not state.price > 0.0:
                blind = blind or held != 0.0
                continue
            unexplained -= held * state.price
            if name not in decided:
                after = held + float(pending.get(name, ZERO))
                rows.append((max(abs(held), abs(after)) * state.price / equity, state.volatility))
        if blind:
            rows.append((abs(unexplained) / equity, math.nan))
        return rows

    def _size(self, at: int, book: Book, verdicts: list[Verdict]) -> None:
        """Cut every proposal to the smallest of its caps and turn it into an order."""
        if not book.proposals:
            return
        limits = [(name, cap(book, self.config)) for name, cap in CAPS]
        for j, p in enumerate(book.proposals):
            size, binding = abs(p.wanted), ""
            for name, allowed in limits:
                if allowed[j] < size:
                    size, binding = allowed[j], name
            verdict = self._order(at, p, math.copysign(size, p.wanted), binding, book.equity)
            if verdict is not None:
                verdicts.append(verdict)

    def _order(self, at: int, p: Proposal, weight: float, binding: str, equity: float) -> Verdict | None:
        """The order that moves the position to `weight`; None where the change is not worth a trade."""
        decision = p.decision
        rules = self._rules[decision.instrument]
        heading = p.position + p.pending
        if weight == 0.0:
            if heading == 0:
                refused = binding and p.position == 0
                return self._refuse(at, decision, p.event, binding, f"nothing of {p.wanted:+.4f} of equity is allowed") if refused else None
            target = ZERO
        else:
            held = float(heading) * p.price / equity if p.pending else p.held
            if weight == held or abs(weight - held) < self.config.no_trade_band:
                return None
            units = decision.target_weight if self.config.sizing == "units" and not binding else weight * equity / p.price
            target = round_to_lot(Decimal(repr(units)), rules.lot)
            if target == heading != 0:
                return None
        change = target - p.position
        quantity = round_to_lot(abs(change), rules.lot)
        if quantity == 0:
            if p.pending:
                return self._refuse(at, decision, p.event, "superseded", f"the {p.pending} still to be filled is wanted no longer")
            return self._refuse(at, decision, p.event, "lot", f"a change of {change} is smaller than one lot of {rules.lot}")
        if p.price == p.price and quantity * Decimal(repr(p.price)) < rules.min_notional:
            what = f"{quantity} at {p.price} is less than the venue's minimum of {rules.min_notional} {rules.quote}"
            return self._refuse(at, decision, p.event, "min_notional", what)
        shrinks = abs(target) < abs(p.position) and (target == 0 or (target > 0) == (p.position > 0))
        return Order(
            happened_at=at,
            known_at=at,
            client_id=client_order_id(self._account, decision.instrument, decision.agent, decision.known_at, 0),
            instrument=decision.instrument,
            side="buy" if change > 0 else "sell",
            quantity=quantity,
            reduce_only=shrinks,
            decision=p.event,
            binding_limit=binding,
        )

    def _close_all(
        self,
        at: int,
        decisions: Sequence[Decision],
        events: Sequence[int],
        positions: Mapping[str, Decimal],
        pending: Mapping[str, Decimal],
        verdicts: list[Verdict],
    ) -> None:
        """While halted: close what is held, refuse everything that is not a way out."""
        for decision, event in zip(decisions, events, strict=True):
            if decision.target_weight != 0.0 and decision.instrument not in positions:
                verdicts.append(self._refuse(at, decision, event, drawdown_stop.NAME, self.stop.message))
        for name in pending:
            if name not in positions:
                why = f"{name}: {self.stop.message}"
                verdicts.append(Refusal(happened_at=at, known_at=at, instrument=name, rule=drawdown_stop.NAME, message=why))
        for name, position in positions.items():
            if pending.get(name, ZERO) == -position or name not in self._rules:
                continue
            quantity = round_to_lot(abs(position), self._rules[name].lot)
            if quantity == 0:
                continue
            verdicts.append(
                Order(
                    happened_at=at,
                    known_at=at,
                    client_id=client_order_id(self._account, name, drawdown_stop.NAME, at, 0),
                    instrument=name,
                    side="sell" if position > 0 else "buy",
                    quantity=quantity,
                    reduce_only=True,
                    binding_limit=drawdown_stop.NAME,
                )
            )

    def _refuse(self, at: int, decision: Decision, event: int, rule: str, why: str) -> Refusal:
        return Refusal(
            happened_at=at, known_at=at, instrument=decision.instrument, rule=rule, message=f"{decision.instrument}: {why}", decision=event
        )
