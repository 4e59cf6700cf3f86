"""What became of an order at the venue, for `explain`: sent when, known there as what, traded how, told to the engine in which row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Fill, Order, Refusal, Travelling
from cryptoalpha.store.order_life import OrderLife, Told, read_life


@dataclass(frozen=True)
class OrderStory:
    """The life of one order; `life` is what the ledger holds of it."""

    client_id: str
    life: OrderLife

    def as_dict(self) -> dict[str, object]:
        record = self.life.record
        return {
            "client_id": self.client_id,
            "state": record.state if record else "intent",
            "ended": bool(record and record.ended),
            "venue_id": record.venue_id if record else "",
            "sent_at": iso(record.sent_at) if record and record.sent_at else None,
            "changed_at": iso(record.changed_at) if record else None,
            "quantity": record.quantity if record else None,
            "filled": record.filled if record else None,
            "detail": record.detail if record else "",
            "told": [{"at": iso(each.at), "row": each.row, "value": each.value} for each in self.life.told],
            "flags": [{"trade": trade, "flag": flag} for trade, flag in self.life.flags],
        }

    def lines(self) -> list[str]:
        """For people."""
        record = self.life.record
        if record is None:
            return [f"at the venue: nothing is recorded of order {self.client_id}; the run asks for it when it is started"]
        sent = f"sent at {iso(record.sent_at)}" if record.sent_at else "never sent"
        known = f", known there as {record.venue_id}" if record.venue_id else ""
        why = f": {record.detail}" if record.detail else ""
        found = [
            f"at the venue: {sent}{known}; {record.state} since {iso(record.since)}, {record.filled} of {record.quantity} filled{why}",
            *(_told_words(each) for each in self.life.told),
        ]
        return [*found, *(f"    trade {trade} is marked: {flag}" for trade, flag in self.life.flags)]


def order_story(journal: Path, values: Iterable[Travelling]) -> OrderStory | None:
    """The life of the order that a chain of values speaks of; None where it speaks of none, or the run never sent one.

    Raises:
        StoreError: if the journal cannot be read.
    """
    client_id = next((value.client_id for value in values if isinstance(value, Order | Fill | Refusal) and value.client_id), "")
    life = read_life(journal, client_id) if client_id else None
    return None if life is None else OrderStory(client_id, life)


def _told_words(told: Told) -> str:
    value = told.value
    where = "waits for the next step" if told.row is None else f"told in row {told.row}"
    if isinstance(value, Fill):
        return f"    {iso(value.happened_at)}  traded {value.quantity} at {value.price}, fee {value.fee} {value.fee_asset} ({where})"
    words = f"{value.rule}: {value.message}" if isinstance(value, Refusal) else type(value).__name__
    return f"    {iso(value.happened_at)}  {words} ({where})"
