"""Why this trade, or why none? From a fill, an order or a refusal back through what each limit allowed to the decision, the weights, the
signals and the bars they were read from. A change of state and an alarm are told with what stood beside them: they have no decision."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

from cryptoalpha.app.sizing_steps import (
    Units,
    event_words,
    events_behind,
    refusal_words,
    sizing_lines,
    sizing_of,
    sizing_steps,
    units_line,
    units_of,
)
from cryptoalpha.app.thought_words import decision_details, regime_details, search_details, search_words
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import interval_name, iso
from cryptoalpha.core.values import (
    Alarm,
    Decision,
    Fill,
    FusedSignal,
    FusionSearch,
    MarketState,
    ObservationRef,
    Order,
    Refusal,
    RiskEvent,
    RiskState,
    Signal,
    Sizing,
    Travelling,
    event_id,
    format_event_id,
    parse_event_id,
    split_event_id,
)
from cryptoalpha.store.journal_reader import JournalReader

Verdict = Order | Refusal
STATEFUL = frozenset({"kill_switch", "drawdown_ladder", "daily_loss", "stale_feed", "bad_tick", "model_output", "slippage", "venue"})
"""Limits that stand or not by what happened before: their last change is part of the explanation."""
HINT = "`cryptoalpha report` lists fills, refusals, changes of state and alarms of a run by their ids"


@dataclass(frozen=True)
class Link:
    """One value of the chain, where it stands in the journal and what it says: in a sentence, and line by line where one is not enough."""

    event: str
    value: Travelling
    words: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """The chain of one trade or refusal, from what happened back to what was observed.

    `sizing` and `units`: how the gate came to the size; None where the journal does not hold it (journals of earlier versions, orders that
    no decision asked for).
    """

    links: tuple[Link, ...]
    sizing: Sizing | None = None
    units: Units | None = None

    def as_dict(self) -> dict[str, object]:
        return {
            "chain": [
                {
                    "event": link.event,
                    "kind": type(link.value).__name__,
                    "words": link.words,
                    **({"details": list(link.details)} if link.details else {}),
                    "value": link.value,
                }
                for link in self.links
            ],
            "sizing": None if self.sizing is None else _sizing_dict(self.sizing, self.units),
        }

    def lines(self) -> list[str]:
        """The chain for people, each link with the id of its event."""
        found = []
        for link in self.links:
            found.append(f"{link.event:>10}  {link.words}")
            found += [f"{'':>10}    {detail}" for detail in link.details]
        return found


def _sizing_dict(sizing: Sizing, units: Units | None) -> dict[str, object]:
    return {
        "requested": sizing.requested,
        "held": sizing.held if sizing.held == sizing.held else None,
        "steps": [dataclasses.asdict(step) for step in sizing_steps(sizing)],
        "allowed": sizing.allowed,
        "binding": sizing.binding,
        "units": None if units is None else dataclasses.asdict(units),
    }


def explain(journal: JournalReader, name: str) -> Explanation:
    """The chain behind a fill, an order or a refusal; of a change of state or an alarm, what was journaled beside it.

    Args:
        name: a trade id, a client order id, or an event id `row.place` of a fill, an order, a refusal, a change of state or an alarm.

    Raises:
        DataMissingError: if the journal has none of that name.
    """
    event, found = _look_up(journal, name)
    if isinstance(found, RiskEvent | Alarm):
        return Explanation(tuple(_state_links(journal, event, found)))
    links: list[Link] = []
    verdict: Verdict
    if isinstance(found, Fill):
        links.append(Link(format_event_id(event), found, _fill_words(found)))
        if found.order is None:
            return Explanation(tuple(links))
        event, verdict = found.order, cast(Order, journal.get(found.order))
    else:
        verdict = found
    words = _order_words(verdict) if isinstance(verdict, Order) else refusal_words(verdict)
    links.append(Link(format_event_id(event), verdict, words))
    sizing, units = _add_sizing(journal, event, verdict, links)
    if verdict.decision is not None:
        links += _decision_links(journal, verdict.decision)
    return Explanation(tuple(links), sizing, units)


def _add_sizing(journal: JournalReader, event: int, verdict: Verdict, links: list[Link]) -> tuple[Sizing | None, Units | None]:
    """How the gate came to the size, and the changes of state that stood behind it."""
    sizing, units = None, None
    rule = verdict.binding_limit if isinstance(verdict, Order) else verdict.rule
    asked = {rule} if rule else set()
    if verdict.decision is not None:
        row, _ = split_event_id(verdict.decision)
        values = journal.read(row)[1]
        if (found := sizing_of(values, verdict.decision)) is not None:
            place, sizing = found
            asked |= {limit for limit, _ in sizing.cuts}
            details = sizing_lines(sizing)
            if isinstance(verdict, Order) and (units := units_of(journal, row, values, sizing, verdict)) is not None:
                details.append(units_line(units, verdict))
            words = f"sized by risk: {sizing.binding or 'nothing'} cut it" if sizing.binding else "sized by risk: not cut"
            links.append(Link(format_event_id(event_id(row, place)), sizing, words, tuple(details)))
    for at, change in events_behind(journal, event, sorted(asked & STATEFUL), verdict.instrument):
        links.append(Link(format_event_id(at), change, event_words(change)))
    return sizing, units


def _state_links(journal: JournalReader, event: int, found: RiskEvent | Alarm) -> list[Link]:
    """A change of state or an alarm, and where limits stood in the same row, if that was told."""
    words = event_words(found) if isinstance(found, RiskEvent) else _alarm_words(found)
    links = [Link(format_event_id(event), found, words)]
    row, _ = split_event_id(event)
    for place, value in enumerate(journal.read(row)[1]):
        if isinstance(value, RiskState):
            details = tuple(f"{name}: {used:.6g} of {allowed:.6g} used" for name, used, allowed in value.limits)
            mode = value.mode.replace("_", " ")
            links.append(Link(format_event_id(event_id(row, place)), value, f"gate {mode}; where the limits stood then", details))
    return links


def _look_up(journal: JournalReader, name: str) -> tuple[int, Fill | Verdict | RiskEvent | Alarm]:
    fills = list(journal.find(Fill, trade_id=name))
    if fills:
        return fills[0]
    orders = list(journal.find(Order, client_id=name))
    if orders:
        return orders[0]
    try:
        event = parse_event_id(name)
    except ConfigError:
        event = None
    row, place = (0, 0) if event is None else split_event_id(event)
    if event is not None and 1 <= row <= len(journal) and place < len(journal.read(row)[1]):
        value = journal.get(event)
        if isinstance(value, Fill | Order | Refusal | RiskEvent | Alarm):
            return event, value
        kind = type(value).__name__
        raise DataMissingError(
            f"event {name} is not a fill, an order, a refusal, a change of state or an alarm, it is of type {kind}", hint=HINT
        )
    raise DataMissingError(f"no fill, order or refusal {name!r} in this journal", hint=HINT)


def _decision_links(journal: JournalReader, event: int) -> list[Link]:
    decision = cast(Decision, journal.get(event))
    links = [Link(format_event_id(event), decision, _decision_words(decision), decision_details(decision))]
    row, _ = split_event_id(event)
    _, values = journal.read(row)
    if decision.fused is None:
        return links
    fused = cast(FusedSignal, journal.get(decision.fused))
    links.append(Link(format_event_id(decision.fused), fused, _fused_words(fused)))
    links += [
        Link(format_event_id(event_id(row, index)), value, search_words(value), search_details(value))
        for index, value in enumerate(values)
        if isinstance(value, FusionSearch)
    ]
    weights = dict(fused.weights)
    for signal_event in fused.signals:
        signal = cast(Signal, journal.get(signal_event))
        links.append(Link(format_event_id(signal_event), signal, _signal_words(signal, weights.get(signal.source, 0.0))))
    if fused.market_state is not None:
        state = cast(MarketState, journal.get(fused.market_state))
        links.append(Link(format_event_id(fused.market_state), state, _state_words(state), regime_details(state)))
    for index, value in enumerate(values):
        if isinstance(value, ObservationRef) and value.subject == decision.instrument:
            links.append(Link(f"{row}.{index}", value, f"read from row {value.row} of partition {value.partition or '(not stored)'}"))
    return links


def _fill_words(fill: Fill) -> str:
    return (
        f"{fill.side} {fill.quantity} {fill.instrument} at {fill.price} on {iso(fill.happened_at)}; fee {fill.fee} {fill.fee_asset}, "
        f"spread {fill.spread_cost}, impact {fill.impact_cost}"
    )


def _alarm_words(alarm: Alarm) -> str:
    return (
        f"{alarm.detector} on {alarm.subject}, evidence for {alarm.tier}: {alarm.statistic:.4g} against a threshold of "
        f"{alarm.threshold:.4g}; {alarm.message}"
    )


def _order_words(order: Order) -> str:
    cut = f", cut by {order.binding_limit}" if order.binding_limit else ", not cut by any limit"
    return f"{order.type} order to {order.side} {order.quantity}{cut}{', reduce only' if order.reduce_only else ''}"


def _decision_words(decision: Decision) -> str:
    return f"agent {decision.agent} wanted {decision.target_weight:+.1%} of equity: {decision.reason}"


def _fused_words(fused: FusedSignal) -> str:
    expected = "" if fused.expected_move is None else f", expected move {fused.expected_move:+z.3f} σ over {interval_name(fused.horizon)}"
    return (
        f"fused direction {fused.direction:+z.3f}, confidence {fused.confidence:.2f}, sentiment {fused.sentiment:+z.2f}, "
        f"expected volatility {fused.volatility:.0%} a year{expected}"
    )


def _signal_words(signal: Signal, weight: float) -> str:
    read = f", read from {signal.reference}" if signal.reference else ""
    return f"{signal.source} said {signal.value:+z.3f} (weight {weight:+z.2f}, confidence {signal.confidence:.2f}){read}"


def _state_words(state: MarketState) -> str:
    return f"{state.instrument} stood at {state.price:g} with {state.volatility:.0%} annual volatility"
