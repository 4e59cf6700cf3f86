"""What only a server can do wrong: it is shared, asks for a password, goes away, loses its answers, is killed. A real one, of our own."""

from __future__ import annotations

import asyncio
import signal

import pytest

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.store.state.open import open_state
from cryptoalpha.store.state.redis_state import RedisState
from cryptoalpha.store.state.sqlite_state import SqliteState


def test_the_server_is_a_real_redis_of_today(redis_server):
    version = next(line for line in redis_server.answers("INFO server").splitlines() if line.startswith("redis_version:"))
    assert int(version.split(":")[1].split(".")[0]) >= 7


def test_keys_of_two_prefixes_do_not_meet(redis_server):
    async def run():
        one = RedisState(redis_server.address, prefix="one:", password=redis_server.password)
        two = RedisState(redis_server.address, prefix="two:", password=redis_server.password)
        async with one, two:
            await one.put({"a/x": b"1"})
            return await two.get(["a/x"]), await two.names("a"), await one.names("a")

    assert asyncio.run(run()) == ([None], [], ["a/x"])
    assert "one:a/x" in redis_server.answers("KEYS one:a*")


def test_marks_of_writes_expire(redis_server):
    async def run():
        async with RedisState(redis_server.address, prefix="marks:", password=redis_server.password, patience_seconds=0.1) as state:
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
        async with RedisState(redis_server.address, prefix="once:", password=redis_server.password) as direct:
            await direct.add("a/x", 0.0)  # so that the scripts are known to the server
            await direct.swap("a/warm", None, b"1")
            async with RedisState(f"127.0.0.1:{port}", prefix="once:", password=redis_server.password) as state:
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
    server = redis_server.another(tmp_path)  # never started

    async def run():
        async with RedisState(server.address, password=server.password, patience_seconds=0.2):
            pass

    with pytest.raises(StoreError, match=f"Redis at {server.address} does not answer") as told:
        asyncio.run(run())
    assert "start it" in told.value.hint
    assert server.password not in str(told.value)


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
        environment = {"REDIS_PASSWORD": redis_server.password}
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
        async with RedisState(own_redis.address, password=own_redis.password, patience_seconds=20.0) as state:
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
