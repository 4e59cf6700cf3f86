"""A directory of history as it lies: prices, funding, on-chain rows, mood and texts, each with the time it became known.

Layout (Parquet or CSV; every folder but the prices may be absent):

    price_1h/BTCUSDT.parquet          ts (bar OPEN), open, high, low, close, volume [, taker_buy_volume]; perp_1h/ likewise
    funding_8h/BTCUSDT.parquet        ts (settlement), funding_rate
    onchain_1d/btc_coinmetrics*       time (day) and Coin Metrics columns; a file without a further suffix counts first
    fear_greed_1d.parquet             date, fear_greed
    text/*                            ts, text [, title]; `*tweets*` become source `x`, all others `news`

A folder that holds bar files directly is read as prices of the interval asked for. Known at: a bar at its open + its length, funding at its
settlement, on-chain day D at D + 1 d + lag, mood of day D at D + lag, texts after an embargo (`data.texts`). Chosen with hindsight and
therefore never read: `major_events*`, labelled texts, sentiment columns, and merged or derived files of third parties.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np

from cryptoalpha.core.errors import DataError, DataMissingError
from cryptoalpha.core.time import HOUR, MINUTE, interval_name, iso, parse_interval
from cryptoalpha.data import coinmetrics, texts
from cryptoalpha.data.config import FilesConfig
from cryptoalpha.data.gated import through_gate
from cryptoalpha.data.metrics import MARKET
from cryptoalpha.data.rules import rules_for, split_instrument
from cryptoalpha.data.tabular import SUFFIXES, RawTable, columns_of, connect, list_tables, read_table
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable, Times

BAR_COLUMNS = ("open", "high", "low", "close", "volume")
_SYMBOL = re.compile(r"([A-Z0-9]+?)[-_]?(USDT|USDC|BUSD|USD|EUR|BTC|ETH|PERP)(?:_.*)?")
_HINDSIGHT = "major_events"
_CLOSE_STAMPED = re.compile(r"[A-Z0-9]+-PERP_.*")
"""Bars of a venue that stamps the CLOSE and counts volume in quote units (measured: closes agree with Binance one minute earlier)."""


@dataclass
class _Load:
    """What one load has in hand: where it reads from, under which rules, and what it used and noticed."""

    connection: duckdb.DuckDBPyConnection
    root: Path
    config: FilesConfig
    partitions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(
        self, path: Path, stamp: str, numbers: Sequence[str] = (), *, texts: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> RawTable:
        raw = read_table(self.connection, path, stamp=stamp, numbers=numbers, texts=texts, optional=optional)
        self.partitions.append(raw.partition)
        return raw


def load_directory(
    path: Path | str,
    *,
    gate: BarGate,
    now: int | None = None,
    interval: str = "1h",
    instruments: Sequence[str] | None = None,
    since: int | None = None,
    until: int | None = None,
    config: FilesConfig | None = None,
) -> Dataset:
    """Read a directory of history.

    Args:
        gate: the bar gate every bar passes; its report becomes notes of the dataset.
        now: when the directory is read, UTC ns: bars that end later are refused by the gate. None trusts the newest bar to have closed.
        instruments: which (`BTC/USDT`); all there are where None. Readings are kept for their bases and the market as a whole.
        since, until: keep bars that open in [`since`, `until`), and readings and posts known before `until`; earlier ones stay, they are
            what was known at the start.

    Raises:
        DataMissingError: if the directory, its bars, a wanted instrument or the period is missing.
        DataError: if a file is damaged, has the wrong columns, or stamps without a time zone or of several.
        BarGateError: if the gate is strict and a bar is not one an honest market printed.
    """
    root = Path(path)
    if not root.exists():
        raise DataMissingError(f"no directory {root}", hint="check the path, or fill the store with `cryptoalpha data fetch`")
    load = _Load(connect(), root, config or FilesConfig())
    try:
        bars = _load_bars(load, gate, now, interval, instruments)
        bars = _in_period(bars, since, until)
        readings = _load_readings(load, sorted({split_instrument(name)[0] for name in bars}))
        posts = _load_posts(load)
    finally:
        load.connection.close()
    if until is not None:
        readings = {key: table.take(table.known_at < until) for key, table in readings.items()}
        posts = {key: post.take(post.known_at < until) for key, post in posts.items()}
    perpetual = load.config.market == "perp"
    return Dataset(
        origin=f"files in {root.name or root}: {len(bars)} instrument{'s' if len(bars) != 1 else ''}, {interval} {load.config.market} bars",
        bars=bars,
        readings={key: table for key, table in readings.items() if len(table)},
        posts={key: post for key, post in posts.items() if len(post)},
        rules={name: rules_for(table, venue="binance", perpetual=perpetual) for name, table in bars.items()},
        fingerprint=hashlib.sha256("".join(sorted(load.partitions)).encode()).hexdigest(),
        notes=tuple(load.notes),
    )


# ── bars ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def instrument_of(stem: str) -> str | None:
    """`BTCUSDT` → `BTC/USDT`, `ETHBTC_anything` → `ETH/BTC`, `BTC-PERP_x` → `BTC/USD`; None where the name is no instrument."""
    match = _SYMBOL.fullmatch(stem)
    if match is None:
        return None
    return f"{match[1]}/{'USD' if match[2] == 'PERP' else match[2]}"


def _bar_files(load: _Load, interval: str) -> dict[str, Path]:
    """Bar files by instrument."""
    folder = load.root / f"{'price' if load.config.market == 'spot' else 'perp'}_{interval}"
    if load.root.is_file():
        candidates = [load.root] if load.root.suffix in SUFFIXES else []
    else:
        candidates = list_tables(folder) or list_tables(load.root)
    found: dict[str, Path] = {}
    for path in candidates:
        name = instrument_of(path.stem)
        if name is not None and name in found:
            raise DataError(f"{path} and {found[name].name} are both bars of {name}", hint="leave one of them in the directory")
        if name is not None:
            found[name] = path
    if not found:
        others = sorted(p.name for p in load.root.glob("p*_*") if p.is_dir()) if load.root.is_dir() else []
        raise DataMissingError(
            f"no bars in {load.root}: expected {folder.name}/BTCUSDT.parquet and the like, or such files directly"
            + (f"; there is {', '.join(others)}" if others else ""),
            hint="choose another --interval, or give the directory that holds the price folders",
        )
    return found


def _load_bars(load: _Load, gate: BarGate, now: int | None, interval: str, instruments: Sequence[str] | None) -> dict[str, BarTable]:
    files = _bar_files(load, interval)
    missing = [name for name in instruments or () if name not in files]
    if missing:
        raise DataMissingError(f"no bars for {', '.join(missing)} in {load.root}", hint=f"there are: {', '.join(sorted(files))}")
    length = parse_interval(interval)
    tables = {name: _bar_table(load, name, files[name], length) for name in sorted(instruments or files)}
    read_at = max(int(table.open_time.max()) for table in tables.values()) + length if now is None else now
    bars: dict[str, BarTable] = {}
    for name, table in tables.items():
        bars[name], note = through_gate(gate, table, now=read_at)
        load.notes.append(note)
        if not len(bars[name]):
            raise DataMissingError(f"{files[name]}: the bar gate kept no bar", hint=note)
    return bars


def _bar_table(load: _Load, name: str, path: Path, length: int) -> BarTable:
    """Bars as they lie in the file, not yet gated."""
    raw = load.read(path, "ts", BAR_COLUMNS, optional=("taker_buy_volume",))
    if not len(raw):
        raise DataMissingError(f"{path} holds no rows", hint="get the file again or take it out of the directory")
    stamp, volume = raw.stamp, raw.numbers["volume"]
    if _CLOSE_STAMPED.fullmatch(path.stem):
        stamp, volume = stamp - length, volume / raw.numbers["close"]
    _refuse_other_length(path, stamp, length)
    return BarTable(
        instrument=name,
        interval=length,
        open_time=stamp,
        open=raw.numbers["open"],
        high=raw.numbers["high"],
        low=raw.numbers["low"],
        close=raw.numbers["close"],
        volume=volume,
        taker_buy_volume=raw.numbers.get("taker_buy_volume", np.full(len(raw), np.nan)),
        partition=np.full(len(raw), raw.partition, "U16"),
        row=np.arange(len(raw)),
    )


def _refuse_other_length(path: Path, stamp: Times, length: int) -> None:
    """Refuse a file whose usual step is not the interval asked for: gating it would report gaps or off-grid bars by the thousand."""
    steps = np.diff(np.unique(stamp))
    if not steps.size:
        return
    usual = int(np.median(steps))
    if usual != length:
        found = interval_name(usual) if usual % MINUTE == 0 else f"{usual / HOUR:g} h"
        raise DataError(f"{path}: bars are usually {found} apart, not {interval_name(length)}", hint=f"ask for --interval {found}")


def _in_period(bars: dict[str, BarTable], since: int | None, until: int | None) -> dict[str, BarTable]:
    """Bars that open in the period; instruments without any are left out."""
    if since is None and until is None:
        return bars
    low, high = since if since is not None else 0, until if until is not None else np.iinfo(np.int64).max
    kept = {name: table.take((table.open_time >= low) & (table.open_time < high)) for name, table in bars.items()}
    kept = {name: table for name, table in kept.items() if len(table)}
    if not kept:
        first = min(int(table.open_time[0]) for table in bars.values())
        last = max(int(table.known_at[-1]) for table in bars.values())
        raise DataMissingError(
            f"no bars from {iso(low)}" + (f" until {iso(high)}" if until is not None else ""),
            hint=f"there are bars from {iso(first)} to {iso(last)}",
        )
    return kept


# ── readings ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _load_readings(load: _Load, assets: Sequence[str]) -> dict[tuple[str, str], ReadingTable]:
    readings: dict[tuple[str, str], ReadingTable] = {}
    for path in list_tables(load.root / "funding_8h"):
        name = instrument_of(path.stem)
        if name is not None and split_instrument(name)[0] in assets:
            asset = split_instrument(name)[0]
            readings[asset, "funding_rate"] = _funding(load.read(path, "ts", ("funding_rate",)), asset)
    lag = int(load.config.chain_lag_hours * HOUR)
    for asset in assets:
        readings |= coinmetrics.read_chain(asset, _chain_files(load, asset), lag=lag)
    stablecoins = [raw for coin in coinmetrics.STABLECOINS for raw in _chain_files(load, coin)[:1]]
    readings |= coinmetrics.read_stablecoins(stablecoins, lag=lag)
    for path in list_tables(load.root):
        if path.stem == "fear_greed_1d":
            raw = load.read(path, "date", ("fear_greed",))
            mood = coinmetrics.daily_reading(
                MARKET, "fear_greed", "alternative.me", raw, raw.numbers["fear_greed"], delay=int(load.config.mood_lag_hours * HOUR)
            )
            readings[MARKET, "fear_greed"] = mood
    return readings


def _chain_files(load: _Load, asset: str) -> list[RawTable]:
    """On-chain files of an asset, the one without a suffix first."""
    stem = f"{asset.lower()}_coinmetrics"
    paths = [path for path in list_tables(load.root / "onchain_1d") if path.stem == stem or path.stem.startswith(f"{stem}_")]
    return [load.read(path, coinmetrics.STAMP, optional=coinmetrics.COLUMNS) for path in sorted(paths, key=lambda p: (len(p.stem), p.stem))]


def _funding(raw: RawTable, asset: str) -> ReadingTable:
    """Funding is known at its settlement."""
    rows = np.flatnonzero(np.isfinite(raw.numbers["funding_rate"]))
    rows = rows[np.argsort(raw.stamp[rows], kind="stable")]
    return ReadingTable(
        asset=asset,
        metric="funding_rate",
        source="binance",
        happened_at=raw.stamp[rows],
        known_at=raw.stamp[rows],
        value=raw.numbers["funding_rate"][rows],
        partition=np.full(len(rows), raw.partition, "U16"),
        row=rows,
    )


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _load_posts(load: _Load) -> dict[str, PostTable]:
    files: list[texts.TextFile] = []
    for path in list_tables(load.root / "text"):
        if path.stem.startswith(_HINDSIGHT):
            load.notes.append(f"{path.stem}: chosen with hindsight, not read")
            continue
        titled = "title" in columns_of(load.connection, path)
        raw = load.read(path, "ts", texts=("text", "title") if titled else ("text",))
        source = "x" if "tweets" in path.stem else "news"
        files.append(texts.TextFile(source, raw, date_only="dateonly" in path.stem))
    posts, counts = texts.build_posts(files, embargo=int(load.config.text_embargo_hours * HOUR))
    load.notes.extend(str(count) for count in counts)
    return posts
