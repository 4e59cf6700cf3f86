"""Recordings of live sources, read again by the parsers that read them live.

Nothing is connected and no key is asked for: a source's parser needs its settings alone.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources import chain_replay
from cryptoalpha.data.sources.market_reader import MarketReader
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.recording import Read, Recorded, ReplaySource, read_recordings
from cryptoalpha.data.sources.venues.catalogue import VENUES
from cryptoalpha.store.state.sqlite_state import SqliteState

TEXTS = ("x", "reddit", "news")
CHAINS = ("mempool", "ethereum", "coinmetrics", "fear_greed")


class _AnyKey(Mapping[str, str]):
    """An environment in which every key is set: a parser never uses it."""

    def __getitem__(self, name: str) -> str:
        return "replay"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass
class Replayed:
    """What one channel's recording held."""

    channel: str
    raw: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Values by kind."""
    dead: Counter[str] = field(default_factory=Counter)
    """What nobody could read, by the first words of the reason."""
    first: int = 0
    last: int = 0
    """Times of receipt, UTC ns."""

    def as_dict(self) -> dict[str, object]:
        return {
            "channel": self.channel,
            "messages": self.raw,
            "values": dict(self.kinds),
            "unreadable": dict(self.dead),
            "first": self.first,
            "last": self.last,
        }


def reader_of(channel: str, settings: Settings, instruments: Sequence[str], *, subject: str = "") -> Read:
    """The parser of a channel: a source's name, or a venue's, with or without a family (`binance.trades`).

    Raises:
        ConfigError: if nothing of that name reads anything, or a package is missing.
    """
    config, name = settings.data.streams.sources, channel.split(".", maxsplit=1)[0]
    if name in TEXTS:
        module = importlib.import_module(f"cryptoalpha.data.sources.{name}")
        tools = Tools(SqliteState(None), environment=_AnyKey(), instruments=tuple(instruments))
        read: Read = module.open_source(getattr(config, name), tools).read
        return read
    chains: dict[str, Callable[[], Read]] = {
        "mempool": lambda: chain_replay.mempool_reader(config.mempool, transfers=config.transfers),
        "ethereum": lambda: chain_replay.ethereum_reader(config.ethereum, transfers=config.transfers),
        "coinmetrics": lambda: chain_replay.coinmetrics_reader([one.split("/")[0] for one in instruments], config.coinmetrics),
        "fear_greed": lambda: chain_replay.fear_greed_reader(config.fear_greed),
    }
    if name in chains:
        return chains[name]()
    if name in VENUES:
        return partial(MarketReader(name, subject=subject).read)
    raise ConfigError(
        f"nothing reads the channel {channel!r}", hint=f"--as names one of {', '.join((*TEXTS, *CHAINS, *VENUES))}, with .FAMILY or without"
    )


def channels_in(place: Path) -> dict[str, list[Path]]:
    """The recordings of a folder by channel, or one file.

    Raises:
        DataMissingError: if there is none.
    """
    files = sorted(place.glob("*.jsonl*")) if place.is_dir() else [place] if place.is_file() else []
    if not files:
        raise DataMissingError(
            f"{place} holds no recordings: no file CHANNEL-*.jsonl or CHANNEL-*.jsonl.gz",
            hint=f"data.streams.sources.recording.enabled=true makes them; a file of another name whose lines are `NANOSECONDS JSON` is "
            f"read with --as CHANNEL ({', '.join((*TEXTS, *CHAINS, *VENUES))})",
        )
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(file.name.split("-")[0], []).append(file)
    return found


def replay_recording(
    channel: str,
    files: Sequence[Path],
    read: Read,
    *,
    speed: float = 0.0,
    heard: Callable[[Envelope], None] = lambda envelope: None,
) -> Replayed:
    """Read a channel's files through its parser, `speed` times as fast as they came (0: at once).

    Raises:
        DataError: if a file is no recording.
    """
    found = Replayed(channel)

    def counted() -> Iterator[Recorded]:
        for one in read_recordings(files):
            found.raw += 1
            found.first, found.last = found.first or one.received_at, one.received_at
            yield one

    async def run() -> None:
        source = ReplaySource(channel, ("replay",), counted, read, speed=speed)
        async for arrival in source.arrivals(""):
            for envelope in arrival.envelopes:
                found.kinds[envelope.kind] += 1
                heard(envelope)
            found.dead.update(letter.reason[:60] for letter in arrival.dead)

    asyncio.run(run())
    return found
