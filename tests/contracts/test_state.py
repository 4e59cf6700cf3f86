"""What every state store promises, held by SQLite in a file, SQLite in memory and a real Redis server alike.

A plain dict is the second way everything is worked out.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, DataError, StoreError
from cryptoalpha.core.time import SECOND
from cryptoalpha.store.state.open import open_state
from cryptoalpha.store.state.redis_state import RedisState
from cryptoalpha.store.state.sqlite_state import SqliteState

PASSWORD = secrets.token_hex(8)


class Server:
    """A redis-server of our own, with its append-only file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        command += ["--dir", str(self.folder), "--requirepass", PASSWORD, "--daemonize", "no", "--logfile", str(self.folder / "log")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.answers("PING").startswith("+PONG"):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def answers(self, question: str) -> str:
        """Over a plain socket: the client under test has no part in it."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as plain:
                plain.sendall(f"AUTH {PASSWORD}\r\n{question}\r\nQUIT\r\n".encode())
                heard = b""
                while chunk := plain.recv(65536):
                    heard += chunk
                return heard.decode().removeprefix("+OK\r\n")
        except OSError:
            return ""

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        assert not os.environ.get("CRYPTOALPHA_NO_SKIP"), "redis-server is not installed"
        pytest.skip("redis-server is not installed (Debian package redis-server)")
    pytest.importorskip("redis")
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.end()


@pytest.fixture
def own_redis(redis_server, tmp_path) -> Iterator[Server]:
    """A second server, for tests that kill it."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.end(signal.SIGKILL)


@dataclass(frozen=True)
class Place:
    """Where state lies; every call of `open` is another client of it."""

    open: Callable[[], Any]
    shared: bool = True
    code: str = ""
    """An expression that opens it in another process."""


def place_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    if kind == "memory":
        return Place(lambda: SqliteState(None), shared=False)
    if kind == "file":
        path = folder / "state.sqlite"
        return Place(lambda: SqliteState(path), code=f"SqliteState(Path({str(path)!r}))")
    server, prefix = request.getfixturevalue("redis_server"), f"test{secrets.token_hex(4)}:"
    code = f"RedisState({server.address!r}, prefix={prefix!r}, password={PASSWORD!r})"
    return Place(lambda: RedisState(server.address, prefix=prefix, password=PASSWORD), code=code)


@pytest.fixture(params=["file", "memory", "redis"])
def place(request, tmp_path) -> Place:
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=["file", "redis"])
def shared_place(request, tmp_path) -> Place:
    """One that several processes share."""
    return place_of(request.param, request, tmp_path)


def elsewhere(place: Place, body: str, *, count: int = 1) -> list[subprocess.Popen[str]]:
    """Processes that run `body` (indented by one, with `state` open)."""
    imports = (
        "import asyncio\nfrom pathlib import Path\n"
        "from cryptoalpha.store.state.redis_state import RedisState\nfrom cryptoalpha.store.state.sqlite_state import SqliteState\n"
    )
    script = f"{imports}async def main():\n  async with {place.code} as state:\n{body}\nasyncio.run(main())\n"
    return [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(count)]


def test_the_server_is_a_real_redis_of_today(redis_server):
    version = next(line for line in redis_server.answers("INFO server").splitlines() if line.startswith("redis_version:"))
    assert int(version.split(":")[1].split(".")[0]) >= 7


def test_what_was_put_is_read_by_every_client(place):
    async def run():
        async with place.open() as one:
            await one.put({"a/x": b"\x00\xff bytes", "a/y": b"", "b/x": "grün/✓".encode()})
            other = await place.open().__aenter__() if place.shared else one
            found = await other.get(["a/y", "a/x", "a/none", "b/x"])
            areas = [await other.names(area) for area in ("a", "b", "c")]
            await other.close()
            return found, areas

    found, areas = asyncio.run(run())
    assert found == [b"", b"\x00\xff bytes", None, "grün/✓".encode()]
    assert areas == [["a/x", "a/y"], ["b/x"], []]


