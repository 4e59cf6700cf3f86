"""The forecaster as a source: live equals replay to the last bit, folds by moment, and every misfit refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.nets.presets import EVOFORMERS
from cryptoalpha.signals.book import SignalBook, build_model
from cryptoalpha.signals.config import ForecastConfig, NewsConfig, SignalsConfig, TextConfig
from cryptoalpha.signals.forecast.model import ForecastModel, open_forecaster
from cryptoalpha.signals.forecast.source import ForecastSource
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.signals.text import EncoderId
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.panel import build_panel

START, BARS = parse_time("2021-01-01"), 2_700
CONFIG = ForecastConfig(context_bars=8, block_bars=12, correlation_bars=(24, 96), horizon_bars=(1, 24))
TAKE_OVER = (2_300, 2_501)
SINCE = 2_250


@pytest.fixture(scope="module")
def market():
    made = simulate(SimulatedConfig(assets=3, bars=BARS, start="2021-01-01", posts_per_day=2.0), seed=8).dataset
    rows = np.arange(BARS)
    return replace(made, bars={**made.bars, "SIM2/USDT": made.bars["SIM2/USDT"].take((rows < 2_400) | (rows > 2_404))})


@pytest.fixture(scope="module")
def frame(market) -> Frame:
    return Frame(build_panel(market, since=0, until=2**62), market, first=SINCE)


@pytest.fixture(scope="module")
def folder(random_forecaster, frame, tmp_path_factory):
    return random_forecaster(tmp_path_factory.mktemp("model") / "m", frame, CONFIG, TAKE_OVER)


@pytest.fixture(scope="module")
def config(folder) -> ForecastConfig:
    return CONFIG.model_copy(update={"model": str(folder)})


@pytest.fixture(scope="module")
def book(config) -> SignalBook:
    return SignalBook(SignalsConfig(sources=("forecast",), forecast=config, keep_features=False))


@pytest.fixture(scope="module")
def tape(book, market):
    return book.prepare(market, since=START + SINCE * HOUR, until=START + BARS * HOUR)


@pytest.mark.parametrize("row", [2_299, 2_300, 2_303, 2_304, 2_402, 2_410, 2_495, 2_500, 2_501, 2_507, 2_699])
def test_the_newest_bar_alone_live_equals_the_replay(row, book, market, tape):
    """The replay's block holds later bars too; live they are padding. Rows at, before and after block ends, holes and a change of folds."""
    known, opened = START + (row + 1) * HOUR, START + row * HOUR
    live = book.prepare(market.known_until(known), since=opened, until=opened + 1)
    others = tape.arrays()
    for name, values in live.arrays().items():
        assert values[0].tobytes() == others[name][row - SINCE].tobytes(), name
    assert live.signals_at(0) == tape.signals_at(row - SINCE)
    assert len(live.signals_at(0)) == (0 if row < TAKE_OVER[0] else 2 if 2_400 <= row <= 2_404 else 3)


