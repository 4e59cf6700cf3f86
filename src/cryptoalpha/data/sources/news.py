"""News feeds, asked in turn, each at its own pace: quickly where it works, less and less often where it does not.

The position holds, for each feed, the validators of its last answer and the ids that stood in it, so a restart asks conditionally and
passes nothing on twice. A feed is gone where its publisher says so (410); the others go on. Only if all of them refuse us from the start
does the source end.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import msgspec

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError, DataError, VenueError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.data.sources.news_client import Fetched, NewsClient, Validators
from cryptoalpha.data.sources.news_parsing import SOURCE, host_of, parse_news
from cryptoalpha.data.sources.opening import Tools, needs
from cryptoalpha.data.sources.posts import TOPIC, TextPage, enveloped
from cryptoalpha.data.sources.reconnect import LaterError, RefusedError
from cryptoalpha.data.sources.text_config import NewsSection
from cryptoalpha.data.sources.text_intake import DEFAULT_SALT, Intake, arrival, envelopes_of, rest, unless_closed

_SLOWEST_SECONDS = 6 * 3600.0
_LONGEST_NAMED = 3
_DIGEST_BYTES = 6


class _Place(msgspec.Struct):
    """Where one feed stands, as the position keeps it."""

    etag: str = ""
    modified: str = ""
    seen: list[str] = []


_PLACES = msgspec.json.Decoder(dict[str, _Place])


@dataclass
class _Feed:
    """One feed while it is read."""

    address: str
    backoff: Backoff
    due: int = 0
    place: _Place | None = None
    """None: it was never read."""
    known: set[str] = field(default_factory=set)
    fresh_seconds: float = 0.0
    trouble: str = ""
    refused: bool = False
    gone: bool = False


def open_source(section: NewsSection, tools: Tools) -> NewsSource:
    """The news feeds of the settings.

    Raises:
        ConfigError: if there are none, or a package is missing.
    """
    needs("feedparser")
    needs("httpx")
    if not section.feeds:
        raise ConfigError("no news feed is listed", hint="list addresses under data.streams.sources.news.feeds, or switch the source off")
    return NewsSource(section, tools)


class NewsSource:
    """See the module."""

    name = SOURCE
    topics = (TOPIC,)

    def __init__(self, section: NewsSection, tools: Tools) -> None:
        self._section, self._tools = section, tools
        self.health = Health()
        self._line = tools.line(SOURCE, section, self.health)
        self._limiter = tools.limiter(SOURCE, section, self.health, line=self._line)
        self._salt = tools.environment.get(section.author_salt_env, DEFAULT_SALT)
        self._random = stream(tools.seed, "source", SOURCE, "pace")

    def read(self, raw: bytes, received_at: int) -> list[Envelope]:
        """Every post of a recorded answer.

        Raises:
            DataError: if it is none.
        """
        return envelopes_of(parse_news(raw, received_at, salt=self._salt))

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """Everything new in the feeds from `position` on.

        Raises:
            ConfigError: if every feed refuses us, or the position is none of this source.
        """
        feeds = self._feeds(position)
        intake = Intake(SOURCE, self.health, remembered=self._section.remembered)
        client = NewsClient(self._section, self._tools.clock)
        started = self._tools.clock.now()
        try:
            while not self._line.closed:
                feed = min((feed for feed in feeds if not feed.gone), key=lambda feed: feed.due, default=None)
                if feed is None:
                    raise ConfigError("every news feed is gone", hint="list others under data.streams.sources.news.feeds")
                await rest((feed.due - self._tools.clock.now()) / SECOND, self._tools.wait, self._line.end)
                if self._line.closed:
                    return
                found = await self._ask(client, feed, feeds)
                if found is not None:
                    come = await self._take(feed, found, intake, started)
                    self._say(feeds)
                    if come.envelopes or come.dead:
                        yield arrival(come.envelopes, come.dead, _position(feeds))
        finally:
            await client.close()

    async def close(self) -> None:
        self._line.close()

    async def _ask(self, client: NewsClient, feed: _Feed, feeds: list[_Feed]) -> Fetched | None:
        """One question; None if nothing is new, or it failed."""
        validators = Validators(feed.place.etag, feed.place.modified) if feed.place else Validators()
        try:
            await self._limiter.ask(requests=1.0, units=1.0)
            found = await unless_closed(client.fetch(feed.address, validators), self._line.end)
            await self._limiter.spend(1.0)
        except (VenueError, RefusedError) as error:
            if not self._line.closed:
                self._failed(feed, error)
                self._say(feeds)
            return None
        if found is None:
            self._worked(feed)
            self._say(feeds)
        return found

    async def _take(self, feed: _Feed, found: Fetched, intake: Intake, started: int) -> Arrival:
        """What an answer brought."""
        if self._tools.record is not None:
            self._tools.record(SOURCE, found.received_at, found.raw)
        try:  # in a thread: a long feed takes a tenth of a second
            page = await asyncio.to_thread(parse_news, found.raw, found.received_at, salt=self._salt)
        except DataError as error:
            first = feed.trouble != str(error)
            self._failed(feed, error)
            return arrival((), (intake.letter(str(error), found.raw, found.received_at),) if first else (), "")
        names = {_digest(enveloped(post).id): post for post in page.posts}
        oldest = started - round(self._section.first_hours * HOUR) if feed.place is None else 0
        news = tuple(post for name, post in names.items() if name not in feed.known and post.happened_at >= oldest)
        self.health.repeats += len(page.posts) - len(names) + sum(name in feed.known for name in names)
        faults = tuple(fault for fault in page.faults if _digest(fault.data.hex()) not in feed.known)
        fresh, dead = intake.take(TextPage(posts=news, faults=faults, published=page.published), found.received_at)
        seen = [*names, *(_digest(fault.data.hex()) for fault in page.faults)]
        feed.place = _Place(etag=found.validators.etag, modified=found.validators.modified, seen=seen)
        feed.known = set(seen)
        feed.fresh_seconds = found.fresh_seconds
        self._worked(feed)
        return arrival(fresh, dead, "")

    def _worked(self, feed: _Feed) -> None:
        feed.backoff.reset()
        feed.trouble, feed.refused = "", False
        spread = self._section.jitter * (2.0 * float(self._random.random()) - 1.0)
        feed.due = self._tools.clock.now() + round(max(self._section.poll_seconds, feed.fresh_seconds) * (1.0 + spread) * SECOND)

    def _failed(self, feed: _Feed, error: DataError | VenueError | RefusedError) -> None:
        """Ask it later, and later each time."""
        feed.trouble, feed.refused = str(error), isinstance(error, RefusedError)
        feed.gone = feed.refused and "HTTP 410" in feed.trouble
        self.health.reconnects += 1
        asked = error.wait_seconds if isinstance(error, LaterError) else 0.0
        feed.due = self._tools.clock.now() + round(min(feed.backoff.wait(asked), max(_SLOWEST_SECONDS, asked)) * SECOND)

    def _say(self, feeds: list[_Feed]) -> None:
        """Keep the health in step.

        Raises:
            ConfigError: if every feed refuses us and none was ever read.
        """
        if self._line.closed:
            return
        bad = [feed for feed in feeds if feed.trouble]
        if len(bad) == len(feeds) and all(feed.refused and feed.place is None for feed in feeds):
            raise ConfigError(f"every news feed refuses us: {bad[0].trouble}", hint="check data.streams.sources.news.feeds")
        self.health.state = "waiting" if len(bad) == len(feeds) else "connected"
        named = "; ".join(f"{host_of(feed.address)}: {feed.trouble}" for feed in bad[:_LONGEST_NAMED])
        self.health.reason = f"{len(bad)} of {len(feeds)} feeds fail: {named}" if bad else ""

    def _feeds(self, position: str) -> list[_Feed]:
        places = _places(position)
        now, feeds = self._tools.clock.now(), []
        for address in dict.fromkeys(self._section.feeds):
            slowest = max(_SLOWEST_SECONDS, self._section.poll_seconds)
            backoff = Backoff(self._section.retry_seconds, slowest, random=stream(self._tools.seed, "source", SOURCE, address))
            place = places.get(address)
            feeds.append(_Feed(address=address, backoff=backoff, due=now, place=place, known=set(place.seen) if place else set()))
        return feeds


def _places(position: str) -> Mapping[str, _Place]:
    try:
        return _PLACES.decode(position) if position else {}
    except msgspec.DecodeError:
        raise ConfigError("the kept position of the news feeds cannot be read", hint="remove it from the state") from None


def _position(feeds: list[_Feed]) -> str:
    return msgspec.json.encode({feed.address: feed.place for feed in feeds if feed.place is not None}).decode()


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).hexdigest()
