"""A publisher to test sources against: HTTP and WebSocket on loopback, doing what it was told to, and time that passes at once.

    async with publisher() as fake:
        fake.answers("/2/tweets/search/recent", Reply(page), Reply(status=429, headers={"Retry-After": "7"}), Reply(page, cut=20))
        fake.streams("/2/tweets/search/stream", Script([b'{"data": …}\\r\\n', b"\\r\\n"], then="drop"), Script([...], then="hold"))
        fake.talks("/ws", Script([Heard(), {"e": "trade"}, PING, "…"], then="drop"))
        fake.url, fake.ws_url, fake.asked            # addresses, and what was asked so far

The last reply, or script, of a path repeats; a function of the request may stand in for any reply. A path ending in `*` takes all below.
`Reply`, `Script`, `Heard` and `PING` are attributes of the fixture: `publisher.Reply(...)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import SECOND

PING = object()
"""In a script: a ping frame (WebSocket) or an empty line (HTTP)."""


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One answer. `cut`: so many bytes of the body are sent, then the connection breaks."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Heard:
    """In a WebSocket's script: wait until the client has said something that holds `text`."""

    text: str = ""


@dataclass(frozen=True)
class Pause:
    """In a script: let the loop turn so often, so that what was sent before is read before the rest comes."""

    turns: int = 5


@dataclass(frozen=True)
class Script:
    """What one connection sends, and how it ends: closed properly, broken, or left open in silence."""

    parts: Sequence[Any]
    then: Literal["end", "drop", "hold"] = "hold"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def as_bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()


