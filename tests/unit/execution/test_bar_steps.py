"""Rows of a panel as a broker sees them, and funding laid onto bars."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.execution import broker
from cryptoalpha.execution.broker import bar_steps, funding_by_bar
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

NAN = float("nan")


def table(name: str, hours: list[int], interval: int = HOUR) -> BarTable:
    n = len(hours)
    price = 100.0 + np.arange(n)
    return BarTable(name, interval, interval * np.array(hours, np.int64), price, price + 1, price - 1, price + 0.5, np.full(n, 7.0))


def panel(interval: int = HOUR) -> tuple[Panel, Dataset]:
    dataset = Dataset("test", {"A/USDT": table("A/USDT", [0, 1, 2, 3], interval), "B/USDT": table("B/USDT", [0, 2, 3], interval)})
    return build_panel(dataset, since=0, until=4 * interval), dataset


def rules(name: str, *, perpetual: bool) -> InstrumentRules:
    return InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=name,
        venue="t",
        base=name[0],
        quote="USDT",
        lot=Decimal(1),
        tick=Decimal(1),
        min_notional=Decimal(0),
        perpetual=perpetual,
    )


PERPETUAL = {"A/USDT": rules("A/USDT", perpetual=True), "B/USDT": rules("B/USDT", perpetual=True)}
SPOT = {"A/USDT": rules("A/USDT", perpetual=False)}


def readings(hours: list[float], values: list[float]) -> ReadingTable:
    times = (HOUR * np.array(hours)).astype(np.int64)
    return ReadingTable("A", "funding_rate", "test", times, times, np.array(values))


def test_every_row_of_the_panel_becomes_one_step(monkeypatch):
    rows, _ = panel()
    whole = list(bar_steps(rows))
    monkeypatch.setattr(broker, "CHUNK", 3)
    chunked = list(bar_steps(rows))
    for steps in (whole, chunked):
        assert [step.open_time for step in steps] == [0, HOUR, 2 * HOUR, 3 * HOUR]
        assert [step.at for step in steps] == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]
        assert [step.present for step in steps] == [[True, True], [True, False], [True, True], [True, True]]
        assert steps[2].open == [102.0, 101.0]
        assert (steps[2].high, steps[2].low, steps[2].close, steps[2].volume) == (
            [103.0, 102.0],
            [101.0, 100.0],
            [102.5, 101.5],
            [7.0, 7.0],
        )
        assert np.isnan(steps[1].close[1])
        assert steps[0].funding_at_open is None
        assert steps[0].instruments is steps[3].instruments


def test_funding_is_shown_only_where_something_settles():
    rows, _ = panel()
    at_open, inside = np.full((4, 2), np.nan), np.full((4, 2), np.nan)
    at_open[2, 1], inside[3, 0] = 0.001, 0.002
    steps = list(bar_steps(rows, (at_open, inside)))
    assert [step.funding_at_open is not None for step in steps] == [False, False, True, False]
    assert [step.funding_inside is not None for step in steps] == [False, False, False, True]
    assert steps[2].funding_at_open[1] == 0.001
    with pytest.raises(ConfigError, match="for a panel of shape"):
        next(bar_steps(rows, (at_open[:2], inside)))


def test_settlements_fall_into_the_bar_they_happen_in():
    rows, dataset = panel()
    rates = readings([0.0, 1.5, 1.75, 3.0, 9.0], [1e-4, 2e-4, 3e-4, 4e-4, 5e-4])
    at_open, inside = funding_by_bar(rows, Dataset("test", dataset.bars, {("A", "funding_rate"): rates}, rules=PERPETUAL))
    assert_array_equal(at_open[:, 0], [1e-4, NAN, NAN, 4e-4])
    assert_array_equal(inside[:, 0], [NAN, 5e-4, NAN, NAN])  # two settlements in one bar are added
    assert np.isnan(at_open[:, 1]).all()


def test_settlements_before_the_first_bar_and_empty_panels_change_nothing():
    rows, dataset = panel()
    funded = Dataset("test", dataset.bars, {("A", "funding_rate"): readings([0.0], [1e-4])}, rules=PERPETUAL)
    at_open, _ = funding_by_bar(rows.rows(1, 4), funded)
    assert np.isnan(at_open).all()
    assert funding_by_bar(rows.rows(0, 0), funded)[0].shape == (0, 2)


def test_spot_instruments_settle_nothing_although_their_asset_has_rates():
    rows, dataset = panel()
    for known in (SPOT, {}):
        at_open, inside = funding_by_bar(rows, Dataset("test", dataset.bars, {("A", "funding_rate"): readings([1.0], [1e-4])}, rules=known))
        assert np.isnan(at_open).all()
        assert np.isnan(inside).all()


def test_two_rates_at_one_moment_are_refused():
    rows, dataset = panel()
    with pytest.raises(DataError, match="two rates settle at the same moment"):
        funding_by_bar(rows, Dataset("test", dataset.bars, {("A", "funding_rate"): readings([1.0, 1.0], [1e-4, 2e-4])}, rules=PERPETUAL))
