"""Small markets made by hand for the tests of the signal models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable

START = 20_000 * 24 * HOUR
"""A midnight: day 20,000 since 1970."""

MakeFrame = Callable[..., Frame]


def _bars(name: str, closes: Sequence[float], interval: int) -> BarTable:
    """Bars that open at the close before; NaN = no bar."""
    close = np.asarray(closes, float)
    open_ = np.concatenate(([close[0]], close[:-1]))
    open_ = np.where(np.isfinite(open_), open_, close)
    table = BarTable(
        instrument=name,
        interval=interval,
        open_time=START + interval * np.arange(close.size),
        open=open_,
        high=np.maximum(open_, close),
        low=np.minimum(open_, close),
        close=close,
        volume=np.ones(close.size),
    )
    return table.take(np.isfinite(close))


@pytest.fixture(scope="session")
def start() -> int:
    """Open of the first bar of every handmade market."""
    return START


@pytest.fixture(scope="session")
def make_frame() -> MakeFrame:
    """Build a frame from closes per instrument, readings {(asset, metric): [(known_at, value)]}, posts {source: [(known_at, text)]}."""

    def make(
        closes: Mapping[str, Sequence[float]],
        *,
        readings: Mapping[tuple[str, str], Sequence[tuple[int, float]]] | None = None,
        posts: Mapping[str, Sequence[tuple[int, str]]] | None = None,
        interval: int = HOUR,
        first: int = 0,
    ) -> Frame:
        tables = {
            (asset, metric): ReadingTable(
                asset, metric, "hand", np.array([k for k, _ in rows], np.int64), np.array([k for k, _ in rows], np.int64),
                np.array([v for _, v in rows], float),
            )
            for (asset, metric), rows in (readings or {}).items()
        }  # fmt: skip
        texts = {
            source: PostTable(
                source=source,
                happened_at=np.array([k for k, _ in rows], np.int64),
                known_at=np.array([k for k, _ in rows], np.int64),
                text=np.array([text for _, text in rows], object),
                post_id=np.array([f"p{i}" for i in range(len(rows))], object),
            )
            for source, rows in (posts or {}).items()
        }
        dataset = Dataset("by hand", {name: _bars(name, values, interval) for name, values in closes.items()}, tables, texts)
        panel = build_panel(dataset, since=0, until=2**62, instruments=list(closes))
        return Frame(panel, dataset, first)

    return make
