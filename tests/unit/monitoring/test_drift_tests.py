"""Two-sample tests, many tests at once, and the χ² tail behind them: against SciPy, and at the rates they state."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.drift import two_samples
from cryptoalpha.monitoring.drift.chi_square import chi_square_tail
from cryptoalpha.monitoring.drift.false_discovery import adjusted_p_values
from cryptoalpha.monitoring.drift.two_samples import effective_size, kolmogorov_tail, ks_test, psi


def rng_of(*names):
    return stream(5, "test", "two samples", *names)


def test_chi_square_equals_scipy():
    special = pytest.importorskip("scipy.special")
    for freedom in (1, 2, 3, 9, 10, 31):
        for x in (1e-6, 0.3, 2.0, 9.0, 21.7, 80.0):
            assert chi_square_tail(x, freedom) == pytest.approx(special.chdtrc(freedom, x), rel=1e-11)
    assert chi_square_tail(21.66599433, 9) == pytest.approx(0.01, rel=1e-7)
    assert chi_square_tail(-1.0, 3) == 1.0
    with pytest.raises(ConfigError):
        chi_square_tail(1.0, 0)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (200, 35), (35, 200), (997, 251)])
def test_kolmogorov_smirnov_equals_scipy(n, m):
    stats = pytest.importorskip("scipy.stats")
    for shift in (0.0, 0.2, 0.8):
        rng = rng_of("ks", n, m)
        x, y = rng.normal(size=n), rng.normal(shift, 1.0, m)
        theirs, ours = stats.ks_2samp(x, y, method="exact"), ks_test(x, y)
        assert ours.statistic == pytest.approx(theirs.statistic, abs=1e-14)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-8)
        near = ks_test(x, y, effective=(float(n), float(m))).p_value
        assert near == pytest.approx(theirs.pvalue, rel=0.12, abs=0.02)
    for x in (0.3, 0.8, 1.36, 2.5):
        assert kolmogorov_tail(x) == pytest.approx(stats.kstwobign.sf(x), rel=1e-9)
    assert kolmogorov_tail(0.1) == 1.0


def test_ties_are_counted_once():
    stats = pytest.importorskip("scipy.stats")
    x, y = np.round(rng_of("ties").normal(size=300), 1), np.round(rng_of("ties", 2).normal(size=90), 1)
    assert ks_test(x, y).statistic == pytest.approx(stats.ks_2samp(x, y).statistic, abs=1e-14)


def test_psi_by_hand():
    # reference: ten values in each half; sample: 15 and 5 of 20 → (¼) ln(1.5) + (−¼) ln(0.5) = ¼ ln 3
    reference = np.r_[np.linspace(0.0, 1.0, 10), np.linspace(2.0, 3.0, 10)]
    sample = np.r_[np.full(15, 0.5), np.full(5, 2.5)]
    found = psi(reference, sample, bins=2)
    assert found.statistic == pytest.approx(0.25 * np.log(3.0))
    assert found.p_value == pytest.approx(chi_square_tail(found.statistic / 0.1, 1))
    assert psi(reference, reference).statistic == 0.0
    assert np.isnan(psi(np.ones(50), np.ones(20)).p_value)
    with pytest.raises(DataError):
        psi(reference, np.empty(0))
    with pytest.raises(DataError):
        ks_test(np.array([1.0, np.nan]), reference)


def within(count, trials, rate, sigmas=3.3):
    return abs(count - trials * rate) <= sigmas * sqrt(trials * rate * (1.0 - rate)) + 1.0


def test_the_customary_line_of_the_psi_fires_on_nothing_and_the_chi_square_rule_hardly():
    rng, trials = rng_of("psi"), 700
    found = [psi(rng.normal(size=10_000), rng.normal(size=100)) for _ in range(trials)]
    line, rule = sum(one.statistic > 0.1 for one in found), sum(one.p_value < 0.01 for one in found)
    assert within(line, trials, 0.40)
    assert within(rule, trials, 0.017)
    assert not within(line, trials, 0.01)


def test_dependent_values_fool_the_test_that_takes_them_for_independent():
    stats_of = []
    for trial in range(40):
        e = rng_of("ar", trial).normal(size=5_720)
        x = np.empty(e.size)
        level = e[0] / sqrt(1.0 - 0.98**2)
        for i, surprise in enumerate(e.tolist()):
            level = 0.98 * level + surprise if i else level
            x[i] = level
        before, after = x[:5_000], x[5_000:]
        worth = (effective_size(before), effective_size(after))
        stats_of.append(
            (ks_test(before, after, effective=(5_000.0, 720.0)).p_value < 0.05, ks_test(before, after, effective=worth).p_value < 0.05)
        )
    naive, honest = np.sum(stats_of, axis=0)
    assert naive >= 34  # 97 % on the facts page
    assert honest <= 10
    assert effective_size(np.arange(2.0)) == 2.0
    # 1, 2, 3, 4: deviations −3/2 … 3/2, φ = (¾ − ¼ + ¾) / 5 = ¼ → 4 · ¾ / (5/4)
    assert effective_size(np.arange(1.0, 5.0)) == pytest.approx(4 * 0.75 / 1.25)


def test_many_values_are_not_counted_out(monkeypatch):
    """A million against twenty: the limit law, at once; the exact one would take a million steps."""
    steps = []
    monkeypatch.setattr(two_samples, "_exact_tail", lambda *sizes: steps.append(sizes) or 1.0)
    rng = rng_of("many")
    x, y = rng.normal(size=1_000_000), rng.normal(size=20)
    assert 0.0 < ks_test(x, y).p_value < 1.0
    assert steps == []
    ks_test(x[: two_samples.EXACT - 20], y)
    assert len(steps) == 1


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40), st.floats(0.01, 0.99))
@settings(max_examples=50)
def test_what_is_believed_is_benjamini_and_hochbergs(p_values, rate):
    """Second way: the step-up rule as the paper states it."""
    p = np.array(p_values)
    ordered = np.sort(p)
    passing = [k for k in range(1, p.size + 1) if ordered[k - 1] * p.size / k <= rate]
    line = ordered[passing[-1] - 1] if passing else -1.0
    assert_array_equal(adjusted_p_values(p) <= rate, p <= line)


def test_adjusted_p_values_equal_scipy():
    stats = pytest.importorskip("scipy.stats")
    p = rng_of("bh").random(200) ** 2
    assert_allclose(adjusted_p_values(p), stats.false_discovery_control(p), rtol=1e-13)
    assert adjusted_p_values([]).size == 0
    with pytest.raises(DataError):
        adjusted_p_values([0.5, np.nan])
