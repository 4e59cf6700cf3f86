"""One connection to a venue, and one question: how bytes come in.

Nothing is read here. A connection says that it was opened, hands over every message with the moment it came, and ends with an error that
names the reason, whatever that was. Addresses can be moved to a server on this machine, as tests and `fake-exchange` do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.data.sources.limits import Limiter
from cryptoalpha.data.sources.reconnect import LaterError, check_answer, retry_after_seconds
from cryptoalpha.data.sources.venues.wiring import Plan, Question

_LARGEST_MESSAGE: Final = 32 * 1024 * 1024
_HEARTBEAT_SECONDS: Final = 20.0
_BANNED: Final = 418
_BAN_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Heard:
    """Something came, or a connection was opened."""

    received_at: int
    raw: bytes
    family: str
    opened: bool = False
    done: asyncio.Event | None = None
    """Set when it was read."""


def moved(address: str, endpoint: str) -> str:
    """`https://HOST:PORT/PATH` → `{endpoint}/HOST/PATH`, sockets likewise; the address itself where there is no endpoint."""
    if not endpoint:
        return address
    real, stand_in = urlsplit(address), urlsplit(endpoint)
    scheme = "ws" if real.scheme in ("ws", "wss") else "http"
    query = f"?{real.query}" if real.query else ""
    return f"{scheme}://{stand_in.netloc}/{real.hostname}{real.path}{query}"


class Sockets:
    """Connections of one source.

    Args:
        session: of aiohttp.
        clock: stamps what comes.
        endpoint: stands in for every venue; empty: none.
        quiet_seconds: a connection over which nothing came for so long is not believed.
    """

    def __init__(self, session: aiohttp.ClientSession, clock: Clock, *, endpoint: str, quiet_seconds: float) -> None:
        self._session, self._clock, self._endpoint, self._quiet = session, clock, endpoint, quiet_seconds
        self._open: dict[str, aiohttp.ClientWebSocketResponse] = {}

    async def connection(self, plan: Plan) -> AsyncIterator[Heard]:
        """Everything that comes over one connection.

        Raises (while iterating):
            VenueError: when it ends.
            aiohttp.ClientError | OSError: when it cannot be opened, or breaks.
        """
        socket = await self._session.ws_connect(
            moved(plan.address, self._endpoint), heartbeat=_HEARTBEAT_SECONDS, max_msg_size=_LARGEST_MESSAGE
        )
        pinger: asyncio.Task[None] | None = None
        try:
            self._open[plan.family] = socket
            yield Heard(self._clock.now(), b"", plan.family, opened=True)
            for text in plan.says:
                await socket.send_str(text)
            if plan.ping:
                pinger = asyncio.create_task(_ping(socket, plan))
            while True:
                try:
                    message = await socket.receive(timeout=self._quiet)
                except TimeoutError:
                    raise VenueError(f"nothing came for {self._quiet:g} s") from None
                received_at = self._clock.now()
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield Heard(received_at, message.data.encode(), plan.family)
                elif message.type is aiohttp.WSMsgType.BINARY:
                    yield Heard(received_at, message.data, plan.family)
                else:
                    why = socket.exception() or f"code {socket.close_code}"
                    raise VenueError(f"the venue closed the connection ({why})")
        finally:
            self._open.pop(plan.family, None)
            if pinger is not None:
                pinger.cancel()
                await asyncio.gather(pinger, return_exceptions=True)
            await socket.close()

    async def hang_up(self, family: str) -> None:
        """End the connection of a family; whoever reads it opens another."""
        if (socket := self._open.get(family)) is not None:
            await socket.close()

    async def ask(self, question: Question, limiter: Limiter, *, timeout_seconds: float = 20.0) -> tuple[int, bytes]:
        """When an answer came, and its body.

        Raises:
            VenueError: if the venue fails, asks to wait, or the source is closed.
            RefusedError: if it does not know the question.
            aiohttp.ClientError | OSError | TimeoutError: if it cannot be asked.
        """
        await limiter.ask(requests=question.weight)
        limit = aiohttp.ClientTimeout(total=timeout_seconds)
        async with self._session.get(moved(question.address, self._endpoint), timeout=limit) as answer:
            body, now = await answer.read(), self._clock.now()
            what = f"question about {question.kind} of {question.subject}"
            try:
                if answer.status == _BANNED:
                    asked = max(retry_after_seconds(answer.headers, now), _BAN_SECONDS)
                    raise LaterError(f"{what}: this address is banned for a while (HTTP {_BANNED})", wait_seconds=asked)
                check_answer(answer.status, answer.headers, what=what, now=now)
            except LaterError as error:
                limiter.hold(error.wait_seconds)  # whoever else asks this venue waits too
                raise
            return now, body


async def _ping(socket: aiohttp.ClientWebSocketResponse, plan: Plan) -> None:
    while not socket.closed:
        await asyncio.sleep(plan.ping_seconds)
        try:
            await socket.send_str(plan.ping)
        except (aiohttp.ClientError, OSError):
            return  # who reads the connection learns it too
