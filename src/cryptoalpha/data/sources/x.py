"""Posts of X as they are written: the filtered stream, its gaps closed by recent search, likes and followers read again later.

The position is the id up to which everything is known. It follows the stream while the stream stands; from a break until the search behind
it has come through it stays, so a crash at any moment only makes the next search longer. Posts come nearly in the order of their ids, so a
search begins a little before the position, and ids tell what came before.

Every post read is counted before it is passed on, whoever ordered it: X bills what it sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError, DataError, VenueError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.data.sources.opening import Tools, needs
from cryptoalpha.data.sources.posts import EMPTY, TOPIC, Fault, TextPage, enveloped
from cryptoalpha.data.sources.reconnect import LaterError, RefusedError, lasting
from cryptoalpha.data.sources.text_config import XSection
from cryptoalpha.data.sources.text_intake import DEFAULT_SALT, Intake, arrival, envelopes_of, rest, unless_closed, until_set
from cryptoalpha.data.sources.x_client import LOOKUP_MOST, SEARCH_LEAST, XClient, trouble
from cryptoalpha.data.sources.x_gap import Gap
from cryptoalpha.data.sources.x_parsing import SOURCE, XMessage, first_id_at, id_time, number_in, parse_x

_MOST_WAITING = 200
"""Messages read ahead of whoever takes them; beyond that the stream is not read, and X ends it."""
_MOST_REREADS = 10_000


class _Place(msgspec.Struct):
    """The position."""

    complete: int = 0
    rereads: list[tuple[int, int]] = []
    """When (UTC ns) which post is read again."""


_PLACE = msgspec.json.Decoder(_Place)


@dataclass(frozen=True)
class _Come:
    """Something for whoever takes it, in the order it happened."""

    kind: Literal["connected", "stream", "gap", "reread"]
    page: TextPage = EMPTY
    received_at: int = 0
    newest: int = 0
    generation: int = 0
    reread: tuple[int, ...] = ()


@dataclass
class _State:
    """One iteration: what its parts tell each other."""

    place: _Place
    queue: asyncio.Queue[_Come] = field(default_factory=lambda: asyncio.Queue(_MOST_WAITING))
    generation: int = 0
    """Of the connection; counts up."""
    gap_of: int = 0
    """The connection before which there is a gap; 0: there is none."""
    newest: int = 0
    gap_is_open: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """There is a gap, or something to read again."""
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """What was read again has been taken."""


def open_source(section: XSection, tools: Tools) -> XSource:
    """X as the settings have it.

    Raises:
        ConfigError: if the token or a package is missing, or there are no rules.
    """
    needs("httpx")
    if not section.rules:
        raise ConfigError("nothing of X is asked for", hint="write rules under data.streams.sources.x.rules, or switch the source off")
    return XSource(section, tools, tools.secret(section.bearer_token_env))


class XSource:
    """See the module."""

    name = SOURCE
    topics = (TOPIC,)

    def __init__(self, section: XSection, tools: Tools, token: str) -> None:
        self._section, self._tools, self._token = section, tools, token
        self.health = Health()
        self._line = tools.line(SOURCE, section, self.health)
        self._limiter = tools.limiter(SOURCE, section, self.health, line=self._line)
        self._salt = tools.environment.get(section.author_salt_env, DEFAULT_SALT)

    def read(self, raw: bytes, received_at: int) -> list[Envelope]:
        """Every post of a recorded answer or line.

        Raises:
            DataError: if it is neither, or only says what is wrong.
        """
        message = parse_x(raw, received_at, salt=self._salt)
        if message.problem is not None:
            raise DataError(f"X reported: {message.problem.reason}")
        return envelopes_of(message.page)

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """Every post the rules match, from `position` on.

        Raises:
            ConfigError: if X refuses the token or a rule, or the position is none of this source.
        """
        state = _State(_place(position))
        state.newest = state.place.complete
        intake = Intake(SOURCE, self.health, remembered=self._section.remembered)
        client = XClient(self._section, self._tools.clock, self._token)
        working = asyncio.create_task(self._work(client, state))
        try:
            while (come := await self._next(state.queue, working)) is not None:
                fresh, dead = intake.take(come.page, come.received_at)
                self._settle(come, fresh, state)
                if fresh or dead:
                    yield arrival(fresh, dead, msgspec.json.encode(state.place).decode())
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await client.close()

    async def close(self) -> None:
        self._line.close()

    def _settle(self, come: _Come, fresh: tuple[Envelope, ...], state: _State) -> None:
        """Where we stand after this."""
        place = state.place
        state.newest = max(state.newest, come.newest)
        if come.kind == "connected":
            state.gap_is_open = state.gap_of == come.generation
        elif come.kind == "gap" and come.generation == state.generation:
            state.gap_is_open = False
        if not state.gap_is_open and state.newest:  # X's own number, at last, where we began with a guess by our clock
            place.complete = state.newest
        if come.kind == "reread":
            place.rereads = [(due, post) for due, post in place.rereads if post not in come.reread or due > come.received_at]
            state.taken.set()
        elif self._section.reread_hours and fresh:
            new, noted = {envelope.id for envelope in fresh}, {post for _, post in place.rereads}
            ids = sorted({number_in(post) for post in come.page.posts if enveloped(post).id in new} - noted)
            due = [(come.received_at + round(hours * HOUR), post) for hours in self._section.reread_hours for post in ids]
            place.rereads = sorted([*place.rereads, *due])[:_MOST_REREADS]
            state.changed.set()

    async def _next(self, queue: asyncio.Queue[_Come], working: asyncio.Task[None]) -> _Come | None:
        """The next thing that came; None if the source was closed. What the work ended with is raised."""
        if not queue.empty():
            return queue.get_nowait()
        getting, ending = asyncio.ensure_future(queue.get()), asyncio.ensure_future(self._line.end.wait())
        try:
            await asyncio.wait({getting, ending, working}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            if not self._line.closed or working.done():
                try:
                    working.result()
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None
            return None
        finally:
            getting.cancel()
            ending.cancel()
            await asyncio.gather(getting, ending, return_exceptions=True)

    async def _work(self, client: XClient, state: _State) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(client, state))
            group.create_task(self._close_gaps(client, state))
            if self._section.reread_hours:
                group.create_task(self._read_again(client, state))

    async def _listen(self, client: XClient, state: _State) -> None:
        async for come in lasting(lambda: self._connection(client, state), self._line):
            if come is not None:
                await state.queue.put(come)

    async def _connection(self, client: XClient, state: _State) -> AsyncIterator[_Come | None]:
        """One connection to the stream: what comes over it, None for a sign of life."""
        await self._limiter.ask(requests=2.0, units=1.0)
        rules = await client.keep_rules(self._section.rules)
        async with client.stream() as lines:
            state.generation += 1
            if state.place.complete == 0:
                state.place.complete = first_id_at(self._tools.clock.now())
            else:
                state.gap_of = state.generation
                state.changed.set()
            yield _Come("connected", generation=state.generation)
            async for line in lines:
                received_at = self._tools.clock.now()
                come = await self._line_read(line, received_at, rules)
                yield come
                if self._limiter.exhausted:
                    raise VenueError(f"X is not listened to: {self._limiter.exhausted}")

    async def _line_read(self, line: bytes, received_at: int, rules: frozenset[str]) -> _Come | None:
        """One line of the stream; None for a sign of life, and for posts of rules that are not ours."""
        if not line.strip():
            return None
        self._record(received_at, line)
        try:
            message = parse_x(line, received_at, salt=self._salt)
        except DataError as error:
            await self._limiter.spend(1.0)
            return _Come("stream", TextPage(faults=(Fault(str(error), line),)), received_at)
        if message.problem is not None:
            if message.problem.kind == "other":
                return _Come("stream", TextPage(faults=(Fault(f"X reported: {message.problem.reason}", line),)), received_at)
            raise trouble(message.problem)
        await self._limiter.spend(_posts_on(message))
        if message.rules and not rules.intersection(message.rules):
            return None
        return _Come("stream", message.page, received_at, message.newest)

    async def _close_gaps(self, client: XClient, state: _State) -> None:
        """Search behind each break, one break at a time."""
        closed = 0
        while not self._line.closed:
            if state.gap_of == closed:
                state.changed.clear()
                await until_set(state.changed, self._line.end)
                continue
            await rest(self._section.search_delay_seconds, self._tools.wait, self._line.end)
            closed = state.gap_of
            gap = Gap(self._section.rules, self._since(state), self._section.backfill_most)
            if not await self._fill(client, gap):
                return
            if gap.cut:
                self._tools.alert(SOURCE, "a gap in X's stream was larger than may be read: its oldest posts are lost")
            await state.queue.put(_Come("gap", gap.page(), self._tools.clock.now(), gap.newest(), closed))

    def _since(self, state: _State) -> int:
        """Where a search begins."""
        known = id_time(state.place.complete) or 0
        oldest = self._tools.clock.now() - round(self._section.backfill_hours * HOUR)
        return first_id_at(max(known - round(self._section.overlap_seconds * SECOND), oldest))

    async def _fill(self, client: XClient, gap: Gap) -> bool:
        """Ask until the gap is closed; False if the source was closed first."""
        section = self._section
        backoff = Backoff(
            section.retry_seconds, max(section.retry_seconds, section.retry_limit_seconds), random=stream(self._tools.seed, SOURCE, "gap")
        )
        affordable = self._affordable()
        while (question := gap.question()) is not None:
            if affordable < SEARCH_LEAST:
                gap.skip()
                continue
            try:
                most = int(min(question.most, affordable, max(self._limiter.units_left(), SEARCH_LEAST)))
                await self._limiter.ask(requests=1.0, units=float(most))
                asked = client.search(question.query, since=question.since, most=most, following=question.following)
                raw, received_at = await unless_closed(asked, self._line.end)
                self._record(received_at, raw)
                message = parse_x(raw, received_at, salt=self._salt)
                await self._limiter.spend(float(gap.took(message)))
                backoff.reset()
            except RefusedError as error:
                self._tools.alert(SOURCE, f"a gap cannot be searched for {gap.skip()!r}: {error}")
            except (VenueError, DataError) as error:
                if self._line.closed:
                    return False
                self.health.reason = str(error)
                await rest(backoff.wait(error.wait_seconds if isinstance(error, LaterError) else 0.0), self._tools.wait, self._line.end)
        return not self._line.closed

    def _affordable(self) -> float:
        """Posts of a whole day's budget."""
        section = self._section
        units = section.daily_units if section.daily_units is not None else float("inf")
        money = section.daily_money / section.unit_price if section.daily_money is not None and section.unit_price else float("inf")
        return min(units, money, float(section.backfill_most) + SEARCH_LEAST)

    async def _read_again(self, client: XClient, state: _State) -> None:
        """Likes and followers, when it is time for them."""
        while not self._line.closed:
            if not state.place.rereads:
                state.changed.clear()
                await until_set(state.changed, self._line.end)
                continue
            now = self._tools.clock.now()
            due = state.place.rereads[0][0]
            if due > now:
                await rest((due - now) / SECOND, self._tools.wait, self._line.end)
                continue
            ids = tuple(dict.fromkeys(post for at, post in state.place.rereads if at <= now))[:LOOKUP_MOST]
            page, received_at = EMPTY, now
            try:
                await self._limiter.ask(requests=1.0, units=float(len(ids)))
                raw, received_at = await unless_closed(client.lookup(ids), self._line.end)
                self._record(received_at, raw)
                message = parse_x(raw, received_at, salt=self._salt)
                await self._limiter.spend(_posts_on(message))
                page = message.page
            except (VenueError, DataError, RefusedError) as error:
                seconds = error.wait_seconds if isinstance(error, LaterError) else 0.0
                await rest(max(seconds, self._section.retry_limit_seconds), self._tools.wait, self._line.end)
                continue
            state.taken.clear()
            await state.queue.put(_Come("reread", page, received_at, reread=ids))
            await until_set(state.taken, self._line.end)  # the list is its taker's

    def _record(self, received_at: int, raw: bytes) -> None:
        if self._tools.record is not None:
            self._tools.record(SOURCE, received_at, raw)


def _posts_on(message: XMessage) -> float:
    return float(len(message.page.posts) + len(message.page.faults))


def _place(position: str) -> _Place:
    try:
        return _PLACE.decode(position) if position else _Place()
    except msgspec.DecodeError:
        raise ConfigError("the kept position of X cannot be read", hint="remove it from the state") from None
