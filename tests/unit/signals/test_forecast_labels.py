"""Labels of the forecaster by hand and by slower ways, with gaps, and when each becomes known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.config import ForecastConfig
from cryptoalpha.signals.forecast.labels import correlation_horizon, forecast_labels, realised_volatility
from cryptoalpha.signals.labels import NEVER, forward_return

CONFIG = ForecastConfig(horizon_bars=(1, 6, 30))


@pytest.fixture(scope="module")
def frame(make_frame):
    rng = np.random.default_rng(3)
    common = rng.normal(size=300)
    paths = {f"{name}/USDT": 100.0 * np.exp(np.cumsum(0.01 * (common + rng.normal(size=300)))) for name in "ABC"}
    paths["C/USDT"][200] = np.nan
    return make_frame(paths)


@pytest.fixture(scope="module")
def labels(frame):
    return forecast_labels(frame.panel, frame.sigma, CONFIG)


def test_moves_are_forward_returns(frame, labels):
    for h, bars in enumerate(CONFIG.horizon_bars):
        expected = forward_return(frame.panel, bars, frame.sigma)
        assert np.array_equal(labels.move[:, :, h], expected.value.astype(np.float32), equal_nan=True)
        assert np.array_equal(labels.known_at[:, h], expected.known_at)


def test_the_volatility_of_one_bar_is_the_size_of_its_move(labels):
    there = np.isfinite(labels.move[:, :, 0])
    assert there.sum() > 500
    assert labels.volatility[:, :, 0][there] == pytest.approx(np.abs(labels.move[:, :, 0][there]), rel=1e-6)


def test_realised_volatility_by_hand():
    opens = np.log([1.0, 2.0, 3.0, 6.0, 6.0, 1.0])
    assert realised_volatility(opens, 3)[0] == pytest.approx(math.sqrt(math.log(1.5) ** 2 + math.log(2.0) ** 2))
    assert np.isfinite(realised_volatility(opens, 3)).tolist() == [True, True, False, False, False, False]


def test_a_hole_is_bridged_and_an_outage_has_no_label():
    opens = np.log(np.arange(1.0, 20.0))
    opens[5] = np.nan
    expected = sum((opens[b] - opens[a]) ** 2 for a, b in ((1, 2), (2, 3), (3, 4), (4, 6), (6, 7), (7, 8), (8, 9)))
    assert realised_volatility(opens, 8)[0] == pytest.approx(math.sqrt(expected))
    assert np.isnan(realised_volatility(opens, 4)[[0, 4]]).all()  # it ends, or begins, in the hole
    opens[4] = opens[6] = np.nan
    assert np.isnan(realised_volatility(opens, 8)[0])  # six of nine opens


def test_volatility_in_units_of_what_was_expected(frame, labels):
    t, h = 120, 2
    opens = np.log(frame.panel.open[t + 1 : t + 32, 0])
    expected = math.sqrt(float((np.diff(opens) ** 2).sum())) / (frame.sigma[t, 0] * math.sqrt(30))
    assert labels.volatility[t, 0, h] == pytest.approx(expected, rel=1e-6)


def test_correlation_ahead_is_numpys_over_the_steps_between_opens(frame, labels):
    assert correlation_horizon(CONFIG, HOUR) == 30
    assert correlation_horizon(ForecastConfig(horizon_bars=(1,)), HOUR) == 24
    for t in (60, 120, 268):
        steps = np.diff(np.log(frame.panel.open[t + 1 : t + 32, :2]), axis=0)
        assert len(steps) == 30
        assert labels.correlation[t, 0, 1] == pytest.approx(np.corrcoef(steps.T)[0, 1], rel=1e-5)
        assert labels.correlation[t, 1, 0] == labels.correlation[t, 0, 1]
    assert np.isnan(labels.correlation[:, 0, 0]).all()
    assert labels.correlation_known_at[120] == frame.panel.known_at[151]


def test_each_label_is_known_with_the_bar_of_its_last_open(frame, labels):
    assert labels.known_at[100].tolist() == [frame.panel.known_at[100 + 1 + h] for h in CONFIG.horizon_bars]
    assert labels.known_at[-2:].min() == NEVER
    assert labels.all_known_at[100] == frame.panel.known_at[131]
    assert np.isnan(labels.move[-2:]).all()
    assert np.isnan(labels.correlation[-31:]).all()


def test_a_label_rests_on_nothing_known_after_its_moment(frame, labels, make_frame):
    """Cut the history where a label is known: it is there already, and the same."""
    for cut in (150, 231):
        shorter = forecast_labels(frame.panel.rows(0, cut), frame.sigma[:cut], CONFIG)
        until = int(frame.panel.known_at[cut - 1])
        for h in range(3):
            settled = labels.known_at[:, h] <= until
            for name in ("move", "volatility"):
                whole, part = getattr(labels, name)[settled, :, h], getattr(shorter, name)[settled[:cut], :, h]
                assert whole.tobytes() == part.tobytes()
        settled = labels.correlation_known_at <= until
        assert labels.correlation[settled].tobytes() == shorter.correlation[settled[:cut]].tobytes()
        assert (shorter.known_at[settled[:cut]] == labels.known_at[settled]).all()


def test_an_absurd_price_makes_no_infinite_label(make_frame):
    closes = np.full(200, 1e-300)
    closes[::2] = 1e300
    frame = make_frame({"A/USDT": closes, "B/USDT": closes[::-1]})
    labels = forecast_labels(frame.panel, np.full(frame.shape, 1e-200), CONFIG)
    for values in (labels.move, labels.volatility, labels.correlation):
        assert not np.isinf(values).any()
