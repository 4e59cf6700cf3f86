"""Whatever becomes known after a moment, absurd prices included: regime features and beliefs up to it stay as they are, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.config import RegimeConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime.features import regime_features
from cryptoalpha.signals.regime.source import Beliefs, RegimeSource
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BARS, FIRST = 2_200, 2_000
POISONS = (np.nan, 0.0, -1.0, 1e6, 1e300)


@cache
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=BARS, posts_per_day=0.1), seed=33).dataset


def framed(dataset: Dataset) -> Frame:
    return Frame(build_panel(dataset, since=0, until=2**62), dataset, first=FIRST)


@pytest.fixture(scope="module")
def config(random_regime, tmp_path_factory) -> RegimeConfig:
    """Two folds: one before the first looked-at row, one among them."""
    config = RegimeConfig(block_bars=32, warm_up_bars=64)
    folder: Path = random_regime(tmp_path_factory.mktemp("regime") / "m", framed(market()), config, (FIRST - 20, FIRST + 90))
    return config.model_copy(update={"model": str(folder)})


@pytest.fixture(scope="module")
def whole(config) -> tuple[np.ndarray, Beliefs]:
    frame = framed(market())
    return regime_features(frame), RegimeSource(config).compute(frame)


@given(
    row=st.integers(FIRST + 1, BARS - 2),
    poison=st.sampled_from(POISONS),
    columns=st.sets(st.sampled_from(("open", "high", "low", "close"))),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_poison_after_a_row_changes_nothing_up_to_it(config, whole, row, poison, columns):
    def spoil(table):
        late = table.open_time > table.open_time[row]
        return replace(table, **{name: np.where(late, poison, getattr(table, name)) for name in columns or {"close"}})

    frame = framed(replace(market(), bars={name: spoil(table) for name, table in market().bars.items()}))
    features, beliefs = whole
    assert regime_features(frame)[: row + 1].tobytes() == features[: row + 1].tobytes()
    for name, values in RegimeSource(config).compute(frame).as_arrays().items():
        assert values[: row + 1].tobytes() == beliefs.as_arrays()[name][: row + 1].tobytes(), name
        if name == "regime/belief":
            there = values[np.isfinite(values).all(axis=2)]
            assert np.allclose(there.sum(axis=1), 1.0)


@given(cut=st.integers(FIRST + 1, BARS - 1))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_removing_what_comes_after_a_row_changes_nothing_up_to_it(config, whole, cut):
    frame = framed(replace(market(), bars={name: table.take(np.arange(BARS) < cut) for name, table in market().bars.items()}))
    for name, values in RegimeSource(config).compute(frame).as_arrays().items():
        assert values.tobytes() == whole[1].as_arrays()[name][:cut].tobytes(), name
