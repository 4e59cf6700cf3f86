"""One question to a news feed: conditional, bounded in time, size and redirects.

A feed that has nothing new answers 304 and sends nothing (RFC 9110 §13). The validators of an answer are believed only after the answer
could be read: one that broke off is asked for again in full.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.data.sources.news_parsing import host_of, packed
from cryptoalpha.data.sources.opening import needs
from cryptoalpha.data.sources.reconnect import check_answer
from cryptoalpha.data.sources.text_config import NewsSection
from cryptoalpha.data.sources.text_intake import certificates
from cryptoalpha.data.sources.words import in_words

if TYPE_CHECKING:
    import httpx

_ACCEPTED = "application/rss+xml, application/atom+xml, application/xml;q=0.9, */*;q=0.5"
_LONGEST_VALIDATOR = 500
_MAX_AGE = re.compile(r"(?<![\w-])max-age=\"?(\d{1,9})")
_LONGEST_FRESH_SECONDS = 3600.0


@dataclass(frozen=True)
class Validators:
    """What to send along so that the publisher can say that nothing is new."""

    etag: str = ""
    modified: str = ""

    def headers(self) -> dict[str, str]:
        named = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Fetched:
    """An answer with something in it. `raw` is what is recorded and read."""

    raw: bytes
    received_at: int
    validators: Validators
    fresh_seconds: float = 0.0
    """How long the publisher says that nothing will be new."""


class NewsClient:
    """Asks feeds. An asynchronous context manager.

    Raises:
        ConfigError: if httpx is not installed.
    """

    def __init__(self, section: NewsSection, clock: Clock) -> None:
        library = needs("httpx")
        self._section, self._clock = section, clock
        self._errors: tuple[type[Exception], ...] = (library.HTTPError, library.InvalidURL, library.StreamError)
        self._client: httpx.AsyncClient = library.AsyncClient(
            headers={"User-Agent": section.user_agent, "Accept": _ACCEPTED},
            follow_redirects=True,
            max_redirects=section.most_redirects,
            timeout=section.timeout_seconds,
            verify=certificates(),
        )

    async def fetch(self, feed: str, validators: Validators) -> Fetched | None:
        """The feed as it stands; None if nothing is new.

        Raises:
            RefusedError: if the publisher says it is gone, or not for us.
            LaterError: if it asks to wait.
            VenueError: if it failed, was too slow, too long, or points in circles.
        """
        try:
            question = self._client.stream("GET", feed, headers=validators.headers())
            async with asyncio.timeout(2 * self._section.timeout_seconds), question as answer:
                check_answer(answer.status_code, answer.headers, what=host_of(feed), now=self._clock.now())
                if answer.status_code == 304:
                    return None
                body = await self._body(feed, answer)
                kind, kept, fresh = answer.headers.get("content-type", ""), _validators(answer.headers), _fresh_seconds(answer.headers)
        except TimeoutError:
            raise VenueError(f"{host_of(feed)} did not answer in time") from None
        except self._errors as error:
            raise VenueError(f"{host_of(feed)} cannot be reached: {in_words(error)}") from None
        return Fetched(raw=packed(feed, body, kind), received_at=self._clock.now(), validators=kept, fresh_seconds=fresh)

    async def _body(self, feed: str, answer: Any) -> bytes:
        parts, length = [], 0
        async for part in answer.aiter_bytes():
            length += len(part)
            if length > self._section.largest_bytes:
                raise VenueError(f"{host_of(feed)} sends more than {self._section.largest_bytes} bytes", hint="raise largest_bytes")
            parts.append(part)
        return b"".join(parts)

    async def close(self) -> None:
        await self._client.aclose()


def _fresh_seconds(headers: Mapping[str, str]) -> float:
    """`max-age` of Cache-Control (RFC 9111 §5.2.2.1), up to an hour: some publishers say a year."""
    found = _MAX_AGE.search(headers.get("cache-control", ""))
    return min(float(found[1]), _LONGEST_FRESH_SECONDS) if found else 0.0


def _validators(headers: Mapping[str, str]) -> Validators:
    def usable(name: str) -> str:
        value = headers.get(name, "")
        return value if len(value) <= _LONGEST_VALIDATOR and value.isascii() and value.isprintable() else ""

    return Validators(etag=usable("etag"), modified=usable("last-modified"))
