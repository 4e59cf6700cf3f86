"""Momentum, trend and volatility state on markets made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR, MINUTE
from cryptoalpha.signals.frame import Frame, squash_all
from cryptoalpha.signals.momentum import Momentum
from cryptoalpha.signals.trend import Trend
from cryptoalpha.signals.volatility import VolatilityState


def zigzag(bars: int, step: float = 0.01, drift: float = 0.0) -> np.ndarray:
    """Closes whose log returns are +step and −step in turn, plus drift."""
    returns = np.where(np.arange(bars) % 2 == 0, step, -step) + drift
    return 100.0 * np.exp(np.cumsum(returns))


def momentum(days: float = 1.0) -> Momentum:
    return Momentum("momentum", look_back_days=days, horizon_days=7.0, typical_ic=0.02)


def test_momentum_is_the_return_in_units_of_its_volatility(make_frame):
    formed = momentum().compute(make_frame({"A/USDT": zigzag(2_400, drift=0.001)}))
    # log returns are 0.011 and −0.009: σ² → (0.011² + 0.009²) / 2 by equal halves of an exponential mean, up to its last bar
    sigma = math.sqrt((0.011**2 + 0.009**2) / 2)
    z = 24 * 0.001 / (sigma * math.sqrt(24))
    assert formed.value[-1, 0] == pytest.approx(math.tanh(z), rel=2e-3)
    assert formed.confidence[-1, 0] == pytest.approx(math.tanh(z), rel=2e-3)  # every bar is there: confidence is strength
    assert formed.impact[-1, 0] == pytest.approx(0.02 * formed.value[-1, 0])


def test_momentum_has_no_opinion_before_its_look_back(make_frame):
    value = momentum(10.0).compute(make_frame({"A/USDT": zigzag(1_000)})).value[:, 0]
    assert np.isnan(value[:240]).all()
    assert np.isfinite(value[800:]).all()


def test_a_gap_in_the_look_back_lowers_confidence_by_its_share(make_frame):
    closes = zigzag(2_400, drift=0.001)
    gapped = closes.copy()
    gapped[-13:-7] = np.nan
    whole, holed = (momentum().compute(make_frame({"A/USDT": c, "B/USDT": closes})) for c in (closes, gapped))
    ratio = (holed.confidence[-1, 0] / abs(holed.value[-1, 0])) / (whole.confidence[-1, 0] / abs(whole.value[-1, 0]))
    assert ratio == pytest.approx(18 / 24)


def test_trend_is_the_mean_over_speeds_of_the_distance_to_the_average(make_frame):
    closes = zigzag(3_000, drift=0.002)
    frame = make_frame({"A/USDT": closes})
    formed = Trend(span_days=(2.0, 4.0), horizon_days=7.0, typical_ic=0.02).compute(frame)
    log_close, expected = np.log(closes), []
    returns = np.diff(log_close)
    weights = 0.5 ** (np.arange(1_920) / 240.0)  # half-life ten days, eight half-lives
    sigma = math.sqrt(np.sum(weights * returns[::-1][:1_920] ** 2) / weights.sum())
    for span in (48.0, 96.0):
        alpha = 2.0 / (span + 1.0)
        ema = log_close[0]
        for x in log_close[1:]:
            ema += alpha * (x - ema)
        expected.append(math.tanh((log_close[-1] - ema) / (sigma * math.sqrt(span) / 2)))
    assert formed.value[-1, 0] == pytest.approx(np.mean(expected), rel=0.02)  # our averages stop after eight half-lives
    assert formed.confidence[-1, 0] == pytest.approx(1.0)  # all there, all agree


def test_trend_turns_sign_with_the_market(make_frame):
    up, down = zigzag(3_000, drift=0.001), zigzag(3_000, drift=-0.001)
    value = Trend(span_days=(8.0, 16.0), horizon_days=7.0, typical_ic=0.02).compute(make_frame({"A/USDT": up, "B/USDT": down})).value
    assert value[-1, 0] > 0.5
    assert value[-1, 1] < -0.5


def test_a_speed_without_history_is_left_out_and_costs_confidence(make_frame):
    closes = zigzag(1_000, drift=0.001)
    formed = Trend(span_days=(8.0, 400.0), horizon_days=7.0, typical_ic=0.02).compute(make_frame({"A/USDT": closes}))
    assert formed.value[-1, 0] > 0.5
    assert formed.confidence[-1, 0] == pytest.approx(0.5 * 1_000 / 9_600)


def test_trend_without_a_span_is_refused():
    with pytest.raises(ConfigError, match="span"):
        Trend(span_days=(), horizon_days=1.0, typical_ic=0.02)


def state() -> VolatilityState:
    return VolatilityState(fast_half_life_days=0.5, slow_half_life_days=5.0, full_strength=0.5, horizon_days=1.0, typical_ic=0.02)


def test_usual_volatility_is_no_opinion_a_storm_is_shunned_and_calm_is_held(make_frame):
    storm = np.concatenate((zigzag(1_500), zigzag(100, step=0.05)))
    calm = np.concatenate((zigzag(1_500), zigzag(100, step=0.002)))
    value = state().compute(make_frame({"A/USDT": zigzag(1_600), "B/USDT": storm, "C/USDT": calm})).value[-1]
    assert value[0] == pytest.approx(0.0, abs=0.01)
    assert value[1] < -0.5
    assert value[2] > 0.5


def test_volatility_state_is_the_log_ratio_of_two_volatilities(make_frame):
    returns = np.where(np.arange(1_600) % 2 == 0, 1.0, -1.0) * np.where(np.arange(1_600) < 1_560, 0.01, 0.03)
    closes = 100.0 * np.exp(np.cumsum(returns))
    value = state().compute(make_frame({"A/USDT": closes})).value[-1, 0]

    def sigma(half_life: int) -> float:
        weights = 0.5 ** (np.arange(8 * half_life) / half_life)
        return math.sqrt(np.sum(weights * returns[::-1][: 8 * half_life] ** 2) / weights.sum())

    assert value == pytest.approx(-math.tanh(math.log(sigma(12) / sigma(120)) / 0.5))


def test_a_price_that_stands_still_has_no_volatility_and_so_no_opinion(make_frame):
    frame = make_frame({"A/USDT": [100.0] * 1_600})
    for model in (momentum(), Trend(span_days=(2.0,), horizon_days=7.0, typical_ic=0.02), state()):
        assert np.isnan(model.compute(frame).value).all()


def test_short_bars_take_slow_measures_from_whole_hours(make_frame):
    """Quarter-hour bars whose hours close as an hourly market does have its momentum, from each hour's close on."""
    hourly = zigzag(2_400, drift=0.001)
    quarters = np.repeat(hourly, 4) * np.tile([1.003, 0.997, 1.001, 1.0], 2_400)
    coarse = momentum().compute(make_frame({"A/USDT": hourly})).value[:, 0]
    fine = momentum().compute(make_frame({"A/USDT": quarters}, interval=15 * MINUTE)).value[:, 0]
    assert fine[3::4].tobytes() == coarse.tobytes()
    assert fine[4::4].tobytes() == coarse[:-1].tobytes()  # known until the next hour closes


