"""The parts of the audit by hand: what it compares, where it cuts, what it poisons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.app.audit import AuditReport, Leak, _compare_arrays, _compare_journals, _differs, cut_rows, poisoned
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import MarketState, ObservationRef, Signal, Travelling
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.tables import Dataset

NAN = float("nan")


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=400), seed=1).dataset


@pytest.fixture(scope="module")
def tape(market: Dataset) -> SignalTape:
    config = SignalsConfig(sources=("momentum_short",), keep_features=False)
    end = int(market.bars["SIM1/USDT"].known_at[-1])
    return SignalBook(config).prepare(market, since=end - 96 * HOUR, until=end)


def test_rows_differ_bit_for_bit_and_a_nan_equals_a_nan() -> None:
    old = np.array([[1.0, NAN], [0.0, 1.0], [NAN, 1.0], [2.0, 2.0]])
    new = np.array([[1.0, NAN], [-0.0, 1.0], [1.0, 1.0], [2.0, 2.0 + 4.5e-16]])
    assert _differs(old, new).tolist() == [False, True, True, True]
    assert _differs(np.array([1, 2]), np.array([1, 3])).tolist() == [False, True]
    assert _differs(old[:, 0], -old[:, 0] * -1.0).tolist() == [False] * 4  # the sign of a NaN says nothing


def test_rows_of_another_width_or_kind_all_differ() -> None:
    assert _differs(np.zeros((3, 2)), np.zeros((3, 4))).tolist() == [True] * 3
    assert _differs(np.zeros(2), np.zeros(2, np.int64)).tolist() == [True] * 2
    assert _differs(np.zeros((0, 2)), np.zeros((0, 3))).size == 0


def compared(whole: SignalTape, cut: SignalTape, row: int) -> list[Leak]:
    report = AuditReport([], len(whole))
    _compare_arrays(whole, cut, int(whole.panel.known_at[row]), "remove", report)
    return report.leaks


def test_a_tape_with_fewer_rows_differs_by_what_is_missing(tape: SignalTape) -> None:
    assert compared(tape, tape, 50) == []
    shorter = replace(tape, panel=tape.panel.rows(0, 40), sigma=tape.sigma[:40])
    leaks = {leak.what: leak for leak in compared(tape, shorter, 50)}
    assert (leaks["sigma"].count, leaks["sigma"].first) == (11, int(tape.panel.known_at[40]))
    late = replace(tape, panel=replace(tape.panel, known_at=tape.panel.known_at + HOUR))
    leaks = {leak.what: leak for leak in compared(late, tape, 50)}
    assert leaks["sigma"].count == 1  # one row more is known
    assert leaks["sigma"].first == int(late.panel.known_at[50])


def test_an_array_only_one_of_the_tapes_has_is_named(tape: SignalTape) -> None:
    (source,) = tape.sources
    traced = replace(tape, sources=(replace(source, traces={"weights/extra": np.zeros(len(tape))}),))
    for whole, cut in ((tape, traced), (traced, tape)):
        (leak,) = compared(whole, cut, 9)
        assert (leak.what, leak.count, leak.first) == ("weights/extra", 10, int(tape.panel.known_at[0]))


def state(at: int, price: float = 1.0) -> MarketState:
    return MarketState(happened_at=at - HOUR, known_at=at, instrument="A/USDT", price=price, volatility=0.5)


def signal(at: int, value: float) -> Signal:
    return Signal(
        happened_at=at - HOUR, known_at=at, source="trend", type="price", instrument="A/USDT", value=value, confidence=1.0,
        predicted_impact=value, proposed_action="hold", horizon=DAY,
    )  # fmt: skip


def reference(at: int) -> ObservationRef:
    return ObservationRef(happened_at=at - HOUR, known_at=at, subject="A/USDT", partition="", row=0)


Rows = list[tuple[int, list[Travelling]]]


@pytest.mark.parametrize(
    ("new", "what", "count"),
    [
        ([(1, [state(1), signal(1, 0.1)]), (2, [state(2), signal(2, 0.2)])], None, 0),
        ([(1, [state(1), signal(1, 0.1)]), (2, [state(2), signal(2, 0.3)])], "journal/Signal trend", 1),
        ([(1, [state(1), signal(1, 0.1)]), (2, [state(2, 1.5), signal(2, 0.3)])], "journal/MarketState", 1),
        ([(1, [state(1), signal(1, 0.1)]), (2, [state(2)])], "journal/Signal trend", 1),
        ([(1, [reference(1), state(1), signal(1, 0.1)])], "journal/ObservationRef", 1),
        ([(1, [state(1), signal(1, 0.1)])], "journal/rows", 1),
        ([(1, [state(1), signal(1, 0.1)]), (3, [state(2), signal(2, 0.2)])], "journal/time", 1),
        ([], "journal/rows", 2),
    ],
)
def test_journals_are_told_apart_by_the_first_value_that_differs(new: Rows, what: str | None, count: int) -> None:
    whole: Rows = [(1, [state(1), signal(1, 0.1)]), (2, [state(2), signal(2, 0.2)]), (9, [state(9)])]
    report = AuditReport([], 3)
    _compare_journals(whole, new, 2, "poison", report)
    assert [(leak.what, leak.count) for leak in report.leaks] == ([(what, count)] if what else [])
    assert report.compared == {"journal": 4}


def test_a_journaled_nan_equals_itself() -> None:
    rows: Rows = [(1, [state(1, NAN)])]
    report = AuditReport([], 1)
    _compare_journals(rows, [(1, [state(1, -NAN)])], 1, "remove", report)
    assert report.is_clean


def test_poison_changes_every_late_value_and_nothing_else(market: Dataset) -> None:
    moment = int(market.bars["SIM1/USDT"].known_at[200])
    changed = poisoned(market, moment)
    for name, table in market.bars.items():
        other, late = changed.bars[name], table.known_at > moment
        assert late.sum() == 199
        for column in ("open", "high", "low", "close", "volume", "taker_buy_volume"):
            assert np.array_equal(getattr(other, column) != getattr(table, column), late)
        assert np.array_equal(other.open_time, table.open_time)
        assert np.array_equal(other.known_at, table.known_at)
        assert np.all(np.maximum(other.open, other.close) <= other.high)
        assert np.all(np.minimum(other.open, other.close) >= other.low)
    for key, readings in market.readings.items():
        assert np.array_equal(changed.readings[key].value != readings.value, readings.known_at > moment)
        assert np.array_equal(changed.readings[key].known_at, readings.known_at)
    posts = market.posts["news"]
    assert np.array_equal(changed.posts["news"].text != posts.text, posts.known_at > moment)


def test_cuts_fall_where_a_fit_is_new_and_where_readings_wait_to_be_known(tape: SignalTape) -> None:
    (source,) = tape.sources
    weights = np.repeat([1.0, 2.0], [70, 26])
    traced = replace(tape, sources=(replace(source, traces={"weights/slope": weights}),))
    for seed in range(5):
        rows = cut_rows(traced, 4, seed)
        assert 70 in rows
        assert len(set(rows.tolist())) == 4
        assert np.all(np.diff(rows) > 0)
        assert (tape.panel.known_at[rows] % DAY == 0).any()  # fear & greed of the day: stamped 00:00, published at 01:00
        assert cut_rows(tape, 1, seed)[0] >= 24
        assert np.array_equal(rows, cut_rows(traced, 4, seed))
    assert len({int(cut_rows(traced, 1, seed)[0]) for seed in range(30)}) > 10  # a single cut is at random
