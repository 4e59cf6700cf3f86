"""What every signal model promises: a new source passes by being added to `signals.config`.

The market is simulated: four-hour bars of three assets over 700 days, with an outage of one asset, one of all, and a late listing. Sources
that need a trained model are asked with random weights: no promise here rests on what was learned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.time import DAY
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.book import build_model
from cryptoalpha.signals.config import ALL_SOURCES, ForecastConfig, GenomeSignalConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.model import Opinions
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset

BARS = 4_200
ONE_OUT, ALL_OUT, LISTED = range(3_900, 3_906), range(4_000, 4_003), 2_500
MOMENTS = (120, 2_600, 3_902, 3_999, 4_002, 4_003, 4_150)
ALWAYS = 2**62
TRAINED = ("forecast", "genome")
SOURCES = (*ALL_SOURCES, *TRAINED)
TAKE_OVER = (3_890, 3_950)
"""Rows at which the folds of trained models take over: late, because asking a network is slow."""


@pytest.fixture(scope="module")
def market() -> Dataset:
    dataset = simulate(SimulatedConfig(assets=3, bars=BARS, interval="4h", start="2020-03-01", edge=0.05, horizon_bars=6), seed=5).dataset
    absent = {"SIM1/USDT": {*ONE_OUT, *ALL_OUT}, "SIM2/USDT": {*ALL_OUT}, "SIM3/USDT": {*ALL_OUT, *range(LISTED)}}
    bars = {name: table.take(np.array([row for row in range(BARS) if row not in absent[name]])) for name, table in dataset.bars.items()}
    return replace(dataset, bars=bars)


def frame_of(dataset: Dataset) -> Frame:
    panel = build_panel(dataset, since=-ALWAYS, until=ALWAYS, instruments=sorted(dataset.bars))
    return Frame(panel, dataset)


@pytest.fixture(scope="module")
def config(market, random_forecaster, random_genome, tmp_path_factory) -> SignalsConfig:
    folder, frame = tmp_path_factory.mktemp("models"), frame_of(market)
    forecast, genome = ForecastConfig(context_bars=16, block_bars=32), GenomeSignalConfig()
    random_forecaster(folder / "forecaster", frame, forecast, TAKE_OVER)
    random_genome(folder / "genome", frame, genome, TAKE_OVER)
    return SignalsConfig(
        forecast=forecast.model_copy(update={"model": str(folder / "forecaster")}),
        genome=genome.model_copy(update={"model": str(folder / "genome")}),
    )


@pytest.fixture(scope="module")
def batch(market: Dataset, config: SignalsConfig) -> dict[str, Opinions]:
    frame = frame_of(market)
    return {source: build_model(source, config).compute(frame) for source in SOURCES}


def parts(formed: Opinions) -> dict[str, np.ndarray]:
    named = {"value": formed.value, "confidence": formed.confidence, "impact": formed.impact, **formed.traces}
    if formed.quantiles is not None:
        named["quantiles"] = formed.quantiles
    if formed.reference is not None:
        named["text"] = np.array([*formed.references, ""], dtype=object)[formed.reference]
    return named


def assert_same_rows(a: Opinions, b: Opinions, of_a: slice, of_b: slice) -> None:
    for name, array in parts(a).items():
        other = parts(b)[name]
        if array.dtype == object:
            assert (array[of_a] == other[of_b]).all(), name
        else:
            assert array[of_a].tobytes() == other[of_b].tobytes() or np.array_equal(array[of_a], other[of_b], equal_nan=True), name


def poisoned(dataset: Dataset, moment: int, price: float, reading: float, text: str) -> Dataset:
    def spoil(table: BarTable) -> BarTable:
        late = table.known_at > moment
        columns = ("open", "high", "low", "close", "volume", "taker_buy_volume")
        return replace(table, **{name: np.where(late, price, getattr(table, name)) for name in columns})

    return replace(
        dataset,
        bars={name: spoil(table) for name, table in dataset.bars.items()},
        readings={k: replace(t, value=np.where(t.known_at > moment, reading, t.value)) for k, t in dataset.readings.items()},
        posts={k: replace(t, text=np.where(t.known_at > moment, text, t.text)) for k, t in dataset.posts.items()},
    )


@pytest.mark.parametrize("source", SOURCES)
def test_has_opinions_on_a_market_that_has_everything(source, batch):
    assert np.isfinite(batch[source].value[-100:]).all()


@pytest.mark.parametrize("source", SOURCES)
def test_same_input_same_output(source, market, batch, config):
    again = build_model(source, config).compute(frame_of(market))
    assert_same_rows(again, batch[source], slice(None), slice(None))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("source", SOURCES)
def test_what_becomes_known_later_changes_nothing(source, moment, market, batch, config):
    """Removed: everything known after row t."""
    known = int(frame_of(market).panel.known_at[moment])
    cut = build_model(source, config).compute(frame_of(market.known_until(known)))
    assert_same_rows(cut, batch[source], slice(None), slice(0, len(cut.value)))


@pytest.mark.parametrize(("price", "reading", "text"), [(np.nan, np.nan, ""), (1e6, 1e6, "SIM1 SIM2 SIM3 hacked, crash, bankrupt")])
@pytest.mark.parametrize("source", SOURCES)
def test_poisoning_the_future_changes_nothing(source, price, reading, text, market, batch, config):
    for moment in (2_700, 4_100):
        known = int(frame_of(market).panel.known_at[moment])
        formed = build_model(source, config).compute(frame_of(poisoned(market, known, price, reading, text)))
        assert_same_rows(formed, batch[source], slice(0, moment + 1), slice(0, moment + 1))


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_beyond_its_reach_changes_a_row(source, market, batch, config):
    """Cut at the front: a window of `reach` rows gives the row that the whole history gives."""
    frame, model = frame_of(market), build_model(source, config)
    reach = model.reach(frame.panel.interval)
    assert reach < BARS - 100
    for row in (reach + 1, 4_005, BARS - 1):
        window = Frame(frame.panel.rows(row - reach, row + 1), market, first=reach)
        assert_same_rows(model.compute(window), batch[source], slice(-1, None), slice(row, row + 1))


@pytest.mark.parametrize("source", SOURCES)
def test_absent_bars_have_no_opinion_and_present_ones_after_them_do(source, batch):
    value = batch[source].value
    assert np.isnan(value[list(ONE_OUT), 0]).all()
    assert np.isnan(value[list(ALL_OUT)]).all()
    assert np.isnan(value[:LISTED, 2]).all()
    assert np.isfinite(value[ALL_OUT.stop + 1]).all()


@pytest.mark.parametrize("source", SOURCES)
def test_bounded_and_missing_together(source, batch):
    formed = batch[source]
    there = np.isfinite(formed.value)
    assert (np.abs(formed.value[there]) <= 1.0).all()
    assert ((formed.confidence[there] >= 0.0) & (formed.confidence[there] <= 1.0)).all()
    assert np.array_equal(there, np.isfinite(formed.confidence))
    assert np.array_equal(there, np.isfinite(formed.impact))
    assert np.array_equal(np.sign(formed.impact[there]), np.sign(formed.value[there]))
    if formed.quantiles is not None:
        assert np.array_equal(np.isfinite(formed.quantiles), np.broadcast_to(there[:, :, None], formed.quantiles.shape))
        assert (np.diff(formed.quantiles[there], axis=1) >= 0.0).all()


@pytest.mark.parametrize("source", TRAINED)
def test_a_trained_model_answers_no_bar_that_was_known_before_it(source, batch):
    value = batch[source].value
    assert np.isnan(value[: TAKE_OVER[0]]).all()
    assert np.isfinite(value[TAKE_OVER[0], :2]).all()
    assert (batch[source].traces[f"weights/{source}"][[*TAKE_OVER, TAKE_OVER[0] - 1, TAKE_OVER[1] - 1]] == [0, 1, -1, 0]).all()


@pytest.mark.parametrize("source", SOURCES)
def test_without_any_input_there_is_no_opinion(source, market, config):
    nothing = poisoned(replace(market, readings={}, posts={}), -ALWAYS, np.nan, np.nan, "")
    assert np.isnan(build_model(source, config).compute(frame_of(nothing)).value).all()


@pytest.mark.parametrize(("source", "family"), [("funding", "readings"), ("fear_greed", "readings"), ("news_tone", "posts")])
def test_without_its_own_input_a_source_has_no_opinion(source, family, market, config):
    formed = build_model(source, config).compute(frame_of(replace(market, **{family: {}})))
    assert np.isnan(formed.value).all()


@pytest.mark.parametrize("source", SOURCES)
def test_says_who_it_is_and_how_far_it_looks(source, config):
    model = build_model(source, config)
    assert model.source == source
    assert model.type in {"price", "volatility", "funding", "mood", "news", "chain", "model"}
    assert DAY <= model.horizon <= 30 * DAY
