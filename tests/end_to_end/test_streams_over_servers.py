"""`listen` and `trade` over a real Kafka-protocol broker and a real Redis, by configuration alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cryptoalpha.app.sources import open_store
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home

ITEMS = 12


@pytest.fixture
def redis_address(tmp_path: Path) -> Iterator[str]:
    """A redis-server of our own; skips where it is not installed, unless TESTS_SKIP_NOTHING=1."""
    if os.environ.get("TESTS_SKIP_NOTHING") != "1":
        pytest.importorskip("redis")
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder := tmp_path / "redis").mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def feed() -> Iterator[str]:
    """A news feed on loopback."""
    now = time.time()
    items = "".join(
        f"<item><title>Bitcoin rises to {90_000 + n} dollars</title><guid>n{n}</guid><pubDate>{formatdate(now - 60 * n)}</pubDate></item>"
        for n in range(ITEMS)
    )
    body = f'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>{items}</channel></rss>'.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/rss+xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/feed.xml"
        server.shutdown()


def filled(home: Path) -> None:
    """Hourly bars of BTC/USDT up to now."""
    table = next(iter(simulate(SimulatedConfig(assets=1, bars=1200), 3).dataset.bars.values()))
    shift = time.time_ns() // HOUR * HOUR - HOUR - int(table.open_time[-1])
    columns = {name: getattr(table, name) for name in ("open", "high", "low", "close", "volume")}
    moved = type(table)("BTC/USDT", HOUR, table.open_time + np.int64(shift), **columns)
    with History(Home(home)) as history:
        history.write_bars("binance", moved, origin="test")


class Shell:
    """The command line in a place of its own."""

    def __init__(self, folder: Path, settings: dict[str, Any], home: Path) -> None:
        folder.mkdir()
        (folder / "cryptoalpha.yaml").write_text(yaml.safe_dump(settings))
        self._folder = folder
        self._environment = {**os.environ, "CRYPTOALPHA_HOME": str(home), "REDIS_USER": "", "REDIS_PASSWORD": ""}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cryptoalpha", *arguments]
        return subprocess.Popen(command, cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> dict[str, Any]:
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=120.0)
        assert process.returncode == 0, err
        return json.loads(out)["result"]


def until(claim: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_listen_and_trade_over_kafka_and_redis(tmp_path: Path, kafka_broker: Callable[[str], Any], redis_address: str, feed: str):
    pytest.importorskip("feedparser", reason="the reader of feeds is not installed")
    home = tmp_path / "home"
    filled(home)
    off = {name: {"enabled": False} for name in ("exchange", "mempool", "fear_greed")}
    streams = {
        "backend": "servers",
        "listen": True,
        "kafka_servers": kafka_broker("noida").servers,
        "redis_address": redis_address,
        "sources": {**off, "news": {"feeds": [feed]}},
    }
    sieve = {"near_duplicate": 1.0, "posts_per_author": 0, "relevance_threshold": 0.0}
    settings = {"data": {"streams": streams}, "signals": {"agents": {"sieve": sieve}}}
    shell = Shell(tmp_path / "work", settings, home)
    checks = {one["name"]: one for one in shell.run("check")["checks"]}
    assert "over Kafka and Redis" in checks["live sources"]["found"]
    assert "stream servers" not in checks

    first = shell.run("listen", "--seconds", "10")
    assert first["sources"]["news"]["messages"] == ITEMS
    assert {one["handled"] for one in first["agents"].values()} == {ITEMS}
    second = shell.run("listen", "--seconds", "3")  # goes on where it stood: nothing is fetched or handled again
    assert {one["handled"] + one["repeats"] for one in second["agents"].values()} == {0}
    assert [one["state"] for one in shell.run("status")["sources"]] == ["closed"]

    exchange = shell.start("fake-exchange", "--simulated", "--as", "1s", "--json", "--set", "data.simulated.assets=1",
                           "--set", "data.simulated.bars=3000")  # fmt: skip
    try:
        assert exchange.stdout is not None
        told = json.loads(exchange.stdout.readline())
        url, names = told.get("result", told)["url"], ",".join(told.get("result", told)["instruments"])
        endpoint = ["--set", f"data.exchange.endpoint={url}"]
        shell.run("data", "fetch", "--venue", "binance", "--interval", "1s", "--instruments", names, "--no-funding", *endpoint,
                  "--since", time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400)))  # fmt: skip
        trading = shell.start("trade", "--feed", "binance", "--interval", "1s", *endpoint, "--instruments", names)
        until(lambda: any(run["rows"] >= 5 for run in shell.run("status")["runs"]))
        (standing,) = shell.run("status")["sources"]
        trading.send_signal(signal.SIGTERM)
        _, err = trading.communicate(timeout=60.0)
    finally:
        exchange.kill()
        exchange.communicate()
    assert trading.returncode == 0, err
    assert "listening to news" in err
    assert "cannot be heard" not in err
    assert standing["state"] == "connected"
    posts = open_store(home, interval="1s", instruments=None, venue="binance").posts
    assert sum(len(table) for table in posts.values()) == ITEMS  # what `listen` had put on the bus reached the book, and its store
