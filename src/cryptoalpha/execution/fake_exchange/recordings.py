"""Replays recorded exchange messages through the sockets, byte for byte as they once came, at any speed.

Three ways of writing them down are read, by their content:

- `<receive time, ns> <json>` per line (hftbacktest's collector; may be gzipped), combined-stream messages and one depth snapshot;
- `<receive time, s>: <json>` per line after a line `url <-> time` (cryptofeed), `url -> time: <json>` for REST answers, of which depth
  snapshots are used and everything else is passed over;
- one JSON message per file (documentation examples); its stream is named by what it says.

The order book behind `GET depth` follows the recording: from its snapshot and the differences after it, so that a client which joins late
gets a book that the next difference continues. Differences from before the snapshot are in the book, but not sent: nobody could use them.
Stamps inside the messages stay as they were recorded. A recorder's clock may run behind the venue's: times of receipt then lie before
those of the events.
"""

from __future__ import annotations

import asyncio
import gzip
import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.execution.fake_exchange.streams import StreamHub, channel
from cryptoalpha.execution.fake_exchange.streams_market import DepthBook

BREATH: Final = 64
"""After so many messages without a wait the loop gets a turn."""

_NANOSECOND_LINE: Final = re.compile(r"^(\d{16,20}) (\{.*\})$")
_EPOCH_LINE: Final = re.compile(r"^(\d+\.\d+): ([\{\[].*)$")
_ANSWER_LINE: Final = re.compile(r"^(https?://\S+) -> (\d+(?:\.\d+)?): (.*)$")
_SYMBOL: Final = re.compile(r"[?&]symbol=(\w+)")
_NAMES: Final = {"24hrTicker": "ticker", "24hrMiniTicker": "miniTicker", "depthUpdate": "depth", "markPriceUpdate": "markPrice"}


@dataclass(frozen=True, slots=True)
class Line:
    """One recorded message. A depth snapshot has no `stream`."""

    received_ns: int
    symbol: str
    stream: str
    text: str


class _Combined(msgspec.Struct):
    stream: str
    data: msgspec.Raw


def read_recording(path: Path) -> Iterator[Line]:
    """The messages of one file, in the order in which they came; what is neither market message nor snapshot is passed over.

    Raises:
        DataError: if the file cannot be read, or holds nothing that could be replayed.
    """
    found = False
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            if path.suffix == ".json":
                entries: Iterable[tuple[int, str, str]] = [(0, "", lines.read().strip())]
            else:
                entries = _entries(lines)
            waiting: list[Line] = []  # snapshots whose symbol only a later line tells
            symbol = ""
            for received, url, text in entries:
                line = _line(received, url, text)
                if line is None:
                    continue
                found = True
                symbol = line.symbol or symbol
                if not symbol:
                    waiting.append(line)
                    continue
                for one in waiting:
                    yield Line(one.received_ns, symbol, one.stream, one.text)
                waiting.clear()
                yield line if line.symbol else Line(line.received_ns, symbol, line.stream, line.text)
    except (OSError, EOFError, UnicodeDecodeError, msgspec.DecodeError) as problem:
        raise DataError(f"recording {path.name} cannot be read: {problem}", hint="give a file of recorded Binance messages") from problem
    if not found:
        raise DataError(f"recording {path.name} holds no market message", hint="give a file of recorded Binance messages")


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Receive time ns, URL of the question (empty for a stream), message."""
    for line in lines:
        text = line.rstrip("\n")
        if match := _NANOSECOND_LINE.match(text):
            yield int(match[1]), "", match[2]
        elif match := _EPOCH_LINE.match(text):
            yield round(float(match[1]) * 1e9), "", match[2]
        elif match := _ANSWER_LINE.match(text):
            yield round(float(match[2]) * 1e9), match[1], match[3]


def _line(received: int, url: str, text: str) -> Line | None:
    if text.startswith('{"stream"'):
        whole = msgspec.json.decode(text, type=_Combined)
        return Line(received, whole.stream.split("@")[0].upper(), whole.stream, bytes(whole.data).decode())
    asked = _SYMBOL.search(url)
    if url and ("/depth" not in url or asked is None):
        return None
    message = msgspec.json.decode(text)
    if not isinstance(message, dict):
        return None
    if "lastUpdateId" in message and "bids" in message:
        return Line(received, asked[1] if asked is not None else "", "", text)
    symbol, event = message.get("s"), message.get("e")
    if not isinstance(symbol, str):
        return None
    if event is None:
        return Line(received, symbol, f"{symbol.lower()}@bookTicker", text) if "b" in message and "a" in message else None
    name = f"kline_{message['k']['i']}" if event == "kline" else _NAMES.get(event, event)
    return Line(received, symbol, f"{symbol.lower()}@{name}", text)


class RecordedFeed:
    """Sends a recording to whoever listens.

    Args:
        hub: the streams.
        lines: messages by time of receipt; several recordings may be merged into one.
        futures: whether they are of the futures market.
        speed: how many times faster than recorded; 0 does not wait.
    """

    def __init__(self, hub: StreamHub, lines: Iterable[Line], *, futures: bool, speed: float = 1.0) -> None:
        self._hub, self._lines, self._futures, self._speed = hub, lines, futures, speed
        self.sent = 0
        """Messages that went to the streams."""
        self.skipped = 0
        """Differences from before their snapshot."""
        self._early: dict[str, list[dict[str, Any]]] = {}
        """Differences by symbol that wait for their snapshot."""

    async def run(self) -> None:
        """Replay to the end."""
        loop = asyncio.get_running_loop()
        began, first = loop.time(), None
        for number, line in enumerate(self._lines):
            first = line.received_ns if first is None else first
            due = began + (line.received_ns - first) / 1e9 / self._speed if self._speed > 0.0 else 0.0
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            elif number % BREATH == 0:
                await asyncio.sleep(0)
            self.send(line)

    def send(self, line: Line) -> None:
        """Take in a snapshot, or send one message."""
        tape = self._hub.tape(line.symbol, futures=self._futures)
        if not tape.is_recorded:  # what was made up from bars goes
            tape.is_recorded, tape.book = True, DepthBook(self._futures)
        if not line.stream:
            snapshot: dict[str, Any] = msgspec.json.decode(line.text)
            tape.book.replace(snapshot["bids"], snapshot["asks"], snapshot["lastUpdateId"])
            for change in self._early.pop(line.symbol, []):  # the answer to REST is older than what had come when it arrived
                if change["u"] > tape.book.last_id:
                    tape.book.apply(change["b"], change["a"], change["u"])
            return
        if channel(line.stream).endswith("@depth"):
            difference: dict[str, Any] = msgspec.json.decode(line.text)
            if not tape.book.last_id:
                self._early.setdefault(line.symbol, []).append(difference)
            if not tape.book.last_id or difference["u"] <= tape.book.last_id:
                self.skipped += 1
                return
            tape.book.apply(difference["b"], difference["a"], difference["u"])
        self._hub.raw(line.stream, line.text, futures=self._futures)
        self.sent += 1


def merged(recordings: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Several recordings as one, by time of receipt."""
    return heapq.merge(*recordings, key=lambda line: line.received_ns)
