"""`cryptoalpha serve` as a client meets it: a real server, real models, every answer looked at."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.rollout.http_split import HttpSplit
from cryptoalpha.lifecycle.serving.windows import BINARY, JSON, as_json, encode_window, newest_rows
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import ForecastConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.panel import build_panel

START, BARS = parse_time("2021-01-01"), 2_500
CONFIG = ForecastConfig(context_bars=8, block_bars=12, correlation_bars=(24, 96), horizon_bars=(1, 24))
NEEDED = 2_069
"""2,048 rows of warm-up, 8 of context, 12 of a block, and the bar itself."""
TOKEN = "a-token-of-the-test"
HEADERS = {"content-type": BINARY}


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=3, bars=BARS, start="2021-01-01", posts_per_day=2.0), seed=8).dataset


@pytest.fixture(scope="module")
def folders(market, random_forecaster, tmp_path_factory) -> tuple[Path, Path]:
    """Two forecasters, of two folds and of one."""
    frame = Frame(build_panel(market, since=0, until=2**62), market, first=2_250)
    place = tmp_path_factory.mktemp("models")
    return random_forecaster(place / "one", frame, CONFIG, (2_300, 2_421)), random_forecaster(place / "two", frame, CONFIG, (2_300,))


@pytest.fixture(scope="module")
def bodies(market) -> list[bytes]:
    """Windows that end one bar after the other."""
    return [encode_window(newest_rows(market, START + (row + 1) * HOUR, NEEDED)) for row in range(2_410, 2_430)]


@contextmanager
def serving(folder: Path, home: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server and its address; ended afterwards if the test did not."""
    environment = {**os.environ, "CRYPTOALPHA_HOME": str(home), "CRYPTOALPHA_CREDENTIALS__SERVING_TOKEN": TOKEN}
    settings = ("--set", "lifecycle.serving.drain_seconds=0.3", "--set", "lifecycle.serving.deadline_seconds=20")
    command = [sys.executable, "-m", "cryptoalpha", "serve", "--version", str(folder), "--port", "0", "--json", *settings, *more]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home)
    try:
        assert process.stderr is not None
        address = ""
        while not (line := process.stderr.readline()).startswith("ready"):
            assert line, f"the server ended: {process.stdout.read() if process.stdout else ''}"
            address = line.split()[-1] if line.startswith("listening") else address
        yield address, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    with serving(folders[0], tmp_path_factory.mktemp("home")) as (address, _):
        yield address


async def post(session: aiohttp.ClientSession, address: str, body: bytes, **headers: str) -> tuple[int, dict]:
    async with session.post(f"{address}/v1/forecast", data=io.BytesIO(body), headers={**HEADERS, **headers}) as answer:
        said = await answer.json(content_type=None)
        assert answer.headers["x-model-version"] == said["version"]
        assert answer.headers["x-request-id"] == said["request_id"]
        return answer.status, said


@pytest.mark.parametrize("media", [JSON, BINARY])
def test_what_is_served_is_what_the_loop_would_have_seen_to_the_last_bit(media, server, market, folders):
    """Bars at, before and after the change of folds, against one replay of all of them."""
    first = 2_418
    config = CONFIG.model_copy(update={"model": str(folders[0])})
    book = SignalBook(SignalsConfig(sources=("forecast",), forecast=config, keep_features=False))
    tape = book.prepare(market, since=START + first * HOUR, until=START + BARS * HOUR)
    source = tape.source("forecast")

    async def ask() -> list[dict]:
        found = []
        async with aiohttp.ClientSession() as session:
            for row in range(first, first + 8):
                window = newest_rows(market, START + (row + 1) * HOUR, NEEDED)
                body = as_json(window) if media == JSON else encode_window(window)
                status, said = await post(session, server, body, **{"content-type": media, "x-request-id": f"row-{row}"})
                assert (status, said["request_id"], said["arm"]) == (200, f"row-{row}", "stable"), said
                found.append(said)
        return found

    folds = []
    for t, said in enumerate(asyncio.run(ask())):
        folds.append(said["fold"])
        assert said["known_at"] == int(tape.panel.known_at[t])
        assert [one["instrument"] for one in said["forecasts"]] == list(tape.panel.instruments)
        for a, one in enumerate(said["forecasts"]):
            assert (one["signal"], one["confidence"]) == (source.value[t, a], source.confidence[t, a])
            for h, horizon in enumerate(one["horizons"]):
                assert horizon["expected_move"] == source.traces["forecast/location"][t, a, h]
                assert horizon["volatility"] == source.traces["forecast/volatility"][t, a, h]
                assert horizon["confidence"] == source.traces["forecast/chance"][t, a, h]
                assert horizon["quantiles"] == source.traces["forecast/quantiles"][t, a, h].tolist()
                assert horizon["unit"] == tape.sigma[t, a] * np.sqrt(horizon["bars"])
                logits = source.traces["forecast/direction"][t, a, h].astype(np.float64)
                shares = np.exp(logits) / np.exp(logits).sum()
                np.testing.assert_allclose([horizon["up"], horizon["down"], horizon["sideways"]], shares, rtol=1e-12)
    assert folds == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_swap_under_load_drops_no_request(server, folders, bodies):
    """Eight clients ask without pause while the version is changed there and back; every answer is counted."""

    async def run() -> tuple[Counter, list[int]]:
        answers: Counter[tuple[int, str]] = Counter()
        done = asyncio.Event()
        swaps = []

        async def client(session: aiohttp.ClientSession, place: int) -> None:
            turn = place
            while not done.is_set():
                status, said = await post(session, server, bodies[turn % len(bodies)])
                answers[status, said["version"]] += 1
                turn += 1

        async with aiohttp.ClientSession() as session:
            clients = [asyncio.create_task(client(session, place)) for place in range(8)]
            for folder in (folders[1], folders[0]):
                await asyncio.sleep(0.5)
                url, token = f"{server}/v1/swap", {"authorization": f"Bearer {TOKEN}"}
                async with session.post(url, json={"version": str(folder)}, headers=token) as swapped:
                    swaps.append(swapped.status)
            await asyncio.sleep(0.5)
            done.set()
            await asyncio.gather(*clients)
        return answers, swaps

    answers, swaps = asyncio.run(run())
    assert swaps == [200, 200]
    assert {status for status, _ in answers} == {200}
    assert len(answers) == 2, "both versions answered"
    assert min(answers.values()) >= 5


