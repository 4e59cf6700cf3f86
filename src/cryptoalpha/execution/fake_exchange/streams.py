"""The WebSockets of the fake exchange: who listens to what, and what they are sent.

Speaks what ccxt.pro (and other clients of Binance) say: `SUBSCRIBE`, `UNSUBSCRIBE` and `LIST_SUBSCRIPTIONS` on `/ws` and `/stream`,
stream names in the path, the spot WebSocket API with its signed account subscription, and the listen keys of the futures. Every message
passes the faults once, whoever listens. Nothing is kept for those who are away: what a client missed it must ask for, as at the venue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from aiohttp import web

from cryptoalpha.execution.fake_exchange.events import BarUpdate, Event, OrderUpdate
from cryptoalpha.execution.fake_exchange.fault_replies import cut
from cryptoalpha.execution.fake_exchange.faults import Faults, Plan
from cryptoalpha.execution.fake_exchange.sockets import Session
from cryptoalpha.execution.fake_exchange.streams_market import Payload, Tape
from cryptoalpha.execution.fake_exchange.user_stream import ListenKeys, payload, subject, wrong_signature

PING_SECONDS: Final = 20.0
"""How often a listener is asked whether it is still there; silent for half of this, it is cut off."""
REPEAT_SECONDS: Final = 1.0
"""How often tickers, best prices and mark prices are told, news or not."""
FUTURES_PATHS: Final = ("/public/", "/market/", "/private/", "/pm/", "/ws-fapi/")


def channel(stream: str) -> str:
    """One name for what Binance sends at several speeds: `btcusdt@depth@100ms` → `btcusdt@depth`."""
    return "@".join(stream.split("@")[:2])


class StreamHub:
    """All listeners of one exchange. Everything runs in its loop.

    Args:
        faults: what goes wrong with messages.
        server_ms: the exchange's clock.
        secret_of: secret of an API key, None for an unknown key. A key names its account.
    """

    def __init__(self, faults: Faults, *, server_ms: Callable[[], int], secret_of: Callable[[str], str | None]) -> None:
        self.faults = faults
        self.sent = 0
        """Messages sent, all streams together."""
        self._server_ms, self._secret_of = server_ms, secret_of
        self._listen_keys = ListenKeys()
        self._sessions: set[Session] = set()
        self._tapes: dict[tuple[bool, str], Tape] = {}
        self._repeating: asyncio.Task[None] | None = None
        self._overtaken: dict[str, list[Callable[[], None]]] = {}
        """Messages by channel that wait for the next one to overtake them."""
        faults.on_outage.append(self.cut_all)

    # ── what the exchange tells ───────────────────────────────────────────────────────────────────────────────────────────────

    def emit(self, account: str, event: Event, *, futures: bool) -> None:
        """Something happened to an account."""
        text = msgspec.json.encode(payload(event, futures=futures, sent_ms=self._server_ms())).decode()
        symbol = event.symbol if isinstance(event, OrderUpdate) else ""
        plan = self.faults.message(subject(event), symbol)

        def send(copies: int) -> None:
            listeners = [one for one in self._sessions if one.futures is futures and account in one.accounts.values()]
            for listener in listeners:
                for number, name in listener.accounts.items():
                    if name == account:
                        self._put(listener, text if futures else f'{{"subscriptionId":{number},"event":{text}}}', plan, copies)

        self._deliver(f"account {account} {futures}", plan, send)

    def publish(self, bar: BarUpdate, *, quiet: bool = False) -> None:
        """A bar of the market moved; `quiet`: only remember it."""
        tape = self._tape(bar.futures, bar.symbol)
        for stream, message in tape.take(bar):
            if not quiet:
                self.raw(f"{bar.symbol.lower()}@{stream}", message, futures=bar.futures)

    def raw(self, stream: str, message: Payload | str, *, futures: bool) -> None:
        """Send this to everyone who listens to this stream. What nobody listens to meets no fault."""
        name = channel(stream)
        whole = _all_of(name)
        if not any(one.futures is futures and (name in one.streams or whole in one.streams) for one in self._sessions):
            return
        symbol = name.split("@")[0].upper()
        plan = self.faults.message(stream, symbol)
        if plan.nan and not isinstance(message, str):
            message = message | {"k": message["k"] | {"c": "NaN"}}  # type: ignore[operator]
        text = message if isinstance(message, str) else msgspec.json.encode(message).decode()

        def send(copies: int) -> None:
            for listener in list(self._sessions):
                if listener.futures is futures:
                    if name in listener.streams:
                        self._put(listener, _wrapped(listener, listener.streams[name], text), plan, copies)
                    elif whole is not None and whole in listener.streams:
                        arrayed = text if whole == "!bookTicker" else f"[{text}]"
                        self._put(listener, _wrapped(listener, whole, arrayed), plan, copies)

        self._deliver(f"{name} {futures}", plan, send)

    # ── what REST needs of the streams ────────────────────────────────────────────────────────────────────────────────────────

    def listen_key(self, account: str, *, futures: bool) -> str:
        """For POST and PUT of `listenKey`."""
        return self._listen_keys.extend(account, futures=futures, now_ms=self._server_ms())

    def drop_listen_key(self, account: str, *, futures: bool) -> None:
        """For DELETE; streams that it opened stay open, as at the venue until the key would have died."""
        self._listen_keys.drop(account, futures=futures)

    def depth(self, symbol: str, futures: bool, limit: int) -> Payload | None:
        """The order book that the differences continue, None before the first bar."""
        tape = self._tapes.get((futures, symbol))
        return tape.book.snapshot(limit, self._server_ms()) if tape is not None and tape.book.last_id else None

    def recent_trades(self, symbol: str, futures: bool, limit: int) -> list[Payload]:
        """The market's last trades, oldest first."""
        tape = self._tapes.get((futures, symbol))
        return [] if tape is None else list(tape.trades)[-limit:]

    def tape(self, symbol: str, *, futures: bool) -> Tape:
        """What is known of an instrument, for feeds that bring their own order book."""
        return self._tape(futures, symbol)

    # ── listeners ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def serve(self, request: web.Request, host: str, path: str) -> web.StreamResponse:
        """Talk to one client until it goes. `path` is the request's without `host`."""
        plan = self.faults.message(f"connect {path}", "")
        if self.faults.is_out or plan.disconnect:
            return cut(request, reset=True)
        socket = web.WebSocketResponse(heartbeat=PING_SECONDS)
        await socket.prepare(request)
        futures = host.startswith(("fstream", "ws-fapi")) or path.startswith(FUTURES_PATHS)
        session = Session(socket, http=request, futures=futures, combined=path.rstrip("/").endswith("/stream"))
        opened = self._opened_by_path(request, path)
        self._sessions.add(session)
        if self._repeating is None or self._repeating.done():
            self._repeating = asyncio.create_task(self._repeat())
        try:
            if isinstance(opened, tuple):
                session.accounts[0], session.futures = opened
            else:
                self._subscribe(session, opened)
            await session.talk(self._api if "/ws-api/" in path or "/ws-fapi/" in path else self._streams)
        finally:
            self._sessions.discard(session)
            if not self._sessions:
                self._repeating.cancel()
        return socket

    def hears(self, account: str, *, futures: bool) -> bool:
        """Whether anybody listens to this account."""
        return any(one.futures is futures and account in one.accounts.values() for one in self._sessions)

    @property
    def listeners(self) -> int:
        return len(self._sessions)

    @property
    def subscriptions(self) -> int:
        """Streams and accounts that are listened to, counted once for each listener."""
        return sum(len(one.streams) + len(one.accounts) for one in self._sessions)

    def cut_all(self) -> None:
        """End every connection at once."""
        for session in list(self._sessions):
            session.reset()

    async def close(self) -> None:
        """Say goodbye to everyone."""
        for session in list(self._sessions):
            await session.close()

    async def _repeat(self) -> None:
        """Tell what stands to those who listen, again and again."""
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            wanted = {(session.futures, name) for session in self._sessions for name in session.streams}
            for futures, symbol in list(self._tapes):
                for kind, message in self._tapes[futures, symbol].standing(self._server_ms()):
                    name = f"{symbol.lower()}@{kind}"
                    if (futures, name) in wanted or (futures, _all_of(name)) in wanted:
                        self.raw(name, message, futures=futures)

    def _opened_by_path(self, request: web.Request, path: str) -> tuple[str, bool] | list[str]:
        """The account (and whether its futures) that a listen key in the address opens, else the streams named there."""
        if "streams" in request.query:
            return request.query["streams"].split("/")
        tail = path.rstrip("/").rpartition("/ws/")[2] if "/ws/" in path else ""
        opened = self._listen_keys.opens(request.query.get("listenKey", tail), self._server_ms())
        if opened is not None:
            return opened
        return [name for name in tail.split("/") if "@" in name or name.startswith("!")]

    def _streams(self, session: Session, message: dict[str, object]) -> Payload:
        """Answer a request on a market stream."""
        number, method, params = message.get("id"), message.get("method"), message.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": list(session.streams.values()), "id": number}
        names = [name for name in params if isinstance(name, str)] if isinstance(params, list) else []
        if method == "SUBSCRIBE" and names and all("@" in name or name.startswith("!") for name in names):
            session.put(msgspec.json.encode({"result": None, "id": number}).decode())
            self._subscribe(session, names)
            return {}
        if method == "UNSUBSCRIBE":
            for name in names:
                session.streams.pop(channel(name), None)
            return {"result": None, "id": number}
        return {"error": {"code": 2, "msg": f"Invalid request: {method} {params}"}, "id": number}

    def _subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Note the streams; what they would say at any time is said at once."""
        for name in names:
            session.streams[channel(name)] = name
            symbol, _, kind = channel(name).partition("@")
            tape = self._tapes.get((session.futures, symbol.upper()))
            if kind.startswith("kline_"):
                tape = self._tape(session.futures, symbol.upper())
                tape.watch(kind.removeprefix("kline_"))
            if tape is None:
                continue
            now = self._server_ms()
            candle = tape.candle(kind.removeprefix("kline_"), now) if kind.startswith("kline_") else None
            standing = {f"{kind}": candle} if candle is not None else dict(tape.standing(now))
            if kind in standing:
                session.put(_wrapped(session, name, msgspec.json.encode(standing[kind]).decode()))

    def _api(self, session: Session, message: dict[str, object]) -> Payload:
        """Answer a request of the WebSocket API."""
        number, method, params = message.get("id"), message.get("method"), message.get("params")
        if method == "ping":
            return {"id": number, "status": 200, "result": {}}
        if method == "time":
            return {"id": number, "status": 200, "result": {"serverTime": self._server_ms()}}
        if method == "userDataStream.unsubscribe":
            session.accounts.clear()
            return {"id": number, "status": 200, "result": {}}
        if method != "userDataStream.subscribe.signature" or not isinstance(params, dict):
            return _refused(number, -1102, f"Unknown method {method}.")
        key = str(params.get("apiKey", ""))
        wrong = wrong_signature(params, self._secret_of(key), self._server_ms())
        if wrong is not None:
            return _refused(number, *wrong)
        subscription = len(session.accounts)
        session.accounts[subscription] = key
        return {"id": number, "status": 200, "result": {"subscriptionId": subscription}}

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self, name: str, plan: Plan, send: Callable[[int], None]) -> None:
        """Send now, later, after the next one, or not at all."""
        if plan.swap and plan.copies:
            waiting = self._overtaken.setdefault(name, [])
            waiting.append(lambda: send(plan.copies))
            asyncio.get_running_loop().call_later(plan.swap, self._overtake, name)
            return
        if plan.delay:
            asyncio.get_running_loop().call_later(plan.delay, send, plan.copies)
        else:
            send(plan.copies)
        self._overtake(name)

    def _overtake(self, name: str) -> None:
        for held in self._overtaken.pop(name, []):
            held()

    def _put(self, session: Session, text: str, plan: Plan, copies: int) -> None:
        if plan.disconnect:
            session.reset()
            return
        for _ in range(copies):
            session.put(text[: len(text) // 2] if plan.spoil else text)
            self.sent += 1

    def _tape(self, futures: bool, symbol: str) -> Tape:
        return self._tapes.setdefault((futures, symbol), Tape(symbol, futures=futures))


def _wrapped(session: Session, stream: str, text: str) -> str:
    return f'{{"stream":"{stream}","data":{text}}}' if session.combined else text


def _all_of(name: str) -> str | None:
    """The stream of all instruments that this one is part of."""
    kind = name.partition("@")[2]
    if kind in ("ticker", "miniTicker", "markPrice"):
        return f"!{kind}@arr"
    return "!bookTicker" if kind == "bookTicker" else None


def _refused(number: object, code: int, message: str) -> Payload:
    return {"id": number, "status": 401 if code == -2015 else 400, "error": {"code": code, "msg": message}}
