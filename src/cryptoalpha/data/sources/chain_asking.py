"""Questions over HTTP: paced and billed by the source's limiter, recorded as they came, asked again a bounded number of times.

An answer that cannot be read counts as a failure like any other, because what is cut off or half written now is whole a second later;
only what stays unreadable is told to whoever asked. aiohttp carries the questions; `told` takes any other way (web3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import DeadLetter, Health
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.reconnect import Line, check_answer, until_either
from cryptoalpha.data.sources.section import SourceSection
from cryptoalpha.data.sources.words import in_words

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
Parse = Callable[[bytes, int], T]
"""Reads an answer that had come at a time (UTC ns); raises `DataError` and nothing else."""

ATTEMPTS: Final = 4
TIMEOUT_SECONDS: Final = 20.0
LARGEST_ANSWER: Final = 64 * 2**20
"""Bytes; a full block of Ethereum has well under one of these megabytes."""


class Answered(msgspec.Struct):
    """A recorded answer; None: there is no such thing."""

    asked: str
    answer: str | None


@dataclass
class Asking:
    """How one source asks.

    Args:
        line: its connect loop; told of every failure and success.
        who: what errors call the publisher. No key may stand in it.
    """

    name: str
    who: str
    base_url: str
    section: SourceSection
    tools: Tools
    health: Health

    def __post_init__(self) -> None:
        self.line: Line = self.tools.line(self.name, self.section, self.health)
        self._limiter = self.tools.limiter(self.name, self.section, self.health, line=self.line)
        self._session: aiohttp.ClientSession | None = None
        self._under_way: asyncio.Future[bytes | None] | None = None
        self.heard_at = 0
        """When the newest answer that could be read had come, UTC ns."""

    def session(self) -> aiohttp.ClientSession:
        """One session for all questions, opened by the first.

        Raises:
            VenueError: if the source has been closed.
        """
        import aiohttp

        if self.line.closed:
            raise VenueError(f"nothing is asked of {self.who} any more: the source is closed")
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), trust_env=True)
        return self._session

    async def get(self, path: str, parse: Parse[T], *, params: Mapping[str, str] | None = None) -> T:
        """What stands under a path, read by `parse`.

        Raises:
            VenueError | DataError: if it could not be got, or not read, `ATTEMPTS` times.
            ConfigError: if the publisher refuses to answer.
        """
        found = await self.get_or_none(path, parse, params=params, absent=())
        assert found is not None  # no status stands for absence
        return found

    async def get_or_none(
        self, path: str, parse: Parse[T], *, params: Mapping[str, str] | None = None, absent: Sequence[int] = (404,)
    ) -> T | None:
        """The same; None where the publisher says that there is no such thing."""

        async def once() -> bytes | None:
            async with self.session().get(self.base_url + path, params=dict(params or {})) as answer:
                if answer.status in absent:
                    return None
                check_answer(answer.status, answer.headers, what=self.who, now=self.tools.clock.now())
                return await _read(answer, self.who)

        return await self.told(once, parse, asked=_question(path, params))

    async def told(self, once: Callable[[], Awaitable[bytes | None]], parse: Parse[T], *, asked: str) -> T | None:
        """Ask by `once` until `parse` can read what comes, at most `ATTEMPTS` times. None where `once` brings None."""
        import aiohttp

        for attempt in range(1, ATTEMPTS + 1):
            error: VenueError | DataError
            try:
                await self._limiter.ask()
                raw = await self._unless_closed(once())
                await self._limiter.spend(1.0)
                now = self.tools.clock.now()
                self.record(asked, now, raw)
                found = parse(raw, now) if raw is not None else None
            except (VenueError, DataError) as failure:
                error = failure
            except (aiohttp.ClientError, OSError, TimeoutError) as failure:
                error = VenueError(f"{self.who} does not answer: {in_words(failure)}", hint="it is asked again; check the network")
            else:
                self.heard_at = now
                self.line.worked()
                return found
            if attempt == ATTEMPTS or self.line.closed:
                raise error
            await self.line.failed(error)
        raise AssertionError("unreachable")

    async def _unless_closed(self, question: Awaitable[bytes | None]) -> bytes | None:
        """Its answer.

        Raises:
            VenueError: if the source was closed meanwhile.
        """
        self._under_way = asyncio.ensure_future(question)
        try:
            return await self._under_way
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if self.line.closed and asking is not None and not asking.cancelling():
                raise VenueError(f"nothing is asked of {self.who} any more: the source is closed") from None
            raise

    def record(self, asked: str, now: int, raw: bytes | None) -> None:
        """Keep an answer with what was asked, if anybody records: one line of JSON that `chain_replay` understands."""
        if self.tools.record is not None:
            answer = raw.decode(errors="replace") if raw is not None else None
            self.tools.record(self.name, now, msgspec.json.encode(Answered(asked, answer)))

    async def rest(self, seconds: float, reason: str = "", *, news: asyncio.Event | None = None) -> None:
        """Wait until it is time to ask again, or `news` (else the end of the line). It stays `connected`: nothing is wrong."""
        if self.health.state == "connected":
            self.health.reason = reason
        await until_either(self.tools.wait(seconds), news if news is not None else self.line.end)

    async def close(self) -> None:
        """No more questions; a wait under way ends."""
        self.line.close()
        if self._under_way is not None and not self._under_way.done():
            self._under_way.cancel()  # before its connection goes: aiohttp fails an assertion otherwise
            await asyncio.gather(self._under_way, return_exceptions=True)
        await self.hang_up()

    async def hang_up(self) -> None:
        """Let go of connections; the next question opens new ones."""
        if self._session is not None:
            await self._session.close()


def _question(path: str, params: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


async def _read(answer: aiohttp.ClientResponse, who: str) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_chunked(2**16):
        size += len(part)
        if size > LARGEST_ANSWER:
            raise VenueError(f"{who} sent more than {LARGEST_ANSWER >> 20} MiB", hint="check the address in the settings of this source")
        parts.append(part)
    return b"".join(parts)


def decoded(raw: bytes, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """A message of JSON by its decoder.

    Raises:
        DataError: if it is none.
    """
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{len(raw)} bytes are no {what}: {error}") from None


def note(health: Health, envelopes: Sequence[Envelope], dead: Sequence[DeadLetter], *, now: int, event: int) -> None:
    """Count what came together. `event`: when the newest of it happened by the publisher's clock, UTC ns."""
    health.messages += len(envelopes)
    health.dead += len(dead)
    if envelopes:
        health.last_message, health.last_event = now, event
        health.lag_seconds = (now - event) / SECOND


@contextlib.asynccontextmanager
async def closing(*ends: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Whatever happens within, the ends are called, in their order."""
    try:
        yield
    finally:
        for end in ends:
            await end()
