"""A fake exchange for tests and tools: as a child process or as a thread, with the same handle on it.

with FakeExchange(Book.of(dataset), start=500) as exchange:
    client = ccxt.binance({...})        # its addresses rewritten to exchange.url + "/HOST/PATH"
    exchange.advance(10)
    exchange.state()["accounts"]["key"]["balances"]
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from cryptoalpha.core.errors import VenueError
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.control import Controls
from cryptoalpha.execution.fake_exchange.market import Book, Market
from cryptoalpha.execution.fake_exchange.matching import Exchange
from cryptoalpha.execution.fake_exchange.server import Server
from cryptoalpha.execution.fake_exchange.stream_wiring import Wiring, attach

START_SECONDS = 30.0


def build(
    book: Book,
    config: ExecutionConfig,
    accounts: Sequence[AccountSettings],
    *,
    start: int = 1,
    weight_limit: int | None = None,
    timed: int | None = None,
) -> Wiring:
    """A server with everything behind it, faults and streams before it, not yet listening.

    Args:
        timed: nanoseconds each bar lasts from now on, by the wall clock; None: until it is told to go on.
    """
    if timed is not None:
        book = book.restamped(row=start - 1, now=time.time_ns(), length=timed)
    server = Server(Exchange(Market(book, start=start), config, accounts), weight_limit=weight_limit)
    Controls(server)
    server.is_timed = timed is not None
    return attach(server)


class Handle:
    """Talks to the control port of a running fake exchange. One connection, kept."""

    def __init__(self, url: str, control_url: str) -> None:
        self.url, self.control_url = url, control_url
        self._connection: http.client.HTTPConnection | None = None

    def control(self, name: str, **body: Any) -> Any:
        """Ask `/control/NAME`.

        Raises:
            VenueError: if it is refused.
        """
        for attempt in (0, 1):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(urlsplit(self.control_url).netloc, timeout=120)
            try:
                self._connection.request("POST", f"/control/{name}", json.dumps(body, default=str), {"Content-Type": "application/json"})
                reply = self._connection.getresponse()
                text = reply.read()
                break
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()
                self._connection = None
                if attempt:
                    raise
        answer = json.loads(text)
        if reply.status != 200:
            raise VenueError(f"the fake exchange refuses {name}: {answer.get('error')}", hint="see execution.fake_exchange.control")
        return answer

    def advance(self, bars: int = 1) -> dict[str, Any]:
        """Let bars pass; where the market is then (`row`, `left`, `now_ms`, `bars`)."""
        answer: dict[str, Any] = self.control("advance", bars=bars)
        return answer

    def state(self, *, brief: bool = False) -> dict[str, Any]:
        """Counters, clocks, and every account's balances, positions, orders and trades; the last two not where `brief`."""
        answer: dict[str, Any] = self.control("state", brief=brief)
        return answer

    def faults(self, **script: Any) -> Any:
        """Set what goes wrong (see `faults`)."""
        return self.control("faults", **script)

    def disconnect(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class FakeExchange(Handle):
    """A fake exchange that lives as long as the `with` block.

    Args:
        book: the bars it trades.
        config: what trades cost; as for the simulated broker.
        accounts: its customers; one with the key `key` and the secret `secret` by default.
        start: bars known at the beginning (≥ 1).
        weight_limit: request weight allowed a minute; None: any.
        timed: how long each bar lasts by the wall clock, ns (`parse_interval("1s")`); None: until `advance`.
        run_as: a child process, which a killed client leaves standing, or a thread of this one, which starts at once.
    """

    def __init__(
        self,
        book: Book,
        config: ExecutionConfig | None = None,
        *,
        accounts: Sequence[AccountSettings] | None = None,
        start: int = 1,
        weight_limit: int | None = None,
        timed: int | None = None,
        run_as: Literal["process", "thread"] = "thread",
    ) -> None:
        super().__init__("", "")
        self._book, self._config = book, config or ExecutionConfig()
        self._accounts = list(accounts) if accounts is not None else [AccountSettings()]
        self._options: dict[str, Any] = {"start": start, "weight_limit": weight_limit, "timed": timed}
        self._run_as = run_as
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self.server: Server | None = None
        """The server itself, where it is a thread."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def open(self) -> None:
        """Start it, and wait until it listens."""
        if self._run_as == "thread":
            self._open_thread()
        else:
            self._open_process()

    def close(self) -> None:
        """Stop it."""
        self.disconnect()
        if self._thread is not None and self._loop is not None and self.server is not None:
            asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(START_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_SECONDS)
            self._thread = None
        if self._child is not None:
            self._child.terminate()
            self._child.wait(START_SECONDS)
            self._forget_child()

    def _forget_child(self) -> None:
        """Close the pipes to a child that has ended."""
        if self._child is not None:
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def _open_thread(self) -> None:
        server = build(self._book, self._config, self._accounts, **self._options).server
        loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            try:
                loop.run_forever()
            finally:
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()

        self._thread = threading.Thread(target=run, name="fake-exchange", daemon=True)
        self._thread.start()
        self._loop, self.server = loop, server
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(START_SECONDS)
        self.url, self.control_url = server.url, server.control_url

    def _open_process(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "market.npz"
            self._book.save(path)
            settings = Path(folder) / "settings.json"
            settings.write_text(
                json.dumps(
                    {
                        "config": self._config.model_dump(mode="json"),
                        "accounts": [asdict(account) for account in self._accounts],
                        "options": self._options,
                    },
                    default=str,
                )
            )
            command = [sys.executable, "-m", "cryptoalpha.execution.fake_exchange", "--market", str(path), "--settings", str(settings)]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            assert self._child.stdout is not None
            line = self._child.stdout.readline()
        if not line:
            code = self._child.wait(START_SECONDS)
            self._forget_child()
            raise VenueError(f"the fake exchange did not start (exit {code})", hint="its own message stands above")
        where = json.loads(line)
        self.url, self.control_url = where["url"], where["control_url"]
