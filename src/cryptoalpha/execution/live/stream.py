"""The account's stream: what the venue pushes about our orders, trades and balances, through ccxt.pro.

A stream is a hint that comes early, never the books themselves: while it is down, and for what it left out, the same is asked for by REST.
So it may lose messages but must say when it was away: `Link(is_up=False)` when it breaks, `Link(is_up=True)` once the venue has accepted
the subscription again. A report that makes no sense is left out; a message that is no message ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.seeds import stream
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live import replies
from cryptoalpha.execution.live.asking import STUMBLES
from cryptoalpha.execution.live.replies import Naming, UnreadableReplyError
from cryptoalpha.execution.venue import Balance, Link, OrderReport, StreamEvent, Trade

_LOOK_SECONDS = 0.02
"""How often it is looked whether the connection stands."""


class AccountStream:
    """One account's stream, over as many connections as it takes.

    Args:
        client: a ccxt.pro client with keys and loaded markets.
        config: the waits between connections.
        name: from ccxt's symbol to our name of an instrument.
        refused: asked after a connection that was never accepted, before the next; sets the clock, whose stamp may be why.
        seed: of the jitter of those waits.
    """

    def __init__(self, client: Any, config: LiveConfig, name: Naming, *, refused: Callable[[], Awaitable[None]], seed: int = 0) -> None:
        self._client, self._name, self._refused = client, name, refused
        self._was_up = False
        self._backoff = Backoff(
            config.retry_seconds, max(config.retry_seconds, config.retry_limit_seconds), random=stream(seed, "venue", client.id, "stream")
        )
        self._queue: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self._timers: list[asyncio.TimerHandle] = []
        self._seen: dict[str, Balance] = {}
        client.delay = self._delay
        client.client = self._connection_to

    async def events(self) -> AsyncIterator[StreamEvent]:
        """Everything that comes, for ever."""
        runner = asyncio.create_task(self._run())
        waiting = asyncio.create_task(self._queue.get())
        try:
            while True:
                await asyncio.wait({waiting, runner}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    runner.result()  # it ends by an error only
                event, waiting = waiting.result(), asyncio.create_task(self._queue.get())
                yield event
        finally:
            await _end({runner, waiting})
            await self._hang_up()

    async def _run(self) -> None:
        while True:
            reason = await self._connection()
            self._queue.put_nowait(Link(is_up=False, reason=reason))
            await self._hang_up()
            await asyncio.sleep(self._backoff.wait())
            if not self._was_up:
                await self._refused()

    async def _connection(self) -> str:
        """Listen until it breaks; returns what broke it."""
        self._fresh_keys()
        self._was_up = False
        tasks = {
            asyncio.create_task(self._watch(self._client.watch_orders, self._orders)),
            asyncio.create_task(self._watch(self._client.watch_my_trades, self._trades)),
            asyncio.create_task(self._watch(self._client.watch_balance, self._balances)),
        }
        looker = asyncio.create_task(self._tell_when_up())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = next(iter(done)).exception()
            return type(error).__name__ if error is not None else "ended"
        finally:
            await _end({*tasks, looker})

    async def _watch(self, ask: Callable[[], Awaitable[Any]], take: Callable[[Any], None]) -> None:
        while True:
            heard = await ask()
            take(heard)

    async def _tell_when_up(self) -> None:
        while not self._is_up():
            await asyncio.sleep(_LOOK_SECONDS)
        self._was_up = True
        self._backoff.reset()
        self._queue.put_nowait(Link(is_up=True))

    def _is_up(self) -> bool:
        """Whether the connection stands and the subscription was accepted: then only messages are waited for, no replies."""
        for connection in self._client.clients.values():
            waited_for = [key for key in connection.futures if not key.isdecimal()]
            if connection.isConnected and waited_for and not any(key.startswith("authenticate") for key in waited_for):
                return True
        return False

    def _orders(self, heard: Any) -> None:
        for raw in heard if isinstance(heard, list) else ():
            with contextlib.suppress(UnreadableReplyError):
                report: OrderReport = replies.order_report(raw, self._name)
                self._queue.put_nowait(report)

    def _trades(self, heard: Any) -> None:
        for raw in heard if isinstance(heard, list) else ():
            info = raw.get("info") if isinstance(raw, Mapping) else None
            ours = str(info.get("c") or "") if isinstance(info, Mapping) else ""
            with contextlib.suppress(UnreadableReplyError):
                found: Trade = replies.trade(raw, self._name, client_id=ours)
                self._queue.put_nowait(found)

    def _balances(self, heard: Any) -> None:
        """Those that changed. Of Binance only those the message names: ccxt takes a deposit's change for the whole balance."""
        info = heard.get("info") if isinstance(heard, Mapping) else None
        named = info.get("B") if isinstance(info, Mapping) else None
        if isinstance(info, Mapping) and "e" in info and not isinstance(named, list):
            return
        with contextlib.suppress(UnreadableReplyError):
            found = replies.balances({key: value for key, value in heard.items() if key != "info"})
            names = {row.get("a") for row in named if isinstance(row, Mapping)} if isinstance(named, list) else set(found)
            for asset, balance in found.items():
                if asset in names and self._seen.get(asset) != balance:
                    self._seen[asset] = balance
                    self._queue.put_nowait(balance)

    def _connection_to(self, url: str) -> Any:
        """ccxt's connection, which ends when it meets a message it cannot read: by itself it would stay open and fall silent."""
        from ccxt import BaseError, NetworkError

        connection = type(self._client).client(self._client, url)
        if "handle_text_or_binary_message" not in vars(connection):
            read = connection.handle_text_or_binary_message

            def guarded(data: Any) -> None:
                try:
                    read(data)
                except (*STUMBLES, BaseError) as error:
                    connection.on_error(NetworkError(f"a message that cannot be read ({type(error).__name__})"))

            connection.handle_text_or_binary_message = guarded
        return connection

    def _fresh_keys(self) -> None:
        """Ask for a new listen key: the old one may have ended with the old connection, and a dead key says nothing."""
        for options in self._client.options.values():
            if isinstance(options, dict) and "lastAuthenticatedTime" in options:
                options["lastAuthenticatedTime"] = 0

    def _delay(self, milliseconds: float, method: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
        """ccxt's timer, kept so that it ends with the stream."""
        timer: asyncio.TimerHandle = asyncio.get_running_loop().call_later(milliseconds / 1000, self._client.spawn, method, *arguments)
        self._timers.append(timer)
        return timer

    async def _hang_up(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await self._client.close_ws_clients()


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