def test_live_bar_after_bar_one_book_says_what_the_replay_says(config, market, tape):
    """What is kept and read ahead: over two ends of blocks and a change of folds, begun anew in the midst."""
    signals, others, ahead = SignalsConfig(sources=("forecast",), forecast=config, keep_features=False), tape.arrays(), 0
    for row in range(2_488, 2_512):
        if row in (2_488, 2_506):
            live = SignalBook(signals)
        opened = START + row * HOUR
        said = live.prepare(market.known_until(opened + HOUR), since=opened, until=opened + 1)
        assert all(values[0].tobytes() == others[name][row - SINCE].tobytes() for name, values in said.arrays().items()), row
        readers = live._models[0]._readers
        following = readers.get((int(others["weights/forecast"][row - SINCE]), (opened // HOUR) // CONFIG.block_bars + 1))
        assert len(readers) <= 3
        ahead += following is not None and following.next_stop > CONFIG.context_bars
    assert ahead == 2, "at the last bar of both blocks the next one's context is read"


def test_a_past_that_changed_is_read_anew(config, market):
    """A price of the context that is told otherwise: what was kept of it must not stay."""
    signals = SignalsConfig(sources=("forecast",), forecast=config, keep_features=False)
    row, name, book = 2_600, "SIM1/USDT", SignalBook(signals)
    table = market.bars[name]
    close = np.array(table.close)
    close[row - 6] *= 1.01
    other = replace(market, bars={**market.bars, name: replace(table, close=close, high=np.maximum(table.high, close))})
    opened = START + row * HOUR
    before, after, fresh = (
        by.prepare(data.known_until(opened + HOUR), since=opened, until=opened + 1).arrays()["signal/forecast/value"].tobytes()
        for by, data in ((book, market), (book, other), (SignalBook(signals), other))
    )
    assert after == fresh != before


def test_what_cannot_be_kept_is_computed_whole_and_says_the_same(config, frame, tape, monkeypatch):
    monkeypatch.setattr("cryptoalpha.nets.forecaster.by_row.MOST_NUMBERS", 0)
    source = ForecastSource(config)
    found = source.compute(frame)
    assert not source._readers
    for name, values in tape.source("forecast").traces.items():
        whole = found.traces[name][SINCE:]
        np.testing.assert_allclose(whole, values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_asking_for_other_stretches_changes_nothing(book, market, tape):
    others = tape.arrays()
    part = book.prepare(market, since=START + 2_398 * HOUR, until=START + 2_457 * HOUR)
    for name, values in part.arrays().items():
        assert values.tobytes() == others[name][2_398 - SINCE : 2_457 - SINCE].tobytes(), name


def test_threads_change_nothing_and_are_given_back(config, frame):
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(ForecastSource(config).compute(frame).traces["forecast/direction"].tobytes())
            assert torch.get_num_threads() == threads
        assert found[0] == found[1]
        with pytest.raises(ZeroDivisionError), single_thread():
            found.append(1 / (torch.get_num_threads() - 1))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_each_fold_answers_its_own_bars_also_within_one_block(tape, book, market, folder, tmp_path):
    """Row 2,501 lies inside a block: the first five of its bars are the first fold's, to the bit."""
    moments = [START + (row + 1) * HOUR for row in TAKE_OVER]
    assert (START // HOUR + TAKE_OVER[1]) % 12 == 5
    fold = tape.source("forecast").traces["weights/forecast"]
    assert np.flatnonzero(np.diff(fold)).tolist() == [row - SINCE - 1 for row in TAKE_OVER]
    content = json.loads((folder / "model.json").read_text())
    for number in (0, 1):
        alone = tmp_path / str(number)
        alone.mkdir()
        name = content["folds"][number]["file"]
        (alone / name).write_bytes((folder / name).read_bytes())
        (alone / "model.json").write_text(json.dumps({**content, "folds": [content["folds"][number]]}))
        one = SignalsConfig(sources=("forecast",), forecast=CONFIG.model_copy(update={"model": str(alone)}), keep_features=False)
        answered = SignalBook(one).prepare(market, since=START + SINCE * HOUR, until=START + BARS * HOUR).source("forecast")
        mine = fold == number
        assert mine.sum() == (201, 199)[number]
        assert answered.value[mine].tobytes() == tape.source("forecast").value[mine].tobytes()
        assert np.isnan(answered.value[tape.panel.known_at < moments[number]]).all()
    assert np.isnan(tape.source("forecast").value[fold < 0]).all()


def test_the_numbers_are_the_networks_own(config, frame, tape):
    """One block by hand: the last horizon decides, the first gives the quantiles."""
    from cryptoalpha.signals.forecast.arrays import forecast_arrays
    from cryptoalpha.signals.forecast.blocks import Blocks
    from cryptoalpha.signals.text import open_encoder

    opened, design = open_forecaster(config, NewsConfig())
    model = ForecastModel.load(opened, 1, design)
    blocks = Blocks(forecast_arrays(frame, config, open_encoder(TextConfig())), config)
    number = blocks.holding(np.array([2_600]))
    rows = blocks.rows_of(number)[0].tolist()
    place = rows.index(2_600)
    with torch.no_grad():
        said = model.net(blocks.inputs(number, model.scaler))
    source = tape.source("forecast")
    t = 2_600 - SINCE
    assert source.impact[t] == pytest.approx(said.location[0, place, :, -1].numpy(), rel=1e-5)
    assert source.value[t] == pytest.approx(np.tanh(said.location[0, place, :, -1].numpy() / (2 * model.strength)), rel=1e-5)
    assert source.confidence[t] == pytest.approx(torch.sigmoid(said.confidence[0, place, :, -1]).numpy(), rel=1e-5)
    assert source.quantiles[t] == pytest.approx(said.quantiles[0, place, :, 0].numpy(), rel=1e-5)
    assert source.traces["forecast/direction"][t] == pytest.approx(said.direction[0, place].numpy(), rel=1e-4, abs=1e-5)
    correlation = source.traces["forecast/correlation"][t]
    chances = said.correlation[0, place].softmax(-1).numpy()
    assert correlation == pytest.approx(chances @ (np.arange(16) / 8 - 1 + 1 / 16), abs=1e-5)


def test_sentiment_is_said_where_there_were_texts_and_by_a_taught_head_alone(tape, random_forecaster, frame, config, tmp_path):
    from cryptoalpha.signals.forecast.arrays import forecast_arrays
    from cryptoalpha.signals.text import open_encoder

    arrays = forecast_arrays(frame, config, open_encoder(TextConfig()))
    read = arrays.text.rows(np.arange(SINCE, BARS) - arrays.begin)[1] > 0.0
    source = tape.source("forecast")
    there = np.isfinite(source.value)
    said = np.isfinite(source.traces["forecast/sentiment"])
    np.testing.assert_array_equal(said.all(axis=2), there & read)
    np.testing.assert_array_equal(said.any(axis=2), there & read)
    assert 0 < (there & read).sum() < there.sum()
    untaught = random_forecaster(tmp_path / "m", frame, CONFIG, TAKE_OVER, sentiment=False)
    found = ForecastSource(CONFIG.model_copy(update={"model": str(untaught)})).compute(frame)
    assert np.isnan(found.traces["forecast/sentiment"]).all()
    np.testing.assert_array_equal(found.value[SINCE:], source.value)


def test_signals_carry_their_quantiles(tape):
    signals = tape.signals_at(2_600 - SINCE)
    source = tape.source("forecast")
    assert [signal.quantiles for signal in signals] == [tuple(row) for row in source.quantiles[2_600 - SINCE].tolist()]
    assert all(len(signal.quantiles) == 7 and list(signal.quantiles) == sorted(signal.quantiles) for signal in signals)
    assert (signals[0].type, signals[0].horizon) == ("model", 24 * HOUR)
    assert tape.arrays()["signal/forecast/quantiles"].shape == (BARS - SINCE, 3, 7)


def test_sources_without_quantiles_say_none(market):
    tape = SignalBook(SignalsConfig(sources=("trend",), keep_features=False)).prepare(market, since=START + 2_600 * HOUR, until=2**62)
    assert all(signal.quantiles is None for signal in tape.signals_at(5))
    assert "signal/trend/quantiles" not in tape.arrays()


@pytest.mark.parametrize("model", ["", "/nowhere/at/all"])
def test_without_a_model_the_error_says_how_to_train_one(model):
    with pytest.raises(ConfigError) as refused:
        build_model("forecast", SignalsConfig(forecast=ForecastConfig(model=model)))
    assert "cryptoalpha train forecaster" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"horizon_bars": (1, 48)}, "signals.forecast.horizon_bars"),
        ({"block_bars": 16}, "signals.forecast.block_bars"),
        ({"correlation_bars": (24, 95)}, "pair_features"),
        ({"clip": 4.0}, "signals.forecast.clip"),
    ],
)
def test_other_settings_than_in_training_are_refused(change, named, config):
    with pytest.raises(ModelError, match=named):
        ForecastSource(config.model_copy(update=change))


def test_other_weights_of_texts_than_in_training_are_refused(config):
    with pytest.raises(ModelError, match=r"signals\.news\.market_weight is 0\.9, trained with 0\.5"):
        ForecastSource(config, news=NewsConfig(market_weight=0.9))


def test_other_features_than_in_training_are_refused(config, folder, tmp_path):
    content = json.loads((folder / "model.json").read_text())
    content["description"]["price_features"][3] = "return_of_the_king"
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="price_features"):
        ForecastSource(config.model_copy(update={"model": str(tmp_path)}))


