"""The fake exchange's door: HTTP on loopback, signatures, receive windows, request weights.

Every request is one `Call` and every answer one `Reply`; routes are plain functions from the one to what becomes the other's JSON. Between
door and route stands whatever is set as `faults`. Addresses: `http://127.0.0.1:P/HOST/PATH` stands for `https://HOST/PATH`, and a PATH
alone works too.

Two clocks: the market's says where the bars are; the server's (wall clock plus `skew`) judges signatures and counts weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast
from urllib.parse import parse_qsl

import msgspec

from cryptoalpha.core.errors import CryptoAlphaError, VenueError
from cryptoalpha.execution.fake_exchange.accounts import Account
from cryptoalpha.execution.fake_exchange.desk import whole
from cryptoalpha.execution.fake_exchange.intake import RefusedError
from cryptoalpha.execution.fake_exchange.matching import Exchange
from cryptoalpha.execution.fake_exchange.timed import run_timed

if TYPE_CHECKING:
    from aiohttp import web

Security = Literal["none", "key", "signed"]
MILLISECONDS_PER_MINUTE = 60_000


@dataclass(slots=True, kw_only=True)
class Call:
    """One request."""

    method: str
    path: str
    """Without the leading host."""
    host: str
    """The exchange's host that was meant; empty where only a path was given."""
    params: dict[str, str]
    headers: Mapping[str, str]
    http: web.Request
    """The request as it came, with its connection."""
    account: Account | None = None
    """Whose key it carries; None for public requests and unknown keys."""


@dataclass(slots=True)
class Reply:
    """One answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a method and path."""

    answer: Callable[[Call], Any]
    security: Security = "none"
    weight: int = 1


Handler = Callable[[Call], Awaitable[Reply]]


class Faults(Protocol):
    """Whatever stands between the door and the route."""

    async def around(self, call: Call, handler: Handler) -> Reply | web.StreamResponse: ...


def refusal(problem: RefusedError) -> Reply:
    """Binance's way of saying no."""
    return Reply(problem.status, msgspec.json.encode({"code": problem.code, "msg": problem.message}))


