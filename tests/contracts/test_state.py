"""What every state store promises, held by SQLite in a file, SQLite in memory and a real Redis server alike.

A plain dict is the second way everything is worked out.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, DataError, StoreError
from cryptoalpha.core.time import SECOND
from cryptoalpha.store.state.redis_state import RedisState
from cryptoalpha.store.state.sqlite_state import SqliteState


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
    code = f"RedisState({server.address!r}, prefix={prefix!r}, password={server.password!r})"
    return Place(lambda: RedisState(server.address, prefix=prefix, password=server.password), code=code)


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
            await state.put({"e/short": b"1", "e/freed": b"1", "e/swapped": b"1"}, expires_seconds=0.5)
            await state.put({"e/freed": b"2"})  # for good now
            assert await state.swap("e/swapped", b"1", b"2")
            await state.add("e/sum", 1.0, expires_seconds=0.5)
            await state.add("e/sum", 1.0, expires_seconds=60.0)
            await state.add("e/other", 1.0)
            await state.add("e/other", 1.0, expires_seconds=0.05)  # is not new: stays for good
            before = await state.names("e")
            await asyncio.sleep(0.6)
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
            turns, end = 0, time.perf_counter() + 0.3
            while time.perf_counter() < end:
                await asyncio.sleep(0.001)
                turns += 1
            assert not writing.done()
            other.execute("ROLLBACK")
            other.close()
            return turns, await writing

    turns, total = asyncio.run(run())
    assert turns >= 10
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_thread_nobody_waits_for_ever(tmp_path):
    async def run():
        async with SqliteState(tmp_path / "state.sqlite") as state:

            def broken(connection, now):
                time.sleep(0.05)  # until the others wait
                raise KeyError("a mistake")

            asked = [state._ask(broken, writes=True), state.get(["a/x"]), state.add("a/x", 1.0)]
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5.0)
            with pytest.raises(StoreError):
                await asyncio.wait_for(state.get(["a/x"]), 5.0)
            return answers

    assert [type(answer) for answer in asyncio.run(run())] == [StoreError] * 3