def test_an_area_is_no_pattern_and_no_beginning_of_another(place):
    names = ["a*/x", "ab/x", "a/x", "a/b/x", "a0/x", "[ab]/x", "a?/x", "a\\/x", "a-b/x"]

    async def run():
        async with place.open() as state:
            await state.put(dict.fromkeys(names, b"1"))
            return [await state.names(area) for area in ("a*", "a", "[ab]", "a?", "a\\", "a-b", "a/b")]

    assert asyncio.run(run()) == [["a*/x"], ["a/b/x", "a/x"], ["[ab]/x"], ["a?/x"], ["a\\/x"], ["a-b/x"], ["a/b/x"]]


def test_a_swap_needs_what_is_there(place):
    async def run():
        async with place.open() as state:
            told = [
                await state.swap("a/x", b"old", b"new"),  # nothing is there
                await state.swap("a/x", None, b"one"),
                await state.swap("a/x", None, b"two"),
                await state.swap("a/x", b"one", b"three"),
                await state.swap("a/x", b"one", None),
                await state.swap("a/x", b"three", None),
                await state.swap("a/x", None, None),
                await state.swap("a/x", b"", b"four"),  # empty is not nothing
            ]
            return told, await state.get(["a/x"]), await state.names("a")

    assert asyncio.run(run()) == ([False, True, False, True, False, True, True, False], [None], [])


def test_numbers_add_up_and_are_told_from_text(place):
    async def run():
        async with place.open() as state:
            sums = [await state.add("n/x", amount) for amount in (2.5, -1.25, 0.125, 1e9, -1e9)]
            prices = [await state.add("n/price", 0.005) for _ in range(200)]
            (kept,) = await state.get(["n/x"])
            await state.put({"n/text": b"word", "n/nan": b"nan", "n/number": b"40"})
            from_put = await state.add("n/number", 2)
            for name in ("n/text", "n/nan"):
                with pytest.raises(DataError, match="holds no number"):
                    await state.add(name, 1.0)
            for amount in (float("nan"), float("inf")):
                with pytest.raises(DataError, match="cannot be added"):
                    await state.add("n/x", amount)
            return sums, prices[-1], float(kept), from_put, await state.get(["n/text"])

    sums, price, kept, from_put, text = asyncio.run(run())
    assert sums == [2.5, 1.25, 1.375, 1_000_000_001.375, 1.375]
    assert price == pytest.approx(1.0, rel=1e-12)
    assert kept == sums[-1]
    assert (from_put, text) == (42.0, [b"word"])


def test_what_expires_is_gone_and_a_sum_keeps_its_first_expiry(place):
    async def run():
        async with place.open() as state:
            await state.put({"e/short": b"1", "e/freed": b"1", "e/swapped": b"1"}, expires_seconds=0.25)
            await state.put({"e/freed": b"2"})  # for good now
            assert await state.swap("e/swapped", b"1", b"2")
            await state.add("e/sum", 1.0, expires_seconds=0.25)
            await state.add("e/sum", 1.0, expires_seconds=60.0)
            await state.add("e/other", 1.0)
            await state.add("e/other", 1.0, expires_seconds=0.05)  # is not new: stays for good
            before = await state.names("e")
            await asyncio.sleep(0.35)
            after = await state.names("e")
            gone = await state.get(["e/short", "e/sum"])
            return before, after, gone, await state.swap("e/short", None, b"again"), await state.add("e/sum", 5.0)

    before, after, gone, swapped, total = asyncio.run(run())
    assert before == ["e/freed", "e/other", "e/short", "e/sum", "e/swapped"]
    assert after == ["e/freed", "e/other", "e/swapped"]
    assert (gone, swapped, total) == ([None, None], True, 5.0)


@pytest.mark.parametrize("name", ["", "x", "/x", "a/", "a/\n", "a/" + "x" * 400])
def test_names_without_an_area_are_refused_before_anything_is_kept(place, name):
    async def run():
        async with place.open() as state:
            for call in (state.get([name]), state.put({"a/good": b"1", name: b"1"}), state.swap(name, None, b"1"), state.add(name, 1.0)):
                with pytest.raises(ConfigError, match="no name of a state"):
                    await call
            for expiry in (0.0, -1.0, float("nan")):
                with pytest.raises(ConfigError, match="expiry"):
                    await state.put({"a/good": b"1"}, expires_seconds=expiry)
            return await state.names("a")

    assert asyncio.run(run()) == []