class Server:
    """See the module header.

    Args:
        exchange: what is behind the door.
        weight_limit: request weight a minute of the server's clock allows per address and kind of market; None: any.
    """

    def __init__(self, exchange: Exchange, *, weight_limit: int | None = None) -> None:
        from cryptoalpha.execution.fake_exchange import futures, spot, surroundings

        self.exchange = exchange
        self.weight_limit = weight_limit
        self.skew_ms = 0
        """By how much the server's clock is ahead of the wall clock."""
        self.faults: Faults | None = None
        self.sockets: Callable[[web.Request, str, str], Awaitable[web.StreamResponse]] | None = None
        self.control: dict[str, Callable[[dict[str, Any]], Any]] = {}
        """What answers `/control/NAME`; may return an awaitable."""
        self.requests: Counter[str] = Counter()
        """By method and path."""
        self.private_requests = 0
        """How many carried a key or a signature, whatever became of them."""
        self.routes: dict[tuple[str, str], Route] = {
            **spot.routes(self),
            **futures.routes(self),
            **surroundings.routes(self),
        }
        self._weights: dict[str, tuple[int, int]] = {}
        self.is_timed = False
        """Whether the wall clock moves the market, from the start on."""
        self.clockwork: asyncio.Task[None] | None = None
        """Moves the market, where the wall clock does; ends with its bars."""
        self._doors: list[web.AppRunner] = []
        self.url = ""
        self.control_url = ""

    def now_ms(self) -> int:
        """The server's clock."""
        return time.time_ns() // 1_000_000 + self.skew_ms

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, *, port: int = 0) -> None:
        """Listen on loopback, on `port` (0: any free one) and for control on another.

        Raises:
            VenueError: if the port is taken.
        """
        self._doors = [await self._listen(self._public, port), await self._listen(self._control_alone, 0)]
        if self.is_timed:
            self.clockwork = asyncio.create_task(run_timed(self.exchange))
        self.url, self.control_url = (f"http://127.0.0.1:{door.addresses[0][1]}" for door in self._doors)

    async def _listen(self, handle: Callable[[web.Request], Awaitable[web.StreamResponse]], port: int) -> web.AppRunner:
        from aiohttp import web

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        except OSError as problem:
            await runner.cleanup()
            raise VenueError(f"port {port} cannot be listened on: {problem}", hint="choose another, or 0 for any") from None
        return runner

    async def restart(self, down_seconds: float) -> None:
        """Close the public door and all its connections, and open it again at the same port: what a restart of the venue looks like.

        The books stay, as they do at a venue.
        """
        port = self._doors[0].addresses[0][1]
        await self._doors[0].cleanup()
        await asyncio.sleep(down_seconds)
        self._doors[0] = await self._listen(self._public, port)

    async def stop(self) -> None:
        """Close both doors and every connection."""
        if self.clockwork is not None:
            self.clockwork.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.clockwork
        for door in self._doors:
            await door.cleanup()
        self._doors.clear()

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _public(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        host, path = split_host(request.path)
        if path.startswith("/control/"):
            return await self._control(request, path)
        if request.headers.get("Upgrade", "").lower() == "websocket" and self.sockets is not None:
            return await self.sockets(request, host, path)
        body = (await request.read()).decode() if request.can_read_body else ""
        params = dict(parse_qsl(request.query_string, keep_blank_values=True))
        params.update(parse_qsl(body, keep_blank_values=True))
        call = Call(method=request.method, path=path, host=host, params=params, headers=request.headers, http=request)
        call.account = self.exchange.accounts.get(request.headers.get("X-MBX-APIKEY", ""))
        self.requests[f"{call.method} {path}"] += 1
        self.private_requests += "X-MBX-APIKEY" in request.headers or "signature" in params
        signed = signed_payload(request.query_string, body)

        async def handle(call: Call) -> Reply:
            return self.answer(call, signed)

        reply = await (handle(call) if self.faults is None else self.faults.around(call, handle))
        if not isinstance(reply, Reply):
            return reply
        return web.Response(status=reply.status, body=reply.body, content_type="application/json", headers=reply.headers)

    def answer(self, call: Call, signed: str) -> Reply:
        """Check a request and let its route answer."""
        route = self.routes.get((call.method, call.path))
        if route is None:
            return Reply(404, b'{"code":-5000,"msg":"Path does not exist"}')
        headers: dict[str, str] = {}
        try:
            self._weigh(call, route, headers)
            if route.security != "none":
                self._authorise(call, route.security, signed)
            return Reply(200, msgspec.json.encode(route.answer(call)), headers)
        except RefusedError as problem:
            reply = refusal(problem)
            reply.headers |= headers
            return reply

    def _weigh(self, call: Call, route: Route, headers: dict[str, str]) -> None:
        """Count the request against the minute's budget."""
        kind = "futures" if call.path.startswith("/fapi") else "spot"
        minute, used = self._weights.get(kind, (0, 0))
        now = self.now_ms()
        if now // MILLISECONDS_PER_MINUTE != minute:
            minute, used = now // MILLISECONDS_PER_MINUTE, 0
        used += route.weight
        self._weights[kind] = (minute, used)
        headers["X-MBX-USED-WEIGHT-1M"] = str(used)
        if self.weight_limit is not None and used > self.weight_limit:
            left = MILLISECONDS_PER_MINUTE - now % MILLISECONDS_PER_MINUTE
            headers["Retry-After"] = str(-(-left // 1000))
            raise RefusedError(
                -1003, f"Too much request weight used; current limit is {self.weight_limit} request weight per 1 MINUTE.", status=429
            )

    def _authorise(self, call: Call, security: Security, signed: str) -> None:
        """Key, time window, signature: in the order in which Binance checks them."""
        if not call.headers.get("X-MBX-APIKEY"):
            raise RefusedError(-2014, "API-key format invalid.", status=401)
        if call.account is None:
            raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
        if security == "key":
            return
        if "signature" not in call.params:
            raise RefusedError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
        stamp, window = whole(call, "timestamp"), int(call.params.get("recvWindow", "5000"))
        if stamp is None:
            raise RefusedError(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
        now = self.now_ms()
        if stamp >= now + 1000:
            raise RefusedError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now - stamp > window:
            raise RefusedError(-1021, "Timestamp for this request is outside of the recvWindow.")
        wanted = hmac.new(call.account.settings.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, call.params["signature"]):
            raise RefusedError(-1022, "Signature for this request is not valid.")

    async def _control_alone(self, request: web.Request) -> web.StreamResponse:
        return await self._control(request, request.path)

    async def _control(self, request: web.Request, path: str) -> web.StreamResponse:
        from aiohttp import web

        name = path.removeprefix("/control/")
        handle = self.control.get(name)
        if handle is None:
            return web.json_response({"error": f"no control {name!r}", "controls": sorted(self.control)}, status=404)
        body = await request.read()
        try:
            answer = handle(cast(dict[str, Any], msgspec.json.decode(body)) if body else {})
            if isinstance(answer, Awaitable):
                answer = await answer
        except (RefusedError, CryptoAlphaError, ValueError, KeyError, TypeError) as problem:
            return web.json_response({"error": f"{type(problem).__name__}: {problem}", "code": getattr(problem, "code", None)}, status=400)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def split_host(path: str) -> tuple[str, str]:
    """`/api.binance.com/api/v3/time` → (`api.binance.com`, `/api/v3/time`); without a host the first is empty."""
    first, _, rest = path[1:].partition("/")
    return (first, "/" + rest) if "." in first else ("", path)


def signed_payload(query: str, body: str) -> str:
    """What the signature is over: query and body as sent, less the signature itself."""
    return "".join("&".join(pair for pair in part.split("&") if not pair.startswith("signature=")) for part in (query, body))
