"""Whatever becomes known after a moment: features, pairs, joins, scalers and labels up to it stay as they are, to the last bit; and no
instrument is told apart by its place."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.config import ForecastConfig, TextConfig
from cryptoalpha.signals.forecast.arrays import ForecastArrays, forecast_arrays
from cryptoalpha.signals.forecast.labels import ForecastLabels, forecast_labels
from cryptoalpha.signals.forecast.scaling import fit_scalers
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.text import open_encoder
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BARS, FIRST = 900, 700
CONFIG = ForecastConfig(context_bars=16, block_bars=8, correlation_bars=(24, 96))
POISONS = (np.nan, 0.0, 1e6, 1e300)
rows = st.integers(FIRST + 40, BARS - 2)


def looked_at(dataset: Dataset, names: list[str] | None = None) -> tuple[Frame, ForecastArrays, ForecastLabels]:
    frame = Frame(build_panel(dataset, since=0, until=2**62, instruments=names), dataset, first=FIRST)
    return frame, forecast_arrays(frame, CONFIG, open_encoder(TextConfig())), forecast_labels(frame.panel, frame.sigma, CONFIG)


@cache
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=3, bars=BARS, posts_per_day=12.0), seed=21).dataset


@cache
def whole() -> tuple[Frame, ForecastArrays, ForecastLabels]:
    return looked_at(market())


def poisoned(moment: int, value: float) -> Dataset:
    def spoil(table):
        late = table.known_at > moment
        columns = ("open", "high", "low", "close", "volume", "taker_buy_volume")
        return replace(table, **{name: np.where(late, value, getattr(table, name)) for name in columns})

    return replace(
        market(),
        bars={name: spoil(table) for name, table in market().bars.items()},
        readings={k: replace(t, value=np.where(t.known_at > moment, value, t.value)) for k, t in market().readings.items()},
        posts={k: replace(t, text=np.where(t.known_at > moment, "SIM1 SIM2 hacked", t.text)) for k, t in market().posts.items()},
    )


def assert_same_up_to(row: int, dataset: Dataset) -> None:
    before_frame, before, known_labels = whole()
    _, arrays, labels = looked_at(dataset)
    moment, kept = int(before_frame.panel.known_at[row]), row + 1 - before.begin
    assert arrays.begin == before.begin
    for name in ("price", "chain", "pair", "present", "sigma", "known_at"):
        assert getattr(arrays, name)[:kept].tobytes() == getattr(before, name)[:kept].tobytes(), name
    for mine, theirs in zip(arrays.text.rows(np.arange(kept)), before.text.rows(np.arange(kept)), strict=True):
        assert mine.tobytes() == theirs.tobytes()
    for h in range(len(CONFIG.horizon_bars)):
        settled = known_labels.known_at[:, h] <= moment
        same = labels.known_at[:, h] <= moment
        assert settled.sum() == same.sum() > 0
        for name in ("move", "volatility"):
            assert getattr(labels, name)[same, :, h].tobytes() == getattr(known_labels, name)[settled, :, h].tobytes(), name
    settled, same = known_labels.correlation_known_at <= moment, labels.correlation_known_at <= moment
    assert labels.correlation[same].tobytes() == known_labels.correlation[settled].tobytes()
    training = np.arange(FIRST, row + 1)
    mine, theirs = (fit_scalers(of, training, clip=8.0).as_arrays() for of in (arrays, before))
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)


@settings(max_examples=6, deadline=None)
@given(row=rows)
def test_removing_the_future_changes_nothing(row):
    assert_same_up_to(row, market().known_until(int(whole()[0].panel.known_at[row])))


@settings(max_examples=8, deadline=None)
@given(row=rows, value=st.sampled_from(POISONS))
def test_poisoning_the_future_changes_nothing(row, value):
    assert_same_up_to(row, poisoned(int(whole()[0].panel.known_at[row]), value))


def test_the_check_can_fail():
    """What was known is spoilt instead: features, texts and labels all show it."""
    with pytest.raises(AssertionError):
        assert_same_up_to(800, poisoned(int(whole()[0].panel.known_at[790]), 1e6))


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
def test_instruments_in_another_order_are_the_same_instruments(order):
    """Pairs, texts, chain and labels to the last bit; means over the other assets are summed in another order."""
    frame, before, before_labels = whole()
    names = [frame.panel.instruments[a] for a in order]
    _, arrays, labels = looked_at(market(), names)
    assert arrays.pair.tobytes() == np.ascontiguousarray(before.pair[:, order][:, :, order]).tobytes()
    assert arrays.chain.tobytes() == np.ascontiguousarray(before.chain[:, order]).tobytes()
    np.testing.assert_allclose(arrays.price, before.price[:, order], rtol=1e-5, atol=1e-6)
    mean, weight = arrays.text.rows(np.arange(len(arrays)))
    expected_mean, expected_weight = before.text.rows(np.arange(len(arrays)))
    assert mean.tobytes() == np.ascontiguousarray(expected_mean[:, order]).tobytes()
    assert weight.tobytes() == np.ascontiguousarray(expected_weight[:, order]).tobytes()
    assert labels.move.tobytes() == np.ascontiguousarray(before_labels.move[:, order]).tobytes()
    assert labels.correlation.tobytes() == np.ascontiguousarray(before_labels.correlation[:, order][:, :, order]).tobytes()
