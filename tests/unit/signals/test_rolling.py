"""The window kernels against closed forms and slow second ways."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cryptoalpha.signals import rolling as r

Floats = npt.NDArray[np.float64]
NAN = math.nan

series = arrays(np.float64, st.integers(1, 60), elements=st.one_of(st.just(NAN), st.floats(-100, 100, width=32)))
windows = st.integers(1, 12)


def windows_of(x: Floats, w: int) -> list[list[float]]:
    """For each row the values of its window, empty where the row is missing or fewer than 80 % are there."""
    out = []
    for t in range(len(x)):
        there = [float(v) for v in x[max(0, t - w + 1) : t + 1] if not math.isnan(v)]
        out.append(there if not math.isnan(x[t]) and 5 * len(there) >= 4 * w else [])
    return out


def apply(f: Callable[[list[float]], float], x: Floats, w: int) -> Floats:
    return np.array([f(values) if values else NAN for values in windows_of(x, w)])


@given(x=series, w=windows)
@settings(max_examples=50, deadline=None)
def test_rolling_mean_is_the_mean_of_what_is_there(x: Floats, w: int) -> None:
    np.testing.assert_allclose(r.weighted_mean(x, r.flat_weights(w)), apply(statistics.fmean, x, w), rtol=1e-12, atol=1e-10)


@given(x=series, w=st.integers(2, 12))
@settings(max_examples=50, deadline=None)
def test_deviation_agrees_with_statistics(x: Floats, w: int) -> None:
    mean, deviation = r.mean_and_deviation(x, w)
    slow = apply(lambda v: statistics.stdev(v) if len(v) > 1 else NAN, x, w)
    np.testing.assert_allclose(deviation, slow, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(mean[~np.isnan(mean)], apply(statistics.fmean, x, w)[~np.isnan(mean)], rtol=1e-9, atol=1e-9)


@given(x=series, w=windows)
@settings(max_examples=50, deadline=None)
def test_maximum_agrees_with_max(x: Floats, w: int) -> None:
    np.testing.assert_array_equal(r.rolling_maximum(x, w), apply(max, x, w))


@given(x=series, w=windows)
@settings(max_examples=50, deadline=None)
def test_mean_absolute_deviation_agrees_with_its_definition(x: Floats, w: int) -> None:
    spread, distance = r.mean_absolute_deviation(x, w)
    np.testing.assert_allclose(spread, apply(lambda v: statistics.fmean(abs(a - statistics.fmean(v)) for a in v), x, w), atol=1e-9)
    np.testing.assert_allclose(distance, apply(lambda v: v[-1] - statistics.fmean(v), x, w), atol=1e-9)


@given(x=series, lag=st.integers(0, 5), reach=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_last_before_finds_the_newest_value_in_reach(x: Floats, lag: int, reach: int) -> None:
    value, age = r.last_before(x, lag, reach)
    for t in range(len(x)):
        found = [a for a in range(lag, lag + reach + 1) if a <= t and not math.isnan(x[t - a])]
        assert (value[t], age[t]) == pytest.approx((x[t - found[0]], found[0]) if found else (NAN, NAN), nan_ok=True)


KERNELS: dict[str, Callable[[Floats], tuple[Floats, ...]]] = {
    "exponential": lambda x: (r.weighted_mean(x, r.half_life_weights(1.5)),),
    "flat": lambda x: (r.weighted_mean(x, r.flat_weights(9)),),
    "deviation": lambda x: r.mean_and_deviation(x, 7),
    "absolute": lambda x: r.mean_absolute_deviation(x, 7),
    "maximum": lambda x: (r.rolling_maximum(x, 7),),
    "slope": lambda x: (r.slope_t(x, 7),),
    "regression": lambda x: r.beta_and_correlation(x * x, x, 7),
    "last": lambda x: r.last_before(x, 2, 3),
    "logarithm": lambda x: (r.logarithm(x),),
}


@pytest.mark.parametrize("name", KERNELS)
@given(x=series, data=st.data())
@settings(max_examples=30, deadline=None)
def test_kernels_neither_look_ahead_nor_remember_past_their_window(name: str, x: Floats, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(x)))
    start = data.draw(st.integers(0, len(x) - 1))
    for whole, prefix, suffix in zip(KERNELS[name](x), KERNELS[name](x[:cut].copy()), KERNELS[name](x[start:].copy()), strict=True):
        assert whole[:cut].tobytes() == prefix.tobytes()
        assert whole[start + 12 :].tobytes() == suffix[12:].tobytes()  # the longest window here is 12 rows
        assert not np.isinf(whole).any()


def test_half_life_weights_halve_after_one_half_life_and_stop_after_eight() -> None:
    weights = r.half_life_weights(4)
    assert len(weights) == 32
    assert weights[4] / weights[0] == pytest.approx(0.5)
    assert math.fsum(weights) == pytest.approx(1.0)


def test_wilder_and_span_weights_have_the_usual_decay() -> None:
    assert r.wilder_weights(14)[1] / r.wilder_weights(14)[0] == pytest.approx(13 / 14)
    assert r.span_weights(9)[1] / r.span_weights(9)[0] == pytest.approx(1 - 2 / 10)


def test_exponential_mean_of_a_step_approaches_it_by_half_per_half_life() -> None:
    x = np.concatenate([np.zeros(400), np.ones(60)])
    mean = r.weighted_mean(x, r.half_life_weights(10))
    dropped = 2.0**-8
    for age in (1, 10, 20, 40):
        assert mean[399 + age] == pytest.approx((1 - 0.5 ** (age / 10)) / (1 - dropped))


def test_exponential_mean_waits_for_four_fifths_of_its_weight() -> None:
    mean = r.weighted_mean(np.ones(400), r.half_life_weights(32))
    first = int(np.flatnonzero(np.isfinite(mean))[0]) + 1  # rows: (1 − 2^(−n/32)) / (1 − 2⁻⁸) ≥ 0.8
    assert first == math.ceil(-32 * math.log2(1 - 0.8 * (1 - 2.0**-8)))


def test_four_of_five_rows_suffice_and_three_do_not() -> None:
    assert r.weighted_mean(np.array([1.0, NAN, 3.0, 4.0, 4.0]), r.flat_weights(5))[-1] == pytest.approx(3.0)
    assert math.isnan(r.weighted_mean(np.array([1.0, NAN, NAN, 4.0, 4.0]), r.flat_weights(5))[-1])


def test_a_missing_row_has_no_result_although_its_window_is_nearly_whole() -> None:
    assert math.isnan(r.weighted_mean(np.array([1.0] * 9 + [NAN]), r.flat_weights(10))[-1])


def test_a_constant_window_has_no_deviation_at_all_far_from_zero() -> None:
    assert r.mean_and_deviation(np.full(20, 12345.678), 10)[1][-1] == 0.0


def test_slope_of_a_line_with_known_noise() -> None:
    # y = 0, 1, 0, 1, 0 has slope 0; y = 0, 2, 1, 3 has slope 0.8, residual sum 1.8: t = 0.8 / √(1.8 / 2 / 5)
    assert r.slope_t(np.array([0.0, 1.0, 0.0, 1.0, 0.0]), 5)[-1] == pytest.approx(0.0)
    assert r.slope_t(np.array([0.0, 2.0, 1.0, 3.0]), 4)[-1] == pytest.approx(0.8 / math.sqrt(1.8 / 2 / 5))


def test_slope_of_a_perfect_or_flat_line_is_finite() -> None:
    assert r.slope_t(np.full(32, 7.0), 32)[-1] == 0.0
    steep = r.slope_t(np.arange(32.0), 32)[-1]
    assert steep == pytest.approx(math.sqrt(30 / 1e-12), rel=1e-3)


def test_beta_and_correlation_of_twice_the_market() -> None:
    x = np.sin(np.arange(50.0))
    beta, correlation = r.beta_and_correlation(2.0 * x + 3.0, x, 20)
    assert beta[-1] == pytest.approx(2.0)
    assert correlation[-1] == pytest.approx(1.0)
    assert np.isnan(r.beta_and_correlation(x, np.ones(50), 20)[0]).all()


def test_slope_of_a_running_sum_from_its_increments() -> None:
    increments = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0])
    total = np.concatenate([[0.0], np.cumsum(increments)])
    slope = np.polyfit(np.arange(8.0), total, 1)[0]
    assert r.weighted_mean(np.concatenate([[0.0], increments]), r.slope_of_sum_weights(8))[-1] == pytest.approx(slope)


def test_ratio_reads_flat_on_zero_over_zero_and_is_missing_rather_than_infinite() -> None:
    above, below = np.array([1.0, 0.0, NAN, 1.0, 1e300]), np.array([2.0, 0.0, 0.0, NAN, 1e-300])
    np.testing.assert_array_equal(r.ratio(above, below, flat=50.0), [0.5, 50.0, NAN, NAN, NAN])
