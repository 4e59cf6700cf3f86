"""The one place where ccxt clients are built. Each venue gets one client, and with it one request budget, shared by whoever asks.

Candles and funding need no key; clients made here for reading have none, so they cannot trade by mistake. Only `account_venue` makes a
client with keys, and only live trading calls it. A factory can be passed instead, as tests do to point a real ccxt client at a server of
their own; `data.exchange.endpoint` points all of them at one server on this machine.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptoalpha.app.credentials import CredentialsConfig, Hide, reveal
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.candles import CandleClient
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live.budget import WINDOW_SECONDS, Budget
from cryptoalpha.execution.live.ccxt_venue import CcxtVenue

Factory = Callable[[str, dict[str, Any]], CandleClient]
"""Builds a client from a ccxt id and ccxt settings."""
_UNKNOWN_VENUE = "set data.exchange.venues to ids such as binance, okx, bybit"
_PING_MILLISECONDS = 10_000
"""How often an account's stream is asked whether it lives. ccxt's three minutes would leave a dead one unnoticed for six."""


@dataclass(frozen=True)
class Keys:
    """The key of an account. Its text never shows what it holds."""

    api_key: str = field(repr=False)
    secret: str = field(repr=False)
    passphrase: str = field(default="", repr=False)


def account_keys(credentials: CredentialsConfig, hide: Hide) -> Keys:
    """The configured key; `hide` is told every part before anyone sees it.

    Raises:
        ConfigError: if there is none, or a reference leads nowhere.
    """
    if credentials.api_key is None or credentials.api_secret is None:
        raise ConfigError(
            "live trading needs credentials.api_key and credentials.api_secret",
            hint="export CRYPTOALPHA_CREDENTIALS__API_KEY and CRYPTOALPHA_CREDENTIALS__API_SECRET, or keep them in files or the keyring",
        )
    phrase = credentials.api_passphrase
    return Keys(
        reveal(credentials.api_key, "api_key", hide),
        reveal(credentials.api_secret, "api_secret", hide),
        reveal(phrase, "api_passphrase", hide) if phrase is not None else "",
    )


def account_venue(
    exchange: ExchangeConfig,
    live: LiveConfig,
    keys: Keys,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> CcxtVenue:
    """The account that orders go to. Nothing is asked of the venue before `open`, which belongs to the loop that uses it.

    Raises:
        ConfigError: if ccxt knows no such venue, or the endpoint is not on this machine.
    """
    import ccxt.pro

    if live.venue not in ccxt.pro.exchanges:
        raise ConfigError(f"{live.venue!r} is no exchange that ccxt.pro knows", hint="set execution.live.venue to binance or binanceusdm")
    settings = {
        **client_settings(live.venue, timeout_seconds=live.timeout_seconds),
        "apiKey": keys.api_key,
        "secret": keys.secret,
        **({"password": keys.passphrase} if keys.passphrase else {}),
    }
    client = getattr(ccxt.pro, live.venue)(settings)
    client.logger = logging.getLogger(f"{__name__}.{live.venue}")
    client.logger.setLevel(logging.WARNING)  # ccxt's debug lines hold the key and the signed address of every request
    client.options["watchPositions"] = {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False}  # we ask for them ourselves
    client.streaming = {**client.streaming, "keepAlive": _PING_MILLISECONDS}
    redirect(client, exchange.endpoint)
    return CcxtVenue(client, live, budget=budget, seed=seed)


def request_budget(live: LiveConfig) -> Budget:
    """What may be asked of the account's venue in a minute, by whoever asks it."""
    return Budget(live.requests_per_minute, live.reserved_share)


def ccxt_client(name: str, settings: dict[str, Any]) -> CandleClient:
    """A real ccxt client.

    Raises:
        ConfigError: if ccxt knows no such venue.
    """
    import ccxt

    if name not in ccxt.exchanges:
        raise ConfigError(f"{name!r} is no exchange that ccxt knows", hint=_UNKNOWN_VENUE)
    client: CandleClient = getattr(ccxt, name)(settings)
    return client


def redirect(client: Any, endpoint: str) -> None:
    """Send every request of a ccxt client to `endpoint` instead: `https://HOST/PATH` becomes `{endpoint}/HOST/PATH`, `wss` likewise.

    Raises:
        ConfigError: if `endpoint` is no plain address of this machine: keys and orders go there.
    """
    if not endpoint:
        return
    base = _loopback(endpoint)

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if not isinstance(value, str):
            return value
        real = urlsplit(client.implode_hostname(value))
        scheme = "ws" if real.scheme in ("ws", "wss") else "http"
        return f"{scheme}://{base}/{real.hostname}{real.path}"

    client.urls["api"] = moved(client.urls["api"])
    client.urls.pop("test", None)
    client.urls.pop("demo", None)
    if hasattr(client, "timeout_on_exit"):
        client.timeout_on_exit = 0  # a quarter of a second for TLS to say goodbye; there is none


def client_settings(name: str, *, timeout_seconds: float) -> dict[str, Any]:
    """ccxt settings that all our clients share: no request that was not asked for, spot and perpetuals apart."""
    options: dict[str, Any] = {"fetchCurrencies": False, "fetchMargins": False}
    if name == "binance":
        options |= {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}
    return {"enableRateLimit": True, "timeout": int(timeout_seconds * 1000), "options": options}


class Venues:
    """Clients by ccxt id, each built once.

    Args:
        config: which venues, and how long to wait for an answer.
        factory: how clients are built.
        budgets: what may be asked of a venue, by ccxt id, where an account there shares its budget; ccxt's own throttle elsewhere.
    """

    def __init__(self, config: ExchangeConfig, *, factory: Factory = ccxt_client, budgets: Mapping[str, Budget] | None = None) -> None:
        self._config, self._factory, self._budgets = config, factory, budgets or {}
        self._clients: dict[str, CandleClient] = {}

    def client(self, name: str) -> CandleClient:
        """The one client of a venue, for reading public data."""
        if name not in self._clients:
            client = self._factory(name, client_settings(name, timeout_seconds=self._config.timeout_seconds))
            redirect(client, self._config.endpoint)
            if name in self._budgets:
                _share(client, self._budgets[name])
            self._clients[name] = client
        return self._clients[name]

    def candle_clients(self) -> list[CandleClient]:
        """Clients of the configured venues, in the order to try them."""
        return [self.client(name) for name in self._config.venues]

    def funding_client(self) -> CandleClient | None:
        """The venue that is asked for funding rates; None where that is switched off."""
        return self.client(self._config.funding_venue) if self._config.funding_venue else None


def _share(client: Any, budget: Budget) -> None:
    """Let a blocking client spend from a budget. It may wait as long as a full budget takes to be free again."""

    def throttle(cost: float | None = None) -> None:
        budget.wait(float(cost or 1.0), patience_seconds=2.0 * WINDOW_SECONDS)

    client.throttle = throttle


def _loopback(endpoint: str) -> str:
    """Host and port of an address on this machine."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here, host, port = False, "", None
    plain = is_here and parts.scheme == "http" and parts.username is None and not (parts.query or parts.fragment or parts.path.strip("/"))
    if not plain:
        raise ConfigError(
            f"data.exchange.endpoint {endpoint!r} is not an address on this machine",
            hint="write http://127.0.0.1:PORT, as `cryptoalpha fake-exchange` prints it, or leave it empty for the real venues",
        )
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if port else name
