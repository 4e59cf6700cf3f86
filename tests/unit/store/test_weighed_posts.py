"""What a text weighs is stored with it; where all weigh alike the files are those of before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.tables import PostTable


@pytest.fixture
def bars():
    return simulate(SimulatedConfig(assets=1, bars=100, start="2021-01-01"), seed=1).dataset


def texts(start, ids, weight):
    moments = start + HOUR * np.arange(len(ids))
    return PostTable(
        source="x",
        happened_at=moments,
        known_at=moments,
        text=np.array([f"text {i}" for i in ids], object),
        post_id=np.array([str(i) for i in ids], object),
        weight=np.array(weight, float),
    )


def test_weights_come_back_and_files_without_them_weigh_one(tmp_path, bars):
    start = int(next(iter(bars.bars.values())).open_time[0])
    with History(Home(tmp_path)) as history:
        for table in bars.bars.values():
            history.write_bars("v", table, origin="o", simulated=True)
        history.write_posts(texts(start - 60 * DAY, [1, 2], [1.0, 1.0]), origin="o", simulated=True)  # a month of its own, without weights
        history.write_posts(texts(start, [3, 4], [1.0, 1.0]), origin="o", simulated=True)
        history.write_posts(texts(start + 10 * HOUR, [5, 4, 6], [0.25, 0.5, 1.0]), origin="o", simulated=True)
        loaded = history.load(interval=HOUR).posts["x"]
    assert dict(zip(loaded.post_id.tolist(), loaded.weight.tolist(), strict=True)) == {
        "1": 1.0,
        "2": 1.0,
        "3": 1.0,
        "4": 1.0,
        "5": 0.25,
        "6": 1.0,
    }


def test_texts_that_weigh_alike_are_stored_as_before(tmp_path, bars):
    start = int(next(iter(bars.bars.values())).open_time[0])
    import duckdb

    with History(Home(tmp_path)) as history:
        history.write_posts(texts(start, [3, 4], [1.0, 1.0]), origin="o")
    (file,) = tmp_path.rglob("*.parquet")
    columns = [row[0] for row in duckdb.connect().execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()]
    assert columns == ["happened_at", "known_at", "text", "post_id"]
    assert replace(texts(start, [3], [0.5])).weight.tolist() == [0.5]
