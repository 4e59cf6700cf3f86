"""Which position brings the risk, and Monte Carlo over a covariance: closed forms, finite differences, full revaluation."""

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.tail.components import component_var, incremental_var, scenario_components
from cryptoalpha.risk.tail.laws import normal_tail
from cryptoalpha.risk.tail.losses import tail_of_losses
from cryptoalpha.risk.tail.monte_carlo import correlated_returns, monte_carlo_tail

COVARIANCE = np.array([[4.0, 2.4, 0.6], [2.4, 9.0, -1.0], [0.6, -1.0, 1.0]]) * 1e-4
MEAN = np.array([0.001, 0.002, -0.0005])
WEIGHTS = np.array([0.4, -0.2, 0.3])


def normal_var(weights, level=0.99):
    return normal_tail(float(weights @ MEAN), math.sqrt(weights @ COVARIANCE @ weights), level)


def test_two_uncorrelated_positions_by_hand():
    found = component_var([0.6, 0.4], np.diag([0.01**2, 0.02**2]), level=0.99)
    assert found.value_at_risk == pytest.approx(2.3263478740 * 0.01)  # √(.006² + .008²) = .01
    assert found.component == pytest.approx([2.3263478740 * 0.0036, 2.3263478740 * 0.0064])
    assert found.incremental == pytest.approx([2.3263478740 * 0.002, 2.3263478740 * 0.004])  # closing leaves .008 or .006


def test_components_sum_to_the_whole_and_marginals_are_derivatives():
    found = component_var(WEIGHTS, COVARIANCE, level=0.99, mean=MEAN)
    assert (found.value_at_risk, found.expected_shortfall) == pytest.approx(normal_var(WEIGHTS))
    assert found.component.sum() == pytest.approx(found.value_at_risk, rel=1e-13)
    assert found.shortfall_component.sum() == pytest.approx(found.expected_shortfall, rel=1e-13)
    for place in range(3):
        step = np.eye(3)[place] * 1e-6
        slope = (normal_var(WEIGHTS + step)[0] - normal_var(WEIGHTS - step)[0]) / 2e-6
        assert found.marginal[place] == pytest.approx(slope, rel=1e-6)
        closed = WEIGHTS * (1 - np.eye(3)[place])
        assert found.incremental[place] == pytest.approx(found.value_at_risk - normal_var(closed)[0], rel=1e-12)


def test_a_hedge_has_a_negative_component():
    found = component_var([1.0, -0.2], [[4e-4, 5e-4], [5e-4, 9e-4]])
    assert found.component[1] < 0.0 < found.component[0]


def test_incremental_var_of_a_trade_is_the_difference_of_two_books():
    change = np.array([-0.4, 0.1, 0.0])
    found = incremental_var(WEIGHTS, change, COVARIANCE, mean=MEAN)
    assert found == pytest.approx(normal_var(WEIGHTS + change)[0] - normal_var(WEIGHTS)[0], rel=1e-12)
    assert found < 0.0


@pytest.mark.parametrize("change", [[0.1], [0.1] * 5, [], 0.1])
def test_a_change_of_another_shape_is_refused(change):
    with pytest.raises(DataError):
        incremental_var(WEIGHTS, change, COVARIANCE)


def test_an_empty_book_has_no_risk():
    found = component_var([0.0, 0.0], np.eye(2))
    assert found.value_at_risk == 0.0
    assert (found.component == 0.0).all()


def test_scenario_components_are_losses_of_the_tail():
    rng = np.random.default_rng(1)
    scenarios = rng.standard_t(4, (333, 3)) * 0.02
    found = scenario_components(WEIGHTS, scenarios, level=0.96)
    losses = -scenarios @ WEIGHTS
    var, es = tail_of_losses(losses, 0.96)
    assert (found.value_at_risk, found.expected_shortfall) == pytest.approx((var, es), rel=1e-12)
    assert found.component.sum() == pytest.approx(var, rel=1e-12)
    assert found.shortfall_component.sum() == pytest.approx(es, rel=1e-12)
    for place in range(3):
        step = np.eye(3)[place] * 1e-7
        slope = (tail_of_losses(-scenarios @ (WEIGHTS + step), 0.96)[1] - es) / 1e-7
        assert found.shortfall_component[place] == pytest.approx(WEIGHTS[place] * slope, rel=1e-5)
        without = tail_of_losses(-scenarios @ (WEIGHTS * (1 - np.eye(3)[place])), 0.96)[0]
        assert found.incremental[place] == pytest.approx(var - without, abs=1e-15)


