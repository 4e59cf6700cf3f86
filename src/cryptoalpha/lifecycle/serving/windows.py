"""Reads the window of bars of a request, from JSON or from arrays, and believes nothing.

Two forms with the same meaning (`encode_window` writes the second):

    application/json                   `messages.ForecastRequest`
    application/vnd.cryptoalpha.bars   the layout of safetensors: length of the header (8 bytes, little endian), header (JSON), raw arrays.
                                       `open_time` I64 [T]; `open`, `high`, `low`, `close`, `volume` and, if known, `taker_buy_volume`
                                       F64 [T, N], NaN in all of them where an instrument has no bar; metadata `request`:
                                       `messages.BesideBars` as JSON

A window passes the strict bar gate: impossible, doubled, unsorted, unclosed and future bars are refused, never repaired, because whoever
asks should know. Wicks and jumps are left alone: whether a price was misprinted is decided where history is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import interval_name, parse_interval
from cryptoalpha.lifecycle.serving.faults import MalformedWindowError
from cryptoalpha.lifecycle.serving.messages import (
    MOST_ROWS,
    BarColumns,
    BesideBars,
    ForecastRequest,
    PostText,
    ReadingColumns,
)
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.config import BarGateConfig
from cryptoalpha.store.tables import BarTable, Dataset, Floats, PostTable, ReadingTable, Times

JSON = "application/json"
BINARY = "application/vnd.cryptoalpha.bars"
MEDIA = (JSON, BINARY)

_GATE = BarGate(BarGateConfig.strict().model_copy(update={"open_bar": "refuse", "bad_wick": "report", "jump": "report"}))
_PRICES = ("open", "high", "low", "close", "volume")
_TAKER = "taker_buy_volume"
_LARGEST_HEADER = 16 << 20
Column = TypeVar("Column", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Window:
    """What a request asked about. `newest`: the open of the bar to be answered; `rows`: bars from the first to that one, gaps included."""

    dataset: Dataset
    interval: int
    newest: int
    rows: int


def read_window(body: bytes, media: str, *, now: int) -> Window:
    """The window of a request.

    Args:
        now: bars that close after this moment (UTC ns) are refused.

    Raises:
        MalformedWindowError: naming what is wrong and where.
    """
    if media == BINARY:
        beside, tables = _from_arrays(body)
        interval, posts, readings = parse_interval(beside.interval), beside.posts, beside.readings
    elif media == JSON:
        request = _decoded(body, ForecastRequest)
        interval, posts, readings = parse_interval(request.interval), request.posts, request.readings
        tables = {name: _from_columns(name, interval, columns) for name, columns in request.bars.items()}
    else:
        raise MalformedWindowError(f"requests of type {media!r} are not read", hint=f"send {JSON} or {BINARY}")
    try:
        checked = {name: _GATE.check(table, now=now)[0] for name, table in tables.items()}
        dataset = Dataset("a request", checked, readings=_readings(readings), posts=_posts(posts))
    except DataError as error:
        raise MalformedWindowError(str(error), hint="send closed bars, oldest first, each once") from None
    newest = max(int(table.open_time[-1]) for table in checked.values())
    rows = (newest - min(int(table.open_time[0]) for table in checked.values())) // interval + 1
    if rows > MOST_ROWS:
        raise MalformedWindowError(f"the window spans {rows:,} bars, allowed are {MOST_ROWS:,}", hint="leave out the oldest")
    return Window(dataset, interval, newest, rows)


def encode_window(dataset: Dataset, *, rows: int | None = None, beside: bool = True) -> bytes:
    """The binary form of a dataset's newest bars, all of one length, with its posts and readings unless told otherwise.

    Raises:
        DataError: if the dataset holds no bars, or of several lengths.
    """
    intervals = {table.interval for table in dataset.bars.values()}
    if len(intervals) != 1:
        raise DataError(f"a window has bars of one length, got {len(intervals)}")
    interval, names = intervals.pop(), sorted(dataset.bars)
    newest = max(int(dataset.bars[name].open_time[-1]) for name in names)
    oldest = min(int(dataset.bars[name].open_time[0]) for name in names)
    first = oldest if rows is None else max(oldest, newest - (rows - 1) * interval)
    times = np.arange(first, newest + 1, interval, dtype=np.int64)
    arrays: dict[str, npt.NDArray[Any]] = {"open_time": times}
    for field in (*_PRICES, _TAKER):
        column = arrays[field] = np.full((len(times), len(names)), np.nan)
        for place, name in enumerate(names):
            table = dataset.bars[name]
            inside = table.open_time >= first
            column[(table.open_time[inside] - first) // interval, place] = getattr(table, field)[inside]
    header = BesideBars(
        interval=interval_name(interval),
        instruments=names,
        posts=_as_posts(dataset.posts.values()) if beside else [],
        readings=_as_readings(dataset.readings.values()) if beside else [],
    )
    return pack_arrays(arrays, msgspec.json.encode(header).decode())


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]], request: str) -> bytes:
    """Arrays (int64 or float64) and the header's metadata in one body."""
    header: dict[str, Any] = {"__metadata__": {"request": request}}
    offset = 0
    for name, array in arrays.items():
        code = "I64" if array.dtype.kind == "i" else "F64"
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [np.ascontiguousarray(array, "<i8" if array.dtype.kind == "i" else "<f8").tobytes() for array in arrays.values()]
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