@pytest.mark.lengthy
def test_a_canary_whose_process_is_killed_costs_nobody_an_answer(server, folders, bodies):
    """Half of the keys belong to the canary; its process is killed: all are answered, the failures are the canary's."""

    async def run() -> None:
        split = HttpSplit(server, token=TOKEN)
        before = await split.ensure(str(folders[0]), str(folders[1]))
        assert before.weights == {"stable": 1.0, "canary": 0.0}
        now = await split.write({"stable": 0.5, "canary": 0.5}, expected_version=before.version)
        async with aiohttp.ClientSession() as session:
            said = [(await post(session, server, bodies[0], **{"x-sticky-key": f"key{n}"}))[1] for n in range(40)]
            arms = Counter(one["version"] for one in said)
            assert arms[now.stable] + arms[now.canary] == 40
            assert 8 <= arms[now.canary] <= 32  # 40 fair coins: outside once in 10,000
            again = [(await post(session, server, bodies[1], **{"x-sticky-key": f"key{n}"}))[1]["version"] for n in range(40)]
            assert again == [one["version"] for one in said], "a key stays with its arm"
            for pid in _processes_of(folders[1]):
                os.kill(pid, signal.SIGKILL)
            saved = [await post(session, server, bodies[2], **{"x-sticky-key": f"key{n}"}) for n in range(40)]
            assert {status for status, _ in saved} == {200}
            fallen = [one["version"] for _, one in saved if one["fell_back"]]
            assert fallen
            assert set(fallen) == {now.stable}
        counts = await split.counts(now.since)
        assert counts["canary"].failed == len(fallen) == counts["canary"].fallbacks
        assert counts["stable"].failed == counts["canary"].fallback_failures == 0
        await split.finish("stable")
        after = await split.read()
        assert (after.stable, after.canary, after.canary_share) == (now.stable, "", 0.0)

    asyncio.run(run())


@pytest.mark.lengthy
def test_told_to_end_under_load_it_answers_everybody_until_traffic_has_gone_elsewhere(folders, bodies, tmp_path):
    """SIGTERM in the midst of requests. As those who distribute traffic do, clients stay away once readiness is denied, but no sooner."""
    with serving(folders[0], tmp_path, "--set", "lifecycle.serving.drain_seconds=3") as (address, process):

        async def run() -> Counter:
            answers: Counter[int] = Counter()
            away = asyncio.Event()

            async def client(session: aiohttp.ClientSession) -> None:
                turn = 0
                while not away.is_set():
                    status, _ = await post(session, address, bodies[turn % len(bodies)])
                    answers[status] += 1
                    turn += 1

            async with aiohttp.ClientSession() as session:
                clients = [asyncio.create_task(client(session)) for _ in range(4)]
                await asyncio.sleep(0.5)
                process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.1)
                async with session.get(f"{address}/readyz") as ready:
                    assert (ready.status, (await ready.json())["status"]) == (503, "draining")
                await asyncio.sleep(0.5)
                away.set()
                await asyncio.gather(*clients)
            return answers

        answers = asyncio.run(run())
        assert set(answers) == {200}
        assert answers[200] >= 8
        process.wait(timeout=30)
        assert process.returncode == 0
    assert _processes_of(folders[0], parent=process.pid) == []


def test_killed_it_leaves_no_process_behind(folders, tmp_path):
    with serving(folders[1], tmp_path) as (_, process):
        models = _processes_of(folders[1], parent=process.pid)
        assert len(models) == 1
        process.kill()
        process.wait(timeout=10)
        deadline = time.monotonic() + 10.0
        while any(Path(f"/proc/{pid}").exists() for pid in models):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_version_that_is_not_there_ends_the_command_with_what_to_do(tmp_path):
    environment = {**os.environ, "CRYPTOALPHA_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "cryptoalpha", "serve", "--port", "0", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 2
    assert "the registry has no champion that forecasts" in done.stdout
    assert "cryptoalpha models promote" in done.stdout


def _processes_of(folder: Path, parent: int | None = None) -> list[int]:
    """Processes of models that have this folder's fold open or were told of it: by their parent's children and what they were given."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdecimal():
            continue
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"cryptoalpha.lifecycle.serving.model_process" in words and (parent is None or above == parent):
            found.append((int(place.name), words))
    return [pid for pid, words in found if any(str(folder).encode() in word for word in words)]
