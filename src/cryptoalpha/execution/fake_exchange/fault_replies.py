"""Answers as they go wrong: refusals in the venue's words, spoilt bodies, and connections that end without an answer.

All of them act on the answer only. What the exchange did stays done: its books are the judge of what really happened.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from typing import Final, Protocol

import msgspec
from aiohttp import web

JSON: Final = "application/json;charset=UTF-8"
PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
POLL_SECONDS: Final = 0.01
"""How often a silent connection is looked at: did the client give up?"""


class Answer(Protocol):
    """What a handler of the exchange answers."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


def refusal(status: int, code: int, message: str, *, retry_after: float | None = None) -> web.Response:
    """An error as Binance words it."""
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    body = msgspec.json.encode({"code": code, "msg": message})
    return web.Response(status=status, body=body, headers={"Content-Type": JSON, **headers})


def page(status: int, *, retry_after: float | None = None) -> web.Response:
    """An HTML page of a proxy in front of the exchange."""
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    return web.Response(status=status, body=PAGE, headers={"Content-Type": "text/html", **headers})


def raw(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": JSON})


def cut(http: web.Request, *, reset: bool = False) -> web.Response:
    """End the connection without an answer: closed in order, or reset (RST)."""
    transport = http.transport
    if transport is not None:
        if reset:
            linger = struct.pack("ii", 1, 0)  # closing discards what is unsent and sends RST
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        else:
            transport.close()
    return web.Response()  # goes nowhere: the connection is gone


async def silence(http: web.Request, seconds: float) -> web.Response:
    """Say nothing until the client has gone, at most `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        transport = http.transport
        if transport is None or transport.is_closing():
            break
        await asyncio.sleep(min(POLL_SECONDS, max(0.0, end - loop.time())))
    return cut(http)


async def truncated(http: web.Request, answer: Answer) -> web.StreamResponse:
    """A body that ends before its Content-Length."""
    length = max(2, len(answer.body))
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": JSON, "Content-Length": str(length)})
    await response.prepare(http)
    await response.write(answer.body[: length // 2])
    if http.transport is not None:
        http.transport.close()
    return response


def spoilt_candles(action: str, body: bytes) -> bytes | None:
    """A list of candles with one fault in it; None where it has too few rows to carry it."""
    rows = msgspec.json.decode(body)
    if not isinstance(rows, list) or len(rows) < 3:
        return None
    if action == "feed_gap":
        del rows[len(rows) // 2]
    elif action == "feed_duplicate":
        rows.append(rows[-1])
    elif action == "feed_nan":
        rows[-1] = [*rows[-1][:4], "NaN", *rows[-1][5:]]
    else:  # feed_forming: it opens where the last one closes, and little has been traded in it
        last = rows[-1]
        length = last[0] - rows[-2][0]
        rows.append([last[0] + length, last[4], last[4], last[4], last[4], "0.00100000", last[6] + length, *last[7:]])
    return msgspec.json.encode(rows)
