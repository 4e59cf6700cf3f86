"""Raw messages kept as they came, and replayed through the very parsers that read them live.

One line is one message, `<received ns> <message>`: the time of receipt by our clock, UTC ns, and the message itself, which for most
publishers is JSON. A message that is no single line of UTF-8 is written as a JSON string (text) or as `b64"…"` (bytes), so that every
message is read back byte for byte. Files are named `CHANNEL-<first received ns>.jsonl`, and `.gz` once they are complete; one that was
being written when its process ended is read up to its last whole line.

hftbacktest's collector writes the same lines, so its recordings are read as they are.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import heapq
import queue
import re
import shutil
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.config import RecordingSection
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.reconnect import Wait, until_either

Read = Callable[[bytes, int], Sequence[Envelope]]
"""A parser: the raw message and when it came → its messages. Raises DataError for what it cannot read."""

_CHANNEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LINE: Final = re.compile(rb"(\d{1,20}) (.*)", re.DOTALL)
_BREATH: Final = 64
"""After so many messages without a wait the loop gets a turn."""


@dataclass(frozen=True)
class Recorded:
    """One raw message. `received_at`: UTC ns, by the recorder's clock."""

    received_at: int
    raw: bytes
    channel: str = ""


def as_line(received_at: int, raw: bytes) -> bytes:
    """One line for one message, with its end."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return b'%d b64"%b"\n' % (received_at, base64.b64encode(raw))
    if text.startswith(('"', 'b64"')) or "\n" in text or "\r" in text:
        return b"%d %b\n" % (received_at, msgspec.json.encode(text))
    return b"%d %b\n" % (received_at, raw)


def from_line(line: bytes, channel: str = "") -> Recorded:
    """The inverse of `as_line`, with or without the line's end.

    Raises:
        DataError: if it is no such line.
    """
    found = _LINE.fullmatch(line.rstrip(b"\r\n"))
    if found is None:
        raise DataError(f"{line[:40]!r} is no recorded message", hint="a line is the time of receipt in ns, a blank, and the message")
    raw = found[2]
    try:
        if raw.startswith(b'"'):
            raw = msgspec.json.decode(raw, type=str).encode()
        elif raw.startswith(b'b64"') and raw.endswith(b'"'):
            raw = base64.b64decode(raw[4:-1], validate=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{line[:40]!r} is no recorded message: {error}") from None
    return Recorded(int(found[1]), raw, channel)


class Recorder:
    """Writes what sources received, channel by channel, from a thread of its own: nobody waits for its disk.

    `record` is what `Tools.record` wants. Where the disk is slower than the market messages are left out and counted, and where it fails
    `problem` says how: a recording is never worth a trade.

    Args:
        folder: where files go; made if needed.
        most_bytes: a file is completed, and compressed, when it has so many.
        keep_bytes: the oldest complete files of a channel are removed when all of them exceed this; None keeps all.
        most_waiting: messages that may wait for the disk.
    """

    def __init__(self, folder: Path, *, most_bytes: int = 64 * 2**20, keep_bytes: int | None = None, most_waiting: int = 100_000) -> None:
        self._folder, self._most_bytes, self._keep_bytes = folder, most_bytes, keep_bytes
        self._queue: queue.Queue[tuple[str, int, bytes] | None] = queue.Queue(most_waiting)
        self._files: dict[str, tuple[Path, BinaryIO, int]] = {}
        self.written = 0
        self.left_out = 0
        """Messages that are in no file: the disk was too slow, or failed."""
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def record(self, channel: str, received_at: int, raw: bytes) -> None:
        """Keep one message. Never waits, never raises for a disk.

        Raises:
            ConfigError: if the channel cannot be a file's name.
        """
        if _CHANNEL.fullmatch(channel) is None:
            raise ConfigError(f"{channel!r} is no name of a channel", hint="letters, digits, dots, dashes and underscores")
        try:
            self._queue.put_nowait((channel, received_at, raw))
        except queue.Full:
            self.left_out += 1

    def close(self) -> None:
        """Write what waits and complete the files. Called again, it does nothing."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            channel, received_at, raw = entry
            try:
                self._write(channel, received_at, raw)
                self.written += 1
                if self._queue.empty():
                    for _, file, _ in self._files.values():
                        file.flush()
            except OSError as error:
                self.left_out += 1
                self.problem = f"recording {channel}: {error}"
                if broken := self._files.pop(channel, None):  # a new file is tried with the next message
                    with contextlib.suppress(OSError):
                        broken[1].close()
        for channel in list(self._files):
            self._complete(channel)

    def _write(self, channel: str, received_at: int, raw: bytes) -> None:
        line = as_line(received_at, raw)
        if channel not in self._files:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{channel}-{received_at}.jsonl"
            self._files[channel] = (path, path.open("ab"), path.stat().st_size)
        path, file, size = self._files[channel]
        file.write(line)
        self._files[channel] = (path, file, size + len(line))
        if size + len(line) >= self._most_bytes:
            self._complete(channel)

    def _complete(self, channel: str) -> None:
        """Compress the file beside itself, then take its place: an interruption leaves the plain one."""
        path, file, _ = self._files.pop(channel)
        try:
            file.close()
            part = path.with_name(path.name + ".part")
            with path.open("rb") as plain, gzip.open(part, "wb", compresslevel=6) as packed:
                shutil.copyfileobj(plain, packed)
            part.replace(path.with_name(path.name + ".gz"))
            path.unlink()
            self._forget(channel)
        except OSError as error:
            self.problem = f"recording {channel}: {error}"

    def _forget(self, channel: str) -> None:
        if self._keep_bytes is None:
            return
        total = 0
        for path in reversed(recordings(self._folder, channel)):
            total += path.stat().st_size
            if total > self._keep_bytes and path.suffix == ".gz":
                path.unlink()


