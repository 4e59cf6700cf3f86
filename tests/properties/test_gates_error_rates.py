"""How often the gates that look at returns err, on made-up track records whose true Sharpe ratio is known.

Bounds are 99.9 % binomial bounds around the rates of docs/gates.md (1,000 runs each), so that another seed of NumPy does not fail them.
"""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.lifecycle.gates.error_rates import World, clustered, error_rates

RUNS = 200


@pytest.mark.lengthy
def test_the_worthless_hardly_ever_pass_whether_one_was_tried_or_the_best_of_fifty():
    """At most 5 % is what the strictest gate alone promises; measured are .014 and .004."""
    assert error_rates(World(0.0, 730), runs=RUNS).passed <= 0.05
    picked = error_rates(World(0.0, 730, trials=50), runs=RUNS)
    assert picked.passed <= 0.03
    assert picked.each["walk_forward"] > 0.5  # which is why no gate stands alone: the best of fifty looks well
    assert picked.each["deflated_sharpe"] <= 0.05


@pytest.mark.lengthy
@pytest.mark.parametrize(("sharpe", "days", "least", "most"), [(2.0, 365, 0.25, 0.48), (2.0, 1460, 0.74, 0.91), (3.0, 730, 0.81, 0.96)])
def test_the_good_pass_the_more_often_the_longer_their_record(sharpe, days, least, most):
    assert least <= error_rates(World(sharpe, days), runs=RUNS).passed <= most


@pytest.mark.lengthy
def test_of_ten_trials_that_are_equally_good_the_probability_of_overfitting_refuses_most():
    """It asks whether picking was worth something; where all are alike it was not, however good they are. Where one stands out, it was."""
    alike = error_rates(World(3.0, 730, trials=10), runs=100)
    assert alike.each["overfitting"] <= 0.3
    assert alike.each["deflated_sharpe"] >= 0.8
    assert error_rates(World(3.0, 730, trials=10, good=1), runs=100).each["overfitting"] >= 0.8


def test_same_seed_same_rates():
    assert error_rates(World(1.0, 200), runs=5, seed=3) == error_rates(World(1.0, 200), runs=5, seed=3)


def test_the_made_up_market_has_clusters_and_fat_tails_and_unit_variance():
    """The variance of a GARCH(1,1) is ω / (1 − α − β) = .02 / .02 = 1."""
    found = clustered((2_000, 200), np.random.default_rng(0))
    assert found.var() == pytest.approx(1.0, rel=0.1)
    assert abs(found.mean()) < 0.01
    assert (found**4).mean() / found.var() ** 2 > 4.0
    squares = found**2 - (found**2).mean(axis=0)
    assert (squares[1:] * squares[:-1]).mean() / (squares**2).mean() > 0.05
