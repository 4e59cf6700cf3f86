"""The journal: every value of a run, append-only, from which the run can be explained, resumed and proved equal to another.

A row holds all values of one engine step; `event_id(row, index)` names a value. Backtests commit blocks of rows, each one SQLite row
(docs/performance.md tells what that saves); paper and live trading commit each row, a block of its own, before `append` returns.

Replay-verify: a journal that already holds rows is resumed by running again from the start. Rows it holds are compared, byte by byte,
instead of written; the first difference stops the run. So a run continued after a crash has the journal of a run that never crashed.

A durable journal leaves a mark beside itself, `journal.sqlite.begun`. Where that lies without the journal, the run has traded and nobody
knows whether it is killed or what it holds: it is not begun anew under its name.

An order's client id and a fill's trade id (per instrument) name one value for ever: a second, different one is refused.

A durable journal also carries what people ask of its run (`store.controls`). `controls` and `turn` give it to the engine, in a replay at
the places where it came; what a turn decides and the row that says so are one transaction with it, so no row that was written after a
kill holds an order that enters.

What a venue answered reaches the engine the same way: `outcomes` gives it out for the next row, and the row that is written takes it.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cryptoalpha.core.errors import JournalDivergenceError, RiskHaltError, StoreError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import ROW_SHIFT, Travelling, event_id, format_event_id, split_event_id
from cryptoalpha.store.controls import Control
from cryptoalpha.store.journal_names import WITHOUT_NAME, Names
from cryptoalpha.store.journal_reader import FRAME, SCHEMA, JournalReader
from cryptoalpha.store.run_controls import RunControls
from cryptoalpha.store.run_outcomes import RunOutcomes
from cryptoalpha.store.sqlite import open_database, sqlite_errors
from cryptoalpha.store.whole_file import write_whole

BLOCK_ROWS = 512
"""Rows a backtest holds back before it commits them as one block. A reader that wants one row reads its block."""
BLOCK_AT_ONCE = 65_536
"""A row longer than this (bytes) is not held back: a block must stay far below the largest value SQLite stores, 1 GB."""
COMPRESS_ABOVE = 1024
"""Blocks of rows longer than this on average (bytes) are stored as zlib level 1: less disk at little time."""

MARK_TEXT = "A run has traded with the journal beside this file. While this lies here the run is not begun anew without it.\n"

_pack = FRAME.pack


class Journal(JournalReader):
    """A journal opened for writing; created if there is none.

    Args:
        path: the file; `None` keeps the journal in memory.
        durable: commit each row with `synchronous=FULL` before `append` returns; else commit in blocks.
        header: what identifies the run. An existing file must have the same.

    Raises:
        StoreError: if the file cannot be written, is corrupt, has another schema, or belongs to a run with another header.
        RiskHaltError: if a durable journal was here before and is gone.
    """

    def __init__(self, path: Path | None, *, durable: bool, header: Mapping[str, str]) -> None:
        self._path = path
        self._block_rows = 1 if durable else BLOCK_ROWS
        self._connection = _opened(path) if durable and path is not None else open_database(path, SCHEMA, durable=durable)
        self._prepare()
        self._encode = msgspec.msgpack.Encoder().encode
        self._pending: list[bytes] = []  # what stands before a row, the row, and so on
        self._names = Names(self._connection, path, self._read_stored)
        try:
            self._stored = super().__len__()
            self._claim(header)
            self._controls = _begun(self._connection, path, self._stored) if durable and path is not None else None
            self._outcomes = RunOutcomes(self._connection, path) if durable and path is not None else None
        except StoreError:
            self._connection.close()
            raise
        self._next_row = 1
        self._last_at: int | None = None
        self._in_turn = False
        self._replay: Iterator[tuple[int, int, bytes]] = self.raw(1, self._stored + 1)

    def _claim(self, header: Mapping[str, str]) -> None:
        """Write the header of a new journal, or refuse one that belongs to another run."""
        stored = self.header
        if not stored and self._stored == 0:
            with sqlite_errors(self._path, "journal"):
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT INTO header VALUES (?, ?)", sorted(header.items()))
                self._connection.execute("COMMIT")
            return
        differing = [key for key in sorted({*stored, *header}) if stored.get(key) != header.get(key)]
        if differing:
            listed = ", ".join(f"{key} was {stored.get(key)!r} and is {header.get(key)!r}" for key in differing)
            raise StoreError(
                f"the journal {self._path} belongs to another run: {listed}",
                hint="start a new run under another id, or continue with the configuration, data and version it began with",
            )

    def __len__(self) -> int:
        return max(self._stored, self._next_row - 1)

    @property
    def next_row(self) -> int:
        """The row the next `append` writes, or compares while replaying."""
        return self._next_row

    @property
    def is_replaying(self) -> bool:
        """True while the next row is one the file already holds."""
        return self._next_row <= self._stored

    def append(self, at: int, values: Sequence[Travelling]) -> int:
        """Add one step's values at engine time `at`; returns its row. While replaying, compare instead.

        Raises:
            JournalDivergenceError: if a replayed row differs from the stored one.
            StoreError: if time runs backwards, an id is taken by a different order or fill, the row holds more than 65,536 values, or a
                value is of a kind that does not travel. Nothing is changed then.
            RiskHaltError: if the run is killed and an order would enter. Nothing is changed then.
        """
        row = self._next_row
        body = self._encode(values)
        if row <= self._stored:
            self._compare(row, at, body)
        else:
            if self._last_at is not None and at < self._last_at:
                raise StoreError(f"journal row {row} at {iso(at)} lies before row {row - 1} at {iso(self._last_at)}: time runs forward")
            if len(values) > 1 << ROW_SHIFT:
                raise StoreError(f"journal row {row} holds {len(values)} values, more than the {1 << ROW_SHIFT} an event id can name")
            if not WITHOUT_NAME.issuperset(map(type, values)):  # most rows of a backtest hold no order; this test is 3 times faster
                self._names.admit(row, values)
            size = len(body)
            self._pending += (_pack(row, at, size), body)
            if (row - self._stored >= self._block_rows or size > BLOCK_AT_ONCE) and not self._in_turn:
                self._next_row, self._last_at = row + 1, at
                self.commit()
                return row
        self._next_row = row + 1
        self._last_at = at
        return row

    @property
    def takes_controls(self) -> bool:
        """Whether people can ask something of this run through its journal; if not, `controls` and `turn` need not be called."""
        return self._controls is not None

    def controls(self) -> tuple[Control, ...]:
        """What was asked of the run up to now, to be taken before the next row's bar reaches the broker."""
        if self._controls is None:
            return ()
        return self._controls.replayed(self._next_row, early=True) if self.is_replaying else self._controls.take_early()

    def outcomes(self) -> tuple[Travelling, ...]:
        """What a venue did up to now (`store.order_ledger`), for the next row; that row takes it when it is written.

        While replaying: what the stored row took. Asked again for the same row it says the same.
        """
        if self._outcomes is None:
            return ()
        return self._outcomes.replayed(self._next_row) if self.is_replaying else self._outcomes.take()

    def has_outcomes(self) -> bool:
        """Whether a venue did something that `outcomes` has not given out yet. Takes nothing; False while replaying."""
        return self._outcomes is not None and not self.is_replaying and self._outcomes.waits()

    @contextmanager
    def turn(self) -> Iterator[tuple[Control, ...]]:
        """One transaction around a decision about risk and the `append` of its row; gives what was asked since `controls`.

        Until it ends nobody else can ask anything. If it ends with an error, or cannot be committed, the row was never appended.
        """
        if self._controls is None or self.is_replaying:
            yield () if self._controls is None else self._controls.replayed(self._next_row, early=False)
            return
        self.commit()
        before = self._next_row, self._last_at
        try:
            with sqlite_errors(self._path, "journal"):
                self._connection.execute("BEGIN IMMEDIATE")
                late = self._controls.take_late()
            self._in_turn = True
            yield late
            frames = self._write()
        except BaseException:
            self._drop(*before)
            raise
        finally:
            self._in_turn = False
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._note_written(frames)

    def record_trip(self, at: int, reason: str, *, flatten: bool) -> None:
        """With the next row: the run's own limits killed it. Nothing happens in a replay, where that is recorded already."""
        if self._controls is not None and not self.is_replaying:
            self._controls.trip(at, reason, flatten=flatten)

    def record_settled(self) -> None:
        """With the next row: every kill taken up to it is carried out."""
        if self._controls is not None and not self.is_replaying:
            self._controls.settle()

    def commit(self) -> None:
        """Make everything appended so far part of the file.

        Raises:
            StoreError: if the disk refuses; the rows are kept and the next commit tries again.
            RiskHaltError: if the run is killed and an order would enter; the rows are dropped.
        """
        if not self._pending or self._in_turn:
            return
        try:
            with sqlite_errors(self._path, "journal"):
                self._connection.execute("BEGIN IMMEDIATE")
            frames = self._write()
        except RiskHaltError:
            self._drop(self._stored + 1, None)
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._note_written(frames)

    def _write(self) -> bytes:
        """Write what is pending and commit; the transaction has begun. Returns the frames."""
        first, last = self._stored + 1, self._next_row - 1
        frames = b"".join(self._pending)
        packed = len(frames) > COMPRESS_ABOVE * (last - first + 1)
        block = (first, last, packed, zlib.compress(frames, 1) if packed else frames)
        with sqlite_errors(self._path, "journal"):
            if frames:
                self._connection.execute("INSERT INTO block VALUES (?, ?, ?, ?)", block)
                self._names.write()
                if self._controls is not None:
                    self._controls.write(last, self._names.pending)
                if self._outcomes is not None:
                    self._outcomes.write(last)
            self._connection.execute("COMMIT")
        return frames

    def _note_written(self, frames: bytes) -> None:
        """What was pending is on the disk now."""
        last = self._next_row - 1
        if self._hashed == self._stored and frames:
            self._absorb(last, frames)
        self._stored = last
        self._pending.clear()
        self._names.forget()
        if self._controls is not None:
            self._controls.written()
        if self._outcomes is not None and frames:
            self._outcomes.forget()

    def _drop(self, next_row: int, last_at: int | None) -> None:
        """Forget what is pending: it was never appended."""
        self._next_row, self._last_at = next_row, last_at
        self._pending.clear()
        self._names.forget()
        if self._controls is not None:
            self._controls.forget()
        if self._outcomes is not None:
            self._outcomes.forget()

    def close(self) -> None:
        """Commit and close. A journal left without `close` loses what `append` had not committed, nothing else."""
        try:
            self.commit()
        finally:
            super().close()

    def _settle(self) -> None:
        self.commit()

    def _compare(self, row: int, at: int, body: bytes) -> None:
        _, stored_at, stored = next(self._replay)
        if stored_at == at and stored == body:
            return
        same_time = stored_at == at
        difference = _difference(row, self._decode(row, stored), self._decode(row, body)) if same_time else f"the replay is at {iso(at)}"
        raise JournalDivergenceError(
            f"replaying the journal {self._path} differs at row {row} ({iso(stored_at)}): {difference}",
            hint="the same code, configuration and data reproduce a run; find what changed, or start a new run under another id",
        )

    def _read_stored(self, event: int) -> Travelling:
        """A committed value, read without committing what is pending."""
        row, index = split_event_id(event)
        return self._decode(row, self._row(row)[1])[index]


