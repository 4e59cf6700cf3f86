"""How clients of venues are built: where their requests go, whose key they carry, and that the key shows nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from cryptoalpha.app.credentials import CredentialsConfig
from cryptoalpha.app.venues import Keys, Venues, account_keys, account_venue, client_settings, redirect
from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live.budget import Budget

HERE = "http://127.0.0.1:8400"
CANARY = "canary-secret-5a1f"


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", ["binance", "binanceusdm", "okx", "bybit", "kraken", "coinbase", "kucoin", "bitget", "gate"])
@pytest.mark.parametrize("library", ["ccxt", "ccxt.pro"])
def test_every_address_of_a_redirected_client_is_on_this_machine(name, library):
    import importlib

    client = getattr(importlib.import_module(library), name)(client_settings(name, timeout_seconds=1.0))
    before = list(texts(client.urls["api"]))
    redirect(client, HERE)
    after = list(texts(client.urls["api"]))
    assert len(after) == len(before)
    assert after
    for real, moved in zip(before, after, strict=True):
        there = urlsplit(moved)
        assert there.netloc == "127.0.0.1:8400"
        assert there.scheme == ("ws" if real.startswith("ws") else "http")
        assert "{" not in moved  # ccxt's place holders for the host are filled in
        host = urlsplit(client.implode_hostname(real)).hostname
        assert there.path == f"/{host}{urlsplit(real).path}"
    assert "test" not in client.urls


def test_the_addresses_of_binance_are_as_the_fake_exchange_reads_them():
    import ccxt.pro

    client = ccxt.pro.binance({})
    redirect(client, HERE + "/")
    assert client.urls["api"]["private"] == "http://127.0.0.1:8400/api.binance.com/api/v3"
    assert client.urls["api"]["ws"]["spot"] == "ws://127.0.0.1:8400/stream.binance.com/ws"  # without the port 9443
    assert client.urls["api"]["ws"]["ws-api"]["spot"] == "ws://127.0.0.1:8400/ws-api.binance.com/ws-api/v3"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://127.0.0.1:8400",
        "http://10.0.0.1:8400",
        "http://example.com",
        "http://127.0.0.1.example.com:80",
        "http://user@127.0.0.1:80",
        "http://127.0.0.1:8400/path",
        "http://127.0.0.1:8400?x=1",
        "http://127.0.0.1:99999",
        "http://0.0.0.0:8400",
        "ftp://127.0.0.1",
        "127.0.0.1:8400",
        "http://",
    ],
)
def test_an_endpoint_elsewhere_is_refused_before_anything_is_sent(endpoint):
    with pytest.raises(ConfigError, match="not an address on this machine"):
        Venues(ExchangeConfig(endpoint=endpoint)).client("binance")
    with pytest.raises(ConfigError, match="not an address on this machine"):
        account_venue(ExchangeConfig(endpoint=endpoint), LiveConfig(), Keys("key", "secret"))


@pytest.mark.parametrize("endpoint", ["http://localhost:1", "http://[::1]:8400", "http://127.0.0.2:80"])
def test_loopback_by_any_of_its_names_is_taken(endpoint):
    client: Any = Venues(ExchangeConfig(endpoint=endpoint)).client("binance")
    assert client.urls["api"]["public"].startswith(endpoint + "/api.binance.com/")


def test_without_an_endpoint_the_real_addresses_stay():
    client: Any = Venues(ExchangeConfig()).client("binance")
    assert client.urls["api"]["public"] == "https://api.binance.com/api/v3"


def test_clients_for_reading_carry_no_key():
    client: Any = Venues(ExchangeConfig(endpoint=HERE)).client("binance")
    assert not client.apiKey
    assert not client.secret


def test_a_venue_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="no exchange"):
        account_venue(ExchangeConfig(endpoint=HERE), LiveConfig(venue="mtgox"), Keys("key", "secret"))


def test_keys_are_revealed_to_the_hider_first_and_never_print():
    hidden: list[str] = []
    credentials = CredentialsConfig(api_key=SecretStr("env:A_KEY"), api_secret=SecretStr(CANARY), api_passphrase=SecretStr("phrase"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_KEY", "the-key")
        keys = account_keys(credentials, hidden.extend)
    assert (keys.api_key, keys.secret, keys.passphrase) == ("the-key", CANARY, "phrase")
    assert hidden == ["the-key", CANARY, "phrase"]
    for shown in (repr(keys), str(keys), f"{keys}"):
        assert not any(part in shown for part in hidden)


@pytest.mark.parametrize("missing", ["api_key", "api_secret"])
def test_half_a_key_is_no_key(missing):
    parts = {"api_key": SecretStr("a"), "api_secret": SecretStr("b")} | {missing: None}
    with pytest.raises(ConfigError, match="live trading needs"):
        account_keys(CredentialsConfig(**parts), lambda words: None)


def test_a_passphrase_reaches_the_client():
    venue = account_venue(ExchangeConfig(endpoint=HERE), LiveConfig(venue="okx"), Keys("a", "b", "c"))
    assert venue._client.password == "c"


def test_the_secret_shows_in_no_error_and_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    venue = account_venue(ExchangeConfig(endpoint="http://127.0.0.1:9"), LiveConfig(timeout_seconds=0.5), Keys("canary-key-77", CANARY))

    async def fail() -> list[str]:
        said = []
        for call in (venue.open, venue.rights, venue.balances):
            try:
                await call()
            except VenueError as error:
                said.append(f"{error!r} {error} {error.__cause__!r} {error.__context__!r}")
        await venue.close()
        return said

    said = asyncio.run(fail())
    assert len(said) == 3
    everything = " ".join(said) + caplog.text
    assert CANARY not in everything
    assert "canary-key-77" not in everything
    assert "signature" not in everything


def test_a_budget_is_shared_by_the_account_and_whoever_reads_candles_there():
    budget = Budget(1200.0, 0.2)
    client: Any = Venues(ExchangeConfig(endpoint=HERE), budgets={"binance": budget}).client("binance")
    venue = account_venue(ExchangeConfig(endpoint=HERE), LiveConfig(), Keys("a", "b"), budget=budget)
    client.throttle(100.0)
    assert venue.budget is budget
    assert budget.left() == pytest.approx(860.0)


def test_orders_are_never_repeated_by_the_client():
    venue = account_venue(ExchangeConfig(endpoint=HERE), LiveConfig(), Keys("a", "b"))
    assert venue._client.options["maxRetriesOnFailure"] == 0
