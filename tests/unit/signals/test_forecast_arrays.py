"""What the forecaster looks at: texts weighed by hand, one rule with the news tone, the same from any start."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.config import ForecastConfig, NewsConfig
from cryptoalpha.signals.forecast.arrays import as_float32, first_needed, forecast_arrays, mean_vectors
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.recent_texts import recent_texts

CONFIG = ForecastConfig(context_bars=6, block_bars=4, correlation_bars=(10, 20))


class Letters:
    """A text's vector: its length and its number of spaces."""

    width = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts):
        self.asked += texts
        return np.array([[len(text), text.count(" ")] for text in texts], np.float32)


class Broken(Letters):
    def encode(self, texts):
        return np.full((len(texts), 2), np.inf, np.float32)


class Narrow(Letters):
    def encode(self, texts):
        return np.zeros((len(texts), 3), np.float32)


@pytest.fixture(scope="module")
def posts(start):
    return {
        "news": [
            (start + 30 * HOUR, "BTC up"),
            (start + 34 * HOUR, "markets calm today"),
            (start + 35 * HOUR, "ETH"),
            (start + 40 * HOUR, "btc UP "),  # a repeat
        ],
        "wire": [(start + 34 * HOUR, "XRP on the wire"), (start + 37 * HOUR, "")],
    }


@pytest.fixture(scope="module")
def frame(make_frame, posts) -> Frame:
    rng = np.random.default_rng(5)
    paths = {f"{name}/USDT": 50.0 * np.exp(np.cumsum(0.01 * rng.normal(size=120))) for name in ("BTC", "ETH")}
    paths["ETH/USDT"][60] = np.nan
    return make_frame(paths, posts=posts)


@pytest.fixture(scope="module")
def arrays(frame):
    return forecast_arrays(frame, CONFIG, Letters())


def text_at(arrays, row: int) -> tuple[np.ndarray, np.ndarray]:
    mean, weight = arrays.text.rows(np.array([row - arrays.begin]))
    return mean[0], weight[0]


def test_texts_are_weighed_by_age_and_relevance(frame, arrays):
    """Row 39 is known at hour 40: BTC is 10 h old, the two about the market 6 h, ETH 5 h."""
    mean, weight = text_at(arrays, 39)
    btc, market, eth = 0.5 ** (10 / 6), 0.5 * 0.5 ** (6 / 6), 0.5 ** (5 / 6)
    assert weight == pytest.approx([btc + 2 * market, eth + 2 * market])
    vectors = {"btc": np.array([6, 1]), "calm": np.array([18, 2]), "wire": np.array([15, 3]), "eth": np.array([3, 0])}
    total = market * (vectors["calm"] + vectors["wire"])
    assert mean[0] == pytest.approx((btc * vectors["btc"] + total) / weight[0])
    assert mean[1] == pytest.approx((eth * vectors["eth"] + total) / weight[1])


def test_a_text_counts_from_the_moment_it_is_known_for_a_day_and_once(arrays):
    assert text_at(arrays, 28)[1].tolist() == [0.0, 0.0]
    assert text_at(arrays, 29)[1].tolist() == [1.0, 0.0]  # known at hour 30, like the bar
    for late, counted in ((0, 1.0), (1, 0.0)):  # a nanosecond after the bar is too late for it
        one = (arrays.text.known_at[:1] + late, np.ones((1, 1)), np.array([False]), np.ones((1, 2), np.float32))
        assert mean_vectors(arrays.text.known_at[:1], *one, DAY, float(DAY))[1].tolist() == [[counted]]
    assert text_at(arrays, 52)[1][0] > text_at(arrays, 53)[1][0] > 0.0
    mean, weight = text_at(arrays, 59)  # a day after the last that counted: the repeat at hour 40 never did
    assert weight.tolist() == [0.0, 0.0]
    assert not mean.any()


def test_padding_has_no_text(arrays):
    mean, weight = arrays.text.rows(np.array([-1, 40]))
    assert not mean[0].any()
    assert not weight[0].any()
    assert weight[1].all()


def test_each_wording_is_read_once(make_frame, start):
    posts = {"news": [(start + hour * HOUR, "BTC again") for hour in (5, 5 + 9 * 24)]}
    encoder = Letters()
    forecast_arrays(make_frame({"BTC/USDT": np.linspace(1, 2, 300)}, posts=posts), CONFIG, encoder)
    assert encoder.asked == ["BTC again"]


