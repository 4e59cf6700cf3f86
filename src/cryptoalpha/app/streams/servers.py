"""Where live messages and state are kept, as the settings say: files of this store, or Kafka and Redis; and where agents live.

Everything that opens one of them asks here, so an address that is none and a server that is away are the same error everywhere: a
`ConfigError` (exit 2) and a `VenueError` (exit 5). A file of our own that is damaged stays a `StoreError` (exit 3).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.data.bus.contract import Bus
from cryptoalpha.data.bus.open import open_bus
from cryptoalpha.data.streams_config import StreamsConfig
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.store.state.contract import StateStore
from cryptoalpha.store.state.open import open_state

FOLDER = "streams"
BUS_FILE, STATE_FILE = "bus.sqlite", "state.sqlite"


@dataclass(frozen=True)
class Servers:
    """How a bus and a state are opened; each may be opened again after it failed."""

    bus: Callable[[], AbstractAsyncContextManager[Bus]]
    state: Callable[[], AbstractAsyncContextManager[StateStore]]


def servers_of(settings: Settings, home: Path, *, clock: Clock | None = None) -> Servers:
    """Those of the settings.

    Raises (on entering one):
        ConfigError: if an address is none, a package is missing, or a password is refused.
        StoreError: if a file cannot be used.
        VenueError: if a server does not answer.
    """
    config, folder = settings.data.streams, home / FOLDER
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # what it says of a broker that is away, our errors say

    @asynccontextmanager
    async def bus() -> AsyncIterator[Bus]:
        if config.backend == "servers":
            for one in config.kafka_servers.split(","):
                host_and_port("kafka_servers", one)
        async with open_bus(config, folder / BUS_FILE) as opened:
            yield opened

    return Servers(bus, lambda: state_of(config, home, clock=clock))


@asynccontextmanager
async def state_of(
    config: StreamsConfig, home: Path, *, clock: Clock | None = None, patience_seconds: float = 5.0
) -> AsyncIterator[StateStore]:
    """The state of the settings; see `servers_of`.

    Args:
        patience_seconds: how long a server that does not answer is asked again.
    """
    if config.backend == "servers":
        host_and_port("redis_address", config.redis_address)
    state = open_state(
        config.backend,
        path=home / FOLDER / STATE_FILE,
        address=config.redis_address,
        clock=clock,
        patience_seconds=patience_seconds,
    )
    try:
        await state.__aenter__()
    except StoreError as error:
        if config.backend == "embedded":
            raise
        raise VenueError(str(error), hint=error.hint) from error
    try:
        yield state
    finally:
        await state.close()


def host_and_port(setting: str, address: str) -> tuple[str, int]:
    """The parts of an address.

    Raises:
        ConfigError: if it is none.
    """
    host, _, port = address.strip().rpartition(":")
    if not host or "/" in host or not (port.isdecimal() and 0 < int(port) < 65_536):
        raise ConfigError(f"data.streams.{setting}: {address.strip()!r} is not host:port", hint="such as localhost:9092, without http://")
    return host.strip("[]"), int(port)


def runtime_of(settings: Settings) -> RuntimeConfig:
    """Where agents live. Agents on Ray that share Kafka and Redis with others are on the cluster those share, unless told another."""
    runtime, streams = settings.learn.runtime, settings.data.streams
    if runtime.backend == "ray" and not runtime.address and streams.backend == "servers":
        return runtime.model_copy(update={"address": streams.ray_address})
    return runtime
