"""What a connection lost is asked for over REST: whole books, trades and candles out of holes, funding that was settled.

Answers go the way that messages go, in line with them, so what is asked for is read by the same code and never twice. A hole that three
questions did not narrow is given up and counted; a question that the venue refuses stops no other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import aiohttp

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.core.time import MINUTE
from cryptoalpha.data.sources.exchange_config import ExchangeSection
from cryptoalpha.data.sources.exchange_sockets import Heard, Sockets
from cryptoalpha.data.sources.limits import Limiter
from cryptoalpha.data.sources.market_reader import MarketReader, answered
from cryptoalpha.data.sources.reconnect import Line, RefusedError, Wait, until_either
from cryptoalpha.data.sources.venues.tape import Hole, Tape
from cryptoalpha.data.sources.venues.wiring import Question, Wiring

_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5
_REFUSED_REST: Final = 5 * MINUTE
_FAMILIES: Final = {"book": "books", "trades": "trades", "settled": "funding"}
BROKEN: Final[tuple[type[Exception], ...]] = (VenueError, OSError, TimeoutError, aiohttp.ClientError)
"""What a connection that fails raises."""


class Mender:
    """Asks for what is missing, one question at a time, for one source.

    Args:
        put: hands an answer over to be read; waits while too much waits.
        line: waits after failures.
    """

    def __init__(
        self,
        reader: MarketReader,
        wiring: Wiring,
        section: ExchangeSection,
        instruments: Sequence[str],
        *,
        clock: Clock,
        sockets: Sockets,
        limiter: Limiter,
        line: Line,
        wait: Wait,
        put: Callable[[Heard], Awaitable[None]],
    ) -> None:
        self._reader, self._wiring, self._section, self._instruments = reader, wiring, section, tuple(instruments)
        self._sockets, self._limiter, self._line, self._wait, self._put = sockets, limiter, line, wait, put
        self._clock, self._wake = clock, asyncio.Event()
        self._recent: set[str] = set()
        self._settled: set[str] = set()
        self._tries: Counter[tuple[str, Hole]] = Counter()
        self._books_due: set[str] = set()
        self.refused: dict[str, tuple[int, str]] = {}
        """Questions that the venue refused: when they may be asked again, UTC ns, and its words."""

    def look(self) -> None:
        """Something may be missing."""
        if self._recent or self._reader.asks_reconnect or self._missing():
            self._wake.set()

    def _missing(self) -> set[object]:
        """Books and holes."""
        tapes = {**self._reader.tapes, **self._reader.bars}
        return {*self._reader.gaps, *((name, hole) for name, tape in tapes.items() for hole in tape.holes)}

    def want_recent(self) -> None:
        """The connection that brings trades was opened anew: what came meanwhile is asked for, where holes do not tell."""
        if not self._reader.venue.counts_trades:
            self._recent |= {name for name, tape in self._reader.tapes.items() if tape.last_time}
            self._wake.set()

    async def prepare(self, families: Sequence[str]) -> None:
        """Ask what must be known before the first message can be read, until it is. Each family's recording begins with it."""
        for question in self._wiring.preparations(self._instruments):
            while not self._line.closed:
                try:
                    received_at, body = await self._sockets.ask(question, self._limiter)
                    raw = answered(question.kind, question.subject, body)
                except DataError as error:
                    await self._line.failed(error)
                except BROKEN as error:
                    await self._line.failed(error)
                else:
                    for family in families:
                        await self._put(Heard(received_at, raw, family))
                    break

    async def run(self) -> None:
        """Mend for ever."""
        while not self._line.closed:
            await self._wake.wait()
            self._wake.clear()
            missing = self._missing()
            failed = await self._round()
            if failed is not None:
                await self._line.failed(failed)
                self._wake.set()
            else:
                self._line.worked()
                self.look()
                if missing & self._missing():  # still: the venue may be a moment behind its own socket
                    await until_either(self._wait(_PAUSE_SECONDS), self._line.end)

    async def run_regularly(self, families: Sequence[str]) -> None:
        """Ask now and then, for ever: for settled funding, and for whole books where a lost change would not show."""
        funded = {name for name in self._instruments if "funding" in families and self._wiring.settled(name) is not None}
        looks_at_books = "books" in families and self._reader.venue.rule == "timed"
        while (funded or looks_at_books) and not self._line.closed:
            self._settled |= funded
            if looks_at_books:
                self._books_due |= set(self._reader.books)
            self._wake.set()
            await until_either(self._wait(self._section.funding_seconds), self._line.end)

    async def _round(self) -> Exception | None:
        """Ask once for everything that is missing; the first failure, if any."""
        failed: Exception | None = None
        for job in (self._books, self._trades, self._bars, self._others):
            try:
                await job()
            except BROKEN as error:
                failed = failed or error
        return failed

    async def _books(self) -> None:
        reader = self._reader
        for family in sorted(reader.asks_reconnect):
            reader.asks_reconnect.discard(family)
            await self._sockets.hang_up(family)
        for name in sorted(reader.gaps | self._books_due):
            question = self._wiring.book(name)
            book = reader.books.get(name)
            if question is not None and book is not None and (book.is_known or book.has_waiting):
                await self._ask(question)  # not before the first change came: it has to reach back to that
            self._books_due.discard(name)
        if any(self._wiring.book(name) is None for name in reader.broken):  # a whole book comes with a new connection only
            reader.broken.clear()
            await self._sockets.hang_up("books")

    async def _trades(self) -> None:
        for name, tape in list(self._reader.tapes.items()):
            await self._fill(name, tape, partial(self._wiring.trades, name))

    async def _bars(self) -> None:
        interval = self._section.bar_interval
        for key, tape in list(self._reader.bars.items()):
            name = key.partition("|")[0]
            await self._fill(key, tape, partial(self._wiring.bars, name, interval))

    async def _fill(self, key: str, tape: Tape, question_of: Callable[[Hole], Question | None]) -> None:
        """Ask about every hole for as long as answers narrow it."""
        seen: set[Hole] = set()
        while fresh := [hole for hole in tape.holes if hole not in seen]:
            hole = fresh[0]
            seen.add(hole)
            question = question_of(hole)
            if question is None or not await self._ask(question):
                tape.give_up(hole)
                continue
            if hole in tape.holes:  # not narrowed
                self._tries[key, hole] += 1
                if self._tries[key, hole] >= _TRIES:
                    tape.give_up(hole)
                    del self._tries[key, hole]

    async def _others(self) -> None:
        for name in sorted(self._recent):
            question = self._wiring.recent(name)
            if question is not None:
                await self._ask(question)
            self._recent.discard(name)
        for name in sorted(self._settled):
            question = self._wiring.settled(name)
            if question is not None:
                await self._ask(question)
            self._settled.discard(name)

    async def _ask(self, question: Question) -> bool:
        """Ask, and wait until the answer was read; whether the venue answered rather than refused."""
        name = f"{question.kind} {question.subject}"
        if self.refused.get(name, (0, ""))[0] > self._clock.now():
            return False
        try:
            received_at, body = await self._sockets.ask(question, self._limiter)
        except RefusedError as error:
            self.refused[name] = (self._clock.now() + _REFUSED_REST, str(error))
            return False
        try:
            raw = answered(question.kind, question.subject, body)
        except DataError as error:
            raise VenueError(f"the answer is cut or none: {error}") from None
        self.refused.pop(name, None)
        done = asyncio.Event()
        family = _FAMILIES.get(question.kind, "bars")
        await self._put(Heard(received_at, raw, family, done=done))
        await done.wait()
        return True
