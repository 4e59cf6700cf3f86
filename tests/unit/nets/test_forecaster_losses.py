"""What teaches the forecaster, against NumPy, and what is made of its answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import DataError, ModelError
from cryptoalpha.nets.config import HeadsConfig
from cryptoalpha.nets.forecaster.calibration import COLDEST, HOTTEST, calibrate_temperature, cross_entropy_at
from cryptoalpha.nets.forecaster.correlation import bin_centres, expected_correlation
from cryptoalpha.nets.forecaster.heads import quantile_start, rising
from cryptoalpha.nets.forecaster.losses import (
    LossWeights,
    correlation_bin,
    direction_class,
    forecast_loss,
    forecast_loss_parts,
    pinball,
    qlike,
)
from cryptoalpha.nets.forecaster.values import Forecast, ForecastTargets

QUANTILES = HeadsConfig().quantiles
B, S, N, H, BINS = 2, 5, 3, 2, 16
seeds = st.integers(0, 10_000)


def forecast(seed: int) -> Forecast:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    pair = draw(B, S, N, N, BINS)
    return Forecast(
        direction=draw(B, S, N, H, 3),
        volatility=draw(B, S, N, H).exp(),
        sentiment=draw(B, S, N, 5),
        confidence=draw(B, S, N, H),
        location=draw(B, S, N, H),
        quantiles=draw(B, S, N, H, 7).cumsum(-1),
        correlation=pair + pair.transpose(-2, -3),
    )


def targets(seed: int, *, missing: float = 0.3) -> ForecastTargets:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        value = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return torch.where(torch.rand(*shape, generator=generator) < missing, float("nan"), value)

    pair = torch.tanh(draw(B, S, N, N))
    pair = (pair + pair.transpose(-2, -1)) / 2
    return ForecastTargets(
        move=2 * draw(B, S, N, H),
        volatility=draw(B, S, N, H).abs(),
        correlation=pair,
        supervised=torch.tensor([[False, False, True, True, True], [False, True, True, False, True]]),
    )


def by_hand(answer: Forecast, truth: ForecastTargets, sideways: float) -> dict[str, float]:
    """The same losses, one bar, asset and horizon after the other."""
    a, t = (type(value)(*(part.numpy() for part in value)) for value in (answer, truth))
    parts: dict[str, list[float]] = {name: [] for name in LossWeights.__dataclass_fields__}
    for b, s in np.argwhere(t.supervised):
        for n in range(N):
            for h in range(H):
                move = t.move[b, s, n, h]
                if np.isfinite(t.volatility[b, s, n, h]):
                    ratio = (max(t.volatility[b, s, n, h], 1e-3) / a.volatility[b, s, n, h]) ** 2
                    parts["volatility"].append(ratio - np.log(ratio) - 1)
                if not np.isfinite(move):
                    continue
                called = 0 if move > sideways else 1 if move < -sideways else 2
                logits = a.direction[b, s, n, h]
                parts["direction"].append(np.log(np.exp(logits).sum()) - logits[called])
                hit = int(np.argmax(logits) == called)
                chance = 1 / (1 + np.exp(-a.confidence[b, s, n, h]))
                parts["confidence"].append(-np.log(chance if hit else 1 - chance))
                errors = move - a.quantiles[b, s, n, h]
                parts["quantiles"].append(np.mean([q * e if e > 0 else (q - 1) * e for q, e in zip(QUANTILES, errors, strict=True)]))
                off = abs(move - a.location[b, s, n, h])
                parts["location"].append(off**2 / 2 if off <= 3 else 3 * (off - 1.5))
            for other in range(n + 1, N):
                realised = t.correlation[b, s, n, other]
                if np.isfinite(realised):
                    logits = a.correlation[b, s, n, other]
                    parts["correlation"].append(np.log(np.exp(logits).sum()) - logits[int((realised + 1) / 2 * BINS)])
    return {name: float(np.mean(values)) for name, values in parts.items()}


@pytest.mark.parametrize("seed", range(3))
def test_losses_agree_with_numpy(seed):
    answer, truth = forecast(seed), targets(seed)
    expected = by_hand(answer, truth, 0.43)
    parts = forecast_loss_parts(answer, truth, sideways=0.43)
    assert set(parts) == set(expected)
    for name, value in parts.items():
        assert_allclose(float(value), expected[name], rtol=1e-12, err_msg=name)
    weights = LossWeights(direction=1.0, volatility=0.5, confidence=0.2, correlation=0.3, quantiles=0.7, location=0.1)
    total = sum(getattr(weights, name) * value for name, value in expected.items())
    assert_allclose(float(forecast_loss(answer, truth, sideways=0.43, weights=weights)), total, rtol=1e-12)


def test_the_starting_weights_are_those_of_the_design():
    weights = LossWeights()
    assert (weights.direction, weights.volatility, weights.confidence, weights.correlation) == (1.0, 0.5, 0.2, 0.3)


def test_bars_that_are_not_supervised_do_not_count():
    answer, truth = forecast(0), targets(0, missing=0.0)
    hidden = ~truth.supervised
    changed = truth._replace(
        move=torch.where(hidden[:, :, None, None], 100.0, truth.move),
        correlation=torch.where(hidden[:, :, None, None], -0.9, truth.correlation),
    )
    assert torch.equal(forecast_loss(answer, truth, sideways=0.43), forecast_loss(answer, changed, sideways=0.43))


def test_with_nothing_known_the_loss_is_zero_and_has_a_gradient():
    answer, truth = forecast(0), targets(0)
    location = answer.location.clone().requires_grad_()
    nothing = truth._replace(supervised=torch.zeros_like(truth.supervised))
    loss = forecast_loss(answer._replace(location=location), nothing, sideways=0.43)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(location.grad, torch.zeros_like(location))


def test_quantiles_of_another_number_are_refused():
    with pytest.raises(ModelError, match="7 quantiles, the loss 2"):
        forecast_loss(forecast(0), targets(0), sideways=0.43, quantiles=(0.1, 0.9))


def test_classes_of_direction_and_their_edges():
    moves = torch.tensor([0.44, 0.43, 0.0, -0.43, -0.44])
    assert direction_class(moves, 0.43).tolist() == [0, 2, 2, 2, 1]


def test_bins_of_correlation_and_their_edges():
    values = torch.tensor([-1.0, -0.876, -0.874, -1e-9, 0.0, 0.874, 0.876, 1.0], dtype=torch.float64)
    assert correlation_bin(values, 16).tolist() == [0, 0, 1, 7, 8, 14, 15, 15]
    assert_allclose(bin_centres(4), [-0.75, -0.25, 0.25, 0.75])


def test_qlike_is_least_at_the_root_mean_square():
    realised = torch.tensor([0.2, 0.9, 1.4, 2.5], dtype=torch.float64)
    grid = torch.linspace(0.5, 3.0, 2_501, dtype=torch.float64)
    mean = qlike(grid[:, None], realised).mean(dim=1)
    assert_allclose(grid[mean.argmin()], realised.square().mean().sqrt(), atol=1e-3)
    assert float(qlike(realised, realised).abs().max()) == 0.0
    assert bool(torch.isfinite(qlike(torch.tensor([1.0]), torch.tensor([0.0]))).all())


def test_the_best_constant_of_the_pinball_loss_is_the_empirical_quantile():
    sample = np.random.default_rng(0).standard_t(4, size=4_001)
    steps = quantile_start(QUANTILES).double().requires_grad_()
    moves, place = torch.from_numpy(sample), torch.zeros((), dtype=torch.float64)
    optimiser = torch.optim.LBFGS([steps], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = pinball(rising(place, steps, 3).expand(len(sample), 7), moves, QUANTILES).mean()
        value.backward()
        return value

    optimiser.step(loss)
    found = rising(place, steps, 3).detach().numpy()
    assert_allclose(found, np.quantile(sample, QUANTILES), atol=0.02)
    exact = float(pinball(torch.from_numpy(np.quantile(sample, QUANTILES)).expand(len(sample), 7), moves, QUANTILES).mean())
    assert float(loss().detach()) == pytest.approx(exact, rel=1e-4)


@settings(max_examples=40)
@given(seed=seeds, size=st.floats(0.01, 20.0), anchor=st.integers(0, 6))
def test_quantiles_rise_whatever_the_weights(seed, size, anchor):
    generator = torch.Generator().manual_seed(seed)
    location = torch.randn(5, generator=generator, dtype=torch.float64)
    steps = size * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    quantiles = rising(location, steps, anchor)
    assert bool((quantiles.diff(dim=-1) >= 0).all())
    assert_allclose(quantiles[:, anchor], location + steps[:, anchor], rtol=1e-15)


@pytest.mark.parametrize("shares", [(0.05, 0.5, 0.95), (0.1, 0.4), (0.3,), (0.9, 0.95, 0.99)])
def test_quantiles_begin_as_those_of_a_normal_distribution(shares):
    anchor = min(range(len(shares)), key=lambda place: abs(shares[place] - 0.5))
    found = rising(torch.zeros(()), quantile_start(shares), anchor).tolist()
    assert_allclose([0.5 * (1.0 + math.erf(quantile / math.sqrt(2.0))) for quantile in found], shares, atol=1e-6)


@settings(max_examples=15)
@given(seed=seeds, truth=st.floats(0.3, 4.0))
def test_the_temperature_is_the_best_of_a_grid(seed, truth):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 2.0, size=400)
    hits = rng.random(400) < 1 / (1 + np.exp(-logits / truth))
    found = calibrate_temperature(logits, hits)
    grid = np.exp(np.linspace(np.log(COLDEST), np.log(HOTTEST), 400))
    losses = [cross_entropy_at(logits, hits, temperature) for temperature in grid]
    assert cross_entropy_at(logits, hits, found) <= min(losses) + 1e-12
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)


def test_the_temperature_ignores_what_is_not_known_and_stays_in_its_range():
    logits, hits = np.array([1.0, -1.0, 2.0, np.nan, 0.5]), np.array([1.0, 0.0, 1.0, 1.0, np.nan])
    assert calibrate_temperature(logits, hits) == pytest.approx(COLDEST, rel=1e-5)  # never wrong: the colder the better
    assert calibrate_temperature(-logits, hits) == pytest.approx(HOTTEST, rel=1e-5)  # always wrong: the less it says the better
    assert calibrate_temperature([], []) == 1.0
    with pytest.raises(DataError):
        calibrate_temperature([1.0], [1.0, 0.0])


@settings(max_examples=40)
@given(seed=seeds, assets=st.integers(1, 9), size=st.floats(0.0, 30.0), bins=st.integers(2, 16))
def test_the_expected_correlation_is_a_correlation_matrix(seed, assets, size, bins):
    logits = size * np.random.default_rng(seed).standard_normal((3, assets, assets, bins))
    logits = logits + np.swapaxes(logits, 1, 2)
    found = expected_correlation(logits)
    assert found.shape == (3, assets, assets)
    assert np.array_equal(found, np.swapaxes(found, 1, 2))
    assert np.array_equal(np.einsum("bii->bi", found), np.ones((3, assets)))
    assert np.abs(found).max() <= 1.0
    assert np.linalg.eigvalsh(found).min() > 0.0


def test_the_expected_correlation_keeps_what_is_already_a_correlation_matrix():
    # Two bins with centres −½ and ½: logits (−x, x) have the mean ½·tanh(x).
    wanted = np.array([[1.0, 0.3, -0.2], [0.3, 1.0, 0.1], [-0.2, 0.1, 1.0]])
    x = np.arctanh(np.clip(2 * wanted, -0.99, 0.99))
    assert_allclose(expected_correlation(np.stack((-x, x), axis=-1)), wanted, atol=1e-12)


def test_correlation_logits_that_cannot_be_used_are_refused():
    with pytest.raises(ModelError):
        expected_correlation(np.full((2, 2, 4), np.nan))
    with pytest.raises(ModelError):
        expected_correlation(np.zeros((2, 3, 4)))