def test_another_encoder_is_refused_even_at_equal_width(random_forecaster, frame, tmp_path):
    width = 384
    other = random_forecaster(tmp_path / "m", frame, CONFIG, (2_300,), encoder=EncoderId("minilm", "abc", width))
    source = ForecastSource(CONFIG.model_copy(update={"model": str(other)}))
    with pytest.raises(ModelError, match="minilm"):
        source.compute(frame)


def test_bars_of_another_length_are_refused(config):
    other = simulate(SimulatedConfig(assets=1, bars=50, interval="4h"), seed=1).dataset
    with pytest.raises(ModelError, match="trained on bars of 1h, these have 4h"):
        ForecastSource(config).compute(Frame(build_panel(other, since=0, until=2**62), other))


def test_a_fold_is_loaded_as_it_was_saved(config, folder, tmp_path):
    opened, design = open_forecaster(config, NewsConfig())
    model = ForecastModel.load(opened, 0, design)
    saved = model.save(tmp_path, 0)
    assert saved.sha256 == opened.folds[0].sha256
    assert not model.net.training
    assert (model.usable_from, model.strength) == (START + (TAKE_OVER[0] + 1) * HOUR, 0.5)


def test_weights_that_are_no_numbers_are_not_kept(config, tmp_path):
    opened, design = open_forecaster(config, NewsConfig())
    model = ForecastModel.load(opened, 0, design)
    with torch.no_grad():
        model.net.assets.slope[0] = torch.nan
    with pytest.raises(ModelError, match=r"net/assets\.slope"):
        model.save(tmp_path, 0)
    with pytest.raises(ModelError, match="strength is 0"):
        replace(ForecastModel.load(opened, 0, design), strength=0.0).save(tmp_path, 0)


