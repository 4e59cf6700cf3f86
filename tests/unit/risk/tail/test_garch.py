"""GARCH(1,1): the likelihood by hand, parameters that are known, and the package `arch` as a second opinion."""

import builtins
import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.risk.tail.estimate import tail_risk
from cryptoalpha.risk.tail.garch import GarchFit, fit_garch, student_factors

pytest.importorskip("scipy")


def simulated(count, *, mean=0.0005, omega=2e-6, alpha=0.08, beta=0.9, seed=0):
    rng = np.random.default_rng(seed)
    h, returns = omega / (1 - alpha - beta), np.empty(count)
    for day in range(count):
        shock = math.sqrt(h) * rng.standard_normal()
        returns[day] = mean + shock
        h = omega + alpha * shock**2 + beta * h
    return returns


def test_the_likelihood_and_the_variances_are_the_recursion_written_out():
    r = simulated(300)
    fit = fit_garch(r, shocks="normal")
    weights = 0.94 ** np.arange(75)
    residuals = r - fit.mean
    assert fit.backcast == pytest.approx(np.average((r - r.mean())[:75] ** 2, weights=weights))
    h, likelihood, seen = fit.omega + (fit.alpha + fit.beta) * fit.backcast, 0.0, []
    for e in residuals:
        seen.append(h)
        likelihood -= 0.5 * (math.log(2 * math.pi) + math.log(h) + e * e / h)
        h = fit.omega + fit.alpha * e * e + fit.beta * h
    assert fit.log_likelihood == pytest.approx(likelihood, rel=1e-10)
    assert fit.next_variance == pytest.approx(h, rel=1e-10)
    assert fit.variances(r)[:-1] == pytest.approx(seen, rel=1e-10)


def test_no_neighbour_is_more_likely():
    r = simulated(1500, seed=4)
    fit = fit_garch(r, shocks="normal")

    def likelihood(mean, omega, alpha, beta):
        h = GarchFit(mean, omega, alpha, beta, math.inf, 0.0, fit.backcast, 0.0).variances(r)[:-1]
        return -0.5 * float(np.sum(np.log(2 * math.pi * h) + (r - mean) ** 2 / h))

    best = likelihood(fit.mean, fit.omega, fit.alpha, fit.beta)
    assert best == pytest.approx(fit.log_likelihood, rel=1e-10)
    for factor in (0.9, 1.1):
        for which in range(4):
            parameters = [fit.mean, fit.omega, fit.alpha, fit.beta]
            parameters[which] *= factor
            assert likelihood(*parameters) < best


def test_parameters_that_made_the_data_are_found():
    fit = fit_garch(simulated(20_000, seed=1), shocks="normal")
    assert (fit.alpha, fit.beta) == (pytest.approx(0.08, abs=0.015), pytest.approx(0.9, abs=0.02))
    assert fit.omega / (1 - fit.alpha - fit.beta) == pytest.approx(1e-4, rel=0.15)


def test_the_unit_of_returns_does_not_matter():
    r = simulated(800, seed=2)
    one, hundred = fit_garch(r), fit_garch(100 * r)
    assert hundred.tail(0.99) == pytest.approx([100 * x for x in one.tail(0.99)], rel=1e-6)
    assert hundred.log_likelihood == pytest.approx(one.log_likelihood - 800 * math.log(100), abs=1e-5)


def test_a_fit_may_begin_from_an_earlier_one():
    r = simulated(1000, seed=3)
    cold = fit_garch(r)
    warm = fit_garch(r, start=fit_garch(r[:900]))
    assert warm.log_likelihood == pytest.approx(cold.log_likelihood, abs=1e-3)


@pytest.mark.parametrize(("degrees", "level"), [(3.0, 0.99), (5.3347, 0.975), (50.0, 0.95)])
def test_student_factors_have_variance_one_and_the_integral_as_shortfall(degrees, level):
    stats = pytest.importorskip("scipy.stats")
    var, es = student_factors(degrees, level)
    law = stats.t(degrees, scale=math.sqrt((degrees - 2) / degrees))
    assert law.var() == pytest.approx(1.0)
    assert var == pytest.approx(law.ppf(level), rel=1e-10)
    assert es == pytest.approx(law.expect(lambda x: x, lb=var) / (1 - level), rel=1e-6)


@pytest.mark.parametrize("degrees", [8.0, math.inf])
def test_paths_have_the_variance_that_the_recursion_expects(degrees):
    fit = GarchFit(0.0, 2e-6, 0.05, 0.9, degrees, 0.0, 1e-4, 4e-4)
    long_run, persistence = 2e-6 / 0.05, 0.95
    expected = sum(long_run + persistence**k * (4e-4 - long_run) for k in range(5))
    assert np.var(fit.simulate(5, paths=200_000, seed=0)) == pytest.approx(expected, rel=0.03)
    assert (fit.simulate(5, paths=10, seed=0) == fit.simulate(5, paths=10, seed=0)).all()


def test_a_horizon_is_simulated():
    r = simulated(600)
    one, ten = (tail_risk(r, method="garch_t", horizon=h) for h in (1, 10))
    assert 2.0 < ten.value_at_risk / one.value_at_risk < 4.5
    assert ten.expected_shortfall > ten.value_at_risk


def test_nothing_that_moves_cannot_be_fitted():
    fit = fit_garch(np.full(300, 0.01))
    assert math.isnan(fit.alpha)
    assert "no volatility" in fit.reason


def test_without_scipy_the_error_says_what_to_install(monkeypatch):
    there = builtins.__import__

    def absent(name, *args, **rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return there(name, *args, **rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match="SciPy") as refusal:
        tail_risk(np.linspace(-0.01, 0.01, 150), method="garch")
    assert refusal.value.hint == 'pip install "cryptoalpha[garch]"'


# the index since 2010, in percent


@pytest.fixture(scope="module")
def index_since_2010():
    pytest.importorskip("skfolio")
    from skfolio.datasets import load_sp500_index

    returns = load_sp500_index().iloc[:, 0].pct_change().dropna()["2010":].to_numpy() * 100
    assert len(returns) == 3270
    return returns


KNOWN = {
    "normal": ((0.0807, 0.0364, 0.1794, 0.7939, math.inf), -4232.12),
    "student": ((0.0924, 0.0234, 0.1797, 0.8171, 5.3347), -4133.10),
}


@pytest.mark.parametrize("shocks", ["normal", "student"])
def test_known_parameters_of_the_index(index_since_2010, shocks):
    fit = fit_garch(index_since_2010, shocks=shocks)
    parameters, likelihood = KNOWN[shocks]
    assert (fit.mean, fit.omega, fit.alpha, fit.beta) == pytest.approx(parameters[:4], abs=1e-3)
    assert fit.degrees == pytest.approx(parameters[4], abs=1e-2)
    assert fit.log_likelihood == pytest.approx(likelihood, abs=1e-2)


@pytest.mark.parametrize(("shocks", "law"), [("normal", "normal"), ("student", "t")])
def test_arch_agrees(index_since_2010, shocks, law):
    arch = pytest.importorskip("arch")
    fit = fit_garch(index_since_2010, shocks=shocks)
    theirs = arch.arch_model(index_since_2010, dist=law).fit(disp="off")
    assert fit.log_likelihood == pytest.approx(theirs.loglikelihood, abs=1e-3)
    assert (fit.mean, fit.omega, fit.alpha, fit.beta) == pytest.approx(tuple(theirs.params)[:4], abs=1e-3)
    forecast = theirs.forecast(horizon=1).variance.to_numpy()[-1, 0]
    assert fit.next_variance == pytest.approx(forecast, rel=1e-3)
