"""Time frames seen once they have closed, windows on a fixed grid, and targets worked out a slower way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.resample import resample
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.arrays import GenomeArrays, genome_arrays
from cryptoalpha.signals.genome.frames import frame_intervals, frame_tokens, longer_bars
from cryptoalpha.signals.genome.targets import DOWN, FLAT, UNKNOWN, UP, Outcomes, distance_edges, outcomes
from cryptoalpha.signals.genome.tokens import genome_tokens
from cryptoalpha.signals.genome.windows import Grid, Window, Windows
from cryptoalpha.signals.labels import NEVER
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BARS, HORIZON = 1_400, 24
GONE = range(1_000, 1_003)
ALWAYS = 2**62


@pytest.fixture(scope="module")
def market() -> Dataset:
    dataset = simulate(SimulatedConfig(assets=2, bars=BARS, interval="1h", start="2022-03-01", edge=0.05, horizon_bars=6), seed=3).dataset
    name = sorted(dataset.bars)[0]
    return replace(dataset, bars={**dataset.bars, name: dataset.bars[name].take(np.delete(np.arange(BARS), GONE))})


@pytest.fixture(scope="module")
def frame(market: Dataset) -> Frame:
    return Frame(build_panel(market, since=-ALWAYS, until=ALWAYS), market)


@pytest.fixture(scope="module")
def arrays(frame: Frame) -> GenomeArrays:
    return genome_arrays(frame, ("5m", "4h", "1h", "1d"))


@pytest.fixture(scope="module")
def found(arrays: GenomeArrays) -> Outcomes:
    return outcomes(arrays, HORIZON)


@pytest.fixture(scope="module")
def windows(arrays: GenomeArrays, found: Outcomes) -> Windows:
    return Windows(arrays, Grid.of(48, 0.5), found)


def test_rows_are_the_base_bar_and_the_longer_ones_rising(arrays):
    assert arrays.sets.intervals == (HOUR, 4 * HOUR, DAY)
    assert frame_intervals(("5m", "15m"), 4 * HOUR) == (4 * HOUR,)
    with pytest.raises(ConfigError, match="4h bars cannot be made of 90m bars"):
        frame_intervals(("4h",), 90 * 60 * 1_000_000_000)


@pytest.mark.parametrize("interval", [4 * HOUR, DAY])
def test_longer_bars_are_those_of_the_data_room(market, frame, interval):
    """Second way: `data.resample` of the stored table. Highs and lows may differ where a wick was bounded; here none is that long."""
    name = frame.panel.instruments[0]
    opens, bars = longer_bars(frame.bars[0], frame.panel.open_time, HOUR, interval)
    table = resample(market.bars[name], interval)
    there = np.isfinite(bars.close)
    assert opens[there].tolist() == table.open_time.tolist()
    assert (~there).sum() == 1, "the outage spoils one long bar"
    for column in ("open", "close"):
        assert getattr(bars, column)[there].tolist() == getattr(table, column).tolist()
    for column, stored in (("raw_high", table.high), ("raw_low", table.low), ("volume", table.volume)):
        np.testing.assert_allclose(getattr(bars, column)[there], stored, rtol=1e-12)


def test_a_long_bar_is_seen_only_once_it_has_closed(frame, arrays):
    """A day's tokens stand at the hour that closes it and at the 23 after it; the four-hour ones likewise."""
    for s, interval in ((1, 4 * HOUR), (2, DAY)):
        opens, bars = longer_bars(frame.bars[1], frame.panel.open_time, HOUR, interval)
        table = resample(frame.dataset.bars[frame.panel.instruments[1]], interval)
        dataset = Dataset("longer", {"SIM2/USDT": table}, frame.dataset.readings, frame.dataset.posts)
        alone = genome_tokens(Frame(build_panel(dataset, since=-ALWAYS, until=ALWAYS), dataset))
        price_and_chain = [*range(10), 12]  # texts of a book of one name other assets than a book of two
        for t in range(30, BARS):
            closed = [k for k, opened in enumerate(opens.tolist()) if opened + interval <= int(frame.panel.known_at[t])]
            shown, expected = arrays.sets.tokens[t, 1, s], alone.tokens[closed[-1], 0]
            assert arrays.sets.present[t, 1, s]
            assert shown[price_and_chain].tolist() == expected[price_and_chain].tolist()
        assert np.isfinite(bars.close).all()


