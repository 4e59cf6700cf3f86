"""Questions to X's API v2: rules, the filtered stream, recent search, lookup. Bytes come back; nothing is read twice and nothing retried.

Lines of the stream are split at line feeds of bytes, never of text: a post may hold characters that Python takes for ends of lines. A
stream that is silent for longer than its signs of life allow is dead, and a line without end is refused.

Source: X API v2 documentation; keep-alives every 20 seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.data.sources.opening import needs
from cryptoalpha.data.sources.reconnect import LaterError, RefusedError, check_answer
from cryptoalpha.data.sources.text_config import XSection
from cryptoalpha.data.sources.text_intake import certificates
from cryptoalpha.data.sources.words import in_words
from cryptoalpha.data.sources.x_parsing import Problem, XRule, parse_x_problem, parse_x_rules

if TYPE_CHECKING:
    import httpx

TAG = "cryptoalpha"
LOOKUP_MOST = 100
SEARCH_LEAST, SEARCH_MOST = 10, 100
"""Posts a page of search may be asked for."""

_STREAM = "/2/tweets/search/stream"
_RULES = "/2/tweets/search/stream/rules"
_SEARCH = "/2/tweets/search/recent"
_LOOKUP = "/2/tweets"
_FIELDS = {
    "tweet.fields": "author_id,created_at,edit_history_tweet_ids,lang,note_tweet,public_metrics",
    "expansions": "author_id",
    "user.fields": "public_metrics",
}
_LONGEST_LINE = 4_000_000
_LONGEST_ANSWER = 16_000_000
_ANSWER_SECONDS = 20.0
_CROWDED_SECONDS = 30.0
"""X closes a lost connection of ours only after a while; meanwhile a new one is one too many."""


class XClient:
    """One application's access.

    Args:
        token: the application's bearer token.

    Raises:
        ConfigError: if httpx is not installed.
    """

    def __init__(self, section: XSection, clock: Clock, token: str) -> None:
        library = needs("httpx")
        self._section, self._clock = section, clock
        self._errors: tuple[type[Exception], ...] = (library.HTTPError, library.StreamError)
        self._timeout = library.Timeout
        self._client: httpx.AsyncClient = library.AsyncClient(
            base_url=section.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=_ANSWER_SECONDS, verify=certificates()
        )

    async def keep_rules(self, wanted: Sequence[str]) -> frozenset[str]:
        """Make X's rules those wanted; the ids of these.

        Rules without our tag are left alone, unless the settings say otherwise.

        Raises:
            RefusedError: if X refuses the key, or a rule.
            VenueError: if it failed.
        """
        kept = await self._rules("GET")
        wanted = tuple(dict.fromkeys(_even(value) for value in wanted))
        old = [rule.id for rule in kept if _even(rule.value) not in wanted and (rule.tag == TAG or self._section.remove_foreign_rules)]
        if old:
            await self._rules("POST", {"delete": {"ids": old}})
        standing = {_even(rule.value) for rule in kept}
        new = [value for value in wanted if value not in standing]
        if new:
            await self._rules("POST", {"add": [{"value": value, "tag": TAG} for value in new]})
            kept = await self._rules("GET")  # X writes a rule as it understood it, and says so only when asked
        found = {_even(rule.value): rule.id for rule in kept}
        missing = [value for value in wanted if value not in found]
        if missing:
            raise RefusedError(f"X does not take the rule {missing[0]!r}", hint="correct it in data.streams.sources.x.rules")
        return frozenset(found[value] for value in wanted)

    async def search(self, query: str, *, since: int, most: int, following: str = "") -> tuple[bytes, int]:
        """A page of recent posts, newest first, with ids above `since`; the bytes, and when they came (UTC ns)."""
        size = str(min(max(most, SEARCH_LEAST), SEARCH_MOST))
        more = {"next_token": following} if following else {}
        return await self._ask("GET", _SEARCH, {"query": query, "since_id": str(since), "max_results": size, **_FIELDS, **more})

    async def lookup(self, ids: Sequence[int]) -> tuple[bytes, int]:
        """Posts as they stand now."""
        return await self._ask("GET", _LOOKUP, {"ids": ",".join(map(str, ids)), **_FIELDS})

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The filtered stream, connected: its lines; an empty one is a sign of life.

        Raises:
            RefusedError, LaterError, VenueError: if it cannot be had, or broke.
        """
        timeout = self._timeout(_ANSWER_SECONDS, read=self._section.silence_seconds)
        try:
            async with self._client.stream("GET", _STREAM, params=_FIELDS, timeout=timeout) as answer:
                if answer.status_code != 200:
                    self._check(answer.status_code, answer.headers, await _body(answer))
                yield _lines(answer)
        except self._errors as error:
            raise VenueError(f"X's stream broke: {in_words(error)}") from None

    async def close(self) -> None:
        await self._client.aclose()

    async def _rules(self, method: str, change: Mapping[str, Any] | None = None) -> tuple[XRule, ...]:
        raw, _ = await self._ask(method, _RULES, {}, change)
        try:
            return parse_x_rules(raw)
        except DataError as error:
            raise VenueError(str(error)) from None

    async def _ask(self, method: str, path: str, params: Mapping[str, str], change: Mapping[str, Any] | None = None) -> tuple[bytes, int]:
        content = msgspec.json.encode(change) if change is not None else None
        headers = {"Content-Type": "application/json"} if change is not None else {}
        try:
            async with self._client.stream(method, path, params=params, content=content, headers=headers) as answer:
                body = await _body(answer)
        except self._errors as error:
            raise VenueError(f"X cannot be reached: {in_words(error)}") from None
        self._check(answer.status_code, answer.headers, body)
        return body, self._clock.now()

    def _check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        problem = parse_x_problem(body)
        if status in (200, 201):
            return
        if problem is not None and problem.kind == "too_many_connections":
            raise trouble(problem)
        said = f": {problem.reason}" if problem else ""
        check_answer(status, headers, what=f"X{said}", now=self._clock.now())


def _even(rule: str) -> str:
    """X keeps a rule without what stands around it."""
    return " ".join(rule.split())


def trouble(problem: Problem) -> VenueError | RefusedError:
    """What X reported, as an error."""
    if problem.kind == "refused":
        return RefusedError(f"X refuses us: {problem.reason}", hint="check the bearer token, and what it is allowed to read")
    if problem.kind == "too_many_connections":
        return LaterError(f"X: {problem.reason}", wait_seconds=_CROWDED_SECONDS, hint="only one process may listen with one token")
    return VenueError(f"X: {problem.reason}")


async def _body(answer: httpx.Response) -> bytes:
    parts, length = [], 0
    async for part in answer.aiter_bytes():
        parts.append(part)
        length += len(part)
        if length > _LONGEST_ANSWER:
            raise VenueError(f"X answers with more than {_LONGEST_ANSWER} bytes")
    return b"".join(parts)


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for part in answer.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.strip(b"\r")
        if len(rest) > _LONGEST_LINE:
            raise VenueError(f"X's stream sends a line of more than {_LONGEST_LINE} bytes")
    if rest.strip():
        raise VenueError("X's stream broke off within a post")
