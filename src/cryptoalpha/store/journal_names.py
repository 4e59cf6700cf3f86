"""Names of orders and trades in a journal: each names one value for ever, and leads to the row that holds it.

A client id names an order, a trade id a fill of its instrument. The names of rows that are not written yet are kept here until they are,
in the transaction that writes the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import Fill, Order, Travelling, event_id
from cryptoalpha.store.journal_reader import TRAVELLING
from cryptoalpha.store.sqlite import sqlite_errors

WITHOUT_NAME = frozenset(kind for kind in TRAVELLING if kind not in (Order, Fill))
_Name = tuple[str, str, str]  # kind, id, scope


class Names:
    """Names of orders and trades in a journal.

    Args:
        connection: the journal's own; what is written goes into the caller's transaction.
        path: the journal; None in memory.
        read: the committed value of an event id.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path | None, read: Callable[[int], Travelling]) -> None:
        self._connection, self._path, self._read = connection, path, read
        self._pending: dict[_Name, tuple[Order | Fill, int]] = {}

    @property
    def pending(self) -> list[Order | Fill]:
        """What has a name in rows that are not written yet."""
        return [value for value, _ in self._pending.values()]

    def admit(self, row: int, values: Sequence[Travelling]) -> None:
        """Check kinds and names of a row before it is accepted, and remember its names.

        Raises:
            StoreError: if a value does not travel, or a name is taken by a different one. Nothing is remembered then.
        """
        fresh: dict[_Name, tuple[Order | Fill, int]] = {}
        for index, value in enumerate(values):
            if not isinstance(value, TRAVELLING):
                raise StoreError(f"journal row {row}: a {type(value).__name__} does not travel; only core values are journaled")
            if isinstance(value, Order | Fill):
                name = ("Order", value.client_id, "") if isinstance(value, Order) else ("Fill", value.trade_id, value.instrument)
                waiting = fresh.get(name) or self._pending.get(name)
                earlier = self._stored(name) if waiting is None else waiting[0]
                if earlier is None:
                    fresh[name] = (value, event_id(row, index))
                elif earlier != value:
                    raise StoreError(
                        f"{name[0].lower()} id {name[1]!r} already names {earlier}; row {row} offers {value}",
                        hint="an id names one order or trade for ever; a new attempt needs a new id",
                    )
        self._pending.update(fresh)

    def write(self) -> None:
        """Write what is pending, inside the transaction of its rows: it never lags behind them."""
        rows = [(*name, value.client_id, event) for name, (value, event) in self._pending.items()]
        self._connection.executemany("INSERT INTO ident VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self) -> None:
        """What was pending is written, or never will be."""
        self._pending.clear()

    def _stored(self, name: _Name) -> Travelling | None:
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT event FROM ident WHERE kind = ? AND ident = ? AND scope = ?", name).fetchone()
        return None if found is None else self._read(found[0])
