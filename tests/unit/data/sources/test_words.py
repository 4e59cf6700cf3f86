"""Failures of real libraries against real sockets, in the words people know them by."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from cryptoalpha.data.sources.words import in_words


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def by_aiohttp(address: str, seconds: float) -> None:
    async with aiohttp.ClientSession() as session, session.get(address, timeout=aiohttp.ClientTimeout(total=seconds)):
        pass


async def by_httpx(address: str, seconds: float) -> None:
    httpx = pytest.importorskip("httpx")
    async with httpx.AsyncClient(timeout=seconds, trust_env=False) as client:
        await client.get(address)


def failure(ask, address: str, seconds: float = 5.0) -> BaseException:
    with pytest.raises(Exception) as told:
        asyncio.run(ask(address, seconds))
    return told.value


@pytest.mark.parametrize("ask", [by_aiohttp, by_httpx])
def test_who_is_not_there_refuses(ask):
    port = free_port()
    where = f"127.0.0.1:{port}: " if ask is by_aiohttp else ""
    assert in_words(failure(ask, f"http://127.0.0.1:{port}/?key=secret")) == f"{where}Connection refused"


@pytest.mark.parametrize("ask", [by_aiohttp, by_httpx])
def test_who_says_nothing_is_late(ask):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure(ask, f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.05)
    assert in_words(error) == "no answer in time"


@pytest.mark.parametrize("ask", [by_aiohttp, by_httpx])
def test_a_name_that_nobody_knows_is_told_without_a_word_of_ssl(ask):
    told = in_words(failure(ask, "http://nobody.invalid/?key=secret"))
    assert "ssl" not in told
    assert "secret" not in told
    assert "rror" not in told


def test_what_is_not_known_by_another_name_keeps_its_own():
    class RemoteProtocolError(Exception):
        pass

    assert in_words(RemoteProtocolError("GET https://host/?key=secret")) == "remote protocol"
