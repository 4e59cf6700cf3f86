"""Why this trade? From a fill or an order back to the decision, the weights, the signals and the bars they were read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import (
    Decision,
    Fill,
    FusedSignal,
    MarketState,
    ObservationRef,
    Order,
    Signal,
    Travelling,
    format_event_id,
    parse_event_id,
    split_event_id,
)
from cryptoalpha.store.journal_reader import JournalReader


@dataclass(frozen=True)
class Link:
    """One value of the chain, where it stands in the journal and what it says in a sentence."""

    event: str
    value: Travelling
    words: str


@dataclass(frozen=True)
class Explanation:
    """The chain of one trade, from what happened back to what was observed."""

    links: tuple[Link, ...]

    def as_dict(self) -> dict[str, object]:
        return {
            "chain": [
                {"event": link.event, "kind": type(link.value).__name__, "words": link.words, "value": link.value} for link in self.links
            ]
        }


def explain(journal: JournalReader, name: str) -> Explanation:
    """The chain behind a fill or an order.

    Args:
        name: a trade id, a client order id, or an event id `row.place` of a fill or an order.

    Raises:
        DataMissingError: if the journal has no such fill or order.
    """
    event, found = _look_up(journal, name)
    links: list[Link] = []
    if isinstance(found, Fill):
        links.append(Link(format_event_id(event), found, _fill_words(found)))
        if found.order is None:
            return Explanation(tuple(links))
        event, order = found.order, cast(Order, journal.get(found.order))
    else:
        order = found
    links.append(Link(format_event_id(event), order, _order_words(order)))
    if order.decision is not None:
        links += _decision_links(journal, order.decision)
    return Explanation(tuple(links))


def _look_up(journal: JournalReader, name: str) -> tuple[int, Fill | Order]:
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
        if isinstance(value, Fill | Order):
            return event, value
        kind = type(value).__name__
        raise DataMissingError(f"event {name} is not a fill or an order, it is of type {kind}", hint="`cryptoalpha report` lists fills")
    raise DataMissingError(f"no fill or order {name!r} in this journal", hint="`cryptoalpha report` lists the fills of a run by their ids")


def _decision_links(journal: JournalReader, event: int) -> list[Link]:
    decision = cast(Decision, journal.get(event))
    links = [Link(format_event_id(event), decision, _decision_words(decision))]
    if decision.fused is None:
        return links
    fused = cast(FusedSignal, journal.get(decision.fused))
    links.append(Link(format_event_id(decision.fused), fused, _fused_words(fused)))
    weights = dict(fused.weights)
    for signal_event in fused.signals:
        signal = cast(Signal, journal.get(signal_event))
        links.append(Link(format_event_id(signal_event), signal, _signal_words(signal, weights.get(signal.source, 0.0))))
    if fused.market_state is not None:
        state = cast(MarketState, journal.get(fused.market_state))
        links.append(Link(format_event_id(fused.market_state), state, _state_words(state)))
    row, _ = split_event_id(event)
    _, values = journal.read(row)
    for index, value in enumerate(values):
        if isinstance(value, ObservationRef) and value.subject == decision.instrument:
            links.append(Link(f"{row}.{index}", value, f"read from row {value.row} of partition {value.partition or '(not stored)'}"))
    return links


def _fill_words(fill: Fill) -> str:
    return (
        f"{fill.side} {fill.quantity} {fill.instrument} at {fill.price} on {iso(fill.happened_at)}; fee {fill.fee} {fill.fee_asset}, "
        f"spread {fill.spread_cost}, impact {fill.impact_cost}"
    )


def _order_words(order: Order) -> str:
    cut = f", cut by {order.binding_limit}" if order.binding_limit else ", not cut by any limit"
    return f"{order.type} order to {order.side} {order.quantity}{cut}{', reduce only' if order.reduce_only else ''}"


def _decision_words(decision: Decision) -> str:
    return f"agent {decision.agent} wanted {decision.target_weight:+.1%} of equity: {decision.reason}"


def _fused_words(fused: FusedSignal) -> str:
    return (
        f"fused direction {fused.direction:+z.3f}, confidence {fused.confidence:.2f}, sentiment {fused.sentiment:+z.2f}, "
        f"expected volatility {fused.volatility:.0%} a year"
    )


def _signal_words(signal: Signal, weight: float) -> str:
    read = f", read from {signal.reference}" if signal.reference else ""
    return f"{signal.source} said {signal.value:+z.3f} (weight {weight:+z.2f}, confidence {signal.confidence:.2f}){read}"


def _state_words(state: MarketState) -> str:
    return f"{state.instrument} stood at {state.price:g} with {state.volatility:.0%} annual volatility"
