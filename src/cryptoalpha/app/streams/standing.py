"""How live sources stand, for people and for Prometheus: from the health a session writes down, and what the settings would open."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.servers import FOLDER, STATE_FILE, host_and_port, state_of
from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.registry import Unavailable, open_sources
from cryptoalpha.data.streams_config import StreamsConfig
from cryptoalpha.monitoring.metrics import SetMetric
from cryptoalpha.store.state.contract import StateStore
from cryptoalpha.store.state.sqlite_state import SqliteState

SILENT_SECONDS = 30.0
"""A source nobody has written about for so long is not listened to any more."""

HEALTH_SECONDS = 5.0
"""How often a session writes down how its sources fare."""

HEALTH_AREA = "health"


async def keep_health(state: StateStore, health: Mapping[str, Health], now: int) -> None:
    """Write down how sources fare; forgotten after an hour without news."""
    encode = msgspec.json.encode
    await state.put({f"{HEALTH_AREA}/{name}": encode({**asdict(one), "at": now}) for name, one in health.items()}, expires_seconds=3600.0)


async def kept_health(state: StateStore) -> dict[str, tuple[Health, int]]:
    """What `keep_health` wrote, by source: how it fares, and when that was written (UTC ns)."""
    names = await state.names(HEALTH_AREA)
    found: dict[str, tuple[Health, int]] = {}
    for name, data in zip(names, await state.get(names), strict=True):
        if data is not None:
            content = msgspec.json.decode(data)
            at = content.pop("at")
            found[name.removeprefix(f"{HEALTH_AREA}/")] = (msgspec.convert(content, Health), at)
    return found


@dataclass(frozen=True)
class SourceStanding:
    """One source as the session that listens to it last wrote, `age_seconds` ago."""

    name: str
    health: Health
    age_seconds: float
    freshness_seconds: float | None
    """Since the newest message came; None where none has come."""

    @property
    def state(self) -> str:
        """What it is doing, or that nobody listens."""
        return self.health.state if self.age_seconds <= SILENT_SECONDS else "not running"

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            **asdict(self.health),
            "state": self.state,
            "age_seconds": self.age_seconds,
            "freshness_seconds": self.freshness_seconds,
        }

    def row(self) -> tuple[str, ...]:
        """A line of a table: name, state, messages, unreadable, lag, newest, why."""
        health = self.health
        newest = "–" if self.freshness_seconds is None else f"{self.freshness_seconds:.0f} s ago"
        lag = "–" if not health.last_message else f"{health.lag_seconds:+.2f} s"
        return self.name, self.state, f"{health.messages:,}", f"{health.dead:,}", lag, newest, in_short(health.reason)

    def rows(self) -> list[tuple[str, ...]]:
        """Its line, and one for each part that has fallen silent while others are heard: a stream may be open and bring nothing."""
        quiet = []
        for name, part in sorted(self.health.parts.items()):
            at = SourceStanding(f"{self.name}.{name}", part, self.age_seconds, None)
            since = (self.health.last_message - part.last_message) / SECOND
            if self.state == "connected" and (part.state != "connected" or since > QUIET_SECONDS):
                fresh = (self.freshness_seconds or 0.0) + since if part.last_message else None
                quiet.append(replace(at, freshness_seconds=fresh).row())
        return [self.row(), *quiet]


QUIET_SECONDS = 60.0
"""A part that is so much older than the newest of its source is shown on its own."""

_SHORT = 160

COLUMNS = ("source", "state", "messages", "unreadable", "lag", "newest", "why")


def source_standings(settings: Settings, home: Path, *, now: int) -> list[SourceStanding]:
    """What sessions of this store last wrote; empty where none has listened lately.

    Raises:
        ConfigError, StoreError, VenueError: if the state cannot be read (`servers`).
    """
    config = settings.data.streams
    if config.backend == "embedded" and not (home / FOLDER / STATE_FILE).is_file():
        return []

    async def read() -> dict[str, tuple[Health, int]]:
        async with state_of(config, home, patience_seconds=config.answer_seconds) as state:
            return await kept_health(state)

    return [
        SourceStanding(name, health, max(now - at, 0) / SECOND, max(now - health.last_message, 0) / SECOND if health.last_message else None)
        for name, (health, at) in asyncio.run(read()).items()
    ]


def openable(settings: Settings, environment: Mapping[str, str] | None = None) -> tuple[list[str], list[Unavailable]]:
    """Names of the sources that would run, and those that are wanted and cannot. Nothing is connected."""

    async def look() -> tuple[list[str], list[Unavailable]]:
        config = settings.data.streams.sources
        async with SqliteState(None) as state:
            tools = Tools(state=state, transfers=config.transfers, instruments=("BTC/USDT",))
            if environment is not None:
                tools = Tools(state=state, transfers=config.transfers, instruments=("BTC/USDT",), environment=environment)
            found = open_sources(config, tools)
            running = [one for one in found if not isinstance(one, Unavailable)]
            for source in running:
                await source.close()
            return [one.name for one in running], [one for one in found if isinstance(one, Unavailable) and one.wanted]

    return asyncio.run(look())


def in_short(reason: str) -> str:
    """As much of a reason as a table's line has room for; the whole of it is in `--json`."""
    return reason if len(reason) <= _SHORT else f"{reason[: _SHORT - 1]}…"


