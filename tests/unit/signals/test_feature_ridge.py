"""The walk-forward ridge: its algebra against NumPy, its walk against the calendar."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.config import FeatureRidgeConfig
from cryptoalpha.signals.feature_ridge import FeatureRidge, normal_equations, predict, solve_positive
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.labels import forward_return
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

QUICK = FeatureRidgeConfig(train_days=40.0, refit_days=10.0, minimum_train_days=20.0, embargo_days=0.0)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=3_600, start="2021-01-01"), seed=2).dataset


def frame_of(dataset: Dataset) -> Frame:
    return Frame(build_panel(dataset, since=0, until=2**62), dataset)


def test_normal_equations_and_their_solution_equal_numpy():
    random = np.random.default_rng(0)
    rows, target = random.normal(size=(200, 6)), random.normal(size=200)
    gram, moment = normal_equations(rows, target)
    assert_allclose(gram, rows.T @ rows, rtol=1e-12)
    assert_allclose(moment, rows.T @ target, rtol=1e-12, atol=1e-12)
    weights = solve_positive(gram, moment)
    assert_allclose(weights, np.linalg.lstsq(rows, target, rcond=None)[0], rtol=1e-9)
    assert_allclose(predict(rows, weights), rows @ weights, rtol=1e-12, atol=1e-12)


def test_a_matrix_that_is_not_positive_definite_has_no_solution():
    assert np.isnan(solve_positive(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2))).all()


@pytest.mark.parametrize("embargo_days", [0.0, 2.0])
def test_a_fit_uses_the_stated_rows_and_the_stated_penalty(dataset, embargo_days):
    frame, model = frame_of(dataset), FeatureRidge(QUICK.model_copy(update={"embargo_days": embargo_days}))
    features = np.concatenate((frame.price, frame.chain), axis=2)
    labels = forward_return(frame.panel, 24, frame.sigma)
    anchor = int(frame.panel.known_at[3_000]) // (10 * DAY) * 10 * DAY
    fit = model.fit(frame, features.__getitem__, labels, anchor)
    newest = anchor - embargo_days * DAY
    chosen = [
        t for t in range(3_600)
        if frame.panel.open_time[t] >= anchor - 40 * DAY and t + 25 < 3_600 and frame.panel.known_at[t + 25] <= newest
        and (frame.panel.open_time[t] // HOUR) % 4 == 0
    ]  # fmt: skip
    y = np.clip(labels.value[chosen].ravel(), -5, 5)
    x, _ = fit.scaler.apply(features[chosen].reshape(-1, 80))
    effective = len(y) * (4 / 24) / (1 + 0.6)
    expected = np.linalg.solve(x.T @ x / len(y) + 80 / (0.0025 * effective) * np.eye(80), x.T @ (y - y.mean()) / len(y))
    assert_allclose(fit.weights, expected, rtol=1e-9, atol=1e-15)
    assert fit.scaler.fitted_until <= newest


def test_a_fit_changes_only_at_its_calendar_moments(dataset):
    frame = frame_of(dataset)
    weights = FeatureRidge(QUICK).compute(frame).traces["weights/features"]
    fitted = np.flatnonzero(np.isfinite(weights[:, 0]))
    changes = [t for t in fitted[1:] if not np.array_equal(weights[t], weights[t - 1])]
    assert len(changes) >= 5
    assert all(frame.panel.known_at[t] % (10 * DAY) == 0 for t in changes)


def test_at_the_very_bar_of_a_refit_nothing_later_is_used(dataset):
    """Without embargo, the label that ends with the bar of the refit is the newest one allowed."""
    frame = frame_of(dataset)
    formed = FeatureRidge(QUICK).compute(frame)
    refits = np.flatnonzero((frame.panel.known_at % (10 * DAY) == 0) & np.isfinite(formed.value[:, 0]))
    for t in refits[:3]:
        cut = FeatureRidge(QUICK).compute(frame_of(dataset.known_until(int(frame.panel.known_at[t]))))
        assert cut.value[-1].tobytes() == formed.value[t].tobytes()
        assert cut.traces["weights/features"][-1].tobytes() == formed.traces["weights/features"][t].tobytes()


def test_too_few_labelled_rows_are_no_fit(dataset):
    formed = FeatureRidge(QUICK.model_copy(update={"minimum_train_days": 41.0})).compute(frame_of(dataset))
    assert np.isnan(formed.value).all()


def test_labels_are_traced_at_the_row_at_which_they_are_known(dataset):
    frame = frame_of(dataset)
    trace = FeatureRidge(QUICK).compute(frame).traces["label/forward"]
    labels = forward_return(frame.panel, 24, frame.sigma).value
    assert trace[25:].tobytes() == labels[:-25].tobytes()


def test_it_finds_an_edge_that_is_there(dataset):
    """One feature foretells the label: the prediction follows it out of sample, and impact reads in volatility units."""
    frame, model = frame_of(dataset), FeatureRidge(QUICK)
    labels = forward_return(frame.panel, 24, frame.sigma)
    features = np.random.default_rng(1).normal(size=(3_600, 2, 80))
    labels.value[:] = 0.3 * features[:, :, 7] + np.random.default_rng(2).normal(size=(3_600, 2))
    anchor = int(frame.panel.known_at[3_000]) // (10 * DAY) * 10 * DAY
    fit = model.fit(frame, features.__getitem__, labels, anchor)
    assert np.argmax(np.abs(fit.weights)) == 7
    assert 0.0 < fit.weights[7] < 0.3  # shrunk, as the prior demands
