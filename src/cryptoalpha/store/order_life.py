"""One order's life at a venue, read from the ledger beside its writer: what was recorded, what it traded, when the engine was told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.core.values import Fill, Refusal, Travelling
from cryptoalpha.store.journal_reader import SCHEMA
from cryptoalpha.store.order_ledger import OrderRecord, decode_outcome, read_records
from cryptoalpha.store.sqlite import open_database, sqlite_errors


@dataclass(frozen=True)
class Told:
    """Something that the engine was told of an order. `row` is the journal row that took it; None: it waits for the next step."""

    at: int
    """When it was written, UTC ns."""
    value: Travelling
    row: int | None


@dataclass(frozen=True)
class OrderLife:
    """What the ledger knows of an order. `record`: None where it was never looked after; `flags` name trades that a person should look at,
    by trade id."""

    record: OrderRecord | None
    told: tuple[Told, ...]
    flags: tuple[tuple[str, str], ...]


def read_life(path: Path, client_id: str) -> OrderLife | None:
    """The life of an order; None where the journal has no ledger, as that of a run on paper.

    Raises:
        StoreError: if the journal cannot be read.
    """
    connection = open_database(path, SCHEMA, read_only=True)
    try:
        with sqlite_errors(path, "journal"):
            connection.execute("BEGIN")  # one moment for all that is read
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'order_record'").fetchone():
                return None
            records = read_records(connection, "client_id = ?", (client_id,))
            flags = connection.execute(
                "SELECT trade_id, flag FROM venue_fill WHERE client_id = ? AND flag <> '' ORDER BY id", (client_id,)
            ).fetchall()
            events = connection.execute("SELECT at, body, taken_row FROM venue_event ORDER BY id").fetchall()
    finally:
        connection.close()
    told = tuple(Told(at, value, row) for at, body, row in events if _names(value := decode_outcome(body), client_id))
    return OrderLife(records[0] if records else None, told, tuple(flags))


def _names(value: Travelling, client_id: str) -> bool:
    return isinstance(value, Fill | Refusal) and value.client_id == client_id