@pytest.mark.parametrize(
    ("weights", "covariance", "message"),
    [
        ([1.0, 1.0], np.eye(3), "shape"),
        ([1.0, math.nan], np.eye(2), "finite"),
        ([1.0, 1.0], [[1.0, math.inf], [math.inf, 1.0]], "shape"),
        ([1.0, -1.0], [[1.0, 2.0], [2.0, 1.0]], "variance"),
    ],
)
def test_what_is_no_book_is_refused(weights, covariance, message):
    for function in (component_var, monte_carlo_tail):
        with pytest.raises(DataError, match=message):
            function(weights, covariance)


def test_scenarios_of_another_shape_or_with_nan_are_refused():
    for scenarios in (np.zeros((5, 2)), np.full((5, 3), math.nan), np.zeros((0, 3))):
        with pytest.raises(DataError, match="scenarios"):
            scenario_components(WEIGHTS, scenarios)


# Monte Carlo


def test_projection_agrees_with_the_normal_law():
    found = monte_carlo_tail(WEIGHTS, COVARIANCE, mean=MEAN, level=0.975, scenarios=400_000)
    assert (found.value_at_risk, found.expected_shortfall) == pytest.approx(normal_var(WEIGHTS, 0.975), rel=0.01)
    assert found == monte_carlo_tail(WEIGHTS, COVARIANCE, mean=MEAN, level=0.975, scenarios=400_000)


def test_projection_agrees_with_full_revaluation_of_student_draws():
    draws = correlated_returns(COVARIANCE, 400_000, degrees=5.0, seed=1)
    assert np.cov(draws.T) == pytest.approx(COVARIANCE, abs=1.5e-5)
    full = tail_of_losses(-draws @ WEIGHTS, 0.99)
    projected = monte_carlo_tail(WEIGHTS, COVARIANCE, degrees=5.0, scenarios=400_000)
    assert (projected.value_at_risk, projected.expected_shortfall) == pytest.approx(full, rel=0.025)
    assert projected.value_at_risk > 1.02 * monte_carlo_tail(WEIGHTS, COVARIANCE, scenarios=400_000).value_at_risk  # 1.04 for t5 in theory


def test_four_independent_days_have_twice_the_deviation():
    one, four = (monte_carlo_tail(WEIGHTS, COVARIANCE, horizon=h, scenarios=200_000).value_at_risk for h in (1, 4))
    assert four == pytest.approx(2 * one, rel=0.02)
    sure = monte_carlo_tail([1.0], [[0.0]], mean=[-0.01], horizon=4, scenarios=100)  # no variance: the drift alone
    assert (sure.value_at_risk, sure.horizon) == (pytest.approx(0.04), 4)


@pytest.mark.parametrize(
    "wrong", [{"scenarios": 0}, {"scenarios": -1}, {"scenarios": 1.5}, {"horizon": 0}, {"horizon": -1}, {"horizon": 1.5}]
)
def test_a_projection_needs_scenarios_and_a_horizon(wrong):
    with pytest.raises(ConfigError, match="whole numbers"):
        monte_carlo_tail(WEIGHTS, COVARIANCE, **wrong)


def test_a_projection_of_too_few_scenarios_is_nan_with_a_reason():
    found = monte_carlo_tail(WEIGHTS, COVARIANCE, scenarios=99)
    assert math.isnan(found.value_at_risk)
    assert "99 outcomes" in found.reason
    assert monte_carlo_tail(WEIGHTS, COVARIANCE, scenarios=100).reason is None
    with pytest.raises(ConfigError, match="count"):
        correlated_returns(COVARIANCE, -1)


def test_a_student_law_without_variance_is_refused():
    with pytest.raises(ConfigError, match="more than 2"):
        monte_carlo_tail(WEIGHTS, COVARIANCE, degrees=2.0)