NAMES = st.sampled_from(["a/x", "a/y", "b/x", "n/1", "n/2"])
VALUES = st.sampled_from([b"", b"1", b"2.5", b"word", b"\x00\xff"])
CALLS = st.one_of(
    st.tuples(st.just("get"), st.lists(NAMES, max_size=4)),
    st.tuples(st.just("put"), st.dictionaries(NAMES, VALUES, max_size=3)),
    st.tuples(st.just("swap"), NAMES, st.none() | VALUES, st.none() | VALUES),
    st.tuples(st.just("add"), NAMES, st.integers(-8, 8).map(lambda number: number / 4)),
    st.tuples(st.just("names"), st.sampled_from("abn")),
)


def in_a_dict(kept: dict[str, bytes], call: tuple[Any, ...]) -> Any:
    """The same, by the plainest means."""
    match call:
        case "get", names:
            return [kept.get(name) for name in names]
        case "put", values:
            kept.update(values)
            return None
        case "swap", name, expected, value:
            if kept.get(name) != expected:
                return False
            kept.pop(name, None)
            kept.update({} if value is None else {name: value})
            return True
        case "add", name, amount:
            try:
                total = float(kept.get(name, b"0")) + amount
            except ValueError:
                return DataError
            kept[name] = format(total, ".17g").encode()
            return total
        case "names", area:
            return sorted(name for name in kept if name.startswith(f"{area}/"))
    raise AssertionError(call)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, max_size=30))
def test_any_calls_do_what_they_do_to_a_dict(place, calls):
    async def run():
        kept: dict[str, bytes] = {}
        async with place.open() as state:
            for area in "abn":
                for name in await state.names(area):
                    (value,) = await state.get([name])
                    assert await state.swap(name, value, None)
            for call in calls:
                try:
                    told = await getattr(state, call[0])(*call[1:])
                except DataError:
                    told = DataError
                assert told == in_a_dict(kept, call), call
            found = await state.get(sorted(kept))
            assert dict(zip(sorted(kept), found, strict=True)) == kept

    asyncio.run(run())


def test_many_tasks_lose_no_sum_and_no_swap(place):
    async def count(state):
        for _ in range(10):
            await state.add("c/sum", 1.0)
            while True:
                (before,) = await state.get(["c/swapped"])
                if await state.swap("c/swapped", before, str(int(before or b"0") + 1).encode()):
                    break

    async def run():
        async with place.open() as state:
            await asyncio.gather(*(count(state) for _ in range(8)))
            return await state.get(["c/sum", "c/swapped"])

    assert asyncio.run(run()) == [b"80", b"80"]


def test_two_processes_lose_no_sum_and_no_swap(shared_place):
    body = """
    for _ in range(100):
      await state.add("c/sum", 1.0)
      while True:
        (before,) = await state.get(["c/swapped"])
        if await state.swap("c/swapped", before, str(int(before or b"0") + 1).encode()):
          break"""
    for process in elsewhere(shared_place, body, count=2):
        process.communicate(timeout=60)
        assert process.returncode == 0

    async def run():
        async with shared_place.open() as state:
            return await state.get(["c/sum", "c/swapped"])

    assert asyncio.run(run()) == [b"200", b"200"]


def test_a_put_is_whole_or_not_at_all_when_its_writer_is_killed(shared_place):
    body = """
    number = 0
    while True:
      number += 1
      await state.put({f"k/{place}": str(number).encode() * 50 for place in range(40)})
      print(number, flush=True)"""
    (process,) = elsewhere(shared_place, body)
    for line in process.stdout:
        if int(line) >= 30:
            break
    process.kill()
    rest = process.communicate()[0].split()
    told = int(rest[-1]) if rest else 30

    async def run():
        async with shared_place.open() as state:
            return await state.get([f"k/{place}" for place in range(40)])

    found = asyncio.run(run())
    assert len(set(found)) == 1
    assert found[0] in (str(told).encode() * 50, str(told + 1).encode() * 50)  # the last may be kept though nobody heard of it