def test_a_day_with_a_missing_hour_is_absent_while_it_is_the_newest(frame, arrays):
    day = int(frame.panel.open_time[GONE.start]) // DAY * DAY
    first, after = (int(np.searchsorted(frame.panel.open_time + HOUR, day + k * DAY)) for k in (1, 2))
    present = arrays.sets.present[:, 0, 2]
    assert not present[first:after].any()
    assert present[first - 1]
    assert present[after]
    assert not arrays.sets.present[list(GONE), 0].any(), "no price to measure from, in no time frame"


def test_base_row_is_the_tokens_of_the_bars(frame, arrays):
    sets = genome_tokens(frame)
    assert np.array_equal(arrays.sets.tokens[:, :, 0], sets.tokens)
    assert np.array_equal(arrays.sets.missing[:, :, 0], sets.missing)


def test_frames_shorter_than_the_bar_are_left_out(frame):
    assert frame_tokens(frame, ("5m", "15m")).tokens.shape == (BARS, 2, 1, 16)


@pytest.mark.parametrize(
    ("bars", "share", "context", "answered"), [(64, 0.5, 32, 32), (1000, 0.5, 500, 500), (10, 1.0, 9, 1), (10, 0.0, 0, 10)]
)
def test_the_grid(bars, share, context, answered):
    grid = Grid.of(bars, share)
    assert (grid.context, grid.answered, grid.columns) == (context, answered, bars)


def test_windows_lie_at_fixed_multiples_since_1970(windows, arrays):
    for number in windows.holding(np.array([0, 500, BARS - 1])).tolist():
        rows = windows.rows_of(number)
        opened = number * 24 * HOUR
        assert len(rows) == 48
        there = rows >= 0
        assert (arrays.open_time[rows[there]] == opened + HOUR * (np.flatnonzero(there) - 24)).all()
    every = np.concatenate([windows.rows_of(int(k))[24:] for k in windows.holding(np.arange(BARS))])
    assert every[every >= 0].tolist() == list(range(BARS)), "every bar is answered exactly once"


def test_what_pairs_know_is_taken_at_the_later_bar(windows, arrays):
    window = Window(int(windows.holding(np.array([1_001]))[0]), 0)
    rows, pair = windows.rows_of(window.number), windows.inputs(window).pair[0].numpy()
    for i in range(0, 48, 5):
        for j in range(48):
            a, b = (arrays.close[rows[k], 0] for k in (i, j))
            later = rows[max(i, j)]
            known = math.isfinite(a) and math.isfinite(b)
            touch = known and abs(math.log(a) - math.log(b)) < 0.5 * arrays.atr[later, 0] / arrays.close[later, 0]
            weekly = known and (arrays.open_time[rows[i]] - arrays.open_time[rows[j]]) % (7 * DAY) < HOUR
            assert pair[i, j].tolist() == [touch, weekly]


def test_bars_that_are_not_known_yet_are_padding(windows, arrays):
    number = int(windows.holding(np.array([600]))[0])
    whole, cut = windows.inputs(Window(number, 1)), windows.inputs(Window(number, 1), known_by=int(arrays.known_at[600]))
    place = int(np.flatnonzero(windows.rows_of(number) == 600)[0])
    assert torch.equal(whole.tokens[:, :, : place + 1], cut.tokens[:, :, : place + 1])
    assert torch.equal(whole.pair[:, : place + 1, : place + 1], cut.pair[:, : place + 1, : place + 1])
    assert not cut.present[:, :, place + 1 :].any()
    assert not cut.tokens[:, :, place + 1 :].any()
    assert not cut.pair[:, place + 1 :].any()
    assert [tuple(part.shape) for part in cut] == [(1, 3, 48, 16), (1, 3, 48, 16), (1, 48), (1, 48, 48, 2), (1, 3, 48)]