def faults_of_servers(config: StreamsConfig) -> list[ConfigError | VenueError]:
    """Packages that are missing, addresses that are none and servers that accept no connection; none for the embedded backend.

    Nothing is said to servers that accept one: a password is tried by who uses it.
    """
    if config.backend == "embedded":
        return []
    wanted = [("Kafka", "kafka_servers", one.strip()) for one in config.kafka_servers.split(",")]
    found: list[ConfigError | VenueError] = [
        ConfigError(f"{server} needs the package {package}", hint='pip install "cryptoalpha[streams]"')
        for server, package in (("Kafka", "aiokafka"), ("Redis", "redis"))
        if importlib.util.find_spec(package) is None
    ]
    for name, setting, address in [*wanted, ("Redis", "redis_address", config.redis_address)]:
        try:
            socket.create_connection(host_and_port(setting, address), timeout=config.answer_seconds).close()
        except ConfigError as error:
            found.append(error)
        except OSError as error:
            why = error.strerror or f"{error}"
            hint = "start it, correct its address in data.streams, or set data.streams.backend to embedded"
            found.append(VenueError(f"{name} at {address} does not answer: {why}", hint=hint))
    return found


def set_metrics(put: SetMetric, health: Mapping[str, Health], counts: Mapping[str, int], *, now: int, is_open: bool = True) -> None:
    """Write the metrics of live streams; `put(name, value, *labels)`."""
    put("cryptoalpha_stream_open", float(is_open))
    for name, one in health.items():
        put("cryptoalpha_source_up", float(one.state == "connected"), name)
        put("cryptoalpha_source_messages", float(one.messages), name)
        put("cryptoalpha_source_unreadable", float(one.dead), name)
        put("cryptoalpha_source_reconnects", float(one.reconnects), name)
        if one.last_message:
            put("cryptoalpha_source_age_seconds", max(now - one.last_message, 0) / SECOND, name)
            put("cryptoalpha_source_lag_seconds", one.lag_seconds, name)
        if one.least_lag_seconds is not None:
            put("cryptoalpha_source_least_lag_seconds", one.least_lag_seconds, name)
        for part, its in one.parts.items():
            put("cryptoalpha_source_part_up", float(its.state == "connected"), name, part)
            if its.last_message:
                put("cryptoalpha_source_part_age_seconds", max(now - its.last_message, 0) / SECOND, name, part)
        for unit, amount in one.spent.items():
            put("cryptoalpha_source_spent", amount, name, unit)
    put("cryptoalpha_stream_lost_logs", float(counts.get("lost_logs", 0)))
    put("cryptoalpha_stream_dropped", float(counts.get("dropped", 0)))
