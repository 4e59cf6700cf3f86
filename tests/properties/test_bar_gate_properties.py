"""The bar gate never uses the future, never invents, and has nothing to say about what it let through."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Bar
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.config import BarGateConfig
from cryptoalpha.store.tables import BarTable

CONFIG = BarGateConfig(window=6, min_volume_history=3)
PRICE = st.one_of(st.floats(90, 110), st.sampled_from([0.001, 45.0, 160.0, 250.0, 1000.0, float("nan"), float("inf"), 0.0, -1.0]))


@st.composite
def dirty_bars(draw: st.DrawFn) -> BarTable:
    """Bars with every fault there is, in any order."""
    n = draw(st.integers(1, 40))
    places = draw(st.lists(st.integers(0, 45), min_size=n, max_size=n))
    if draw(st.booleans()):
        places.sort()
    nudges = draw(st.lists(st.sampled_from([0] * 9 + [7]), min_size=n, max_size=n))
    close = np.array(draw(st.lists(PRICE, min_size=n, max_size=n)))
    spread = draw(st.lists(st.sampled_from([1.0, 1.01, 1.5, 3.0, 0.99]), min_size=2 * n, max_size=2 * n))
    volume = draw(st.lists(st.sampled_from([10.0, 10.0, 10.0, 50.0, 0.0, -1.0]), min_size=n, max_size=n))
    return BarTable(
        instrument="X/Y",
        interval=HOUR,
        open_time=np.array(places) * HOUR + np.array(nudges),
        open=close,
        high=close * np.array(spread[:n]),
        low=close / np.array(spread[n:]),
        close=close,
        volume=np.array(volume),
    )


@settings(max_examples=50, deadline=None)
@given(table=dirty_bars(), cut=st.integers(0, 46))
def test_removing_later_bars_changes_no_verdict_on_earlier_ones(table, cut):
    moment = 50 * HOUR
    whole, _ = BarGate(CONFIG).check(table, now=moment)
    part, _ = BarGate(CONFIG).check(table.take(table.open_time <= cut * HOUR), now=moment)
    head = whole.take(whole.open_time <= cut * HOUR)
    for name in BarTable.columns():
        assert_array_equal(getattr(head, name), getattr(part, name))


@settings(max_examples=50, deadline=None)
@given(table=dirty_bars(), cut=st.integers(0, 46))
def test_poisoning_later_bars_changes_no_verdict_on_earlier_ones(table, cut):
    later = table.open_time > cut * HOUR
    poisoned = BarTable(
        **{
            "instrument": "X/Y",
            "interval": HOUR,
            "open_time": table.open_time,
            **{name: np.where(later, 7777.0, getattr(table, name)) for name in ("open", "high", "low", "close", "volume")},
        }
    )
    clean, _ = BarGate(CONFIG).check(table, now=50 * HOUR)
    other, _ = BarGate(CONFIG).check(poisoned, now=50 * HOUR)
    for name in ("open_time", "open", "high", "low", "close", "volume"):
        assert_array_equal(
            getattr(clean, name)[clean.open_time <= cut * HOUR],
            getattr(other, name)[other.open_time <= cut * HOUR],
        )


@settings(max_examples=50, deadline=None)
@given(table=dirty_bars(), now=st.integers(0, 50))
def test_what_passes_is_sorted_unique_closed_possible_and_was_there(table, now):
    accepted, report = BarGate(CONFIG).check(table, now=now * HOUR)
    assert report.rows_out == len(accepted)
    assert bool(np.all(np.diff(accepted.open_time) > 0))
    assert bool(np.all(accepted.known_at <= now * HOUR))
    assert set(accepted.open_time) <= set(table.open_time)
    for i in range(len(accepted)):
        row = int(accepted.row[i])
        assert (accepted.close[i], accepted.open[i], accepted.volume[i]) == (table.close[row], table.open[row], table.volume[row])
        Bar(
            happened_at=int(accepted.open_time[i]),
            known_at=int(accepted.known_at[i]),
            instrument="X/Y",
            interval=HOUR,
            open=float(accepted.open[i]),
            high=float(accepted.high[i]),
            low=float(accepted.low[i]),
            close=float(accepted.close[i]),
            volume=float(accepted.volume[i]),
        )


@settings(max_examples=50, deadline=None)
@given(table=dirty_bars())
def test_every_bar_is_accepted_or_accounted_for(table):
    _, report = BarGate(CONFIG).check(table, now=50 * HOUR)
    removing = ("impossible_value", "impossible_range", "future", "open_bar", "off_grid", "duplicate", "conflicting_duplicate", "jump")
    assert report.rows_in == report.rows_out + sum(report.count(fault) for fault in removing)
