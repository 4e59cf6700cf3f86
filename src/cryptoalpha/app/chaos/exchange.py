"""The exchange of one schedule: a process of its own, forked like the lives, so that it outlives every one of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptoalpha.app.chaos.schedule import Hand
from cryptoalpha.app.chaos.world import World
from cryptoalpha.core.errors import VenueError
from cryptoalpha.execution.fake_exchange.__main__ import serve
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.fault_script import Fault, as_entries
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import Handle, build

KEY, SECRET = "canary-key-7f3a91d0", "canary-secret-c41b8e62"
"""Of the account; a test looks for them in everything a run leaves."""


class Playground:
    """Starts the exchange, moves its market, breaks it, and plays the other hands; ends it.

    Args:
        folder: where the exchange's own errors are written.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._handle = Handle("", "")
        self._pid = 0

    @property
    def url(self) -> str:
        return self._handle.url

    def __enter__(self) -> Self:
        read, write = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(read)
            self._serve(write)
        os.close(write)
        with os.fdopen(read) as pipe:
            line = pipe.readline()
        if not line:
            os.waitpid(self._pid, 0)
            raise VenueError("the exchange of a schedule did not start", hint=f"see {self._folder / 'exchange.log'}")
        where = json.loads(line)
        self._handle = Handle(where["url"], where["control_url"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handle.disconnect()
        os.kill(self._pid, signal.SIGKILL)  # it keeps nothing
        os.waitpid(self._pid, 0)

    def _serve(self, pipe: int) -> None:
        """The child: serves until it is ended."""
        status = 1
        try:
            with (self._folder / "exchange.log").open("ab", buffering=0) as log:
                os.dup2(log.fileno(), 2)
            os.dup2(pipe, 1)
            os.close(pipe)
            held = self._world.funds
            account = AccountSettings(key=KEY, secret=SECRET, balances=held, wallet=held["USDT"], fees=self._world.schedule.fees)
            asyncio.run(serve(build(Book.of(self._world.dataset), self._world.execution, [account]).server))
            status = 0
        finally:  # a forked child must not unwind into its parent's frames
            if status:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)

    def advance(self) -> None:
        """One more bar is known."""
        self._handle.advance(1)

    def arm(self, fault: Fault) -> None:
        self._handle.control("faults", script=as_entries([fault]))

    def heal(self) -> None:
        """From now on everything works."""
        self._handle.control("faults", clear=True)

    def play(self, hand: Hand, client_id: str) -> list[str]:
        """Another hand acts; the client ids it used. What the exchange refuses it does not do."""
        rules = self._world.rules[hand.instrument]
        try:
            if hand.kind in ("deposit", "withdraw"):
                books = self.account()
                free = Decimal(books["balances"].get(rules.base, "0")) - Decimal(books["locked"].get(rules.base, "0"))
                if hand.kind == "deposit" or free >= Decimal(hand.quantity):
                    sign = "-" if hand.kind == "withdraw" else ""
                    self._handle.control("transfer", key=KEY, asset=rules.base, amount=sign + hand.quantity)
                return []
            order: dict[str, Any] = {"key": KEY, "instrument": hand.instrument, "quantity": hand.quantity, "client_id": client_id}
            if hand.kind == "rest":
                order |= {"side": "buy", "price": f"{float(self._world.panel.open[0, 0 if 'BTC' in hand.instrument else 1]) / 2:.2f}"}
            else:
                order |= {"side": hand.kind}
            self._handle.control("order", **order)
        except VenueError:
            return []
        return [client_id]

    def end_strangers(self, client_ids: Sequence[str]) -> None:
        """The other hands take back what still works of their orders."""
        if client_ids:
            for order in self.account()["orders"]:
                if order["client_id"] in client_ids and order["status"] in ("NEW", "PARTIALLY_FILLED"):
                    self._handle.control("cancel", key=KEY, order_id=order["order_id"])

    def account(self) -> dict[str, Any]:
        """The account's books."""
        books: dict[str, Any] = self._handle.state()["accounts"][KEY]
        return books

    def faults_acted(self) -> dict[str, int]:
        """How often each fault really struck."""
        counts: dict[str, int] = self._handle.state().get("faults", {}).get("counts", {})
        return counts

    def requests(self) -> dict[str, int]:
        """How often each route was asked."""
        asked: dict[str, int] = self._handle.state()["requests"]
        return asked
