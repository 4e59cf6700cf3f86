"""Which data a verb works on: a directory that is named, the simulated market, or what the store holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, day_of, parse_interval
from cryptoalpha.data.files import load_directory
from cryptoalpha.data.simulated import simulate
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.tables import Dataset

USUAL_INTERVAL = "1h"
"""What `--interval` says where nobody says it; the simulated market then has the bars of its settings."""

FETCHED_DAYS, FETCHED_BARS = 60, (1_000, 100_000)
"""How much history the hint of a live run proposes: so many days, but no fewer and no more bars; most signals have an opinion then."""


def open_dataset(
    settings: Settings,
    home: Path,
    *,
    data: Path | None,
    simulated: bool,
    interval: str,
    instruments: Sequence[str] | None,
) -> Dataset:
    """The data of a run: `data` if a directory is named, the simulated market if asked for, else the store; texts pass the sieve where
    `signals.agents.sieve.on_history` says so.

    Raises:
        ConfigError: if both a directory and the simulated market are asked for, or bars that the simulated market does not have.
        DataMissingError: if there is nothing to work on; the hint names the ways to get something.
    """
    parse_interval(interval)  # a length that is none is a fault of usage, whatever the data hold
    if simulated and data is not None:
        raise ConfigError("--data and --simulated name two sources", hint="leave one of them out")
    if simulated and interval not in (USUAL_INTERVAL, settings.data.simulated.interval):
        raise ConfigError(
            f"--interval {interval}: the simulated market has {settings.data.simulated.interval} bars",
            hint=f"settings make the market: --set data.simulated.interval={interval}",
        )
    if simulated:
        dataset = simulate(settings.data.simulated, settings.engine.seed).dataset
    elif data is not None:
        dataset = load_directory(
            data,
            gate=BarGate(settings.store.bar_gate),
            now=time.time_ns(),
            interval=interval,
            instruments=instruments,
            config=settings.data.files,
        )
    else:
        dataset = open_store(home, interval=interval, instruments=instruments)
    sieve = settings.signals.agents.sieve
    if not sieve.on_history:
        return dataset
    from cryptoalpha.signals.agents.sieve import assets_of, sifted  # numba, for those alone who sift

    return sifted(dataset, assets_of(dataset), sieve)


def open_store(home: Path, *, interval: str, instruments: Sequence[str] | None, venue: str | None = None) -> Dataset:
    """What the store holds.

    Args:
        venue: whose bars; None where the store holds those of one venue only.

    Raises:
        DataMissingError: if it holds no bars of that length.
    """
    store = Home(home)
    ways = "name a directory with --data DIR, download with `cryptoalpha data fetch`, or try --simulated"
    if not store.manifest.exists():
        raise DataMissingError(f"the store {home} is empty", hint=ways)
    with History(store) as history:
        dataset = history.load(interval=parse_interval(interval), instruments=instruments, venue=venue)
    if not any(len(table) for table in dataset.bars.values()):
        raise DataMissingError(f"the store {home} holds no {interval} bars", hint=ways)
    return dataset


def open_venue(home: Path, *, venue: str, interval: str, instruments: Sequence[str] | None, now: int) -> Dataset:
    """What the store holds of one venue, for a run on that venue's live bars: prices of another are not its history.

    Raises:
        DataMissingError: if it holds no bars of that length; the hint is the command that gets them.
    """
    try:
        dataset = open_store(home, interval=interval, instruments=instruments, venue=venue)
    except DataMissingError as error:
        fewest, most = (bars * parse_interval(interval) for bars in FETCHED_BARS)
        since = day_of(now - min(max(FETCHED_DAYS * DAY, fewest), most))
        names = ",".join(instruments or ("BTC/USDT", "ETH/USDT"))
        raise DataMissingError(
            str(error),
            hint=f"cryptoalpha data fetch --venue {venue} --interval {interval} --instruments {names} --since {since}",
        ) from None
    # texts are named by their id, as when they came: the file they lie in is still growing
    posts = {
        source: replace(table, partition=np.full(len(table), ""), row=np.arange(len(table))) for source, table in dataset.posts.items()
    }
    return replace(dataset, posts=posts)
