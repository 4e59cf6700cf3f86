"""Decisions that wait for their reward: handed out when it is known, never earlier.

A decision enters with the moment at which its label falls due (the end of its horizon), gets its reward when somebody has worked it out,
and leaves by `mature(now)` once that reward is known. Memory is fixed; a queue that is full says so instead of forgetting.

`decisions.fusion.outcomes.DelayedOutcomes` works out labels of opinions from prices; this queue keeps what a learner needs (features,
action, probability …) until any label arrives, and knows nothing of prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, LookAheadError, ModelError, StoreError
from cryptoalpha.core.time import iso
from cryptoalpha.learn.replay.schema import Column, Schema, as_columns, checked_schema
from cryptoalpha.store.array_file import Array, read_arrays, write_arrays

Tickets = NDArray[np.int64]

KIND = "cryptoalpha delayed rewards 1"
_OWN = {
    "_ticket": Column(dtype="int64"),  # −1 = free
    "_decided_at": Column(dtype="int64"),
    "_due_at": Column(dtype="int64"),
    "_known_at": Column(dtype="int64"),
    "_reward": Column(dtype="float64"),
    "_settled": Column(dtype="bool"),
}


@dataclass(frozen=True)
class Matured:
    """Decisions whose reward is known, by `known_at`, then in the order in which they were decided. Shapes: all `[n]`, rows `[n, …]`."""

    tickets: Tickets
    rows: dict[str, Array]
    rewards: NDArray[np.float64]
    decided_at: NDArray[np.int64]
    known_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tickets)


class DelayedRewards:
    """Keeps decisions until their rewards are known.

    Args:
        schema: the columns of a decision.
        capacity: decisions that may wait at once.
        memory_bytes: more is refused before anything is allocated.

    Raises:
        ConfigError: for a bad schema, or if `capacity` decisions need more than `memory_bytes`.
    """

    def __init__(self, schema: Schema, capacity: int, *, memory_bytes: int = 1 << 28) -> None:
        self.schema = checked_schema(schema)
        self.capacity = capacity
        everything = {**self.schema, **_OWN}
        needed = capacity * sum(column.nbytes for column in everything.values())
        if capacity < 1 or needed > memory_bytes:
            raise ConfigError(
                f"{capacity:,} waiting decisions need {needed:,} bytes, expected at least 1 and at most {memory_bytes:,} bytes"
            )
        self._columns = {name: np.zeros((capacity, *column.shape), column.dtype) for name, column in everything.items()}
        self._columns["_ticket"].fill(-1)
        self._issued = 0

    def __len__(self) -> int:
        return int((self._columns["_ticket"] >= 0).sum())

    def decide(self, rows: Mapping[str, ArrayLike], *, decided_at: ArrayLike, due_at: ArrayLike) -> Tickets:
        """Let decisions wait; returns their tickets `[n]`.

        Args:
            rows: every column, `[n, *shape]`.
            decided_at: UTC ns, one or `[n]`.
            due_at: UTC ns, one or `[n]`: the earliest moment at which the reward can be known.

        Raises:
            ConfigError: for rows that do not fit, or a queue that is full.
            LookAheadError: if a reward would be due before its decision.
        """
        count, columns = as_columns(self.schema, rows)
        decided, due = _moments(decided_at, count), _moments(due_at, count)
        if (due < decided).any():
            row = int(np.argmax(due < decided))
            raise LookAheadError(
                f"the reward of decision {row} would be due at {iso(int(due[row]))}, before it is decided at {iso(int(decided[row]))}"
            )
        free = np.flatnonzero(self._columns["_ticket"] < 0)[:count]
        if len(free) < count:
            oldest = int(self._columns["_due_at"][self._columns["_ticket"] >= 0].min(initial=2**62))
            raise ConfigError(
                f"{count} more decisions do not fit the queue of {self.capacity}: {len(self)} wait, the first was due at {iso(oldest)}",
                hint="settle or drop what is overdue, or raise the capacity above decisions per horizon",
            )
        tickets = np.arange(self._issued, self._issued + count)
        own = {"_ticket": tickets, "_decided_at": decided, "_due_at": due, "_known_at": 0, "_reward": 0.0, "_settled": False}
        for name, column in {**columns, **own}.items():
            self._columns[name][free] = column
        self._issued += count
        return tickets

    def settle(self, tickets: ArrayLike, rewards: ArrayLike, *, known_at: ArrayLike) -> None:
        """Say what came of decisions, and when that was known (UTC ns, one or `[n]`).

        Raises:
            LookAheadError: if a reward claims to be known before it falls due.
            ModelError: for a reward that is not finite.
            ConfigError: for a ticket that does not wait, or is settled already.
        """
        slots = self._find(tickets)
        reward, known = np.asarray(rewards, np.float64), _moments(known_at, len(slots))
        if reward.shape != slots.shape:
            raise ConfigError(f"{reward.shape} rewards for {len(slots)} tickets")
        if not np.isfinite(reward).all():
            row = int(np.argmin(np.isfinite(reward)))
            raise ModelError(f"the reward of decision {self._columns['_ticket'][slots[row]]} is {reward[row]}")
        early = known < self._columns["_due_at"][slots]
        if early.any():
            row = int(np.argmax(early))
            ticket, due = self._columns["_ticket"][slots[row]], int(self._columns["_due_at"][slots[row]])
            raise LookAheadError(
                f"the reward of decision {ticket} is due at {iso(due)}, but claims to be known at {iso(int(known[row]))}",
                hint="stamp it with the end of its horizon or later",
            )
        if self._columns["_settled"][slots].any():
            raise ConfigError(f"decision {self._columns['_ticket'][slots][self._columns['_settled'][slots]][0]} is settled already")
        self._columns["_reward"][slots], self._columns["_known_at"][slots] = reward, known
        self._columns["_settled"][slots] = True

    def drop(self, tickets: ArrayLike) -> None:
        """Give up decisions whose reward will never be known, such as those that end in a gap of prices."""
        self._columns["_ticket"][self._find(tickets)] = -1

    def overdue(self, now: int) -> Tickets:
        """Tickets of decisions that are due by `now` but not settled, oldest first."""
        waiting = (self._columns["_ticket"] >= 0) & ~self._columns["_settled"] & (self._columns["_due_at"] <= now)
        tickets: Tickets = np.sort(self._columns["_ticket"][waiting])
        return tickets

    def mature(self, now: int) -> Matured:
        """Take out the decisions whose reward is known by `now`; each leaves once."""
        column = self._columns
        ready = np.flatnonzero((column["_ticket"] >= 0) & column["_settled"] & (column["_known_at"] <= now))
        ready = ready[np.lexsort((column["_ticket"][ready], column["_known_at"][ready]))]
        rows = {name: column[name][ready] for name in self.schema}
        matured = Matured(
            column["_ticket"][ready], rows, column["_reward"][ready], column["_decided_at"][ready], column["_known_at"][ready]
        )
        column["_ticket"][ready] = -1
        return matured

    def save(self, path: Path) -> None:
        """Write everything that waits (`array_file`: atomic, checked on reading)."""
        schema = [[name, list(column.shape), column.dtype, column.finite] for name, column in self.schema.items()]
        write_arrays(path, self._columns, {"schema": schema, "capacity": self.capacity, "issued": self._issued}, kind=KIND)

    @classmethod
    def restore(cls, path: Path, *, schema: Schema | None = None, memory_bytes: int = 1 << 28) -> DelayedRewards:
        """The queue that was saved, bit for bit.

        Raises:
            DataMissingError: if there is no such file.
            StoreError: if it is damaged, or its columns are others than `schema` says.
        """
        kept = read_arrays(path, kind=KIND)
        stored = {name: Column(tuple(shape), dtype, finite) for name, shape, dtype, finite in kept.state["schema"]}
        if schema is not None and dict(schema) != stored:
            raise StoreError(f"{path} holds columns {stored}, expected {dict(schema)}", hint="begin a new queue")
        queue = cls(stored, kept.state["capacity"], memory_bytes=memory_bytes)
        for name, column in queue._columns.items():
            column[...] = kept.arrays[name]
        queue._issued = kept.state["issued"]
        return queue

    def _find(self, tickets: ArrayLike) -> NDArray[np.int64]:
        given = np.asarray(tickets)
        if given.size and given.dtype.kind not in "iu":
            raise ConfigError(f"tickets are {given.dtype}, expected the whole numbers that decide() returned")
        wanted = given.astype(np.int64)
        held = self._columns["_ticket"]
        order = np.argsort(held)
        at = np.minimum(np.searchsorted(held, wanted, sorter=order), self.capacity - 1)
        slots: NDArray[np.int64] = order[at]
        missing = (held[slots] != wanted) | (wanted < 0)
        if missing.any() or len(np.unique(wanted)) < len(wanted):
            raise ConfigError(
                f"tickets {wanted.tolist()} do not all wait here, or one is named twice", hint="each decision is settled or dropped once"
            )
        return slots


def _moments(given: ArrayLike, count: int) -> NDArray[np.int64]:
    array = np.asarray(given)
    if array.dtype.kind not in "iu" or array.shape not in ((), (count,)):
        raise ConfigError(f"moments are {array.dtype} of shape {array.shape}, expected whole nanoseconds, one or [{count}]")
    return np.broadcast_to(array.astype(np.int64), (count,))
