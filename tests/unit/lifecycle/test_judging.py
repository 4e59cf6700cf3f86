"""Judging: every measure equals its library or a slow second way; differences are paired; noise is called noise; the verdict says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import HOUR
from cryptoalpha.lifecycle.recipes.judging import diebold_mariano, judge
from cryptoalpha.lifecycle.recipes.predictions import Outcomes, Predictions, classes_of
from cryptoalpha.lifecycle.recipes.resampling import mean_block, resampled
from cryptoalpha.lifecycle.recipes.verdict import EWMA, LIGHTGBM, RIDGE, ZERO, verdict
from cryptoalpha.monitoring.accuracy import directional_accuracy, information_coefficient
from cryptoalpha.monitoring.bootstrap import bootstrap_interval
from cryptoalpha.monitoring.calibration import expected_calibration_error

LEVELS = (0.1, 0.5, 0.9)
T, N, SIDEWAYS = 900, 6, 0.43


def world(edge: float = 0.3, seed: int = 0, assets: int = N) -> tuple[Predictions, Outcomes]:
    """Independent moves, and a model that knows a share of each; some of both are missing."""
    rng = np.random.default_rng(seed)
    move = rng.normal(size=(T, assets, 1))
    signal = edge * move + np.sqrt(1 - edge**2) * rng.normal(size=move.shape)
    volatility = np.exp(0.3 * rng.normal(size=move.shape))
    location = edge * signal
    logits = np.concatenate((2 * location, -2 * location, np.zeros_like(location)), axis=2)[:, :, None, :]
    direction = np.exp(logits) / np.exp(logits).sum(axis=3, keepdims=True)
    quantiles = location[..., None] + np.array([-1.28, 0.0, 1.28])
    model = Predictions(
        "net", location, direction, volatility * np.exp(0.1 * rng.normal(size=move.shape)), direction.max(axis=3), quantiles
    )
    location[rng.random(location.shape) < 0.02] = np.nan
    move[rng.random(move.shape) < 0.02] = np.nan
    return model, Outcomes(HOUR * np.arange(1, T + 1), move, volatility, (1,), SIDEWAYS)


@pytest.mark.parametrize("assets", [6, 3])
def test_estimates_equal_the_libraries(assets):
    model, outcomes = world(assets=assets)
    (judged,) = judge(model, [], outcomes, levels=LEVELS, resamples=20)
    found = {name: interval.estimate for name, interval in judged.scores["net"].items()}
    p, r = model.location[:, :, 0], outcomes.move[:, :, 0]
    seen = np.isfinite(p) & np.isfinite(r)
    assert_allclose(found["ic"], np.corrcoef(p[seen], r[seen])[0, 1], rtol=1e-10)
    ranked = information_coefficient(np.where(seen, p, 0), np.where(seen, r, 0), observed=seen)
    assert ranked.cross_sectional == (assets == 6)
    assert_allclose(found["rank_ic"], ranked.mean, rtol=1e-10)
    lean, known = (model.direction[..., 0] - model.direction[..., 1])[:, :, 0], np.isfinite(r)
    assert_allclose(found["accuracy"], directional_accuracy(lean[known], r[known]).rate, rtol=1e-12)
    right = model.direction.argmax(axis=3) == classes_of(outcomes.move, SIDEWAYS)
    assert_allclose(found["three_way"], right[:, :, 0][known].mean(), rtol=1e-12)
    assert_allclose(found["ece"], expected_calibration_error(model.confidence[:, :, 0][known], right[:, :, 0][known]), rtol=1e-10)
    happened = np.take_along_axis(model.direction[:, :, 0], np.maximum(classes_of(r, SIDEWAYS), 0)[..., None], axis=2)[..., 0]
    assert_allclose(found["log_loss"], -np.log(happened[known]).mean(), rtol=1e-12)
    ratio = (outcomes.volatility / model.volatility) ** 2
    assert_allclose(found["qlike"], (ratio - np.log(ratio) - 1).mean(), rtol=1e-12)
    assert_allclose(found["volatility_mae"], np.abs(model.volatility - outcomes.volatility).mean(), rtol=1e-12)
    error = r[known][:, None] - model.quantiles[:, :, 0][known]
    loss = [np.where(e >= 0, q * e, (q - 1) * e).mean() for q, e in zip(LEVELS, error.T, strict=True)]
    assert_allclose(found["pinball"], np.mean(loss), rtol=1e-12)
    assert_allclose(found["coverage"], ((error[:, 0] >= 0) & (error[:, 2] <= 0)).mean(), rtol=1e-12)
    assert_allclose([judged.quantile_hits[q] for q in LEVELS], (error <= 0).mean(axis=0), rtol=1e-12)
    sure = np.argsort(-model.confidence[:, :, 0][known], kind="stable")[: int(np.ceil(0.25 * known.sum()))]
    assert_allclose(found["selective_25%"], right[:, :, 0][known][sure].mean(), rtol=1e-12)


def test_the_interval_of_a_rank_ic_is_that_of_a_block_bootstrap_of_its_series():
    model, outcomes = world()
    (judged,) = judge(model, [], outcomes, resamples=1000)
    rankdata = pytest.importorskip("scipy.stats").rankdata

    series = []
    for p, r in zip(model.location[:, :, 0], outcomes.move[:, :, 0], strict=True):
        both = np.isfinite(p) & np.isfinite(r)
        if both.sum() >= 5:
            series.append(np.corrcoef(rankdata(p[both]), rankdata(r[both]))[0, 1])
    other = bootstrap_interval(np.array(series), lambda x: float(x.mean()), resamples=1000, mean_block=judged.mean_block)
    own = judged.scores["net"]["rank_ic"]
    assert_allclose(own.estimate, other.estimate, rtol=1e-10)
    assert_allclose([own.low, own.high], [other.low, other.high], atol=0.1 * (other.high - other.low))


def test_a_model_differs_from_itself_by_nothing_and_pairs_cancel_what_is_common():
    model, outcomes = world()
    rng = np.random.default_rng(5)
    near = replace(model, name="near", location=model.location + 1e-3 * rng.normal(size=model.location.shape))
    (judged,) = judge(model, [model.under("twin"), near], outcomes, levels=LEVELS, resamples=300)
    for gap in judged.differences["twin"].values():
        assert (gap.estimate, gap.low, gap.high) == (0.0, 0.0, 0.0)
    own, gap = judged.scores["net"]["rank_ic"], judged.differences["near"]["rank_ic"]
    assert gap.high - gap.low < 0.3 * (own.high - own.low)


def test_the_interval_of_noise_holds_zero_as_often_as_it_says_and_an_edge_is_seen():
    outcomes, held = world()[1], 0
    for seed in range(60):
        noise = Predictions("noise", location=np.random.default_rng(seed).normal(size=outcomes.move.shape))
        found = judge(noise, [], outcomes, resamples=100)[0].scores["noise"]["rank_ic"]
        held += found.low < 0.0 < found.high
    assert held >= 51  # 57 of 60 are expected; below 51 in one of a thousand
    assert judge(world(edge=0.3)[0], [], outcomes, resamples=300)[0].scores["net"]["rank_ic"].low > 0.05


def test_only_what_all_models_said_is_judged():
    model, outcomes = world()
    silent = Predictions("silent", location=np.where(np.arange(T)[:, None, None] < 400, np.nan, 0.1 * np.ones_like(outcomes.move)))
    (judged,) = judge(replace(model, direction=None, volatility=None, confidence=None, quantiles=None), [silent], outcomes, resamples=10)
    assert judged.moments == T - 400
    assert np.isnan(judged.scores["silent"]["rank_ic"].estimate)  # a constant ranks nothing


def test_an_overlapping_horizon_gets_blocks_of_four_times_its_length():
    model, outcomes = world()
    (judged,) = judge(model, [], replace(outcomes, horizon_bars=(24,)), resamples=10)
    assert judged.mean_block >= 96


@pytest.mark.parametrize(("horizons", "share"), [(2.0, 0.852), (4.0, 0.922)])
def test_blocks_of_four_horizons_know_nine_tenths_of_the_variance_that_overlap_makes(horizons, share):
    """Sums over 24 bars of white noise: the variance of the sum of 4,000 is 4,000 · 24², and of it blocks of L keep
    2 ∫ (1 − x) e^(−x h/L) dx = 2 (1/a − (1 − e^−a)/a²), a = h/L."""
    a, rng = 1.0 / horizons, np.random.default_rng(1)
    assert 2.0 * (1.0 / a - (1.0 - np.exp(-a)) / a**2) == pytest.approx(share, abs=1e-3)
    sums = np.stack([np.convolve(rng.normal(size=4_023), np.ones(24), "valid") for _ in range(300)], axis=1)
    spread = resampled(sums, horizons * 24, 200, rng).var(axis=0, ddof=1).mean() / (4_000 * 24**2)
    assert spread == pytest.approx(share, abs=0.03)  # the two lie .07 apart
    assert mean_block(None, 24, 4_000) == 4.0 * 24


def test_overlapping_outcomes_hardly_fool_diebold_mariano():
    """Differences without a mean, summed over 24 bars: their long-run variance is known, and nearly all of it is counted."""
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        gap = np.convolve(rng.normal(size=4_023), np.ones(24), "valid")
        statistic = diebold_mariano(np.zeros(4_000), gap, against="zero", loss="any", horizon_bars=24).statistic
        found.append((gap.mean() / statistic) ** 2 * 4_000 / 24**2)
    assert np.mean(found) == pytest.approx(0.83, abs=0.06)  # 2 ∫ (1 − x) (1 − x/2) dx = 5/6; lags up to 23 would give 2/3


def test_diebold_mariano_by_hand():
    rng = np.random.default_rng(2)
    gap = rng.normal(0.1, 1.0, size=500)
    gap = gap + 0.5 * np.concatenate(([0.0], gap[:-1]))
    found = diebold_mariano(np.zeros(500), gap, against="zero", loss="any", horizon_bars=4)
    centred = gap - gap.mean()
    long_run = centred @ centred / 500 + 2 * sum(
        (1 - k / (found.lags + 1)) * (centred[k:] @ centred[:-k]) / 500 for k in range(1, found.lags + 1)
    )
    assert found.lags == 8
    assert_allclose(found.statistic, gap.mean() / np.sqrt(long_run / 500), rtol=1e-10)
    norm = pytest.importorskip("scipy.stats").norm

    assert_allclose(found.p_value, 2 * norm.sf(abs(found.statistic)), rtol=1e-10)
    assert np.isnan(diebold_mariano(np.ones(9), np.ones(9), against="twin", loss="any", horizon_bars=1).p_value)


def baselines(outcomes: Outcomes, name_of_best: str = "") -> list[Predictions]:
    rng = np.random.default_rng(3)
    noise = [Predictions(name, location=0.1 * rng.normal(size=outcomes.move.shape)) for name in (RIDGE, LIGHTGBM)]
    flat = np.full(outcomes.move.shape, np.sqrt(np.nanmean(outcomes.volatility**2)))
    return [Predictions(ZERO, location=np.zeros(outcomes.move.shape)), Predictions(EWMA, volatility=flat), *noise]


def test_a_good_model_is_promoted_and_each_failing_gate_is_named():
    model, outcomes = world(edge=0.3)
    others = baselines(outcomes)
    good = verdict(judge(model, others, outcomes, resamples=300), name="net")
    assert good.promoted, good.words
    beaten = [each if each.name != RIDGE else model.under(RIDGE) for each in others]
    found = verdict(judge(model, beaten, outcomes, resamples=300), name="net")
    assert not found.promoted
    assert "does not beat ridge" in found.words
    assert "lightgbm" not in found.words
    lacking = verdict(judge(model, [each for each in others if each.name != LIGHTGBM], outcomes, resamples=300), name="net")
    assert lacking.reasons == ("was not compared with lightgbm",)
    wrong = verdict(judge(replace(model, location=-model.location), others, outcomes, resamples=300), name="net")
    assert "ranks assets the wrong way round" in wrong.reasons
    assert "has expected moves worse than zero" in wrong.words
    timid = replace(model, confidence=1.0 - model.confidence)
    assert any("surer" in reason for reason in verdict(judge(timid, others, outcomes, resamples=50), name="net").reasons)


def test_what_is_too_good_to_be_true_asks_for_an_audit():
    model, outcomes = world(edge=0.1)
    judged = judge(model, [], outcomes, resamples=20)
    assert verdict(judged, name="net").audit_first == ""
    assert "net Sharpe ratio of 3.4" in verdict(judged, name="net", net_sharpe=3.4).audit_first
    leak, seen = world(edge=0.9)
    advice = verdict(judge(leak, [], seen, resamples=20), name="net").audit_first
    assert "cryptoalpha audit" in advice
    assert "ups and downs right" in advice


def test_what_cannot_be_judged_is_refused():
    model, outcomes = world()
    with pytest.raises(ConfigError, match="one name"):
        judge(model, [model], outcomes)
    with pytest.raises(DataError, match="location has the shape"):
        judge(Predictions("short", location=np.zeros((3, N, 1))), [], outcomes)
    with pytest.raises(DataError, match="nothing can be judged"):
        judge(Predictions("mute", location=np.full(outcomes.move.shape, np.nan)), [], outcomes)
    with pytest.raises(DataError, match=r"expected \[T, N, H\]"):
        replace(outcomes, horizon_bars=(1, 2))
