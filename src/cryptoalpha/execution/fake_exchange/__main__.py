"""`python -m cryptoalpha.execution.fake_exchange`: the child process behind `FakeExchange`. Prints one line of JSON once it listens."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import build
from cryptoalpha.execution.fake_exchange.server import Server


async def serve(server: Server, *, with_parent: bool = False) -> None:
    """Listen until SIGTERM or SIGINT; `with_parent` also until standard input ends, so that a killed parent leaves nothing running."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    if with_parent:
        loop.add_reader(sys.stdin.fileno(), stop.set)  # nobody writes there: readable means ended
    await server.start()
    sys.stdout.write(json.dumps({"url": server.url, "control_url": server.control_url, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop()


def prepare(market: Path, settings: Path) -> Server:
    """The server that `FakeExchange` has described in two files."""
    kept = json.loads(settings.read_text())
    accounts = []
    for account in kept["accounts"]:
        account["balances"] = {asset: Decimal(held) for asset, held in account["balances"].items()}
        accounts.append(AccountSettings(**{**account, "wallet": Decimal(account["wallet"])}))
    return build(Book.load(market), ExecutionConfig.model_validate(kept["config"]), accounts, **kept["options"]).server


def main(arguments: Sequence[str] | None = None) -> None:
    """Read market and settings, then serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--market", type=Path, required=True, help="a market written by Book.save")
    parser.add_argument("--settings", type=Path, required=True, help="JSON: config, accounts, options")
    chosen = parser.parse_args(arguments)
    asyncio.run(serve(prepare(chosen.market, chosen.settings), with_parent=True))


if __name__ == "__main__":
    main()
