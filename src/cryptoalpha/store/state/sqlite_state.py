"""Shared state in one SQLite file (WAL) for the processes of one machine, or in memory for one.

A thread of its own holds the connection; the event loop only hands over questions and is never kept waiting by the disk. What waits while
a transaction is under way becomes the next one, so many writers share a commit. A write that returned is in the file: it survives the
process however that ends, and with `durable` a power cut. Without it a power cut may take the newest commits, whole ones only.

    state    name → value, until `expires` (UTC ns; NULL: for good). Numbers are decimal text, as Redis keeps them.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import CryptoAlphaError, StoreError
from cryptoalpha.core.time import MINUTE, SECOND
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors
from cryptoalpha.store.state.rules import check_amount, check_expiry, check_names, number_of

SCHEMA: Final = Schema(
    "state",
    0x43415354,  # "CAST"
    1,
    (
        "CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER) WITHOUT ROWID",
        "CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL",
    ),
)
_MOST_TOGETHER: Final = 256
"""Questions that share a transaction, at most."""
_SWEEP: Final = MINUTE
"""How often what has expired is removed; nobody sees it meanwhile."""
_STANDING: Final = "(expires IS NULL OR expires > ?)"
_KEEP: Final = (
    "INSERT INTO state (name, value, expires) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires = excluded.expires"
)

T = TypeVar("T")

Work = Callable[[sqlite3.Connection, int], T]
"""One question, given the connection and the time. It judges before it writes: what it raises has changed nothing."""


@dataclass(frozen=True)
class _Question:
    work: Work[Any]
    writes: bool
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class SqliteState:
    """A `StateStore` in one file; `async with SqliteState(path) as state`.

    Args:
        path: the file; None keeps everything in memory, for this object alone.
        durable: whether a write that returned survives a power cut.
        clock: what expiries are judged by; processes that share a file share the machine's.
        patience_seconds: how long another process's transaction is waited for.

    Raises (on entering):
        StoreError: if the file cannot be used.
    """

    def __init__(self, path: Path | None, *, durable: bool = False, clock: Clock | None = None, patience_seconds: float = 5.0) -> None:
        self._path, self._durable, self._patience = path, durable, patience_seconds
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._swept = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened, loop), name="state", daemon=True)
        self._thread.start()
        try:
            await opened
        except StoreError:
            self._thread = None
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Answer what was asked, then let go of the file. Called again, it does nothing."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._questions.put(None)
        if thread is not None:
            await asyncio.to_thread(thread.join)

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """See `StateStore.get`."""
        check_names(names)
        return await self._ask(lambda connection, now: [_read(connection, name, now) for name in names], writes=False)

    async def put(self, values: Mapping[str, bytes], *, expires_seconds: float | None = None) -> None:
        """See `StateStore.put`."""
        check_names(values)
        check_expiry(expires_seconds)
        kept = [(name, bytes(value)) for name, value in values.items()]

        def work(connection: sqlite3.Connection, now: int) -> None:
            connection.executemany(_KEEP, [(name, value, _until(now, expires_seconds)) for name, value in kept])

        if kept:
            await self._ask(work, writes=True)

    async def swap(self, name: str, expected: bytes | None, value: bytes | None) -> bool:
        """See `StateStore.swap`."""
        check_names([name])

        def work(connection: sqlite3.Connection, now: int) -> bool:
            if _read(connection, name, now) != expected:
                return False
            if value is None:
                connection.execute("DELETE FROM state WHERE name = ?", (name,))
            else:
                connection.execute(_KEEP, (name, bytes(value), None))
            return True

        return await self._ask(work, writes=True)

    async def add(self, name: str, amount: float, *, expires_seconds: float | None = None) -> float:
        """See `StateStore.add`.

        Raises:
            DataError: if the name holds no number, or the amount is not finite.
        """
        check_names([name])
        check_amount(amount)
        check_expiry(expires_seconds)

        def work(connection: sqlite3.Connection, now: int) -> float:
            before = _read(connection, name, now)
            total = amount if before is None else number_of(name, before) + amount
            check_amount(total)
            text = format(total, ".17g").encode()
            if before is None:
                connection.execute(_KEEP, (name, text, _until(now, expires_seconds)))
            else:
                connection.execute("UPDATE state SET value = ? WHERE name = ?", (text, name))
            return total

        return await self._ask(work, writes=True)

    async def names(self, area: str) -> list[str]:
        """See `StateStore.names`."""
        check_names([f"{area}/x"])
        question = f"SELECT name FROM state WHERE name >= ? AND name < ? AND {_STANDING} ORDER BY name"

        def work(connection: sqlite3.Connection, now: int) -> list[str]:
            # "0" follows "/": this is the range of names that begin with `area/`
            return [name for (name,) in connection.execute(question, (f"{area}/", f"{area}0", now))]

        return await self._ask(work, writes=False)

    async def _ask(self, work: Work[T], *, writes: bool) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if self._thread is None:
                raise self._not_open()
            self._questions.put(_Question(work, writes, answer, loop))
        return await answer

    def _run(self, opened: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
        """The thread: opens the file, answers until it is told to end."""
        try:
            connection = open_database(self._path, SCHEMA, durable=self._durable, patience_seconds=self._patience)
        except StoreError as error:
            _tell(loop, [(opened, None, error)])
            return
        _tell(loop, [(opened, None, None)])
        try:
            going_on = True
            while going_on:
                questions, going_on = self._waiting()
                self._answer(connection, questions)
        finally:
            connection.close()
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Whatever ended the thread, nobody waits for ever."""
        with self._lock:
            self._thread = None
            while not self._questions.empty():
                if question := self._questions.get():
                    _tell(question.loop, [(question.answer, None, self._not_open())])

    def _not_open(self) -> StoreError:
        return StoreError(f"the state {self._path or 'in memory'} is not open", hint="use it within `async with`")

    def _waiting(self) -> tuple[list[_Question], bool]:
        """What waits, at least one; and whether more may come."""
        found: list[_Question] = []
        question = self._questions.get()
        while question is not None:
            found.append(question)
            if len(found) == _MOST_TOGETHER:
                return found, True
            try:
                question = self._questions.get_nowait()
            except queue.Empty:
                return found, True
        return found, False

    def _answer(self, connection: sqlite3.Connection, questions: Sequence[_Question]) -> None:
        """All in one transaction, told once it stands: nobody hears of a write that is not kept."""
        if not questions:
            return
        answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        now = self._clock.now()
        try:
            with sqlite_errors(self._path, SCHEMA.name):
                connection.execute("BEGIN IMMEDIATE" if any(question.writes for question in questions) else "BEGIN")
                for question in questions:
                    try:
                        answers.append((question.answer, question.work(connection, now), None))
                    except CryptoAlphaError as error:
                        answers.append((question.answer, None, error))
                if now - self._swept >= _SWEEP and any(question.writes for question in questions):
                    self._swept = now
                    connection.execute("DELETE FROM state WHERE expires IS NOT NULL AND expires <= ?", (now,))
                connection.execute("COMMIT")
        except StoreError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            answers = [(question.answer, None, error) for question in questions]
        except BaseException as error:  # a mistake of ours: it ends the thread, but is heard of
            for question in questions:
                _tell(question.loop, [(question.answer, None, StoreError(f"the state failed: {error!r}", hint="report this error"))])
            raise
        by_loop: dict[asyncio.AbstractEventLoop, list[Any]] = {}
        for question, told in zip(questions, answers, strict=True):
            by_loop.setdefault(question.loop, []).append(told)
        for loop, group in by_loop.items():
            _tell(loop, group)


def _tell(loop: asyncio.AbstractEventLoop, answers: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    def settle() -> None:
        for future, value, error in answers:
            if future.done():  # whoever asked was cancelled
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


def _read(connection: sqlite3.Connection, name: str, now: int) -> bytes | None:
    row = connection.execute(f"SELECT value FROM state WHERE name = ? AND {_STANDING}", (name, now)).fetchone()
    return None if row is None else bytes(row[0])


def _until(now: int, seconds: float | None) -> int | None:
    return None if seconds is None else now + round(seconds * SECOND)
