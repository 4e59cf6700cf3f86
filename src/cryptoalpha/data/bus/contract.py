"""What a bus promises, whatever carries it.

A topic has a fixed number of partitions; an offset counts within one of them, from 0, with gaps (a broker may use offsets for itself: never
derive counts from them). Order holds within a partition. `publish` returns when the messages are kept. A group shares out partitions among
its consumers; what it has handled is committed explicitly, so delivery is at least once, and whoever must not act twice keeps the ids of
what it handled beside the effect (`inbox`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cryptoalpha.data.bus.envelope import Envelope

Overflow = Literal["block", "conflate", "drop_oldest"]


@dataclass(frozen=True, order=True)
class Place:
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True)
class Record:
    """A message where it lies. `envelope` is None where the bytes are none; `fault` then says why."""

    place: Place
    offset: int
    envelope: Envelope | None
    data: bytes
    fault: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a group has come in one partition."""

    following: int
    """Offset to read next."""
    last: int = -1
    """Offset of the last message handled; −1: none."""
    last_id: str = ""
    last_time: int = 0
    """Its `observed_time`, UTC ns, or when it was read where that is earlier: a stamp from a clock that is ahead tells nothing of when."""


@dataclass(frozen=True)
class Regress:
    """A log that was lost, or cut off before what a group had not read yet."""

    place: Place
    kind: Literal["log_regressed", "retention_gap"]
    following: int
    """Where the group wanted to go on."""
    start: int
    end: int
    """What the log holds: offsets `[start, end)`."""
    resumed: int
    """Where it goes on instead."""


def progress_of(records: Sequence[Record], *, now: int | None = None) -> dict[Place, Progress]:
    """How far a group has come when it has handled these.

    Args:
        now: by the reader's clock, UTC ns. Without it stamps are believed.
    """
    latest = {record.place: record for record in records}
    progress = {}
    for place, record in latest.items():
        if record.envelope is None:
            progress[place] = Progress(record.offset + 1)
        else:
            time = record.envelope.observed_time if now is None else min(record.envelope.observed_time, now)
            progress[place] = Progress(record.offset + 1, record.offset, record.envelope.id, time)
    return progress


class Consumer(Protocol):
    """One member of a group. An asynchronous context manager."""

    async def take(self, most: int, *, wait_seconds: float) -> Sequence[Record]:
        """Up to `most` messages of the partitions assigned; empty after waiting that long.

        Raises:
            VenueError: if the broker does not answer; ask again.
            StoreError: if the log cannot be read, or reader or bus are closed.
        """
        ...

    async def commit(self, progress: Mapping[Place, Progress]) -> None:
        """Remember how far the group has come. Call it when the effect of what was handled is kept."""
        ...

    async def lag(self) -> Mapping[Place, int]:
        """Offsets between the group and the end of each partition assigned."""
        ...

    def regressed(self) -> Sequence[Regress]:
        """What was found lost since this was last asked."""
        ...

    async def close(self) -> None:
        """Leave the group; what was taken and not committed is given to another member."""
        ...


class Bus(Protocol):
    """Carries messages. An asynchronous context manager; `close` waits for what is under way."""

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Keep messages in their order; returns when all are kept.

        Raises:
            StoreError | VenueError: if they could not be kept; some may have been, and publishing them again is safe.
        """
        ...

    async def subscribe(self, group: str, topics: Sequence[str], *, kept: Mapping[Place, Progress] | None = None) -> Consumer:
        """Join a group.

        Args:
            kept: how far the reader's own store says it has come, believed before what the bus remembers of the group.
        """
        ...

    async def close(self) -> None: ...
