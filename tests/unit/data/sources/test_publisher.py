"""The fake publisher does what its scripts say; whoever tests a source against it relies on that."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest


def test_replies_come_in_turn_and_the_last_one_repeats(publisher):
    async def run():
        async with publisher() as fake, aiohttp.ClientSession() as session:
            fake.answers("/page", fake.Reply({"a": 1}), fake.Reply(status=429, headers={"Retry-After": "7"}))
            seen = []
            for _ in range(3):
                async with session.get(f"{fake.url}/page?q=x") as reply:
                    seen.append((reply.status, reply.headers.get("Retry-After"), await reply.text()))
            return seen, fake.requests("/page")[0].query

    seen, query = asyncio.run(run())
    assert seen == [(200, None, '{"a": 1}'), (429, "7", ""), (429, "7", "")]
    assert query == {"q": "x"}


def test_a_cut_answer_breaks_within_its_body(publisher):
    async def run():
        async with publisher() as fake, aiohttp.ClientSession() as session:
            fake.answers("/page", fake.Reply({"a": "long enough"}, cut=5))
            async with session.get(f"{fake.url}/page") as reply:
                await reply.read()

    with pytest.raises(aiohttp.ClientPayloadError):
        asyncio.run(run())


@pytest.mark.parametrize("then", ["end", "drop"])
def test_a_stream_brings_its_parts_and_ends_as_told(publisher, then):
    async def run():
        async with publisher() as fake, aiohttp.ClientSession() as session:
            fake.streams("/stream", fake.Script([b"one\r\n", fake.PING, b"two\r\n"], then=then))
            heard = b""
            async with session.get(f"{fake.url}/stream") as reply:
                try:
                    async for chunk in reply.content.iter_any():
                        heard += chunk
                except aiohttp.ClientPayloadError:
                    return heard, "drop"
            return heard, "end"

    assert asyncio.run(run()) == (b"one\r\n\r\ntwo\r\n", then)


def test_a_socket_listens_talks_and_drops(publisher):
    async def run():
        async with publisher() as fake, aiohttp.ClientSession() as session:
            fake.talks("/ws", fake.Script([fake.Heard("subscribe"), {"e": 1}, fake.PING, "text"], then="drop"))
            async with session.ws_connect(f"{fake.ws_url}/ws") as socket:
                await socket.send_str("subscribe please")
                heard = [message.data async for message in socket if message.type is aiohttp.WSMsgType.TEXT]
            return heard, fake.said, fake.connections

    assert asyncio.run(run()) == (['{"e": 1}', "text"], ["subscribe please"], 1)


def test_without_its_key_everything_is_refused(publisher):
    async def run():
        async with publisher() as fake, aiohttp.ClientSession() as session:
            fake.key = ("Authorization", "Bearer good")
            fake.answers("/page", fake.Reply("ok"))
            seen = []
            for key in ("bad", "good"):
                async with session.get(f"{fake.url}/page", headers={"Authorization": f"Bearer {key}"}) as reply:
                    seen.append(reply.status)
            return seen

    assert asyncio.run(run()) == [401, 200]


def test_a_script_left_open_does_not_keep_the_publisher_from_closing(publisher):
    async def run():
        async with aiohttp.ClientSession() as session:
            async with publisher() as fake:
                fake.talks("/ws", fake.Script(["one"]))
                socket = await session.ws_connect(f"{fake.ws_url}/ws")
                first = await socket.receive()
            return first.data, (await socket.receive()).type

    assert asyncio.run(asyncio.wait_for(run(), 5)) == ("one", aiohttp.WSMsgType.CLOSED)


def test_messages_double_and_move_but_none_is_lost(as_publishers_do):
    numbers = list(range(100))
    doubled, moved = as_publishers_do.duplicated(numbers), as_publishers_do.disordered(numbers)
    assert sorted(set(doubled)) == numbers
    assert len(doubled) > 110
    assert sorted(moved) == numbers
    assert moved != numbers