def refuse_lost_journal(path: Path) -> None:
    """Refuse to trade without a journal that was there before.

    Raises:
        RiskHaltError: if its mark is there and it is not.
    """
    if _mark(path).exists() and not path.exists():
        raise RiskHaltError(
            f"the journal {path} is gone: the run has traded, and nobody knows any more whether it is killed or what it holds",
            hint=f"put the file back; or begin a new run under another name (--run), or under this one after removing {path.parent}",
        )


def _opened(path: Path) -> sqlite3.Connection:
    """A durable journal, unless it was here before and is gone."""
    refuse_lost_journal(path)
    return open_database(path, SCHEMA, durable=True)


def _begun(connection: sqlite3.Connection, path: Path, stored: int) -> RunControls:
    """What people ask of the run, from now on; and the mark that it has begun."""
    controls = RunControls(connection, path, stored)
    if not _mark(path).exists():
        write_whole(_mark(path), MARK_TEXT)
    return controls


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.begun")


def _difference(row: int, before: Sequence[Travelling], now: Sequence[Travelling]) -> str:
    """Where a replayed row first differs from the stored one."""
    encode = msgspec.msgpack.encode
    for index, (old, new) in enumerate(zip(before, now, strict=False)):
        if encode(old) != encode(new):
            return f"event {format_event_id(event_id(row, index))} was {old}, the replay says {new}"
    return f"it held {len(before)} values, the replay has {len(now)}"
