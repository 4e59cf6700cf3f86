"""The replay buffer: rows in fixed arrays, the oldest make room; drawn evenly, by surprise or by priority; saved and restored bit for bit.

A row's id counts all rows ever added, so an id never comes to mean another row: reading one that has made room is an error.

Source: KataGo (Wu 2019, and its documentation on policy surprise weighting) for draws by surprise; Schaul et al. (2016),
"Prioritized Experience Replay", proportional variant, for draws by priority. Departure: KataGo writes surprising rows several times,
here they are drawn more often, which is the same in expectation and needs no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, ModelError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.replay import n_step
from cryptoalpha.learn.replay.schema import Column, Schema, as_columns, checked_schema
from cryptoalpha.learn.replay.settings import refuse_other_settings
from cryptoalpha.learn.replay.sum_tree import SumTree, tree_bytes
from cryptoalpha.store.array_file import Array, Kept, read_arrays, write_arrays

Ids = NDArray[np.int64]

KIND = "cryptoalpha replay 1"
SMALLEST_PRIORITY = 1e-6
"""Added to every priority before the exponent, so that a row without error is not lost for ever."""

LARGEST_WEIGHT = 1e100
"""Largest surprise or priority: sums over any number of rows, and shares of them, stay finite."""


class Sample(NamedTuple):
    """Drawn rows. `weights` `[n]` (float64, at most 1) undo the bias of drawing by priority; else they are 1."""

    ids: Ids
    rows: dict[str, Array]
    weights: NDArray[np.float64]


class ReplayBuffer:
    """Keeps the last rows and draws from them.

    Args:
        schema: the columns of a row.
        config: capacity, shares and exponents.
        seed: of the run; draws come from `stream(seed, "replay", name)`.
        name: tells several buffers of one run apart.
        memory_bytes: more is refused before anything is allocated.

    Raises:
        ConfigError: for a bad schema, or if `capacity` rows need more than `memory_bytes`.
    """

    def __init__(self, schema: Schema, config: ReplayConfig, *, seed: int, name: str = "", memory_bytes: int = 2 << 30) -> None:
        self.schema = checked_schema(schema)
        self.config = config
        self.memory_bytes = needed_bytes(self.schema, config.capacity)
        if self.memory_bytes > memory_bytes:
            raise ConfigError(
                f"{config.capacity:,} rows need {self.memory_bytes:,} bytes, more than the {memory_bytes:,} allowed",
                hint="lower learn.replay.capacity, keep smaller features, or allow more memory",
            )
        rows = config.capacity
        self._columns: dict[str, Array] = {key: np.zeros((rows, *column.shape), column.dtype) for key, column in self.schema.items()}
        self._next = np.full(rows, -1, np.int64)  # id of the row that follows in the same lane
        self._surprise, self._priority = SumTree(rows), SumTree(rows)
        self._lanes: dict[int, int] = {}  # lane → id of its last row, while that episode is open
        self._added = 0
        self._largest_priority = 1.0
        self._random = stream(seed, "replay", name)

    def __len__(self) -> int:
        return min(self._added, self.config.capacity)

    @property
    def ids(self) -> Ids:
        """Ids of all rows held, oldest first."""
        return np.arange(self._added - len(self), self._added)

    def add(self, rows: Mapping[str, ArrayLike], *, lanes: ArrayLike | None = None, surprise: ArrayLike | None = None) -> Ids:
        """Append rows and return their ids `[n]`.

        Args:
            rows: every column, `[n, *shape]`, in order of time.
            lanes: `[n]` which of several episodes played side by side a row continues; without it every row stands alone for `targets`.
            surprise: `[n]`, 0 to 1e100, how much the search changed the network's mind (`policy_surprise`); 0 without it.

        Raises:
            ConfigError: for rows that do not fit the schema or are more than the capacity.
            ModelError: for values that are not finite.
        """
        count, columns = as_columns(self.schema, rows)
        if count > self.config.capacity:
            raise ConfigError(f"{count} rows at once do not fit a buffer of {self.config.capacity}")
        weights = _weights("surprise", np.zeros(count) if surprise is None else surprise, count)
        lane_of = None if lanes is None else _lane_list(lanes, count)
        new = np.arange(self._added, self._added + count)
        slots = new % self.config.capacity
        for name, column in columns.items():
            self._columns[name][slots] = column
        self._next[slots] = -1
        self._surprise.set(slots, weights)
        self._priority.set(slots, np.full(count, self._largest_priority**self.config.priority_exponent))
        self._added += count
        if lane_of is not None:
            self._link(new, lane_of, columns)
        return new

    def end_lanes(self) -> None:
        """Forget which episodes are open: the next row of every lane begins a new one."""
        self._lanes.clear()

    def rows(self, ids: Ids) -> dict[str, Array]:
        """Copies of all columns of these rows."""
        slots = self._slots(ids)
        return {name: column[slots] for name, column in self._columns.items()}

    def column(self, ids: Ids, name: str) -> Array:
        """A copy of one column of these rows."""
        return self._columns[name][self._slots(ids)]

    def write(self, ids: Ids, values: Mapping[str, ArrayLike], *, surprise: ArrayLike | None = None) -> None:
        """Overwrite some columns of these rows (what `reanalyse` does)."""
        count, columns = as_columns(self.schema, values, partial=True)
        if count != len(ids):
            raise ConfigError(f"{count} values for {len(ids)} rows")
        slots = self._slots(ids)
        weights = None if surprise is None else _weights("surprise", surprise, count)
        for name, column in columns.items():  # all checked by now: a refused answer changes nothing
            self._columns[name][slots] = column
        if weights is not None:
            self._surprise.set(slots, weights)

    def sample(self, count: int) -> Sample:
        """Draw `count` ≥ 1 rows with replacement: evenly, but for `config.surprise_share` of the draws, which fall in proportion to
        surprise.

        Raises:
            ConfigError: for an empty buffer, or a count below 1.
        """
        self._check_draw(count)
        held = len(self)
        ids = self._added - held + self._random.integers(held, size=count)
        if self.config.surprise_share > 0.0:
            points = self._random.random(count)
            chosen = self._random.random(count) < self.config.surprise_share
            if self._surprise.total > 0.0:  # as long as nothing surprised, all draws are even
                ids = np.where(chosen, self._ids_at(self._surprise.find(points * self._surprise.total)), ids)
        return Sample(ids, self.rows(ids), np.ones(count))

    def sample_prioritised(self, count: int) -> Sample:
        """Draw rows with probability ∝ priority^α, one from each of `count` equal parts of the total, with importance weights
        (held · P)^−β / largest of the batch. Rows not yet rated have the largest priority seen. Raises like `sample`."""
        self._check_draw(count)
        points = (np.arange(count) + self._random.random(count)) * (self._priority.total / count)
        slots = self._priority.find(points)
        chance = self._priority.get(slots) / self._priority.total
        weights = (len(self) * chance) ** -self.config.importance_exponent
        ids = self._ids_at(slots)
        return Sample(ids, self.rows(ids), weights / weights.max())

    def rate(self, ids: Ids, priorities: ArrayLike) -> None:
        """Set the priorities `[n]`, 0 to 1e100, of rows, such as the size of their last error."""
        rated = _weights("priority", priorities, len(ids)) + SMALLEST_PRIORITY
        self._priority.set(self._slots(ids), rated**self.config.priority_exponent)
        self._largest_priority = max(self._largest_priority, float(rated.max(initial=0.0)))

    def targets(self, ids: Ids, *, n: int | None = None) -> NDArray[np.float64]:
        """n-step targets `[len(ids)]` from what is stored now (`learn.replay.n_step`), so re-planned values count at once.

        Needs the columns reward, discount, terminated, truncated, value and value_after, and rows added with their lanes.
        """
        wanted = ("reward", "discount", "terminated", "truncated", "value", "value_after")
        missing = [name for name in wanted if name not in self.schema]
        steps = self.config.n_steps if n is None else n
        if missing or steps < 1:
            raise ConfigError(f"n-step targets with n = {steps}: the schema lacks {missing}, expected n ≥ 1 and the columns {list(wanted)}")
        column = self._columns
        trail = n_step.Trail(
            rewards=column["reward"],
            discounts=column["discount"],
            terminated=column["terminated"],
            truncated=column["truncated"],
            values=column["value"],
            values_after=column["value_after"],
            next_row=self._next,  # a row's successor is younger, so it is held as long as the row is
        )
        return n_step.follow(trail, self._slots(ids), steps)

    def save(self, path: Path) -> None:
        """Write everything, including the state of the random stream (`array_file`: atomic, checked on reading)."""
        held = len(self)
        arrays = {name: column[:held] for name, column in self._columns.items()}
        slots = np.arange(held)
        arrays["_next"], arrays["_surprise"] = self._next[:held], self._surprise.get(slots)
        arrays["_priority"] = self._priority.get(slots)
        arrays["_lanes"] = np.array(sorted(self._lanes.items()), np.int64).reshape(-1, 2)
        state = {
            "schema": [[name, list(column.shape), column.dtype, column.finite] for name, column in self.schema.items()],
            "config": self.config.model_dump(),
            "added": self._added,
            "largest_priority": self._largest_priority,
            "random": self._random.bit_generator.state,
        }
        write_arrays(path, arrays, state, kind=KIND)

    @classmethod
    def restore(
        cls, path: Path, *, schema: Schema | None = None, config: ReplayConfig | None = None, memory_bytes: int = 2 << 30
    ) -> ReplayBuffer:
        """The buffer that was saved, bit for bit: the next draws are those that the saved one would have made.

        Args:
            schema: if given, what the file must hold.
            config: today's settings; if given, they must be those that the buffer was filled under.

        Raises:
            DataMissingError: if there is no such file.
            StoreError: if it is damaged, or its columns are others than `schema` says.
            ConfigError: if it needs more than `memory_bytes`, or was kept under other settings than `config`; each is named.
        """
        kept = read_arrays(path, kind=KIND)
        stored = {name: Column(tuple(shape), dtype, finite) for name, shape, dtype, finite in kept.state["schema"]}
        if schema is not None and dict(schema) != stored:
            raise StoreError(f"{path} holds columns {stored}, expected {dict(schema)}", hint="begin a new buffer")
        if config is not None:
            refuse_other_settings(str(path), kept.state["config"], config.model_dump(), "learn.replay.")
        buffer = cls(stored, ReplayConfig.model_validate(kept.state["config"]), seed=0, memory_bytes=memory_bytes)
        buffer._take(kept)
        return buffer

    def _take(self, kept: Kept) -> None:
        self._added = kept.state["added"]
        held = np.arange(len(self))
        for name, column in self._columns.items():
            column[: len(held)] = kept.arrays[name]
        self._next[: len(held)] = kept.arrays["_next"]
        self._surprise.set(held, kept.arrays["_surprise"])
        self._priority.set(held, kept.arrays["_priority"])
        self._lanes = {int(lane): int(last) for lane, last in kept.arrays["_lanes"]}
        self._largest_priority = kept.state["largest_priority"]
        self._random.bit_generator.state = kept.state["random"]

    def _link(self, new: Ids, lanes: list[int], columns: Mapping[str, Array]) -> None:
        ended = np.zeros(len(new), np.bool_)
        for name in ("terminated", "truncated"):
            if name in columns:
                ended |= columns[name].astype(np.bool_).reshape(len(new))
        for row, lane, ends in zip(new.tolist(), lanes, ended.tolist(), strict=True):
            before = self._lanes.pop(lane, -1)
            if before >= self._added - len(self):  # else that lane has none, or its last row has made room
                self._next[before % self.config.capacity] = row
            if not ends:
                self._lanes[lane] = row
        if len(self._lanes) > self.config.capacity:
            self._lanes = {lane: last for lane, last in self._lanes.items() if last >= self._added - len(self)}

    def _slots(self, ids: Ids) -> Ids:
        oldest = self._added - len(self)
        outside = (ids < oldest) | (ids >= self._added)
        if outside.any():
            raise ConfigError(
                f"row {ids[outside][0]} is not held: the buffer holds {oldest} to {self._added - 1}", hint="rows make room; draw anew"
            )
        return ids % self.config.capacity

    def _ids_at(self, slots: Ids) -> Ids:
        oldest = self._added - len(self)
        return oldest + (slots - oldest) % self.config.capacity

    def _check_draw(self, count: int) -> None:
        if not isinstance(count, int | np.integer) or count < 1:
            raise ConfigError(f"{count} rows were asked for, expected a whole number of at least 1")
        if not len(self):
            raise ConfigError("an empty buffer was asked for rows", hint="add rows first")


def needed_bytes(schema: Schema, capacity: int) -> int:
    """Memory of a buffer: its columns, links and two sum trees."""
    return capacity * (sum(column.nbytes for column in schema.values()) + 8) + 2 * tree_bytes(capacity)


def policy_surprise(target: ArrayLike, prior: ArrayLike) -> NDArray[np.float64]:
    """KL(target ‖ prior) `[n]` in nats of distributions `[n, A]`: how much the search changed the network's mind.

    Raises:
        ModelError: where the prior gives 0 to an action that the target takes, or a row is not finite.
    """
    p, q = np.asarray(target, np.float64), np.asarray(prior, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0.0, p * (np.log(p) - np.log(q)), 0.0)
    surprise: NDArray[np.float64] = np.maximum(terms.sum(axis=-1), 0.0)  # rounding may leave −1e-17
    bad = ~(np.isfinite(surprise) & np.isfinite(p).all(axis=-1))
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(f"policy surprise of row {row} is not finite: target {p[row]}, prior {q[row]}")
    return surprise


def _weights(what: str, given: ArrayLike, count: int) -> NDArray[np.float64]:
    weights = np.asarray(given, np.float64)
    if weights.shape != (count,):
        raise ConfigError(f"{what} has shape {weights.shape}, expected [{count}]")
    fine = (weights >= 0.0) & (weights <= LARGEST_WEIGHT)  # neither for a NaN
    if not fine.all():
        row = int(np.argmin(fine))
        raise ModelError(f"{what} of row {row} is {weights[row]}, expected a finite number from 0 to {LARGEST_WEIGHT}")
    return weights


def _lane_list(lanes: ArrayLike, count: int) -> list[int]:
    array = np.asarray(lanes)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ConfigError(f"lanes are {array.dtype} of shape {array.shape}, expected whole numbers [{count}]")
    return [int(lane) for lane in array]