def test_weights_of_other_sizes_are_refused(config, folder):
    opened, design = open_forecaster(config, NewsConfig())
    other = replace(design, sizes=design.sizes.model_copy(update={"sequence_width": 24}))
    with pytest.raises(ModelError, match="sizes"):
        ForecastModel.load(opened, 0, other)


def test_a_network_that_answers_nonsense_is_an_error_not_an_opinion(config, frame):
    source = ForecastSource(config)
    model = source._model(0)
    with torch.no_grad():
        model.net.assets.location.bias[0] = torch.inf
    with pytest.raises(ModelError, match="not finite"):
        source.compute(frame)


def test_a_folder_of_another_kind_is_refused(config, folder, tmp_path):
    content = json.loads((folder / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**content, "kind": "genome"}))
    with pytest.raises(ConfigError, match="kind 'genome'"):
        ForecastSource(config.model_copy(update={"model": str(tmp_path)}))
    assert ModelFolder.open(tmp_path, "genome").lineage == {"seed": 0}


def test_who_names_no_network_does_not_pay_for_torch():
    code = "import sys; from cryptoalpha.signals.book import SignalBook; SignalBook(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_size_that_is_used_is_as_exact_as_the_small_ones_of_these_tests(random_forecaster, tmp_path):
    """Preset `small`, eight assets, default blocks: other shapes take other kernels."""
    market = simulate(SimulatedConfig(assets=8, bars=BARS, start="2021-01-01", posts_per_day=6.0), seed=9).dataset
    whole = Frame(build_panel(market, since=0, until=2**62), market, first=SINCE)
    config = ForecastConfig()
    folder = random_forecaster(tmp_path / "m", whole, config, (2_500,), spread=0.05, sizes=EVOFORMERS["small"])
    signals = SignalsConfig(sources=("forecast",), forecast=config.model_copy(update={"model": str(folder)}), keep_features=False)
    book = SignalBook(signals)
    replay = book.prepare(market, since=START + 2_500 * HOUR, until=START + BARS * HOUR)
    arrays = replay.arrays()
    assert np.isfinite(replay.source("forecast").value).all()
    for row in range(2_536, 2_556):
        live = book.prepare(market.known_until(START + (row + 1) * HOUR), since=START + row * HOUR, until=START + row * HOUR + 1)
        for name, values in live.arrays().items():
            assert values[0].tobytes() == arrays[name][row - 2_500].tobytes(), (row, name)
