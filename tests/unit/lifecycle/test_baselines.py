"""Baselines: closed forms by another way, what they may not see changes nothing, and the plain rule's returns by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.baselines import NAMES, Table, baseline, ridge_weights
from cryptoalpha.lifecycle.recipes.folds import Fold, plan_folds
from cryptoalpha.lifecycle.recipes.position_rule import Stretch, daily, net_returns, net_sharpe
from cryptoalpha.lifecycle.recipes.predictions import Outcomes
from cryptoalpha.signals.config import FeatureRidgeConfig

LEVELS = (0.1, 0.5, 0.9)
DAYS, N, F = 80, 3, 6


def made(seed: int = 0) -> tuple[Table, Fold]:
    rng = np.random.default_rng(seed)
    rows = 24 * DAYS
    features = rng.normal(size=(rows, N, F)).astype(np.float32)
    move = (0.2 * features[..., 0] + rng.normal(size=(rows, N)))[..., None].astype(np.float64)
    volatility = np.exp(0.4 * features[..., 1:2] + 0.1 * rng.normal(size=(rows, N, 1))).astype(np.float64)
    present = rng.random((rows, N)) > 0.05
    known_at = HOUR * np.arange(1, rows + 1, dtype=np.int64)
    move[-2:], volatility[-2:] = np.nan, np.nan
    ends = np.append(known_at[2:], [2**62, 2**62])
    (fold,) = plan_folds(known_at, ends, TrainConfig(train_days=60, test_days=20), most=1)
    return Table(features, present, Outcomes(known_at, move, volatility, (1,), 0.43), LEVELS), fold


def test_ridge_is_the_solution_of_its_normal_equations():
    table, fold = made()
    chosen = table.present[fold.train]
    x = table.features[fold.train][chosen].astype(np.float64)
    y = np.clip(table.outcomes.move[fold.train, :, 0][chosen], -5, 5)
    n, belief = len(x), FeatureRidgeConfig()
    independent = 1.0 / (1.0 + (n / chosen.any(axis=1).sum() - 1.0) * belief.asset_correlation)
    penalty = F / (belief.prior_r2 * n * independent)
    # as an ordinary least squares problem with rows that pull to zero
    wide = np.vstack((x, np.sqrt(penalty * n) * np.eye(F)))
    expected = np.linalg.lstsq(wide, np.concatenate((y - y.mean(), np.zeros(F))), rcond=None)[0]
    weights, intercept = ridge_weights(table, fold)
    assert_allclose(weights[0], expected, rtol=1e-6)
    assert intercept.tolist() == [0.0]
    said = baseline("ridge", table, fold)
    assert_allclose(said.location[:, :, 0], table.features[fold.test].astype(np.float64) @ expected, rtol=1e-5)


def test_ridge_and_trees_find_what_is_there():
    table, fold = made()
    pytest.importorskip("lightgbm")
    for name in ("ridge", "lightgbm"):
        said = baseline(name, table, fold)
        seen = np.isfinite(table.outcomes.move[fold.test])
        assert np.corrcoef(said.location[seen], table.outcomes.move[fold.test][seen])[0, 1] > 0.1
        assert np.corrcoef(np.log(said.volatility[seen]), np.log(table.outcomes.volatility[fold.test][seen]))[0, 1] > 0.8
        ratio = (table.outcomes.volatility[fold.test][seen] / said.volatility[seen]) ** 2
        assert 0.9 < ratio.mean() < 1.1  # the level is right, not only the order
        assert_allclose(said.direction.sum(axis=3), 1.0, rtol=1e-9)
        inside = (table.outcomes.move[fold.test] >= said.quantiles[..., 0]) & (table.outcomes.move[fold.test] <= said.quantiles[..., 2])
        assert 0.75 < inside[seen].mean() < 0.85


def test_ewma_says_what_was_usual_in_training():
    table, fold = made()
    said = baseline("ewma", table, fold)
    move, storm = table.outcomes.move[fold.train], table.outcomes.volatility[fold.train]
    assert_allclose(said.volatility, np.sqrt((storm**2).mean()))
    assert_allclose(said.direction[0, 0, 0], [(move > 0.43).mean(), (move < -0.43).mean(), (abs(move) <= 0.43).mean()])
    assert_allclose(said.quantiles[0, 0, 0], np.quantile(move, LEVELS))


@pytest.mark.parametrize("name", NAMES)
def test_no_baseline_sees_the_labels_it_is_judged_by(name):
    if name == "lightgbm":
        pytest.importorskip("lightgbm")
    table, fold = made()
    move, volatility = table.outcomes.move.copy(), table.outcomes.volatility.copy()
    used = fold.validation[-1] + 1  # all up to the end of validation may be used, and nothing later
    move[used:], volatility[used:] = -9.0 * move[used:], 7.0
    poisoned = replace(table, outcomes=replace(table.outcomes, move=move, volatility=volatility))
    before, after = baseline(name, table, fold).parts(), baseline(name, poisoned, fold).parts()
    assert before.keys() == after.keys()
    for part, values in before.items():
        assert_array_equal(after[part], values)
    if name != "zero":  # and what it learns from does matter
        move[: fold.train[-1]] *= -0.5
        learned = baseline(name, replace(table, outcomes=replace(table.outcomes, move=move)), fold).parts()
        assert any(not np.array_equal(learned[part], values) for part, values in before.items())


def test_an_unknown_baseline_is_refused_and_a_missing_library_says_what_to_install(monkeypatch):
    table, fold = made()
    with pytest.raises(ConfigError, match="no baseline 'oracle'"):
        baseline("oracle", table, fold)
    monkeypatch.setattr("cryptoalpha.lifecycle.recipes.baselines.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs LightGBM") as caught:
        baseline("lightgbm", table, fold)
    assert "pip install" in caught.value.hint


def test_the_plain_rule_by_hand():
    # One asset, held two bars. Expected moves so large that stakes are full: ±1 · .01 / σ .01 = ±1.
    stretch = Stretch(HOUR * np.arange(1, 5), np.full((4, 1), 0.01), np.array([[0.02], [0.01], [np.nan], [-0.03]]), 2, 0.001)
    found = net_returns(np.array([[99.0], [99.0], [-99.0], [np.nan]]), stretch)
    # stakes 1, 1, −1, 0; holdings ½, 1, 0, −½; traded ½, ½, 1, ½
    assert_allclose(found, [0.5 * 0.02 - 0.0005, 0.01 - 0.0005, 0.0 - 0.001, 0.5 * 0.03 - 0.0005], rtol=1e-12)


def test_days_are_added_up_by_the_close_and_the_sharpe_ratio_is_theirs():
    returns = np.arange(1.0, 49.0)
    days = daily(returns, 30 * DAY + HOUR * np.arange(1, 49))
    assert_allclose(days, [returns[:24].sum(), returns[24:].sum()])  # the bar that closes at 00:00 belongs to the day before
    rng = np.random.default_rng(0)
    stretch = Stretch(HOUR * np.arange(1, 24 * 30 + 1), np.full((720, 2), 0.01), 0.01 * rng.normal(size=(720, 2)), 24, 0.0)
    expected = np.roll(stretch.step, 0) * 10  # knows the next step
    by_day = net_returns(expected, stretch).reshape(30, 24).sum(axis=1)
    assert_allclose(net_sharpe(expected, stretch), by_day.mean() / by_day.std(ddof=1) * np.sqrt(365), rtol=1e-10)
    dear = replace(stretch, cost=0.01)
    assert net_sharpe(expected, dear) < net_sharpe(expected, stretch)
    assert np.isnan(net_sharpe(np.zeros((720, 2)), stretch))
