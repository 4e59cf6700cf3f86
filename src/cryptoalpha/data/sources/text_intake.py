"""Between a page that was read and the bus: what is new goes on, what came before does not, what cannot be read goes to the dead letters.

One intake lives as long as one iteration over a source: a source that is iterated anew from an older place passes everything on again.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import cache
from typing import Any, TypeVar

from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.opening import needs
from cryptoalpha.data.sources.posts import Fault, Seen, TextPage, enveloped
from cryptoalpha.data.sources.reconnect import until_either

T = TypeVar("T")

DEFAULT_SALT = "cryptoalpha"
_LARGEST_LETTER = 64_000
"""Bytes kept of a message that nobody can read."""


class Intake:
    """What came of one source, told apart.

    Args:
        name: of the source.
        health: counts are kept there.
        remembered: how many ids are told apart.
        known: envelope ids that were passed on before.
    """

    def __init__(self, name: str, health: Health, *, remembered: int, known: Iterable[str] = ()) -> None:
        self._name, self._health = name, health
        self._seen = Seen(remembered, known)

    def take(self, page: TextPage, received_at: int) -> tuple[tuple[Envelope, ...], tuple[DeadLetter, ...]]:
        """What of a page is new, and what nobody can read."""
        fresh, repeats = [], 0
        for post in page.posts:
            envelope = enveloped(post)
            if self._seen.add(envelope.id):
                fresh.append(envelope)
            else:
                repeats += 1
        health = self._health
        health.repeats += repeats
        health.messages += len(fresh)
        if fresh:
            health.last_message = max(health.last_message, received_at)
            health.last_event = page.published or fresh[-1].event_time
            health.lag_seconds = (received_at - health.last_event) / SECOND
        dead = tuple(self.letter(fault.reason, fault.data, received_at) for fault in page.faults if self._seen.add(_fault_id(fault)))
        return tuple(fresh), dead

    def letter(self, reason: str, data: bytes, received_at: int) -> DeadLetter:
        """One more dead letter."""
        self._health.dead += 1
        return DeadLetter(source=self._name, reason=reason, data=data[:_LARGEST_LETTER], observed_time=received_at)

    def pass_over(self, envelope_id: str) -> None:
        """Count an id as passed on."""
        self._seen.add(envelope_id)


def _fault_id(fault: Fault) -> str:
    """What cannot be read stands on the next page too: it is one dead letter, not one per question."""
    return "fault/" + hashlib.blake2b(fault.data, digest_size=16).hexdigest()


def arrival(fresh: Iterable[Envelope], dead: Iterable[DeadLetter], position: str) -> Arrival:
    return Arrival(envelopes=tuple(fresh), position=position, dead=tuple(dead))


def envelopes_of(page: TextPage) -> list[Envelope]:
    """All posts of a page, for whoever replays a recording.

    Raises:
        DataError: if nothing on it can be read, and something should.
    """
    if page.faults and not page.posts:
        raise DataError(page.faults[0].reason)
    return [enveloped(post) for post in page.posts]


async def unless_closed(work: Coroutine[Any, Any, T], end: asyncio.Event) -> T:
    """The result of `work`.

    Raises:
        VenueError: if `end` came first.
    """
    found: list[T] = []

    async def run() -> None:
        found.append(await work)

    await until_either(run(), end)
    if not found:
        raise VenueError("the source is closed")
    return found[0]


async def until_set(event: asyncio.Event, end: asyncio.Event) -> None:
    """Wait for an event, at most until `end`."""

    async def happened() -> None:
        await event.wait()

    await until_either(happened(), end)


@cache
def certificates() -> ssl.SSLContext:
    """Whom to trust, read once: it takes a tenth of a second.

    Raises:
        ConfigError: if httpx is not installed.
    """
    context: ssl.SSLContext = needs("httpx").create_ssl_context()
    return context


Waiting = Callable[[float], Awaitable[None]]


async def rest(seconds: float, wait: Waiting, end: asyncio.Event) -> None:
    """Let time pass between two questions, at most until `end`."""
    if seconds > 0.0 and not end.is_set():
        await until_either(wait(seconds), end)
