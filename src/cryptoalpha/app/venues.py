"""The one place where ccxt clients are built. Each venue gets one client, and with it one request budget, shared by whoever asks.

Candles and funding need no key; clients made here for reading have none, so they cannot trade by mistake. A factory can be passed instead,
as tests do to point a real ccxt client at a server of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.candles import CandleClient
from cryptoalpha.data.config import ExchangeConfig

Factory = Callable[[str, dict[str, Any]], CandleClient]
"""Builds a client from a ccxt id and ccxt settings."""


def ccxt_client(name: str, settings: dict[str, Any]) -> CandleClient:
    """A real ccxt client.

    Raises:
        ConfigError: if ccxt knows no such venue.
    """
    import ccxt

    if name not in ccxt.exchanges:
        raise ConfigError(f"{name!r} is no exchange that ccxt knows", hint="set data.exchange.venues to ids such as binance, okx, bybit")
    client: CandleClient = getattr(ccxt, name)(settings)
    return client


class Venues:
    """Clients by ccxt id, each built once.

    Args:
        config: which venues, and how long to wait for an answer.
        factory: how clients are built.
    """

    def __init__(self, config: ExchangeConfig, *, factory: Factory = ccxt_client) -> None:
        self._config, self._factory = config, factory
        self._clients: dict[str, CandleClient] = {}

    def client(self, name: str) -> CandleClient:
        """The one client of a venue, for reading public data."""
        if name not in self._clients:
            self._clients[name] = self._factory(name, self._settings(name))
        return self._clients[name]

    def candle_clients(self) -> list[CandleClient]:
        """Clients of the configured venues, in the order to try them."""
        return [self.client(name) for name in self._config.venues]

    def funding_client(self) -> CandleClient | None:
        """The venue that is asked for funding rates; None where that is switched off."""
        return self.client(self._config.funding_venue) if self._config.funding_venue else None

    def _settings(self, name: str) -> dict[str, Any]:
        options: dict[str, Any] = {"fetchCurrencies": False, "fetchMargins": False}
        if name == "binance":
            options |= {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}
        return {"enableRateLimit": True, "timeout": int(self._config.timeout_seconds * 1000), "options": options}