def test_an_hour_whose_last_bar_is_absent_closes_with_the_one_before(make_frame):
    quarters = np.repeat(zigzag(2_400), 4)
    quarters[9_539:9_599] = np.nan
    frame = make_frame({"A/USDT": quarters, "B/USDT": np.repeat(zigzag(2_400), 4)}, interval=15 * MINUTE)
    assert isinstance(frame, Frame)
    assert frame.slow_interval == HOUR
    assert np.isnan(frame.slow_log_close[0][2_385])
    assert frame.slow_log_close[0][2_384] == frame.slow_log_close[1][2_384]  # bar 9,538 stands in for 9,539
    assert (frame.slow_coverage(1.0)[0][-1], frame.slow_coverage(1.0)[1][-1]) == (10 / 24, 1.0)


def test_squash_is_tanh_in_any_shape():
    x = np.array([[0.0, 1.0, np.nan], [-40.0, 1e300, -0.5]])
    assert squash_all(x.T).T.tolist()[1] == [math.tanh(v) for v in x[1]]
    assert np.isnan(squash_all(x)[0, 2])


def test_reach_counts_bars_of_any_length():
    model = momentum(28.0)
    assert model.reach(HOUR) == 80 * 24 + 50  # the volatility sees eight half-lives of ten days; a return may span 48 absent bars
    assert model.reach(DAY) == 80 + 50
