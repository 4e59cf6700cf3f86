"""The stationary bootstrap: block structure, block length against its closed form, coverage, determinism."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.bootstrap import (
    block_length,
    bootstrap_interval,
    drawdown_interval,
    growth_interval,
    resample_indices,
    sharpe_difference,
    sharpe_interval,
)
from cryptoalpha.monitoring.measures import cagr, max_drawdown, sharpe_ratio


def autoregression(length: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=length + 50)
    for t in range(1, x.size):
        x[t] += rho * x[t - 1]
    return x[50:]


def test_resampled_places_run_on_and_wrap_around():
    places = resample_indices(50, 400, 5.0, stream(1, "test"))
    assert places.shape == (400, 50)
    assert places.min() == 0
    assert places.max() == 49
    continued = (places[:, 1:] == (places[:, :-1] + 1) % 50).mean()
    assert continued == pytest.approx(1 - 1 / 5 + 1 / 5 / 50, abs=0.01)  # a new run may start where the old one would have gone
    counts = np.bincount(places.ravel(), minlength=50)
    assert counts.std() / counts.mean() < 0.15  # wrapping around favours no place


def test_blocks_of_one_are_independent_draws_and_endless_blocks_only_rotate():
    alone = resample_indices(1000, 20, 1.0, stream(2, "test"))
    assert (alone[:, 1:] == alone[:, :-1] + 1).mean() < 0.005
    endless = resample_indices(1000, 20, 1e12, stream(2, "test"))
    assert np.array_equal(np.sort(endless, axis=1), np.tile(np.arange(1000), (20, 1)))


def test_block_length_of_an_autoregression_nears_its_closed_form():
    # AR(1): (2 ρ / (1 − ρ²))^(2/3) n^(1/3), Politis & White (2004)
    rng = np.random.default_rng(3)
    estimates = [block_length(autoregression(4000, 0.5, rng)) for _ in range(20)]
    assert np.median(estimates) == pytest.approx((2 * 0.5 / 0.75) ** (2 / 3) * 4000 ** (1 / 3), rel=0.25)


def test_block_length_sees_volatility_clusters_that_returns_alone_do_not_show():
    rng = np.random.default_rng(4)
    quiet_and_wild = rng.normal(size=2000) * np.repeat(np.where(np.arange(20) % 2, 3.0, 1.0), 100)
    assert block_length(quiet_and_wild) > 5 * block_length(rng.normal(size=2000))


def test_block_length_of_what_never_varies_is_one():
    assert block_length(np.zeros(100)) == 1.0
    assert block_length([0.1, 0.2]) == 1.0


@pytest.mark.parametrize(("rho", "floor"), [(0.0, 0.88), (0.5, 0.82)])
def test_intervals_cover_the_true_sharpe(rho, floor):
    rng = np.random.default_rng(5)
    variance, mean = 1 / (1 - rho**2), 0.1
    true = mean / math.sqrt(variance)
    covered = 0
    for repeat in range(120):
        interval = sharpe_interval(mean + autoregression(500, rho, rng), periods_per_year=1, seed=repeat, resamples=300)
        covered += interval.low <= true <= interval.high
    assert floor <= covered / 120 <= 1.0  # nominal .95; blocks are known to fall a little short under strong dependence


def test_independent_draws_would_not_cover_under_autocorrelation():
    rng = np.random.default_rng(6)
    covered = 0
    for repeat in range(120):
        interval = sharpe_interval(autoregression(500, 0.5, rng), periods_per_year=1, seed=repeat, resamples=300, mean_block=1.0)
        covered += interval.low <= 0.0 <= interval.high
    assert covered / 120 < 0.82


def test_pairing_removes_what_moves_both_series():
    rng = np.random.default_rng(7)
    market = rng.normal(0.001, 0.03, 700)
    first, second = market + rng.normal(0.001, 0.002, 700), market + rng.normal(0.0, 0.002, 700)
    difference = sharpe_difference(first, second, periods_per_year=365)
    alone = sharpe_interval(first, periods_per_year=365)
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)
    assert difference.estimate == pytest.approx(sharpe_ratio(first, periods_per_year=365) - sharpe_ratio(second, periods_per_year=365))
    assert difference.low > 0.0


def test_a_series_does_not_differ_from_itself():
    r = np.random.default_rng(8).normal(0.0, 0.02, 100)
    difference = sharpe_difference(r, r, periods_per_year=365)
    assert (difference.estimate, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_whole_matrix_and_one_by_one_agree():
    r = np.random.default_rng(9).normal(0.001, 0.02, 200)
    for rows, one, name in (
        (drawdown_interval(r, resamples=50), lambda x: max_drawdown(x).depth, "drawdown"),
        (growth_interval(r, periods_per_year=365, resamples=50), lambda x: cagr(x, periods_per_year=365), "growth"),
        (sharpe_interval(r, periods_per_year=365, resamples=50), lambda x: sharpe_ratio(x, periods_per_year=365), "sharpe"),
    ):
        slow = bootstrap_interval(r, one, name=name, resamples=50)
        assert (rows.estimate, rows.low, rows.high) == pytest.approx((slow.estimate, slow.low, slow.high))


def test_same_seed_same_interval_other_seed_another():
    r = np.random.default_rng(10).normal(0.001, 0.02, 300)
    assert sharpe_interval(r, periods_per_year=365, seed=1) == sharpe_interval(r, periods_per_year=365, seed=1)
    assert sharpe_interval(r, periods_per_year=365, seed=1).low != sharpe_interval(r, periods_per_year=365, seed=2).low


def test_an_undefined_measure_has_an_undefined_interval():
    interval = sharpe_interval(np.zeros(50), periods_per_year=365)
    assert math.isnan(interval.estimate)
    assert math.isnan(interval.low)
    assert interval.resamples == 0


def test_bootstrap_refuses_what_it_cannot_resample():
    with pytest.raises(DataError, match="at least two"):
        sharpe_interval([0.1], periods_per_year=365)
    with pytest.raises(ConfigError, match="level"):
        sharpe_interval([0.1, 0.2], periods_per_year=365, level=1.0)
    with pytest.raises(DataError, match="paired"):
        sharpe_difference([0.1, 0.2], [0.1, 0.2, 0.3], periods_per_year=365)
