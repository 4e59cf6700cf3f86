"""From an allowed size to an order: rounded down to the lot, named so that it cannot be sent twice, or a refusal that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from cryptoalpha.core.values import Decision, InstrumentRules, Order, Refusal
from cryptoalpha.risk.book import Proposal
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.kill_switch import may_enter
from cryptoalpha.risk.order_limits import worst_price
from cryptoalpha.risk.rounding import client_order_id, round_to_lot

Verdict = Order | Refusal
ZERO = Decimal(0)
SUPERSEDED = "superseded"
"""Rule of a refusal that says only that the rest of an earlier order is wanted no longer."""


def is_cancelled_by(rule: str, pending: Decimal, held: Decimal) -> bool:
    """Whether a refusal by `rule` ends what is left of an earlier order, signed: an order that may enter, or one nobody wants any more. A
    way out goes on, whatever limit refused what was asked for beside it."""
    return rule == SUPERSEDED or may_enter(pending, held)


def refuse(at: int, decision: Decision, event: int, rule: str, why: str) -> Refusal:
    """A decision that a rule stopped."""
    return Refusal(
        happened_at=at, known_at=at, instrument=decision.instrument, rule=rule, message=f"{decision.instrument}: {why}", decision=event
    )


class OrderMaker:
    """Makes orders of one account.

    Args:
        config: the no-trade band, and how decisions are read.
        rules: lot, tick and minimum of every instrument.
        account: name that enters the order ids.
    """

    def __init__(self, config: RiskConfig, rules: Mapping[str, InstrumentRules], account: str) -> None:
        self._config, self._rules, self._account = config, rules, account
        self._named: dict[tuple[str, str], tuple[int, int]] = {}

    def _name(self, instrument: str, author: str, known_at: int) -> tuple[str, int]:
        """Client id and attempt of an order. Orders of one author for one instrument at one moment, as when a late bar becomes known
        together with the next, count as attempts: an id names one order for ever."""
        last_at, last = self._named.get((instrument, author), (known_at, -1))
        attempt = last + 1 if last_at == known_at else 0
        self._named[instrument, author] = (known_at, attempt)
        return client_order_id(self._account, instrument, author, known_at, attempt), attempt

    def resize(self, at: int, p: Proposal, weight: float, binding: str, equity: float) -> Verdict | None:
        """The order that moves the position to `weight`; None where the change is not worth a trade."""
        decision, lot = p.decision, self._rules[p.decision.instrument].lot
        heading = p.position + p.pending
        if weight == 0.0:
            if heading == 0:
                refused = binding and p.position == 0
                why = p.reason if binding == p.block and p.reason else f"nothing of {p.wanted:+.4f} of equity is allowed"
                return refuse(at, decision, p.event, binding, why) if refused else None
            target = ZERO
        else:
            held = float(heading) * p.price / equity if p.pending else p.held
            if weight == held or abs(weight - held) < self._config.no_trade_band:
                return None
            units = decision.target_weight if self._config.sizing == "units" and not binding else weight * equity / p.price
            target = round_to_lot(Decimal(repr(units)), lot)
            if weight * p.held > 0.0 and abs(weight) >= abs(p.held) and abs(target) < abs(p.position):
                target = p.position  # a float that was rounded must not sell a lot
            if target == heading != 0:
                return None
        change = target - p.position
        quantity = round_to_lot(abs(change), lot)
        if quantity == 0:
            if p.pending:
                return refuse(at, decision, p.event, SUPERSEDED, f"the {p.pending} still to be filled is wanted no longer")
            return refuse(at, decision, p.event, "lot", f"a change of {change} is smaller than one lot of {lot}")
        rules = self._rules[decision.instrument]
        if p.price == p.price and quantity * Decimal(repr(p.price)) < rules.min_notional:
            if p.pending:
                return refuse(at, decision, p.event, SUPERSEDED, f"the {p.pending} still to be filled is wanted no longer")
            what = f"{quantity} at {p.price} is less than the venue's minimum of {rules.min_notional} {rules.quote}"
            return refuse(at, decision, p.event, "min_notional", what)
        shrinks = abs(target) < abs(p.position) and (target == 0 or (target > 0) == (p.position > 0))
        client_id, attempt = self._name(decision.instrument, decision.agent, decision.known_at)
        return Order(
            happened_at=at,
            known_at=at,
            client_id=client_id,
            instrument=decision.instrument,
            side="buy" if change > 0 else "sell",
            quantity=quantity,
            reduce_only=shrinks,
            decision=p.event,
            binding_limit=binding,
            attempt=attempt,
            worst_price=None if shrinks else worst_price(p.price, self._config.orders.collar, rules.tick, is_buy=change > 0),
        )

    def why_stuck(self, name: str, position: Decimal, price: float) -> str:
        """Why a position cannot be closed at about this price (NaN: nobody knows it, so it may be tried); empty where it can."""
        rules = self._rules.get(name)
        if rules is None:
            return "its lot and tick are not known"
        quantity = round_to_lot(abs(position), rules.lot)
        return "too small to sell" if quantity == 0 or (price == price and quantity * Decimal(repr(price)) < rules.min_notional) else ""

    def close(self, at: int, name: str, position: Decimal, rule: str, price: float) -> Order | None:
        """The reduce-only order that closes a position; None where it cannot be closed (`why_stuck`)."""
        if self.why_stuck(name, position, price):
            return None
        quantity = round_to_lot(abs(position), self._rules[name].lot)
        client_id, attempt = self._name(name, rule, at)
        return Order(
            happened_at=at,
            known_at=at,
            client_id=client_id,
            instrument=name,
            side="sell" if position > 0 else "buy",
            quantity=quantity,
            reduce_only=True,
            binding_limit=rule,
            attempt=attempt,
        )
