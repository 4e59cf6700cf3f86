"""The genome's measures against slow definitions, and what a judgement says of a good, a useless and a spoiled genome."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import DataError
from cryptoalpha.lifecycle.recipes.genome_judging import GATES, judge_genome
from cryptoalpha.lifecycle.recipes.genome_tallies import Happened, Said, tally
from cryptoalpha.lifecycle.recipes.genome_usual import Usual
from cryptoalpha.monitoring.calibration import brier_score, expected_calibration_error

T, A, S, V, K = 240, 2, 2, 3, 5
LEVELS = np.array([0.1, 0.4, 0.7, 1.2, 2.3])


def world(seed: int = 0) -> tuple[Said, Happened, Usual, np.ndarray]:
    """A market in which a hidden state doubles excursions and moves everything else; the genome is told the state half of the time."""
    rng = np.random.default_rng(seed)
    state = rng.random((T, A)) < 0.5
    scale = np.where(state, 2.0, 0.5)
    below, above = (rng.exponential(1.0, (T, A)) * scale for _ in range(2))
    tokens = rng.random((T, A, S, V)) < np.where(state, 0.8, 0.1)[..., None, None]
    before = rng.random((T, A, S, V)) < 0.45
    trend = np.where(rng.random((T, A)) < 0.7, np.where(state, 0, 1), 2)
    below[5, 0] = np.nan
    trend[7, 1] = -1
    told = np.ones((T, A, S, V), bool)
    told[9] = False
    truth = Happened(below, above, 0.8 * below, 0.8 * above, trend, trend, tokens, before, told)
    levels = np.quantile(rng.exponential(1.0, 4_000), [0.1, 0.3, 0.5, 0.7, 0.9]) * scale[..., None]
    hold = np.concatenate([1.0 - np.exp(-levels / scale[..., None] / 0.8)] * 2, -1)
    chances = np.where(state[..., None], [0.7, 0.01, 0.29], [0.01, 0.7, 0.29])
    words = np.where(state, 0.8, 0.1)[..., None, None] * np.ones((T, A, S, V))
    words[::2] = np.nan  # only every second moment was hidden
    said = Said(levels, levels, hold, chances, chances, words)
    pooled = np.concatenate([rng.exponential(2.0, 4_000), rng.exponential(0.5, 4_000)])
    lower = np.quantile(pooled, [0.1, 0.3, 0.5, 0.7, 0.9])
    rates = np.full((S, V), 0.45)
    usual = Usual(lower, lower, np.full(2 * K, 0.6), np.array([0.36, 0.34, 0.3]), np.array([0.36, 0.34, 0.3]), rates, rates, rates)
    return said, truth, usual, state


def test_each_measure_is_its_definition():
    said, truth, usual, _ = world()
    judged = judge_genome(tally(said, truth, usual), horizon=4, resamples=50)
    scores = {name: {who: interval.estimate for who, interval in row.items()} for name, row in judged.scores.items()}
    losses: dict[str, list[float]] = {"below": [], "above": []}
    for t, a in np.ndindex(T, A):
        for side, reach, levels in (("below", truth.below, said.supports), ("above", truth.above, said.resistances)):
            if math.isfinite(reach[t, a]):
                errors = [reach[t, a] - levels[t, a, k] for k in range(K)]
                losses[side].append(np.mean([(0.1 + 0.2 * k) * e if e > 0 else (0.2 * k - 0.9) * e for k, e in enumerate(errors)]))
    assert scores["level_pinball"]["genome"] == pytest.approx((np.mean(losses["below"]) + np.mean(losses["above"])) / 2)
    closes = np.concatenate([np.repeat(c[..., None], K, -1) for c in (truth.close_below, truth.close_above)], -1)
    seen = np.isfinite(closes)
    held = closes <= np.concatenate((said.supports, said.resistances), -1)
    assert scores["hold_brier"]["genome"] == pytest.approx(brier_score(said.hold[seen], held[seen].astype(int)) / 2)  # one class, not two
    assert scores["hold_brier"]["usual"] == pytest.approx(np.mean((0.6 - held[seen]) ** 2))
    assert scores["hold_ece"]["genome"] == pytest.approx(expected_calibration_error(said.hold[seen], held[seen]))
    assert scores["hold_ece"]["usual"] == pytest.approx(abs(0.6 - held[seen].mean()))
    known = truth.trend >= 0
    right = (said.trend.argmax(-1) == truth.trend)[known]
    assert scores["trend_ece"]["genome"] == pytest.approx(expected_calibration_error(said.trend.max(-1)[known], right))
    assert scores["trend_accuracy"]["genome"] == pytest.approx((said.trend.argmax(-1) == truth.trend)[known].mean())
    assert scores["trend_accuracy"]["usual"] == pytest.approx((truth.trend == 0)[known].mean())
    chosen = np.take_along_axis(said.trend, np.maximum(truth.trend, 0)[..., None], -1)[..., 0][known]
    assert scores["trend_log_loss"]["genome"] == pytest.approx(-np.log(chosen).mean())
    asked = np.isfinite(said.tokens[:, :, 0]) & truth.told[:, :, 0]
    on, p = truth.tokens[:, :, 0][asked], said.tokens[:, :, 0][asked]
    assert scores["token_accuracy"]["genome"] == pytest.approx(((p > 0.5) == on).mean())
    assert scores["token_log_loss"]["genome"] == pytest.approx(-np.log(np.where(on, p, 1 - p)).mean())
    balanced = [
        ((said.tokens[:, :, 0, v][asked[..., v] & truth.tokens[:, :, 0, v]] > 0.45).mean()
         + (said.tokens[:, :, 0, v][asked[..., v] & ~truth.tokens[:, :, 0, v]] <= 0.45).mean()) / 2
        for v in range(V)
    ]  # fmt: skip
    assert scores["token_balanced"]["genome"] == pytest.approx(np.mean(balanced))
    assert scores["token_balanced"]["usual"] == 0.5
    within = judged.within["genome above"]
    assert within == pytest.approx([(truth.above <= said.resistances[..., k]).mean() for k in range(K)])


def test_a_genome_that_knows_something_passes_and_one_that_says_what_is_usual_does_not():
    said, truth, usual, _ = world()
    good = judge_genome(tally(said, truth, usual), horizon=4, resamples=300)
    assert good.verdict()["promoted"]
    same = Said(
        np.broadcast_to(usual.below, said.supports.shape).copy(),
        np.broadcast_to(usual.above, said.resistances.shape).copy(),
        np.broadcast_to(usual.hold, said.hold.shape).copy(),
        np.broadcast_to(usual.trend, said.trend.shape).copy(),
        np.broadcast_to(usual.movement, said.movement.shape).copy(),
        np.where(np.isfinite(said.tokens), usual.tokens, np.nan),
    )
    idle = judge_genome(tally(same, truth, usual), horizon=4, resamples=300)
    assert not any(idle.gates.values())
    assert all(row["usual"].estimate == pytest.approx(0.0, abs=1e-12) for row in idle.differences.values())
    assert len(idle.verdict()["reasons"]) == len(GATES)


def test_shuffled_outcomes_take_the_demands_away():
    said, truth, usual, _ = world()
    order = np.random.default_rng(1).permutation(T)
    shuffled = Happened(**{name: part[order] for name, part in vars(truth).items()})
    spoiled = judge_genome(tally(said, shuffled, usual), horizon=4, resamples=300)
    assert not spoiled.beats("token_log_loss", "usual")
    assert spoiled.loses("token_log_loss", "usual")  # and what is worse is called worse, not only "not shown"
    assert "Worse than what is usual" in spoiled.verdict()["words"]
    assert not spoiled.beats("level_pinball", "usual")


def test_too_good_to_be_true_asks_for_an_audit():
    said, truth, usual, _ = world()
    known = np.maximum(truth.trend, 0)
    perfect = Said(**{**vars(said), "trend": np.eye(3)[known] * 0.97 + 0.01})
    assert "leak" in judge_genome(tally(perfect, truth, usual), horizon=4, resamples=50).verdict()["audit_first"]


def test_the_same_seed_gives_the_same_intervals_and_nothing_to_judge_is_an_error():
    said, truth, usual, _ = world()
    columns = tally(said, truth, usual)
    assert judge_genome(columns, horizon=4, seed=1, resamples=50) == judge_genome(columns, horizon=4, seed=1, resamples=50)
    with pytest.raises(DataError, match="cannot be judged"):
        judge_genome({name: part[:1] for name, part in columns.items()}, horizon=4)
