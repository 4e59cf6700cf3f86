"""The embedded log: messages by partition and offset, and how far each group has come, in one SQLite file of its own.

One writer, which holds `<file>.lock`; every method is called in one thread. A batch is one transaction (WAL, `synchronous=NORMAL`): what
`write` returned from survives the death of the process; a power cut may take the newest commits, whole ones, and readers find that out
(`resume`). Each partition is bounded by number and size; the oldest messages go first, but where a topic says `block` none that a group
has not committed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.core.errors import DataError, StoreError
from cryptoalpha.data.bus.config import TopicConfig
from cryptoalpha.data.bus.contract import Place, Progress, Record
from cryptoalpha.data.bus.envelope import from_bytes
from cryptoalpha.data.bus.lock import take_hold
from cryptoalpha.data.bus.resume import Extent
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

SCHEMA = Schema(
    "message log",
    0x43414C47,
    1,
    (
        "CREATE TABLE parts (number INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL, start INTEGER NOT NULL,"
        " following INTEGER NOT NULL, before INTEGER NOT NULL, through INTEGER NOT NULL, UNIQUE (topic, partition))",
        "CREATE TABLE messages (part INTEGER NOT NULL, place INTEGER NOT NULL, time INTEGER NOT NULL, through INTEGER NOT NULL,"
        " data BLOB NOT NULL, PRIMARY KEY (part, place)) WITHOUT ROWID",
        "CREATE TABLE progress (member TEXT NOT NULL, part INTEGER NOT NULL, following INTEGER NOT NULL, last INTEGER NOT NULL,"
        " last_id TEXT NOT NULL, last_time INTEGER NOT NULL, touched INTEGER NOT NULL, PRIMARY KEY (member, part)) WITHOUT ROWID",
    ),
)
_SLACK = 32
"""A full partition is cut to a 32nd below its limit, so that cutting is rare."""
_HELD = "one process holds an embedded bus; several share one over Kafka: set data.streams.backend to servers"


@dataclass(slots=True)
class Part:
    """A partition as it stands. Changed by `write` alone, after its commit."""

    place: Place
    number: int
    start: int
    end: int
    before: int
    """Bytes of all messages before `start`, ever."""
    through: int
    """Bytes of all messages before `end`, ever."""

    @property
    def extent(self) -> Extent:
        return Extent(self.start, self.end)

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return self.through - self.before


@dataclass(frozen=True, slots=True)
class Entry:
    """A message to be written."""

    place: Place
    time: int
    """When it was published, UTC ns: what came while a reader was away lies after what it had read, however old the messages are."""
    data: bytes


def record_of(place: Place, offset: int, data: bytes) -> Record:
    """Bytes as they are read: with their envelope, or with what is wrong with them."""
    try:
        return Record(place, offset, from_bytes(data), data)
    except DataError as error:
        return Record(place, offset, None, data, str(error))


class Log:
    """The log, opened for writing.

    Args:
        path: its file; None keeps it in memory.
        settings: how a topic is kept.
        forget_before: groups that were last here before this time (UTC ns) are forgotten.

    Raises:
        StoreLockedError: if another process holds it.
        StoreError: if it cannot be written, or is no message log.
    """

    def __init__(self, path: Path | None, settings: Callable[[str], TopicConfig], *, forget_before: int = 0) -> None:
        self._path, self._settings = path, settings
        self._lock = None if path is None else take_hold(path, SCHEMA.name, hint=_HELD)
        self.parts: dict[Place, Part] = {}
        self.progress: dict[str, dict[Place, Progress]] = {}
        try:
            self._connection = open_database(path, SCHEMA)
            with sqlite_errors(path, SCHEMA.name):
                self._load(forget_before)
        except StoreError:
            self._unlock()
            raise

    def _load(self, forget_before: int) -> None:
        self._connection.execute("DELETE FROM progress WHERE touched < ?", (forget_before,))
        rows = self._connection.execute("SELECT number, topic, partition, start, following, before, through FROM parts").fetchall()
        by_number = {}
        for number, topic, partition, start, end, before, through in rows:
            place = Place(topic, partition)
            self.parts[place] = by_number[number] = Part(place, number, start, end, before, through)
        query = "SELECT member, part, following, last, last_id, last_time FROM progress"
        for group, number, *values in self._connection.execute(query):
            self.progress.setdefault(group, {})[by_number[number].place] = Progress(*values)

    def ensure(self, topic: str) -> list[Place]:
        """The places of a topic, made if there are none. A topic keeps the number of partitions it was made with."""
        known = sorted(place for place in self.parts if place.topic == topic)
        if known:
            return known
        number = max((part.number for part in self.parts.values()), default=0)
        made = [Part(Place(topic, index), number + 1 + index, 0, 0, 0, 0) for index in range(self._settings(topic).partitions)]
        with self._transaction():
            for part in made:
                row = (part.number, topic, part.place.partition)
                self._connection.execute("INSERT INTO parts VALUES (?, ?, ?, 0, 0, 0, 0)", row)
        self.parts.update({part.place: part for part in made})
        return [part.place for part in made]

    def write(
        self, entries: Sequence[Entry], progress: Mapping[tuple[str, Place], Progress] | None = None, *, now: int = 0
    ) -> dict[Place, int]:
        """Keep messages, whose topics exist, and how far groups have come, all or none; the first new offset of each place.

        Raises:
            StoreError: if the file cannot be written. Nothing is changed then.
        """
        ends: dict[Place, tuple[int, int]] = {}
        first: dict[Place, int] = {}
        rows = []
        for entry in entries:
            place = entry.place
            known = ends.get(place)
            if known is None:
                part = self.parts[place]
                known = part.end, part.through
                first[place] = part.end
            offset, through = known[0], known[1] + len(entry.data)
            rows.append((self.parts[place].number, offset, entry.time, through, entry.data))
            ends[place] = offset + 1, through
        with self._transaction():
            if rows:
                self._connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
            if progress:
                self._keep(progress, now)
            changed = {place: self._kept(self.parts[place], end, through) for place, (end, through) in ends.items()}
            for part in changed.values():
                self._connection.execute(
                    "UPDATE parts SET start = ?, following = ?, before = ?, through = ? WHERE number = ?",
                    (part.start, part.end, part.before, part.through, part.number),
                )
        for place, part in changed.items():
            own = self.parts[place]
            own.start, own.end, own.before, own.through = part.start, part.end, part.before, part.through
        return first

    def _keep(self, progress: Mapping[tuple[str, Place], Progress], now: int) -> None:
        for (group, place), value in progress.items():
            number = self.parts[place].number
            row = (group, number, value.following, value.last, value.last_id, value.last_time, now)
            self._connection.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self.progress.setdefault(group, {})[place] = value

    def held(self, place: Place) -> int:
        """The first offset that a group may still want; the end if no group is known here."""
        return min((known[place].following for known in list(self.progress.values()) if place in known), default=self.parts[place].end)

    def _kept(self, part: Part, end: int, through: int) -> Part:
        """The partition with new messages, cut where it is full."""
        settings = self._settings(part.place.topic)
        records, size = settings.records, int(settings.megabytes * 1e6)
        start, before = part.start, part.before
        cut = end - records + records // _SLACK if end - start > records else start
        if through - before > size:
            row = self._connection.execute(
                "SELECT place FROM messages WHERE part = ? AND through > ? ORDER BY place LIMIT 1",
                (part.number, through - size + size // _SLACK),
            ).fetchone()
            cut = max(cut, min(row[0], end - 1))  # the newest stays, however long
        if settings.overflow == "block":
            cut = min(cut, min((known[part.place].following for known in self.progress.values() if part.place in known), default=end))
        if cut > start:
            (before,) = self._connection.execute(
                "SELECT through FROM messages WHERE part = ? AND place = ?", (part.number, cut - 1)
            ).fetchone()
            self._connection.execute("DELETE FROM messages WHERE part = ? AND place < ?", (part.number, cut))
            start = cut
        return Part(part.place, part.number, start, end, before, through)

    def read(self, place: Place, offset: int, most: int) -> list[Record]:
        """Up to so many messages from an offset on."""
        query = "SELECT place, data FROM messages WHERE part = ? AND place >= ? ORDER BY place LIMIT ?"
        with sqlite_errors(self._path, SCHEMA.name):
            rows = self._connection.execute(query, (self.parts[place].number, offset, most)).fetchall()
        return [record_of(place, at, data) for at, data in rows]

    def ids(self, place: Place, offsets: Collection[int]) -> dict[int, str]:
        """Ids of the messages at these offsets, as far as there are any."""
        found = [record for offset in offsets for record in self.read(place, offset, 1) if record.offset == offset]
        return {record.offset: "" if record.envelope is None else record.envelope.id for record in found}

    def since(self, place: Place, time: int) -> int | None:
        """Offset of the first message that was published at that time or later."""
        query = "SELECT min(place) FROM messages WHERE part = ? AND time >= ?"
        with sqlite_errors(self._path, SCHEMA.name):
            (offset,) = self._connection.execute(query, (self.parts[place].number, time)).fetchone()
        return None if offset is None else int(offset)

    def close(self) -> None:
        self._connection.close()
        self._unlock()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with sqlite_errors(self._path, SCHEMA.name):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