def test_targets_are_what_a_plain_loop_says(windows, arrays, found):
    t, a = 700, 1
    p, atr = arrays.close[t, a], arrays.atr[t, a]
    ahead = range(t + 1, t + 1 + HORIZON)
    assert found.below[t, a] == max(0.0, max((p - arrays.low[k, a]) / atr for k in ahead))
    assert found.above[t, a] == max(0.0, max((arrays.high[k, a] - p) / atr for k in ahead))
    assert found.close_below[t, a] == max(0.0, max((p - arrays.close[k, a]) / atr for k in ahead))
    assert found.close_above[t, a] == max(0.0, max((arrays.close[k, a] - p) / atr for k in ahead))
    for called, bars in ((found.trend, HORIZON), (found.movement, 1)):
        for row in range(600, 800):
            move = math.log(arrays.close[row + bars, a] / arrays.close[row, a]) / (arrays.sigma[row, a] * math.sqrt(bars))
            assert called[row, a] == (UP if move > 0.43 else DOWN if move < -0.43 else FLAT)
    window = Window(int(windows.holding(np.array([t]))[0]), a)
    rows = windows.rows_of(window.number)
    distance = windows.targets(window, known_by=NEVER).distance[0]
    edges = [0.5 * 64 ** (k / 14) for k in range(15)]
    assert distance_edges(16).tolist() == pytest.approx(edges)
    for i, j in ((3, 24), (24, 24), (30, 40), (0, 47)):
        length = abs(math.log(arrays.close[rows[j] + HORIZON, a] / arrays.close[rows[i], a])) / arrays.sigma[rows[i], a]
        assert distance[i, j] == sum(length >= edge for edge in edges)
    assert (distance[24:][:, :24] == UNKNOWN).all(), "i after j"


def test_a_target_is_known_when_its_last_bar_is(arrays, found):
    assert (found.known_at[:-HORIZON] == arrays.open_time[HORIZON:] + HOUR).all()
    assert (found.known_at[-HORIZON:] == NEVER).all()
    assert np.isnan(found.below[-HORIZON:]).all()
    assert (found.trend[-HORIZON:] == UNKNOWN).all()


def test_targets_ignore_what_lies_beyond_the_horizon(frame, arrays, found):
    cut = outcomes(genome_arrays(Frame(frame.panel.rows(0, 900), frame.dataset), ("1h",)), HORIZON)
    for name in ("below", "above", "close_below", "close_above", "trend", "movement"):
        assert np.array_equal(getattr(cut, name)[: 900 - HORIZON], getattr(found, name)[: 900 - HORIZON], equal_nan=True), name


def test_samples_hold_nothing_known_after_their_moment(windows, arrays, found):
    rows, moment = np.arange(500, 800), int(arrays.known_at[780])
    samples = windows.samples(rows, known_by=moment, hide=0.2, seed=4)
    assert len(samples) > 10
    for index, window in enumerate(samples.chosen):
        inputs, targets = samples.take(torch.tensor([index]))
        place = windows.rows_of(window.number)
        late = (place < 0) | (arrays.known_at[np.maximum(place, 0)] > moment)
        assert not inputs.present[0, :, late].any()
        taught = place[targets.supervised[0].numpy()]
        assert len(taught)
        assert ((taught >= 500) & (taught < 800)).all()
        assert (found.known_at[taught] <= moment).all()
        outside = ~targets.supervised[0]
        assert targets.below[0, outside].isnan().all()
        assert (targets.trend[0, outside] == UNKNOWN).all()
        assert (targets.distance[0][:, outside] == UNKNOWN).all()


def test_hidden_columns_are_a_function_of_window_and_seed(windows, arrays):
    rows, moment = np.arange(500, 800), int(arrays.known_at[-1])
    one, two, other = (windows.samples(rows, known_by=moment, hide=0.2, seed=seed) for seed in (4, 4, 5))
    everything = torch.arange(len(one))
    assert torch.equal(one.take(everything)[0].hidden, two.take(everything.flip(0))[0].hidden.flip(0))
    assert not torch.equal(one.take(everything)[0].hidden, other.take(everything)[0].hidden)
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    hidden = one.take(everything)[0].hidden
    assert 0.1 < hidden.float().mean() < 0.3
    for window, columns in zip(one.chosen, hidden, strict=True):
        place = windows.rows_of(window.number)[columns.numpy()]
        assert ((place >= 500) & (place < 800)).all(), "nothing outside the stretch is asked for"
    plain = windows.samples(rows, known_by=moment)
    assert not plain.take(everything)[0].hidden.any()


def test_tokens_stay_in_the_targets_of_hidden_columns(windows, arrays):
    samples = windows.samples(np.arange(500, 800), known_by=int(arrays.known_at[-1]), hide=0.2)
    inputs, targets = samples.take(torch.arange(3))
    assert torch.equal(inputs.tokens, targets.tokens), "the network hides; the window only says where"
    assert [tuple(part.shape) for part in targets] == [*[(3, 48)] * 6, (3, 48, 48), (3, 3, 48, 16), (3, 48)]


def test_windows_without_outcomes_have_no_targets(arrays):
    with pytest.raises(ConfigError, match="no targets"):
        Windows(arrays, Grid.of(48, 0.5)).targets(Window(0, 0), known_by=NEVER)