def test_after_closing_nothing_is_answered_and_closing_again_does_nothing(place):
    async def run():
        state = place.open()
        with pytest.raises(StoreError, match="not open"):
            await state.get(["a/x"])
        async with state:
            await state.put({"a/x": b"1"})
        await state.close()
        with pytest.raises(StoreError, match="not open"):
            await state.add("a/x", 1.0)

    asyncio.run(run())


def test_the_event_loop_goes_on_while_the_disk_is_busy(tmp_path):
    """Another process's transaction keeps the file for 0.3 s; the loop turns all the while, and the write comes through."""
    path = tmp_path / "state.sqlite"

    async def run():
        async with SqliteState(path) as state:
            await state.put({"a/x": b"1"})
            import sqlite3

            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(state.add("a/n", 1.0))
            longest, before, end = 0.0, time.perf_counter(), time.perf_counter() + 0.3
            while time.perf_counter() < end:
                await asyncio.sleep(0.001)
                longest, before = max(longest, time.perf_counter() - before), time.perf_counter()
            assert not writing.done()
            other.execute("ROLLBACK")
            other.close()
            return longest, await writing

    longest, total = asyncio.run(run())
    assert longest < 0.25
    assert total == 1.0


def test_a_file_that_stays_locked_is_a_store_error(tmp_path):
    import sqlite3

    path = tmp_path / "state.sqlite"

    async def run():
        async with SqliteState(path, patience_seconds=0.05) as state:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked") as told:
                await state.put({"a/x": b"1"})
            other.execute("ROLLBACK")
            other.close()
            await state.put({"a/x": b"2"})  # it goes on afterwards
            return told.value.hint, await state.get(["a/x"])

    hint, found = asyncio.run(run())
    assert hint
    assert found == [b"2"]


def test_a_foreign_or_broken_file_is_refused(tmp_path):
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database at all" * 100)

    async def run():
        async with SqliteState(path):
            pass

    with pytest.raises(StoreError):
        asyncio.run(run())


def test_expired_rows_leave_the_file(tmp_path):
    import sqlite3

    path, clock = tmp_path / "state.sqlite", VirtualClock(1_000 * SECOND)

    async def run():
        async with SqliteState(path, clock=clock) as state:
            await state.put({f"e/{number}": b"1" for number in range(50)}, expires_seconds=10.0)
            clock.advance_to(1_009 * SECOND)
            assert len(await state.names("e")) == 50
            clock.advance_to(1_010 * SECOND)
            assert await state.names("e") == []
            clock.advance_to(1_100 * SECOND)
            await state.put({"a/x": b"1"})

    asyncio.run(run())
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT name FROM state").fetchall() == [("a/x",)]
    plain.close()


def test_a_cancelled_question_harms_nobody(place):
    async def run():
        async with place.open() as state:
            for _ in range(20):
                task = asyncio.create_task(state.add("c/x", 1.0))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await state.put({"a/x": b"1"})
            return await state.get(["a/x"])

    assert asyncio.run(run()) == [b"1"]


def test_keys_of_two_prefixes_do_not_meet(redis_server):
    async def run():
        one = RedisState(redis_server.address, prefix="one:", password=PASSWORD)
        two = RedisState(redis_server.address, prefix="two:", password=PASSWORD)
        async with one, two:
            await one.put({"a/x": b"1"})
            return await two.get(["a/x"]), await two.names("a"), await one.names("a")

    assert asyncio.run(run()) == ([None], [], ["a/x"])
    assert "one:a/x" in redis_server.answers("KEYS one:a*")


def test_marks_of_writes_expire(redis_server):
    async def run():
        async with RedisState(redis_server.address, prefix="marks:", password=PASSWORD, patience_seconds=0.1) as state:
            for number in range(5):
                await state.add("a/x", number)
            during = redis_server.answers("KEYS marks:/*").count("marks:/")
            await asyncio.sleep(0.4)
            return during, redis_server.answers("KEYS marks:/*").count("marks:/")

    assert asyncio.run(run()) == (5, 0)


