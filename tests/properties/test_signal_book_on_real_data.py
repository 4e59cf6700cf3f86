"""The book on real history: the newest bar prepared alone equals the batch, through outages and listings."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.files import load_directory
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.store.bar_gate import BarGate


@pytest.mark.parametrize(
    ("since", "rows"),
    [
        ("2023-03-24T10:00", (0, 3, 4, 5, 30)),  # a venue outage of all assets at 13:00
        ("2020-08-12T00:00", (0, 100)),  # SOL was listed the day before; on-chain archives end in July
    ],
)
def test_live_equals_batch_to_the_last_bit(market_data, since, rows):
    dataset, book = load_directory(market_data, gate=BarGate()), SignalBook()
    start = parse_time(since)
    batch = book.prepare(dataset, since=start, until=start + 240 * HOUR)
    arrays = batch.arrays()
    for t in rows:
        opened = int(batch.panel.open_time[t])
        if not batch.panel.present[t].any():
            assert batch.signals_at(t) == []
            continue
        live = book.prepare(dataset.known_until(int(batch.panel.known_at[t])), since=opened, until=opened + 1)
        assert live.signals_at(0) == batch.signals_at(t)
        assert repr(live.states_at(0)) == repr(batch.states_at(t))
        for name, array in live.arrays().items():
            assert np.array_equal(array[0], arrays[name][t], equal_nan=array.dtype.kind == "f"), name