Kind = TypeVar("Kind")


def _decoded(body: bytes, kind: type[Kind]) -> Kind:
    """JSON as a struct."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # a ValidationError is a DecodeError, and says where
        raise MalformedWindowError(f"the request cannot be read: {error}", hint="see /openapi.json") from None


def _from_columns(name: str, interval: int, columns: BarColumns) -> BarTable:
    """Bars of one instrument as they stand in JSON."""
    taker = [np.nan if value is None else value for value in columns.taker_buy_volume or ()]
    try:
        return BarTable(
            instrument=name,
            interval=interval,
            open_time=np.array(columns.open_time, np.int64),
            open=np.array(columns.open, np.float64),
            high=np.array(columns.high, np.float64),
            low=np.array(columns.low, np.float64),
            close=np.array(columns.close, np.float64),
            volume=np.array(columns.volume, np.float64),
            taker_buy_volume=np.array(taker, np.float64),
        )
    except DataError as error:
        raise MalformedWindowError(f"{name}: {error}", hint="every column has one number per bar") from None


def _from_arrays(body: bytes) -> tuple[BesideBars, dict[str, BarTable]]:
    """Bars of all instruments as they stand in a binary body; nothing is allocated before the sizes fit."""
    arrays, request = _unpacked(body)
    beside = _decoded(request.encode(), BesideBars)
    interval, names = parse_interval(beside.interval), beside.instruments
    if len(set(names)) < len(names):
        raise MalformedWindowError("an instrument is named twice", hint="name each once, in the order of the columns")
    times = arrays.pop("open_time", None)
    missing = [field for field in _PRICES if field not in arrays]
    foreign = sorted(set(arrays) - {*_PRICES, _TAKER})
    if times is None or missing or foreign:
        listed = ", ".join((["open_time"] if times is None else []) + missing)
        raise MalformedWindowError(f"the arrays are not a window's: missing {listed or 'none'}, unknown {', '.join(foreign) or 'none'}")
    rows = len(times) if times.ndim == 1 else 0
    if times.dtype.kind != "i" or not 0 < rows <= MOST_ROWS:
        raise MalformedWindowError(f"open_time must be I64 [T], T from 1 to {MOST_ROWS:,}; got shape {list(times.shape)}")
    wrong = [field for field, array in arrays.items() if array.shape != (rows, len(names)) or array.dtype.kind != "f"]
    if wrong:
        raise MalformedWindowError(f"{', '.join(wrong)} must be F64 [{rows}, {len(names)}]")
    tables = {}
    for place, name in enumerate(names):
        columns = {field: array[:, place] for field, array in arrays.items()}
        absent = np.isnan(columns["close"])
        if any((np.isnan(columns[field]) != absent).any() for field in _PRICES):
            raise MalformedWindowError(
                f"{name} has bars with only some of {', '.join(_PRICES)}", hint="an absent bar is NaN in all of them"
            )
        if absent.all():
            raise MalformedWindowError(f"{name} has no bar in the window", hint="leave the instrument out")
        tables[name] = BarTable(name, interval, times, **columns).take(~absent)
    return beside, tables


def _unpacked(body: bytes) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """The arrays of a binary body, and its metadata."""
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or not 0 < length <= min(_LARGEST_HEADER, len(body) - 8):
        raise MalformedWindowError("the body has no whole header", hint=f"its layout is described under {BINARY} in /openapi.json")
    start, arrays, offset = 8 + length, {}, 0
    try:
        header = json.loads(body[8:start])
        request = header.pop("__metadata__")["request"]
        if not isinstance(request, str):
            raise TypeError("the metadata `request` is no text")
        for name, entry in header.items():
            kind, shape = {"I64": "<i8", "F64": "<f8"}[entry["dtype"]], entry["shape"]
            if not all(type(size) is int and 0 <= size <= len(body) for size in shape) or len(shape) > 2:
                raise TypeError(f"array {name!r} has no shape")
            nbytes = math.prod(shape) * 8
            if entry["data_offsets"] != [offset, offset + nbytes] or start + offset + nbytes > len(body):
                raise TypeError(f"array {name!r} does not lie where it should")
            arrays[name] = np.frombuffer(body, kind, math.prod(shape), start + offset).reshape(shape)
            offset += nbytes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedWindowError(f"the header cannot be read: {error}", hint="see /openapi.json") from None
    if start + offset != len(body):
        raise MalformedWindowError(f"the body has {len(body):,} bytes, its arrays end at {start + offset:,}")
    return arrays, request


def _posts(posts: Sequence[PostText]) -> dict[str, PostTable]:
    """Texts by source, in the order in which they became known."""
    tables = {}
    for source, group in groupby(sorted(posts, key=attrgetter("source", "known_at")), attrgetter("source")):
        rows = list(group)
        early = next((post for post in rows if post.known_at < post.happened_at), None)
        if early is not None:
            raise MalformedWindowError(f"post {early.id!r} of {source} was known before it happened")
        tables[source] = PostTable(
            source, _times(rows, "happened_at"), _times(rows, "known_at"), np.array([post.text for post in rows], object),
            np.array([post.id for post in rows], object), weight=np.array([post.weight for post in rows], np.float64),
        )  # fmt: skip
    return tables


def _times(rows: Sequence[PostText], name: str) -> Times:
    return np.array([getattr(row, name) for row in rows], np.int64)


def _readings(readings: Sequence[ReadingColumns]) -> dict[tuple[str, str], ReadingTable]:
    """Readings by asset and metric."""
    tables: dict[tuple[str, str], ReadingTable] = {}
    for one in readings:
        key = (one.asset, one.metric)
        if key in tables:
            raise MalformedWindowError(f"{one.asset}/{one.metric} is given twice", hint="one column of readings for each")
        tables[key] = ReadingTable(
            one.asset, one.metric, "request", np.array(one.happened_at, np.int64), np.array(one.known_at, np.int64),
            np.array(one.value, np.float64),
        )  # fmt: skip
    return tables


def _as_posts(tables: Any) -> list[PostText]:
    return [
        PostText(
            id=str(table.post_id[i]), source=table.source, happened_at=int(table.happened_at[i]), known_at=int(table.known_at[i]),
            text=str(table.text[i]), weight=float(table.weight[i]),
        )
        for table in tables
        for i in range(len(table))
    ]  # fmt: skip


def _as_readings(tables: Any) -> list[ReadingColumns]:
    return [
        ReadingColumns(
            asset=table.asset, metric=table.metric, happened_at=table.happened_at.tolist(), known_at=table.known_at.tolist(),
            value=table.value.tolist(),
        )
        for table in tables
        if len(table)
    ]  # fmt: skip


def newest_rows(dataset: Dataset, known: int, rows: int) -> Dataset:
    """What a client sends to have the bar answered that was known at `known`: that bar, those before it, texts and readings known then.

    Bars are cut to the newest `rows` of the grid; texts and readings stay, whoever sends may leave out what is too old to count.
    """
    then = dataset.known_until(known)
    interval = next(iter(then.bars.values())).interval
    newest = max(int(table.open_time[-1]) for table in then.bars.values() if len(table))
    first = newest - (rows - 1) * interval
    bars = {name: table.take(table.open_time >= first) for name, table in then.bars.items()}
    return replace(then, bars={name: table for name, table in bars.items() if len(table)})


def as_json(dataset: Dataset) -> bytes:
    """The JSON form of a dataset's bars, posts and readings."""

    def numbers(column: Floats) -> list[float]:
        return [float(value) for value in column]

    bars = {
        name: BarColumns(
            open_time=[int(time) for time in table.open_time],
            **{field: numbers(getattr(table, field)) for field in _PRICES},
            taker_buy_volume=[None if math.isnan(value) else value for value in numbers(table.taker_buy_volume)],
        )
        for name, table in sorted(dataset.bars.items())
    }
    interval = interval_name(next(iter(dataset.bars.values())).interval)
    request = ForecastRequest(
        interval=interval, bars=bars, posts=_as_posts(dataset.posts.values()), readings=_as_readings(dataset.readings.values())
    )
    return msgspec.json.encode(request)


def checked_media(content_type: str) -> str:
    """The media type of a request without its parameters.

    Raises:
        ConfigError: if it is none of `MEDIA`.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media not in MEDIA:
        raise ConfigError(f"requests of type {media or 'nothing'!r} are not read", hint=f"send {' or '.join(MEDIA)}")
    return media
