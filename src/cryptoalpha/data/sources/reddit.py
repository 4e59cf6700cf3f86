"""New submissions and comments of subreddits, asked for in turn.

Reddit has no stream: its listings are read from the newest post back until one is met that was read before. Names of posts are numbers that
grow, so the place to stop at is found even where the post itself was deleted since (a listing asked for by `before=` a deleted post stays
empty for ever). Posts that a moderator lets through late appear with lower numbers; they are told by not having been seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from cryptoalpha.core.errors import ConfigError, DataError, VenueError
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.opening import Tools, needs
from cryptoalpha.data.sources.posts import TOPIC, TextPage, enveloped
from cryptoalpha.data.sources.reconnect import RefusedError
from cryptoalpha.data.sources.reddit_client import RedditClient
from cryptoalpha.data.sources.reddit_parsing import SOURCE, names_of, number_of, parse_reddit
from cryptoalpha.data.sources.text_config import RedditSection
from cryptoalpha.data.sources.text_intake import DEFAULT_SALT, Intake, arrival, envelopes_of, rest, unless_closed

Kind = Literal["submissions", "comments"]

_PAGE = 100
_REMEMBERED = 200
"""Ids per kind that the position keeps: two pages."""


class _Place(msgspec.Struct):
    """Where one kind stands, as the position keeps it."""

    newest: int = 0
    """Number of the newest name read."""
    seen: list[str] = []
    """Ids of the newest posts passed on."""


_PLACES = msgspec.json.Decoder(dict[str, _Place])


@dataclass(frozen=True)
class _Pages:
    """What one walk through a listing brought."""

    page: TextPage
    newest: int
    complete: bool
    unreadable: tuple[DeadLetter, ...]
    received_at: int


def open_source(section: RedditSection, tools: Tools) -> RedditSource:
    """Reddit as the settings have it.

    Raises:
        ConfigError: if a key or a package is missing, or nothing is asked for.
    """
    needs("asyncpraw")
    if not section.subreddits or not (section.submissions or section.comments):
        raise ConfigError("nothing of Reddit is asked for", hint="list subreddits, or switch the source off")
    identity, secret = tools.secret(section.client_id_env), tools.secret(section.client_secret_env)
    return RedditSource(section, tools, RedditClient(section, tools.clock, identity=identity, secret=secret))


class RedditSource:
    """See the module."""

    name = SOURCE
    topics = (TOPIC,)

    def __init__(self, section: RedditSection, tools: Tools, client: RedditClient) -> None:
        self._section, self._tools, self._client = section, tools, client
        self.health = Health()
        self._line = tools.line(SOURCE, section, self.health)
        self._limiter = tools.limiter(SOURCE, section, self.health, line=self._line)
        self._salt = tools.environment.get(section.author_salt_env, DEFAULT_SALT)

    def read(self, raw: bytes, received_at: int) -> list[Envelope]:
        """Every post of a recorded listing.

        Raises:
            DataError: if it is none.
        """
        return envelopes_of(parse_reddit(raw, received_at, salt=self._salt))

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """Everything new from `position` on, oldest first.

        Raises:
            ConfigError: if Reddit refuses the key, or the position is none of this source.
        """
        places = _places(position)
        kinds: list[Kind] = [kind for kind in ("submissions", "comments") if getattr(self._section, kind)]
        intake = Intake(SOURCE, self.health, remembered=self._section.remembered)
        for name in (name for place in places.values() for name in place.seen):
            intake.pass_over(f"{SOURCE}/{name}")
        started = self._tools.clock.now()
        try:
            while not self._line.closed:
                for kind in kinds:
                    place = places.get(kind)
                    pages = await self._walk(kind, place.newest if place else 0, intake)
                    if pages is None:
                        break
                    come = self._take(pages, place, places, kind, intake, started)
                    if come.envelopes or come.dead:
                        yield come
                else:
                    await rest(self._section.poll_seconds, self._tools.wait, self._line.end)
        finally:
            await self._client.close()

    async def close(self) -> None:
        self._line.close()

    async def _walk(self, kind: Kind, known: int, intake: Intake) -> _Pages | None:
        """Pages from the newest post back to the number `known`; None if it failed, after the wait."""
        path = f"r/{'+'.join(self._section.subreddits)}/{'new' if kind == 'submissions' else 'comments'}"
        pages: list[TextPage] = []
        newest, after, complete, received_at = known, "", False, 0
        try:
            while not complete and len(pages) < (self._section.most_pages if known else 1):
                await self._limiter.ask(requests=1.0, units=1.0)
                params: dict[str, str | int] = {"limit": _PAGE, **({"after": after} if after else {})}
                raw, received_at = await unless_closed(self._client.listing(path, params), self._line.end)
                await self._limiter.spend(1.0)
                if self._tools.record is not None:
                    self._tools.record(SOURCE, received_at, raw)
                try:
                    page, names = parse_reddit(raw, received_at, salt=self._salt), names_of(raw)
                except DataError as error:
                    letter = intake.letter(str(error), raw, received_at)
                    await self._line.failed(str(error))
                    return _Pages(TextPage(), known, True, (letter,), received_at)
                pages.append(page)
                numbers = [number for name in names if (number := number_of(name)) is not None]
                newest = max([newest, *numbers])
                after = page.following
                complete = not after or any(number <= known for number in numbers[-1:])
        except (VenueError, RefusedError) as error:
            if not self._line.closed:
                await self._line.failed(error)
            return None
        self._line.worked()
        merged = TextPage(
            posts=tuple(post for page in reversed(pages) for post in reversed(page.posts)),
            faults=tuple(fault for page in pages for fault in page.faults),
            withdrawn=sum(page.withdrawn for page in pages),
            published=max((page.published for page in pages), default=0),
        )
        return _Pages(merged, newest, complete or not known, (), received_at)

    def _take(self, pages: _Pages, place: _Place | None, places: dict[str, _Place], kind: Kind, intake: Intake, started: int) -> Arrival:
        """What is new of a walk, and the place after it."""
        page = pages.page
        if pages.unreadable:  # nothing was read, so nothing is behind us
            return arrival((), pages.unreadable, msgspec.json.encode(places).decode())
        if place is None:
            oldest = started - round(self._section.first_hours * HOUR)
            page = replace(page, posts=tuple(post for post in page.posts if post.happened_at >= oldest))
        fresh, dead = intake.take(page, pages.received_at)
        if not pages.complete:
            self.health.reason = f"more new {kind} than Reddit's listings hold: the oldest of them are lost"
            self._tools.alert(SOURCE, self.health.reason)
        seen = [enveloped(post).id.removeprefix(f"{SOURCE}/") for post in pages.page.posts[-_REMEMBERED:]]
        places[kind] = _Place(newest=pages.newest, seen=seen)
        return arrival(fresh, dead, msgspec.json.encode(places).decode())


def _places(position: str) -> dict[str, _Place]:
    try:
        return _PLACES.decode(position) if position else {}
    except msgspec.DecodeError:
        raise ConfigError("the kept position of Reddit cannot be read", hint="remove it from the state") from None
