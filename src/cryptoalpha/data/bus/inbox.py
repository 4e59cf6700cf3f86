"""What a group has handled, how far it has come, and what it has yet to say: one SQLite file, one transaction for all three.

So a message takes effect once: after a crash either all of it is kept (its id, the progress, its outputs) or nothing, and it comes again.
Outputs wait in the outbox until the bus has kept them; what a crash leaves there is published again under the same ids.

An inbox has one worker; a second is refused. Only members whose handlers remember nothing between calls may share one (`shared`): whoever
settles second is refused that batch (`OvertakenError`) and handles again what is left of it, which a handler that remembers would take for
what it has told already.

Ids are kept for as long, and as many, as the settings say; that must be at least what the log can bring back.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar
from uuid import uuid4

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import StoreError
from cryptoalpha.data.bus.config import WorkerConfig
from cryptoalpha.data.bus.contract import Place, Progress
from cryptoalpha.data.bus.envelope import Envelope, from_bytes, to_bytes
from cryptoalpha.data.bus.lock import take_hold
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

T = TypeVar("T")
SCHEMA = Schema(
    "inbox",
    0x43414942,
    1,
    (
        "CREATE TABLE owner (member TEXT NOT NULL)",
        "CREATE TABLE seen (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time INTEGER NOT NULL)",
        "CREATE TABLE progress (topic TEXT NOT NULL, partition INTEGER NOT NULL, following INTEGER NOT NULL, last INTEGER NOT NULL,"
        " last_id TEXT NOT NULL, last_time INTEGER NOT NULL, PRIMARY KEY (topic, partition)) WITHOUT ROWID",
        "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, member TEXT NOT NULL, data BLOB NOT NULL)",
    ),
)
_TRIM_EVERY = 64
"""Settlements between two looks for ids that are too old."""
_NS_PER_HOUR = 3_600_000_000_000


class OvertakenError(StoreError):
    """Another member has handled one of these messages meanwhile; nothing was kept."""


class Inbox:
    """The inbox of a group. An asynchronous context manager.

    Args:
        path: its file; None keeps it in memory, and after a crash messages are handled again.
        group: whose inbox it is; a file of another group is refused.
        config: how long ids are kept.
        shared: members of the group may use the file together, if all say so.

    Raises (on entering):
        StoreLockedError: if another worker has it.
        StoreError: if the file cannot be used, or belongs to another group.
    """

    def __init__(self, path: Path | None, group: str, config: WorkerConfig, *, shared: bool = False, clock: Clock | None = None) -> None:
        self._path, self.group, self._config, self._shared = path, group, config, shared
        self._clock = SystemClock() if clock is None else clock
        self._member = uuid4().hex
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inbox")
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._settlements = 0

    async def __aenter__(self) -> Self:
        await self._run(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._connection is not None:
            await self._run(self._connection.close)
            self._connection = None
        self._let_go()
        self._thread.shutdown()

    def now(self) -> int:
        """UTC ns by the clock it keeps ids by."""
        return self._clock.now()

    async def progress(self) -> dict[Place, Progress]:
        """How far the group has come."""
        query = "SELECT topic, partition, following, last, last_id, last_time FROM progress"
        rows = await self._run(lambda: self._open_connection.execute(query).fetchall())
        return {Place(topic, partition): Progress(*values) for topic, partition, *values in rows}

    async def handled(self, ids: Sequence[str]) -> set[str]:
        """Which of these messages were handled before."""
        if not ids:
            return set()
        query = f"SELECT id FROM seen WHERE id IN ({','.join('?' * len(ids))})"
        rows = await self._run(lambda: self._open_connection.execute(query, ids).fetchall())
        return {name for (name,) in rows}

    async def settle(
        self, ids: Sequence[str], progress: Mapping[Place, Progress], outputs: Sequence[Envelope], *, published: int = 0
    ) -> int:
        """Keep, all or nothing: that these messages are handled, how far the group has come, and what is to be said.

        Args:
            published: number up to which this member's outputs are published and can go.

        Returns:
            The number of the last output.

        Raises:
            OvertakenError: if one of the ids was handled already.
            StoreError: if the file cannot be written.
        """
        return await self._run(partial(self._settle, ids, progress, [to_bytes(output) for output in outputs], published))

    async def outbox(self) -> tuple[list[int], list[Envelope]]:
        """Outputs that nobody is known to have published, of every member, with their numbers."""
        rows = await self._run(lambda: self._open_connection.execute("SELECT number, data FROM outbox ORDER BY number").fetchall())
        return [number for number, _ in rows], [from_bytes(data) for _, data in rows]

    async def forget(self, numbers: Sequence[int]) -> None:
        """These outputs are published."""
        await self._run(
            lambda: self._in_transaction(
                lambda connection: connection.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])
            )
        )

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the inbox is closed", hint="use it inside `async with`")
        return self._connection

    async def _run(self, task: Callable[[], T]) -> T:
        def guarded() -> T:
            with sqlite_errors(self._path, SCHEMA.name):
                return task()

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _open(self) -> None:
        if self._path is not None:
            self._lock = take_hold(self._path, SCHEMA.name, shared=self._shared, hint="run an agent once in each home")
        try:
            self._connection = self._opened()
        except StoreError:
            self._let_go()
            raise

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _opened(self) -> sqlite3.Connection:
        connection = open_database(self._path, SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute("SELECT member FROM owner").fetchone()
        if row is None:
            connection.execute("INSERT INTO owner VALUES (?)", (self.group,))
        connection.execute("COMMIT")
        if row is not None and row[0] != self.group:
            connection.close()
            hint = "one file for each group; where the identity of the home was lost, move the inbox away"
            raise StoreError(f"the inbox {self._path} belongs to group {row[0]}, not {self.group}", hint=hint)
        return connection

    def _in_transaction(self, task: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open_connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = task(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, StoreError):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _settle(self, ids: Sequence[str], progress: Mapping[Place, Progress], outputs: list[bytes], published: int) -> int:
        now = self._clock.now()

        def settled(connection: sqlite3.Connection) -> int:
            try:
                connection.executemany("INSERT INTO seen (id, time) VALUES (?, ?)", [(name, now) for name in ids])
            except sqlite3.IntegrityError:
                raise OvertakenError(f"group {self.group}: another member has handled a message of this batch") from None
            connection.executemany(
                "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?)",
                [(p.topic, p.partition, v.following, v.last, v.last_id, v.last_time) for p, v in progress.items()],
            )
            connection.executemany("INSERT INTO outbox (member, data) VALUES (?, ?)", [(self._member, data) for data in outputs])
            (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM outbox WHERE member = ?", (self._member,)).fetchone()
            if published:
                connection.execute("DELETE FROM outbox WHERE member = ? AND number <= ?", (self._member, published))
            self._settlements += 1
            if self._settlements % _TRIM_EVERY == 0:
                self._trim(connection, now)
            return int(last)

        return self._in_transaction(settled)

    def _trim(self, connection: sqlite3.Connection, now: int) -> None:
        """Forget ids that are too old or too many. Numbers grow with time, so the oldest come first."""
        (newest,) = connection.execute("SELECT coalesce(max(number), 0) FROM seen").fetchone()
        connection.execute("DELETE FROM seen WHERE number <= ?", (newest - self._config.remembered_ids,))
        before = now - int(self._config.remembered_hours * _NS_PER_HOUR)
        query = "SELECT min(number) FROM (SELECT number, time FROM seen ORDER BY number) WHERE time >= ?"
        (first,) = connection.execute(query, (before,)).fetchone()
        connection.execute("DELETE FROM seen WHERE number < ?", (newest + 1 if first is None else first,))
