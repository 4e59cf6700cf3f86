"""The genome as a source of opinions: the promises of every signal model, with small untrained networks in a folder of two folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.nets.config import GenomeConfig
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import GenomeSignalConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.model import GenomeDesign, GenomeModel, finish, open_genome
from cryptoalpha.signals.genome.source import TYPICAL_MOVE, GenomeSource, levels_at
from cryptoalpha.signals.model import Opinions
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset

BARS, BAR = 4_200, 4 * HOUR
ALL_OUT = range(4_000, 4_003)
TAKES_OVER = 4_070
"""Row from which on the second fold answers: in the midst of a window."""

ALWAYS = 2**62
SIZES = GenomeConfig(
    window_bars=24, width=16, heads=2, layers=2, pair_width=8, pair_heads=2, pair_head_width=4, outer_width=4, distance_bins=6
)


def frame_of(dataset: Dataset, first: int = 0) -> Frame:
    panel = build_panel(dataset, since=-ALWAYS, until=ALWAYS)
    return Frame(panel, dataset, first)


@pytest.fixture(scope="module")
def market() -> Dataset:
    dataset = simulate(SimulatedConfig(assets=2, bars=BARS, interval="4h", start="2020-03-01", edge=0.05, horizon_bars=6), seed=5).dataset
    absent = {"SIM1/USDT": {*range(3_900, 3_906), *ALL_OUT}, "SIM2/USDT": {*ALL_OUT, *range(3_850)}}
    bars = {name: table.take(np.array([row for row in range(BARS) if row not in absent[name]])) for name, table in dataset.bars.items()}
    return replace(dataset, bars=bars)


def shaken(design: GenomeDesign, seed: int) -> torch.nn.Module:
    """A network that knows nothing but whose every weight matters: fresh heads are silent."""
    net, draw = design.build(seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    return net


@pytest.fixture(scope="module")
def config(market: Dataset, tmp_path_factory: pytest.TempPathFactory) -> GenomeSignalConfig:
    folder = tmp_path_factory.mktemp("genome")
    design = GenomeDesign(SIZES, GenomeSignalConfig(), BAR)
    known = frame_of(market).panel.known_at
    folds = [GenomeModel(design, shaken(design, k), int(known[row]), 1.5).save(folder, k) for k, row in enumerate((3_700, TAKES_OVER))]
    finish(folder, design, folds, {"why": "a test"})
    return GenomeSignalConfig(model=str(folder))


@pytest.fixture(scope="module")
def batch(market: Dataset, config: GenomeSignalConfig) -> Opinions:
    return GenomeSource(config).compute(frame_of(market, first=3_600))


def assert_same_rows(a: Opinions, of_a: slice, b: Opinions, of_b: slice) -> None:
    named = [{"value": o.value, "confidence": o.confidence, "impact": o.impact, **o.traces} for o in (a, b)]
    assert named[0].keys() == named[1].keys()
    for name, array in named[0].items():
        assert np.array_equal(array[of_a], named[1][name][of_b], equal_nan=array.dtype.kind == "f"), name


def test_has_opinions_of_every_kind(batch, market):
    assert set(batch.traces) == {"genome/levels", "genome/hold", "genome/trend", "genome/movement", "weights/genome"}
    assert np.isfinite(batch.value[-100:]).all()
    assert batch.traces["genome/levels"].shape == (BARS, 2, 10)
    assert np.unique(batch.value[-100:]).size > 100, "the answers differ from bar to bar"


def test_before_the_first_fold_there_is_no_opinion_and_each_bar_has_the_newest_fold(batch):
    fold = batch.traces["weights/genome"]
    assert (fold[:3_700] == -1).all()
    assert (fold[3_700:TAKES_OVER] == 0).all()
    assert (fold[TAKES_OVER:] == 1).all()
    assert np.isnan(batch.value[:3_700]).all()
    assert np.isfinite(batch.value[3_700:3_800, 0]).all()


def test_a_window_in_which_folds_change_is_answered_by_both(market, config, batch, tmp_path):
    """Second way: a folder that holds the second fold alone agrees from the bar on where it takes over, and nowhere before."""
    folder, design = open_genome(config)
    model = GenomeModel.load(folder, 1, design)
    finish(tmp_path, design, [replace(model, usable_from=0).save(tmp_path, 0)], {})
    alone = GenomeSource(GenomeSignalConfig(model=str(tmp_path))).compute(frame_of(market, first=4_050))
    rows = slice(TAKES_OVER, TAKES_OVER + 6)
    assert np.array_equal(alone.value[rows], batch.value[rows])
    assert not (alone.value[TAKES_OVER - 4 : TAKES_OVER] == batch.value[TAKES_OVER - 4 : TAKES_OVER]).any()


@pytest.mark.parametrize("moment", [3_999, 4_003, TAKES_OVER, 4_110, 4_150])
def test_what_becomes_known_later_changes_nothing(market, config, batch, moment):
    known = int(frame_of(market).panel.known_at[moment])
    cut = GenomeSource(config).compute(frame_of(market.known_until(known), first=moment - 30))
    assert_same_rows(cut, slice(moment - 30, moment + 1), batch, slice(moment - 30, moment + 1))


@pytest.mark.parametrize(("price", "text"), [(np.nan, ""), (1e6, "SIM1 SIM2 hacked, crash, bankrupt, SEC sues")])
def test_poisoning_the_future_changes_nothing(market, config, batch, price, text):
    moment = 4_100
    known = int(frame_of(market).panel.known_at[moment])

    def spoil(table: BarTable) -> BarTable:
        late = table.known_at > known
        columns = ("open", "high", "low", "close", "volume", "taker_buy_volume")
        return replace(table, **{name: np.where(late, price, getattr(table, name)) for name in columns})

    spoilt = replace(
        market,
        bars={name: spoil(table) for name, table in market.bars.items()},
        readings={k: replace(t, value=np.where(t.known_at > known, price, t.value)) for k, t in market.readings.items()},
        posts={k: replace(t, text=np.where(t.known_at > known, text, t.text)) for k, t in market.posts.items()},
    )
    formed = GenomeSource(config).compute(frame_of(spoilt, first=4_060))
    assert_same_rows(formed, slice(4_060, moment + 1), batch, slice(4_060, moment + 1))


def test_nothing_beyond_its_reach_changes_a_row(market, config, batch):
    frame, model = frame_of(market), GenomeSource(config)
    reach = model.reach(BAR)
    assert reach < BARS - 100
    for row in (reach + 100, 4_005, BARS - 1):
        window = Frame(frame.panel.rows(row - reach, row + 1), market, first=reach)
        assert_same_rows(model.compute(window), slice(-1, None), batch, slice(row, row + 1))


def test_an_answer_does_not_depend_on_which_bars_were_asked_for(market, config, batch):
    """One bar at a time, as live: also the bars at both ends of a window."""
    frame = frame_of(market)
    for row in (4_116, 4_117, 4_127, 4_128):
        one = GenomeSource(config).compute(Frame(frame.panel.rows(0, row + 1), market, first=row))
        assert_same_rows(one, slice(row, row + 1), batch, slice(row, row + 1))


def test_an_answer_does_not_depend_on_the_number_of_threads(market, config, batch):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = GenomeSource(config).compute(frame_of(market, first=4_150))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert_same_rows(again, slice(4_150, None), batch, slice(4_150, None))


def test_absent_bars_have_no_opinion_and_present_ones_after_them_do(batch):
    assert np.isnan(batch.value[list(ALL_OUT)]).all()
    assert np.isnan(batch.value[3_900:3_906, 0]).all()
    assert np.isfinite(batch.value[3_900:3_906, 1]).all()
    assert np.isnan(batch.value[:3_850, 1]).all()
    assert np.isfinite(batch.value[ALL_OUT.stop]).all()
    for name in ("levels", "hold", "trend", "movement"):
        assert np.isnan(batch.traces[f"genome/{name}"][list(ALL_OUT)]).all(), name


def test_opinions_follow_from_the_chances(batch):
    there = np.isfinite(batch.value)
    trend, hold = batch.traces["genome/trend"][there], batch.traces["genome/hold"][there]
    np.testing.assert_allclose(trend.sum(axis=1), 1.0, rtol=1e-6)
    assert (batch.value[there] == trend[:, 0] - trend[:, 1]).all()
    assert (batch.confidence[there] == trend.max(axis=1)).all()
    np.testing.assert_allclose(batch.impact[there], 1.0895 * batch.value[there], rtol=1e-3)
    assert ((hold > 0.0) & (hold < 1.0)).all()


def test_the_typical_move_is_that_of_normal_numbers():
    moves = np.abs(np.random.default_rng(0).standard_normal(400_000))
    assert pytest.approx(moves[moves > 0.43].mean(), abs=0.003) == TYPICAL_MOVE


def test_levels_lie_in_order_around_the_price(batch, market):
    close = frame_of(market).panel.close
    for row, a in ((3_750, 0), (4_199, 1)):
        levels = levels_at(batch.traces, row, a)
        assert levels is not None
        ordered = [*levels.supports[::-1], close[row, a], *levels.resistances]
        assert (np.diff(ordered) > 0.0).all()
        assert len(levels.support_holds) == len(levels.resistance_holds) == 5
    assert levels_at(batch.traces, ALL_OUT.start, 0) is None
    with pytest.raises(ModelError, match="no levels"):
        levels_at({}, 0, 0)


def test_the_book_asks_it_and_live_equals_replay(market, config):
    book = SignalBook(SignalsConfig(sources=("genome",), genome=config, keep_features=False))
    panel = frame_of(market).panel
    tape = book.prepare(market, since=int(panel.open_time[4_090]), until=ALWAYS)
    for t in (0, 50, 109):
        opened = int(tape.panel.open_time[t])
        live = book.prepare(market.known_until(int(tape.panel.known_at[t])), since=opened, until=opened + 1)
        assert live.signals_at(0) == tape.signals_at(t)
        assert live.signals_at(0)[0].horizon == 24 * BAR


def test_without_any_input_there_is_no_opinion(market, config):
    nothing = replace(market, bars={k: replace(t, close=np.full(len(t), np.nan)) for k, t in market.bars.items()}, readings={}, posts={})
    assert np.isnan(GenomeSource(config).compute(frame_of(nothing)).value).all()


def test_a_model_is_refused_where_it_does_not_fit(config, tmp_path):
    with pytest.raises(ConfigError, match=r"signals\.genome\.model is empty"):
        GenomeSource(GenomeSignalConfig())
    with pytest.raises(ConfigError, match="no trained model"):
        GenomeSource(GenomeSignalConfig(model=str(tmp_path)))
    with pytest.raises(ModelError, match="horizon_bars is 12, trained with 24"):
        GenomeSource(config.model_copy(update={"horizon_bars": 12}))
    with pytest.raises(ModelError, match="frames"):
        GenomeSource(config.model_copy(update={"frames": ("1d",)}))


def test_bars_of_another_length_are_refused(config):
    hourly = simulate(SimulatedConfig(assets=1, bars=200, interval="1h", start="2022-03-01"), seed=1).dataset
    with pytest.raises(ModelError, match="trained on bars of 4h"):
        GenomeSource(config).compute(frame_of(hourly))


def test_a_rule_that_has_changed_since_is_refused(config, monkeypatch):
    from cryptoalpha.signals.genome import model, vocabulary

    changed = (replace(vocabulary.TOKENS[0], rule="r > 0.6 σ"), *vocabulary.TOKENS[1:])
    monkeypatch.setattr(model, "TOKENS", changed)
    with pytest.raises(ModelError, match="tokens"):
        GenomeSource(config)


def test_a_network_that_answers_no_numbers_is_refused(config, market, monkeypatch):
    folder, design = open_genome(config)
    model = GenomeModel.load(folder, 0, design)
    model.net.trend.bias.data[0] = torch.nan
    with pytest.raises(ModelError, match=r"not fit to be kept: net/trend\.bias"):
        model.save(Path(config.model), 7)
    monkeypatch.setattr(GenomeSource, "_model", lambda self, number: model)
    with pytest.raises(ModelError, match="not finite"):
        GenomeSource(config).compute(frame_of(market, first=4_190))