def test_the_rule_of_repeats_and_relevance_is_that_of_the_news_tone(frame):
    found = recent_texts(frame, window=DAY, repeat=7 * DAY, market_weight=0.5)
    assert found.texts == ("BTC up", "markets calm today", "XRP on the wire", "ETH")
    assert found.relevance.tolist() == [[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]
    assert found.market.tolist() == [False, True, True, False]
    assert found.names == ("news:p0", "news:p1", "wire:p0", "news:p2")
    assert recent_texts(frame, window=DAY, repeat=1, market_weight=0.5).texts[-1] == "btc UP "


def test_settings_of_the_news_are_followed(frame):
    arrays = forecast_arrays(frame, CONFIG, Letters(), news=NewsConfig(market_weight=0.0, repeat_days=1e-6))
    assert text_at(arrays, 39)[1][1] == pytest.approx(0.5 ** (5 / 6))
    assert text_at(arrays, 39)[1][0] == pytest.approx(1.0 + 0.5 ** (10 / 6))  # the repeat counts


def test_features_are_the_frames_own_in_float32(frame, arrays):
    assert np.array_equal(arrays.price, frame.price.astype(np.float32), equal_nan=True)
    assert np.array_equal(arrays.chain, frame.chain.astype(np.float32), equal_nan=True)
    assert {arrays.price.dtype, arrays.chain.dtype, arrays.pair.dtype, arrays.text.vectors.dtype} == {np.dtype(np.float32)}
    assert arrays.present[60].tolist() == [True, False]
    assert (arrays.begin, len(arrays), arrays.assets) == (0, 120, 2)


def test_rows_begin_with_the_context_of_the_first_block(frame, start):
    """The hour of row 0 is a multiple of 24, so blocks of 4 begin at multiples of 4."""
    assert start // HOUR % 4 == 0
    assert [first_needed(frame, CONFIG, row) for row in (0, 8, 11, 12, 101)] == [0, 2, 2, 6, 94]


@pytest.mark.parametrize("cut", [1, 17, 55])
def test_the_same_bits_from_whatever_row_the_frame_begins(cut, frame, arrays):
    """Pairs reach 21 rows back; the features of prices keep their own promise."""
    later = Frame(frame.panel.rows(cut, 120), frame.dataset)
    found = forecast_arrays(later, CONFIG, Letters())
    assert found.first_bar == arrays.first_bar + cut
    assert found.pair[22:].tobytes() == arrays.pair[cut + 22 :].tobytes()
    rows = np.arange(22, 120 - cut)
    for mine, theirs in zip(found.text.rows(rows), arrays.text.rows(rows + cut), strict=True):
        assert mine.tobytes() == theirs.tobytes()
    asked = forecast_arrays(frame, CONFIG, Letters(), first=80)
    assert (asked.begin, asked.first_bar) == (74, arrays.first_bar + 74)
    assert asked.price.tobytes() == arrays.price[74:].tobytes()
    assert asked.pair.tobytes() == arrays.pair[74:].tobytes()


@pytest.mark.parametrize("encoder", [Broken(), Narrow()])
def test_an_encoder_that_answers_nonsense_is_refused(encoder, frame):
    with pytest.raises(ModelError, match="text encoder answered"):
        forecast_arrays(frame, CONFIG, encoder)


def test_without_texts_the_encoder_is_not_asked(make_frame):
    arrays = forecast_arrays(make_frame({"BTC/USDT": np.linspace(1, 2, 60)}), CONFIG, Broken())
    mean, weight = arrays.text.rows(np.arange(60))
    assert mean.shape == (60, 1, 2)
    assert not weight.any()


def test_what_overflows_float32_is_missing():
    assert np.isnan(as_float32(np.array([1e300, -np.inf, np.nan]))).all()
    assert as_float32(np.array([0.1]))[0] == np.float32(0.1)


def test_another_history_has_another_fingerprint(frame, arrays):
    assert arrays.fingerprint() == forecast_arrays(frame, CONFIG, Letters()).fingerprint()
    shorter = forecast_arrays(Frame(frame.panel.rows(0, 119), frame.dataset), CONFIG, Letters())
    assert arrays.fingerprint() != shorter.fingerprint()
    assert math.isfinite(int(arrays.fingerprint(), 16))