def open_recorder(section: RecordingSection, folder: Path) -> Recorder | None:
    """The recorder of the settings, whose `record` goes into `Tools.record`; None where nothing is to be recorded. Close it at the end."""
    if not section.enabled:
        return None
    keep = None if section.keep_megabytes is None else round(section.keep_megabytes * 1e6)
    return Recorder(folder, most_bytes=max(1, round(section.file_megabytes * 1e6)), keep_bytes=keep)


def recordings(folder: Path, channel: str) -> list[Path]:
    """The files of a channel, oldest first."""
    pattern = re.compile(re.escape(channel) + r"-(\d+)\.jsonl(\.gz)?")
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))] if folder.is_dir() else []
    return [path for _, path in sorted(found)]


def read_recording(path: Path, channel: str | None = None) -> Iterator[Recorded]:
    """The messages of one file, plain or compressed, in the order in which they came.

    A last line without its end, or a compressed file that breaks off, is where its process ended: what is whole before it is read.

    Raises:
        DataError: if the file cannot be read, or holds a line that is none.
    """
    channel = re.sub(r"(-\d+)?(\.jsonl)?(\.gz)?$", "", path.name) if channel is None else channel
    try:
        with cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(_whole_lines(lines), 1):
                try:
                    recorded = from_line(line, channel)
                except DataError as error:
                    raise DataError(f"{path.name}, line {number}: {error}", hint=error.hint) from None
                yield recorded
    except OSError as error:
        raise DataError(f"recording {path.name} cannot be read: {error}", hint="give a file of lines `<received ns> <message>`") from error


def _whole_lines(lines: BinaryIO) -> Iterator[bytes]:
    try:
        for line in lines:
            if line.endswith(b"\n"):
                yield line
    except (EOFError, zlib.error):
        return


def read_recordings(paths: Iterable[Path]) -> Iterator[Recorded]:
    """Several files as one, by time of receipt.

    Raises:
        DataError: see `read_recording`.
    """
    return heapq.merge(*(read_recording(path) for path in paths), key=lambda recorded: recorded.received_at)


class ReplaySource:
    """A recording as a `Source`: the same parser, the same ids, at any speed. Unlike live ones it ends.

    The position is the number of raw messages read; a replay that is resumed passes over so many. Positions lie under the source's name:
    run it with a state store of its own, or the live source goes on somewhere else.

    Args:
        name, topics: as those of the source that was recorded, so that ids agree.
        recorded: raw messages by time of receipt; a function, because a replay may be started again.
        read: the parser; what it raises as `DataError` becomes a dead letter.
        speed: times as fast as it came; 0 does not wait at all.
        clock: moved to each time of receipt, if given (never back: recorders' clocks are set now and then).
    """

    def __init__(
        self,
        name: str,
        topics: tuple[str, ...],
        recorded: Callable[[], Iterable[Recorded]],
        read: Read,
        *,
        speed: float = 0.0,
        clock: VirtualClock | None = None,
        wait: Wait = asyncio.sleep,
    ) -> None:
        if not 0.0 <= speed < float("inf"):
            raise ConfigError(f"a replay at {speed} times its speed", hint="0 does not wait, 1 is as recorded")
        self.name, self.topics, self.health = name, topics, Health()
        self._recorded, self._read, self._speed, self._clock, self._wait = recorded, read, speed, clock, wait
        self._end = asyncio.Event()

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """Everything from `position` to the end of the recording."""
        if not (position or "0").isdecimal():
            raise ConfigError(
                f"{self.name}: {position!r} is no place in a recording", hint="give replays a state of their own, not the live one"
            )
        done = int(position or 0)
        loop = asyncio.get_running_loop()
        began, first, previous = loop.time(), 0, 0
        self.health.state = "connected"
        for number, recorded in enumerate(self._recorded(), start=1):
            if number <= done:
                continue
            if not first:
                first = previous = recorded.received_at
            if self._speed > 0.0:
                await self._pass(recorded.received_at, previous, began + (recorded.received_at - first) / SECOND / self._speed)
                previous = max(previous, recorded.received_at)
            elif number % _BREATH == 0:
                await asyncio.sleep(0)
            if self._end.is_set():
                break
            if self._clock is not None:
                self._clock.advance_to(max(self._clock.now(), recorded.received_at))
            yield self._arrival(recorded, number)
        self.health.state = "closed"

    async def close(self) -> None:
        """Stop; the iterator ends."""
        self._end.set()

    async def _pass(self, received_at: int, previous: int, due: float) -> None:
        """Wait until it is time; by the loop's clock, or as long as it was between the two where time is virtual."""
        seconds = (
            due - asyncio.get_running_loop().time() if self._wait is asyncio.sleep else (received_at - previous) / SECOND / self._speed
        )
        if seconds > 0.0:
            await until_either(self._wait(seconds), self._end)

    def _arrival(self, recorded: Recorded, number: int) -> Arrival:
        health = self.health
        try:
            envelopes = tuple(self._read(recorded.raw, recorded.received_at))
        except DataError as error:
            health.dead += 1
            return Arrival((), str(number), (DeadLetter(self.name, str(error), recorded.raw, recorded.received_at),))
        if envelopes:
            newest = envelopes[-1]
            health.messages += len(envelopes)
            health.last_message, health.last_event = newest.observed_time, newest.event_time
            health.lag_seconds = (newest.observed_time - newest.event_time) / SECOND
        return Arrival(envelopes, str(number))