class Publisher:
    """See the top of this file."""

    Reply, Script, Heard, Pause, Asked, PING = Reply, Script, Heard, Pause, Asked, PING

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.said: list[str] = []
        """What clients said over WebSockets."""
        self.connections = 0
        """Streams and WebSockets opened so far."""
        self.key: tuple[str, str] | None = None
        """Header and value without which everything is answered 401."""
        self.fails: Reply | None = None
        """What everything is answered while this is set."""
        self._routes: dict[str, tuple[str, list[Any]]] = {}
        self._open: set[Any] = set()
        self._ending = asyncio.Event()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    def answers(self, path: str, *replies: Reply | Callable[[Asked], Reply]) -> None:
        """What `path` answers, in turn; the last again and again."""
        self._routes[path] = ("answer", list(replies))

    def streams(self, path: str, *scripts: Script | Callable[[Asked], Script]) -> None:
        """What an endless HTTP answer brings, connection by connection."""
        self._routes[path] = ("stream", list(scripts))

    def talks(self, path: str, *scripts: Script | Callable[[Asked], Script]) -> None:
        """What a WebSocket brings, connection by connection."""
        self._routes[path] = ("talk", list(scripts))

    def requests(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    async def until(self, claim: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let things happen until `claim` holds; fails after so many real seconds."""
        async with asyncio.timeout(seconds):
            while not claim():
                await asyncio.sleep(0.001)

    async def __aenter__(self) -> Publisher:
        from aiohttp import web

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *problem: object) -> None:
        self._ending.set()
        for transport in list(self._open):
            transport.abort()
        await self._runner.cleanup()

    async def _serve(self, request: Any) -> Any:
        from aiohttp import web

        asked = Asked(request.method, request.path, dict(request.query), request.headers.copy(), await request.read())
        self.asked.append(asked)
        if self.key is not None and asked.headers.get(self.key[0]) != self.key[1]:
            return web.Response(status=401, text="no such key")
        if self.fails is not None:
            return await self._answer(request, self.fails)
        path = next(
            (path for path in self._routes if path == asked.path or (path.endswith("*") and asked.path.startswith(path[:-1]))), None
        )
        if path is None:
            return web.Response(status=404, text=f"the test has no {asked.path}")
        kind, replies = self._routes[path]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        reply = reply(asked) if callable(reply) else reply
        if isinstance(reply, Reply):  # a stream may be refused too
            return await self._answer(request, reply)
        self.connections += 1
        self._open.add(request.transport)
        try:
            return await (self._stream if kind == "stream" else self._talk)(request, reply)
        finally:
            self._open.discard(request.transport)

    async def _answer(self, request: Any, reply: Reply) -> Any:
        from aiohttp import web

        body = as_bytes(reply.body)
        headers = {"Content-Type": "application/json", **reply.headers}
        if reply.cut is None:
            return web.Response(body=body, status=reply.status, headers=headers)
        response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: reply.cut])
        await self._break(request)
        return response

    async def _stream(self, request: Any, script: Script) -> Any:
        from aiohttp import web

        response = web.StreamResponse(status=script.status, headers={"Content-Type": "application/json", **script.headers})
        response.enable_chunked_encoding()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for part in script.parts:
                if isinstance(part, Pause):
                    await turns(part.turns)
                else:
                    await response.write(b"\r\n" if part is PING else as_bytes(part))
            await self._finish(request, script)
        return response

    async def _talk(self, request: Any, script: Script) -> Any:
        from aiohttp import web

        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        listening: asyncio.Queue[str] = asyncio.Queue()
        listener = asyncio.create_task(self._listen(socket, listening))
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            for part in script.parts:
                if isinstance(part, Heard):
                    while part.text not in await listening.get():
                        pass
                elif isinstance(part, Pause):
                    await turns(part.turns)
                elif part is PING:
                    await socket.ping()
                elif isinstance(part, bytes):
                    await socket.send_bytes(part)
                else:
                    await socket.send_str(part if isinstance(part, str) else json.dumps(part))
            await self._finish(request, script)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        if script.then == "end" and not socket.closed:
            await socket.close()
        return socket

    async def _listen(self, socket: Any, heard: asyncio.Queue[str]) -> None:
        async for message in socket:
            text = message.data if isinstance(message.data, str) else repr(message.data)
            self.said.append(text)
            heard.put_nowait(text)

    async def _finish(self, request: Any, script: Script) -> None:
        if script.then == "drop":
            await self._break(request)
        elif script.then == "hold":
            await self._ending.wait()

    @staticmethod
    async def _break(request: Any) -> None:
        """End the connection without a word, once what was written has left."""
        await turns(5)
        if request.transport is not None:
            request.transport.abort()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


def duplicated(messages: Iterable[Any], *, seed: int = 0, share: float = 0.3) -> list[Any]:
    """Some messages come again later, as publishers send them."""
    chance, out, again = random.Random(seed), [], []
    for message in messages:
        out.append(message)
        again.extend([message] if chance.random() < share else [])
        if again and chance.random() < 0.5:
            out.append(again.pop(0))
    return out + again


def disordered(messages: Iterable[Any], *, seed: int = 0, reach: int = 3) -> list[Any]:
    """No message moves by more than `reach` places or so."""
    chance = random.Random(seed)
    return [
        message
        for _, message in sorted(
            ((place + chance.random() * reach, message) for place, message in enumerate(messages)), key=lambda pair: pair[0]
        )
    ]


class VirtualTime:
    """A clock and the waits that move it: whoever waits goes on at once, later.

    `waits` holds all that were asked for, in seconds.
    """

    def __init__(self, start: int = 1_700_000_000 * SECOND) -> None:
        self.clock = VirtualClock(start)
        self.waits: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance_to(self.clock.now() + round(seconds * SECOND))
        await asyncio.sleep(0)


@pytest.fixture
def publisher() -> type[Publisher]:
    """The class; `async with publisher() as fake`."""
    return Publisher


@pytest.fixture
def virtual_time() -> VirtualTime:
    """Time that passes at once."""
    return VirtualTime()


@pytest.fixture
def as_publishers_do() -> SimpleNamespace:
    """`.duplicated(messages)` and `.disordered(messages)`."""

    return SimpleNamespace(duplicated=duplicated, disordered=disordered)


@pytest.fixture
def streams_extra() -> None:
    """Skips where a package of the extra is missing, unless TESTS_SKIP_NOTHING=1."""
    for package in ("asyncpraw", "feedparser", "httpx", "web3"):
        try:
            __import__(package)
        except ImportError:
            assert not os.environ.get("TESTS_SKIP_NOTHING"), f"{package} is not installed"
            pytest.skip(f"{package} is not installed: pip install 'cryptoalpha[streams]'")
