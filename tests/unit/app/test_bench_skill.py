"""The planted worlds that skill is measured on: honest features, purged blocks, fair baselines, intervals that mean it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.app.bench import skill, skill_models
from cryptoalpha.app.bench.skill_world import AHEAD, SkillBlocks, correlation_ahead, own_features, pair_features, skill_world
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.problems.planted_market import planted_market

TINY = skill_models.SIZES.model_copy(update={"sequence_width": 8, "head_width": 4, "heads": 2, "pair_width": 4, "blocks": 1})


def world(ic=0.1, bars=3_000, *, regime_bars=2_000, seed=0):
    return skill_world(planted_market(ic=ic, bars=bars, seed=seed, regime_bars=regime_bars), context=4, block=20)


def test_features_know_nothing_of_later_returns():
    returns = planted_market(ic=0.2, bars=800, seed=1).returns
    changed = returns.copy()
    changed[500:] = 1e3
    for features in (own_features, pair_features):
        assert_array_equal(features(changed)[:500], features(returns)[:500])
        assert not np.array_equal(features(changed)[500], features(returns)[500])


def test_features_are_what_they_are_called():
    returns = planted_market(ic=0.2, bars=400, seed=1).returns
    own, pairs = own_features(returns)[380], pair_features(returns)[380]
    assert_allclose(own[:, 1], returns[379], rtol=1e-12)
    assert_allclose(own[:, 4], returns[373:381].sum(axis=0) / np.sqrt(8), atol=1e-12)
    window = returns[380 - 95 : 381]
    size = np.sqrt((window**2).sum(axis=0))
    assert_allclose(pairs[:, :, 1], window.T @ window / np.outer(size, size), atol=1e-12)
    ahead = returns[101 : 101 + AHEAD]
    size = np.sqrt((ahead**2).sum(axis=0))
    assert_allclose(correlation_ahead(returns)[100], ahead.T @ ahead / np.outer(size, size), atol=1e-12)
    assert bool(np.isnan(correlation_ahead(returns)[-AHEAD:]).all())


def test_no_label_of_a_teaching_block_reaches_into_what_judges():
    made = world()
    parts = [made.bars(blocks) for blocks in (made.train, made.validation, made.test)]
    for before, after in pairwise(parts):
        assert before[-1] + AHEAD < after[0]
    assert parts[0][0] >= 336 + made.context  # every trailing window is full
    assert len(parts[2]) == pytest.approx(0.3 * 3_000, rel=0.2)


def test_a_block_is_its_context_and_the_bars_it_answers():
    made = world()
    inputs, targets = SkillBlocks(made, made.test).take(torch.tensor([0, 2]))
    begin = int(made.test[2]) * 20
    assert inputs.price.shape == (2, 24, 8, 6)
    assert_array_equal(inputs.price[1], made.own[begin - 4 : begin + 20].astype(np.float32))
    assert_array_equal(inputs.pair[1], made.pairs[begin - 4 : begin + 20].astype(np.float32))
    assert_array_equal(targets.move[1, :, :, 0], made.moves[begin - 4 : begin + 20].astype(np.float32))
    assert targets.supervised[1].tolist() == [False] * 4 + [True] * 20
    assert not bool(inputs.chain_seen.any())
    assert float(inputs.text_weight.sum()) == 0.0


def test_moves_are_the_next_returns_and_the_oracle_foretells_them():
    market = planted_market(ic=0.5, bars=3_000, seed=2)
    made = skill_world(market, context=4, block=20)
    assert_array_equal(made.moves[:-1], market.returns[1:])
    assert bool(np.isfinite(made.moves[made.bars(made.test)]).all())
    test = made.bars(made.test)
    assert skill_models.pooled_correlation(made.oracle[test], made.moves[test]) == pytest.approx(0.5, abs=0.05)


def test_baselines_find_what_they_can_find():
    fixed = world(ic=0.3, bars=8_000, regime_bars=100_000)
    test = fixed.bars(fixed.test)
    oracle = skill_models.pooled_correlation(fixed.oracle[test], fixed.moves[test])
    by_names = skill_models.pooled_correlation(skill_models.asset_ridge(fixed), fixed.moves[test])
    pooled = skill_models.pooled_correlation(skill_models.pooled_ridge(fixed), fixed.moves[test])
    assert by_names > 0.85 * oracle  # names are enough where groups never change: the ridge is no straw man
    assert abs(pooled) < 0.35 * oracle  # nothing is planted in an asset's last return
    moving = world(ic=0.3, bars=8_000, regime_bars=1_000)
    test = moving.bars(moving.test)
    share = skill_models.pooled_correlation(skill_models.asset_ridge(moving), moving.moves[test]) / oracle
    assert share < 0.75  # where they change, names mislead
    told = skill_models.pooled_correlation(skill_models.told_ridge(moving), moving.moves[test])
    assert told > 0.6 * skill_models.pooled_correlation(moving.oracle[test], moving.moves[test])  # and relations do not


def test_trees_find_an_edge_that_is_strong():
    pytest.importorskip("lightgbm")
    made = world(ic=0.6, bars=3_000, regime_bars=100_000)
    predictions = skill_models.lightgbm_predictions(made, seed=0)
    assert skill_models.pooled_correlation(predictions, made.moves[made.bars(made.test)]) > 0.3


def test_the_pooled_correlation_and_its_interval():
    rng = np.random.default_rng(0)
    predictions, noise = rng.normal(size=(2_000, 8)), rng.normal(size=(2_000, 8))
    moves = 0.1 * predictions + noise
    interval = skill.correlation_interval(predictions, moves, seed=0)
    exact = np.corrcoef(predictions.ravel(), moves.ravel())[0, 1]
    assert skill_models.pooled_correlation(predictions + 7.0, moves) == pytest.approx(exact, rel=1e-9)  # a constant is no skill
    assert interval.estimate == pytest.approx(exact, rel=1e-12)
    assert interval.low < exact < interval.high
    assert interval.low > 0.05
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / np.sqrt(16_000), rel=0.25)  # 16,000 independent looks
    silent = skill.correlation_interval(predictions, noise, seed=0)
    assert silent.low < 0.0 < silent.high
    assert skill_models.pooled_correlation(np.full((4, 2), 0.1), moves[:4, :2]) == 0.0


def test_the_interval_widens_where_assets_move_together():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2_000, 1)), rng.normal(size=(2_000, 1))
    together = skill.correlation_interval(np.tile(one, 8), np.tile(other, 8), seed=0)
    assert together.high - together.low == pytest.approx(2 * 1.96 / np.sqrt(2_000), rel=0.25)  # eight copies are one look


@pytest.mark.slow
def test_the_forecaster_learns_a_strong_edge_in_a_few_steps():
    made = world(ic=0.7, bars=2_500)
    training = FitConfig(learning_rate=1e-2, batch=4, epochs=3, warmup=0.05, weight_decay=0.01, patience=3)
    moves = made.moves[made.bars(made.test)]
    first = skill_models.forecaster_predictions(made, seed=1, sizes=TINY, training=training)
    assert skill_models.pooled_correlation(first, moves) > 0.2
    pooled = skill_models.pooled_correlation(skill_models.pooled_ridge(made), moves)
    assert skill_models.pooled_correlation(first, moves) > pooled