def test_a_write_whose_answer_was_lost_happens_once(redis_server):
    """The server carries it out, the answer never arrives, the client asks again over a new connection."""

    async def run():
        lost = 3

        async def through(reader, writer):
            nonlocal lost
            near, far = await asyncio.open_connection("127.0.0.1", redis_server.port)

            async def up():
                while data := await reader.read(65536):
                    far.write(data)
                far.close()

            going_up = asyncio.create_task(up())
            while data := await near.read(65536):
                if lost and data[:1] in (b"$", b":"):  # what scripts answer; AUTH and PING answer with lines
                    lost -= 1
                    break
                writer.write(data)
            going_up.cancel()
            await asyncio.gather(going_up, return_exceptions=True)
            for one in (far, writer):
                one.close()
                await one.wait_closed()
            ended.append(True)

        ended = []
        proxy = await asyncio.start_server(through, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        async with RedisState(redis_server.address, prefix="once:", password=PASSWORD) as direct:
            await direct.add("a/x", 0.0)  # so that the scripts are known to the server
            await direct.swap("a/warm", None, b"1")
            async with RedisState(f"127.0.0.1:{port}", prefix="once:", password=PASSWORD) as state:
                total = await state.add("a/x", 1.0)
                lost = 1
                swapped = await state.swap("a/y", None, b"1")
            values = await direct.get(["a/x", "a/y"])
        while len(ended) < 5:  # four answers were lost, the last connection was closed by the client
            await asyncio.sleep(0.001)
        proxy.close()
        await proxy.wait_closed()
        return total, swapped, values, lost

    assert asyncio.run(run()) == (1.0, True, [b"1", b"1"], 0)


def test_a_server_that_is_gone_is_said_with_a_way_out(redis_server, tmp_path):
    server = Server(tmp_path)  # never started

    async def run():
        async with RedisState(server.address, password=PASSWORD, patience_seconds=0.2):
            pass

    with pytest.raises(StoreError, match=f"Redis at {server.address} does not answer") as told:
        asyncio.run(run())
    assert "start it" in told.value.hint
    assert PASSWORD not in str(told.value)


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_is_a_setting_to_correct_and_is_never_shown(redis_server, password):
    async def run():
        async with RedisState(redis_server.address, password=password):
            pass

    with pytest.raises(ConfigError, match="refuses") as told:
        asyncio.run(run())
    assert "REDIS_PASSWORD" in told.value.hint
    assert "wrong" not in str(told.value).replace("WRONGPASS", "")


def test_the_store_is_chosen_by_settings_and_the_password_by_the_environment(redis_server):
    async def run():
        async with open_state("embedded", path=None, address="unused:1") as state:
            assert isinstance(state, SqliteState)
        environment = {"REDIS_PASSWORD": PASSWORD}
        async with open_state("servers", path=None, address=redis_server.address, prefix="opened:", environment=environment) as state:
            await state.put({"a/x": b"1"})
            return await state.get(["a/x"])

    assert asyncio.run(run()) == [b"1"]
    with pytest.raises(ConfigError, match="no address"):
        open_state("servers", path=None, address="localhost", environment={})


def test_what_was_answered_survives_the_server_being_killed_and_clients_go_on(own_redis):
    """kill -9 in the midst of writes, twice; with the append-only file nothing that was answered is lost, nothing happens twice."""

    async def count(state, task):
        for number in range(150):
            await state.add("c/sum", 1.0)
            await state.put({f"c/last{task}": str(number).encode()})

    async def run():
        async with RedisState(own_redis.address, password=PASSWORD, patience_seconds=20.0) as state:
            counting = [asyncio.create_task(count(state, task)) for task in range(4)]
            for after in (60, 300):
                while float((await state.get(["c/sum"]))[0] or b"0") < after:
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(own_redis.end, signal.SIGKILL)
                assert not all(task.done() for task in counting)
                await asyncio.to_thread(own_redis.start)
            await asyncio.gather(*counting)
            return await state.get(["c/sum", *(f"c/last{task}" for task in range(4))])

    assert asyncio.run(run()) == [b"600", *[b"149"] * 4]
