"""The book prepares, the tape hands out: values, order, purity, and what the audit sees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.book import SignalBook, build_model
from cryptoalpha.signals.config import FeatureRidgeConfig, SignalsConfig
from cryptoalpha.signals.tape import STRETCH, SignalTape, proposed_actions
from cryptoalpha.store.tables import Dataset

START = parse_time("2021-01-01")
SINCE, UNTIL = START + 5_000 * HOUR, START + 5_900 * HOUR
ABSENT = 5_200
CONFIG = SignalsConfig(ridge=FeatureRidgeConfig(train_days=60.0, minimum_train_days=30.0))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    made = simulate(SimulatedConfig(assets=3, bars=6_000, start="2021-01-01"), seed=3).dataset
    rows = np.arange(6_000)
    return replace(made, bars={**made.bars, "SIM2/USDT": made.bars["SIM2/USDT"].take(rows != ABSENT)})


@pytest.fixture(scope="module")
def tape(dataset) -> SignalTape:
    return SignalBook(CONFIG).prepare(dataset, since=SINCE, until=UNTIL)


def same_row(a: SignalTape, i: int, b: SignalTape, j: int) -> None:
    assert a.signals_at(i) == b.signals_at(j)
    assert a.references_at(i) == b.references_at(j)
    assert repr(a.states_at(i)) == repr(b.states_at(j))
    others = b.arrays()
    for name, array in a.arrays().items():
        assert np.array_equal(array[i], others[name][j], equal_nan=array.dtype.kind == "f"), name


def test_the_tape_covers_the_period_and_no_more(tape):
    assert (len(tape), tape.panel.open_time[0], tape.panel.open_time[-1]) == (900, SINCE, UNTIL - HOUR)
    assert tape.panel.instruments == ("SIM1/USDT", "SIM2/USDT", "SIM3/USDT")


@pytest.mark.parametrize("t", [0, 1, 199, 200, 201, 671, 899])
def test_one_bar_prepared_live_equals_the_batch(t, dataset, tape):
    moment = int(tape.panel.known_at[t])
    opened = int(tape.panel.open_time[t])
    live = SignalBook(CONFIG).prepare(dataset.known_until(moment), since=opened, until=opened + 1)
    assert len(live) == 1
    same_row(live, 0, tape, t)


def test_a_row_does_not_depend_on_where_the_period_starts_or_ends(dataset, tape):
    other = SignalBook(CONFIG).prepare(dataset, since=SINCE + 137 * HOUR, until=UNTIL - 300 * HOUR)
    for t in (0, 250, len(other) - 1):
        same_row(other, t, tape, t + 137)


def test_signals_come_by_instrument_then_by_source(tape):
    signals = tape.signals_at(700)
    assert [s.instrument for s in signals] == sorted(s.instrument for s in signals)
    assert [s.source for s in signals if s.instrument == "SIM1/USDT"] == [tape_.source for tape_ in tape.sources]


def test_a_signal_carries_its_arrays_numbers_and_times(tape):
    t, source = 600, tape.source("news_tone")
    signal = next(s for s in tape.signals_at(t) if s.source == "news_tone" and s.instrument == "SIM3/USDT")
    assert (signal.value, signal.confidence, signal.predicted_impact) == (
        source.value[t, 2], source.confidence[t, 2], source.impact[t, 2],
    )  # fmt: skip
    assert (signal.happened_at, signal.known_at) == (tape.panel.open_time[t], tape.panel.known_at[t])
    assert (signal.type, signal.horizon) == ("news", 24 * HOUR)
    partition, _, row = signal.reference.partition(":")
    posts = tape.dataset.posts["news"]
    place = np.flatnonzero((posts.partition == partition) & (posts.row == int(row)))[0]
    assert "SIM3" in posts.text[place]
    assert posts.known_at[place] <= signal.known_at


def test_an_absent_bar_has_no_signal_no_state_and_no_reference(tape):
    t = ABSENT - 5_000
    assert {s.instrument for s in tape.signals_at(t)} == {"SIM1/USDT", "SIM3/USDT"}
    assert [s.instrument for s in tape.states_at(t)] == ["SIM1/USDT", "SIM3/USDT"]
    assert [r.subject for r in tape.references_at(t)] == ["SIM1/USDT", "SIM3/USDT"]
    assert [r.row for r in tape.references_at(t + 1)] == [ABSENT + 1] * 3  # the row in the stored partition, not in the table


def test_a_state_is_the_close_and_the_volatility_of_a_year(tape):
    state = tape.states_at(10)[1]
    assert state.price == tape.panel.close[10, 1]
    assert state.volatility == pytest.approx(tape.sigma[10, 1] * math.sqrt(365 * 24))
    assert 0.2 < state.volatility < 3.0


def test_stretches_join_without_a_seam(tape):
    forwards = [tape.signals_at(t) for t in (STRETCH - 1, STRETCH)]
    backwards = [tape.signals_at(t) for t in (STRETCH, STRETCH - 1)]
    assert forwards == backwards[::-1]
    with pytest.raises(IndexError):
        tape.signals_at(len(tape))


def test_actions_follow_the_thresholds():
    values = np.array([-1.0, -0.6, -0.59, -0.2, -0.19, 0.0, 0.2, 0.59, 0.6])
    assert proposed_actions(values, 0.2, 0.6) == [
        "strong_sell", "strong_sell", "sell", "sell", "hold", "hold", "buy", "buy", "strong_buy",
    ]  # fmt: skip


def test_arrays_name_every_feature_join_label_scaler_and_signal(tape):
    arrays = tape.arrays()
    names = {name.split("/")[0] for name in arrays}
    assert names == {"open_time", "known_at", "bar", "sigma", "price", "chain", "join", "signal", "scaler", "weights", "label"}
    assert sum(name.startswith("price/") for name in arrays) == 50
    assert sum(name.startswith("chain/") for name in arrays) == 30
    assert all(len(array) == len(tape) for array in arrays.values())


def test_sources_can_be_switched_off(dataset):
    book = SignalBook(CONFIG.model_copy(update={"sources": ("trend", "funding"), "keep_features": False}))
    tape = book.prepare(dataset, since=SINCE, until=SINCE + 3 * HOUR)
    assert {s.source for s in tape.signals_at(0)} == {"trend", "funding"}
    assert tape.price is None
    assert not any(name.startswith(("price/", "scaler/")) for name in tape.arrays())


def test_no_source_at_all_still_gives_states(dataset):
    tape = SignalBook(CONFIG, models=()).prepare(dataset, since=SINCE, until=SINCE + 3 * HOUR)
    assert tape.signals_at(0) == []
    assert len(tape.states_at(0)) == 3


def test_instruments_can_be_chosen(dataset):
    tape = SignalBook(CONFIG).prepare(dataset, since=SINCE, until=SINCE + HOUR, instruments=["SIM3/USDT"])
    assert {s.instrument for s in tape.signals_at(0)} == {"SIM3/USDT"}


def test_progress_is_told_after_every_source(dataset):
    told: list[tuple[int, int]] = []
    book = SignalBook(CONFIG, models=[build_model("momentum", CONFIG), build_model("funding", CONFIG)])
    book.prepare(dataset, since=SINCE, until=SINCE + HOUR, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


def test_a_late_bar_delays_the_rows_built_on_it(dataset):
    table = dataset.bars["SIM1/USDT"]
    known_at = table.known_at.copy()
    known_at[5_100] += 3 * HOUR
    late = replace(dataset, bars={**dataset.bars, "SIM1/USDT": replace(table, known_at=known_at)})
    tape = SignalBook(CONFIG).prepare(late, since=SINCE, until=UNTIL)
    assert (np.diff(tape.panel.known_at)[99:104] // HOUR).tolist() == [4, 0, 0, 0, 1]


def test_a_source_named_twice_is_refused():
    with pytest.raises(ConfigError, match="momentum"):
        SignalBook(CONFIG.model_copy(update={"sources": ("momentum", "momentum")}))


def test_an_empty_period_is_refused(dataset):
    with pytest.raises(DataMissingError):
        SignalBook(CONFIG).prepare(dataset, since=UNTIL + 3_000 * HOUR, until=UNTIL + 4_000 * HOUR)
    with pytest.raises(DataMissingError):  # bars in the warm-up only
        SignalBook(CONFIG).prepare(dataset, since=START + 6_000 * HOUR, until=START + 6_100 * HOUR)


def test_bars_of_two_lengths_are_refused(dataset):
    other = replace(dataset.bars["SIM1/USDT"], interval=2 * HOUR)
    with pytest.raises(DataError, match="2h"):
        SignalBook(CONFIG).prepare(replace(dataset, bars={**dataset.bars, "SIM1/USDT": other}), since=SINCE, until=UNTIL)


def test_a_model_of_the_wrong_shape_is_refused(dataset):
    class Flat:
        source, type, horizon = "flat", "model", HOUR

        def reach(self, interval):
            return 0

        def compute(self, frame):
            formed = build_model("momentum", CONFIG).compute(frame)
            return replace(formed, value=formed.value[:-1])

    with pytest.raises(ConfigError, match="flat"):
        SignalBook(CONFIG, models=[Flat()]).prepare(dataset, since=SINCE, until=SINCE + HOUR)


def test_a_long_period_keeps_its_last_bar():
    """10,128 hours is a length at which NumPy, counting a range of nanoseconds in floating point, drops the last one."""
    bars = simulate(SimulatedConfig(assets=1, bars=10_128, start="2021-01-01"), seed=1).dataset
    tape = SignalBook(CONFIG, models=()).prepare(bars, since=START, until=START + 10_128 * HOUR)
    assert len(tape) == 10_128
