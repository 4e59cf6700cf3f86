"""`/openapi.json` is true: schemathesis asks a running server what the document allows and what it forbids, and finds nothing.

The server is real (uvicorn on a loopback port, a model in its process); the admin routes are asked with the token and without.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.serving.application import Service
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.fleet import Fleet
from cryptoalpha.lifecycle.serving.running import listening, serve
from cryptoalpha.lifecycle.serving.versions import FoundVersion, Known
from cryptoalpha.signals.config import ForecastConfig, TextConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.panel import build_panel

TOKEN = "a-token-of-the-test"


def unregistered(name: str) -> FoundVersion:
    raise ConfigError(f"no version {name!r}")


@pytest.fixture(scope="module")
def address(random_forecaster, tmp_path_factory) -> Iterator[str]:
    """A server in a thread of its own."""
    market = simulate(SimulatedConfig(assets=2, bars=2_400, start="2021-01-01"), seed=1).dataset
    frame = Frame(build_panel(market, since=0, until=2**62), market, first=2_250)
    config = ForecastConfig(context_bars=8, block_bars=12, correlation_bars=(24,), horizon_bars=(1, 24))
    folder = random_forecaster(tmp_path_factory.mktemp("model") / "m", frame, config, (2_300,))
    asked, up, failed = ServingConfig(drain_seconds=0.0), threading.Event(), []
    at = listening("127.0.0.1", 0)
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        fleet = Fleet(Known(unregistered), asked, text=TextConfig().model_dump(), now=lambda: parse_time("2022-01-01"))
        ids = iter(range(10**9))
        service = Service(fleet, asked, now=lambda: parse_time("2022-01-01") + HOUR, new_id=lambda: f"id-{next(ids)}", token=TOKEN)
        end = asyncio.Event()
        ends.append((asyncio.get_running_loop(), end))
        await serve(service, at, stable=str(folder), canary="", end=end, ready=up.set)

    def work() -> None:
        try:
            asyncio.run(run())
        finally:
            failed.append(True)
            up.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert up.wait(60.0)
    assert not failed
    yield f"http://127.0.0.1:{at.getsockname()[1]}"
    loop, end = ends[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(30.0)
    assert not thread.is_alive()


@pytest.mark.lengthy
@pytest.mark.parametrize("told", ["with the token", "without the token"])
def test_schemathesis_finds_nothing(told, address, tmp_path):
    """All its checks and phases: examples, edges of every field, random data that fit and that do not, sequences of requests."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", "all", "--max-examples", "15",
        "--mode", "all", "--seed", "9", "--generation-database", "none", "--max-response-time", "25", "--request-timeout", "30",
    ]  # fmt: skip
    if told == "with the token":
        command += ["--header", f"Authorization: Bearer {TOKEN}"]
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "400", "401", "409", "422", "503", "504"]\n'
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503", "504"]\n'  # a deadline of 1 ms is kept
        '[checks.negative_data_rejection]\nexpected-statuses = ["400", "401", "405", "413", "415", "422", "504"]\n'
    )
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_nothing_is_changed_without_the_token(address):
    """Every route that changes something, with a wrong token and with none."""
    with urllib.request.urlopen(f"{address}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    guarded = [(method.upper(), path) for path, ways in paths.items() for method, way in ways.items() if "security" in way]
    assert sorted(guarded) == [("POST", "/v1/split/ensure"), ("POST", "/v1/split/finish"), ("POST", "/v1/swap"), ("PUT", "/v1/split")]
    for method, path in guarded:
        for header in ({}, {"Authorization": "Bearer another"}, {"Authorization": f"Basic {TOKEN}"}):
            request = urllib.request.Request(f"{address}{path}", data=b"{}", method=method, headers=header)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)
            assert refused.value.code == 401
            assert refused.value.headers["WWW-Authenticate"] == "Bearer"
            refused.value.close()
