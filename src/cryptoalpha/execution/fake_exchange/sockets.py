"""One client of the fake exchange's streams: its connection, what it listens to, and the queue of what it is to be sent.

Sending never waits: messages go into a queue that one task empties in order, so a slow client delays nobody. One that reads nothing for
`MOST_WAITING` messages is cut off, as venues do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from cryptoalpha.execution.fake_exchange.fault_replies import cut

MOST_WAITING: Final = 100_000

Answerer = Callable[["Session", dict[str, object]], dict[str, object]]
"""Answers one request; an empty answer is not sent."""


class Session:
    """A connection with its subscriptions.

    Args:
        socket: the accepted WebSocket.
        http: the request it came from.
        futures: whether it is of the futures market.
        combined: whether messages are wrapped with the name of their stream.
    """

    def __init__(self, socket: web.WebSocketResponse, *, http: web.Request, futures: bool, combined: bool) -> None:
        self.futures, self.combined = futures, combined
        self.streams: dict[str, str] = {}
        """Channel → the name it was asked for by."""
        self.accounts: dict[int, str] = {}
        """Subscription number → account."""
        self._socket, self._http = socket, http
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def put(self, text: str) -> None:
        """Send it after all that was put before."""
        if self._queue.qsize() >= MOST_WAITING:
            self.reset()
        else:
            self._queue.put_nowait(text)

    def reset(self) -> None:
        """End the connection without a word."""
        cut(self._http, reset=True)

    async def close(self) -> None:
        await self._socket.close()

    async def talk(self, answer: Answerer) -> None:
        """Read requests and send what is put, until either side ends."""
        sender = asyncio.create_task(self._send())
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                try:
                    request = msgspec.json.decode(message.data, type=dict[str, object])
                except msgspec.DecodeError:
                    reply: dict[str, object] = {"error": {"code": 3, "msg": "Invalid JSON: expected value"}}
                else:
                    reply = answer(self, request)
                if reply:
                    self.put(msgspec.json.encode(reply).decode())
        finally:
            sender.cancel()
            await asyncio.wait([sender])

    async def _send(self) -> None:
        while True:
            text = await self._queue.get()
            try:
                await self._socket.send_str(text)
            except ConnectionError:
                return
