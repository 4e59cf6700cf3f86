"""The chain, its fit and its filter, against closed forms, plain Python, and hmmlearn where it is installed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.signals.regime.filter import causal_filter, filter_cells, forward
from cryptoalpha.signals.regime.hmm import GaussianHmm, fit_hmm, smooth, stationary

STAY, MEAN, DEVIATION = 0.98, 0.03, 0.06


def toy_chain() -> GaussianHmm:
    transition = np.array([[STAY, 1.0 - STAY], [1.0 - STAY, STAY]])
    return GaussianHmm(np.full(2, 0.5), transition, np.array([[-MEAN], [MEAN]]), np.full((2, 1, 1), DEVIATION**2))


def toy(bars: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States and returns of the toy of the planning notes."""
    random = stream(seed, "toy")
    states = np.cumsum(random.random(bars) >= STAY) % 2
    return states, (np.where(states == 1, MEAN, -MEAN) + DEVIATION * random.standard_normal(bars))[:, None]


def next_step_sharpe(states: np.ndarray, returns: np.ndarray) -> float:
    earned = np.where(states == 1, 1.0, -1.0)[:-1] * returns[1:, 0]
    return float(earned.mean() / earned.std())


def random_chain(states: int, width: int, seed: int, temper: float = 1.0) -> GaussianHmm:
    random = stream(seed, "chain")
    root = random.standard_normal((states, width, width))
    transition = random.dirichlet(np.ones(states), size=states) * 0.3 + 0.7 * np.eye(states)
    covariance = root @ root.transpose(0, 2, 1) + np.eye(width)
    return GaussianHmm(random.dirichlet(np.ones(states)), transition, random.standard_normal((states, width)), covariance, temper)


def density(chain: GaussianHmm, state: int, row: np.ndarray) -> float:
    """The normal density by its definition."""
    off = row - chain.mean[state]
    quadratic = off @ np.linalg.inv(chain.covariance[state]) @ off
    return math.exp(-0.5 * quadratic) / math.sqrt((2.0 * math.pi) ** len(row) * np.linalg.det(chain.covariance[state]))


def test_log_densities_are_those_of_the_definition_and_a_gap_says_nothing():
    chain = random_chain(3, 4, 1)
    rows = stream(2, "rows").standard_normal((5, 4))
    expected = [[math.log(density(chain, k, row)) for k in range(3)] for row in rows]
    assert_allclose(chain.log_density(rows), expected, rtol=1e-10)
    rows[2, 1] = np.nan
    assert_array_equal(chain.log_density(rows)[2], np.zeros(3))


def test_the_filter_is_bayes_rule_written_out():
    chain = random_chain(3, 2, 3, temper=0.4)
    rows = stream(4, "rows").standard_normal((40, 2)) * 2.0
    rows[7:10] = np.nan
    belief, found = list(chain.start), []
    for row in rows:
        belief = [sum(belief[j] * chain.transition[j, k] for j in range(3)) for k in range(3)]
        if np.isfinite(row).all():
            belief = [b * density(chain, k, row) ** chain.temper for k, b in enumerate(belief)]
        total = sum(belief)
        belief = [b / total for b in belief]
        found.append(belief)
    assert_allclose(causal_filter(chain.temper * chain.log_density(rows), chain.start, chain.transition), found, rtol=1e-10)


def test_an_impossible_bar_leaves_a_belief():
    """Densities that underflow a thousand times over: their ratio still decides."""
    logs = np.array([[-5e5, -4e5], [0.0, -1e7]])
    belief = causal_filter(logs, np.full(2, 0.5), toy_chain().transition)
    assert_allclose(belief, [[0.0, 1.0], [1.0, 0.0]], atol=1e-300)


def test_smoothing_and_its_likelihood_are_sums_over_all_paths():
    chain = random_chain(2, 2, 5)
    rows = stream(6, "rows").standard_normal((7, 2))
    weights = {}
    for path in itertools.product(range(2), repeat=len(rows)):
        weight = chain.start[path[0]] * density(chain, path[0], rows[0])
        for t in range(1, len(rows)):
            weight *= chain.transition[path[t - 1], path[t]] * density(chain, path[t], rows[t])
        weights[path] = weight
    total = sum(weights.values())
    gamma, pairs, likelihood, stays = smooth(chain.log_density(rows), np.array([0, len(rows)]), chain.start, chain.transition)
    assert likelihood == pytest.approx(math.log(total))
    for t in range(len(rows)):
        assert gamma[t, 1] == pytest.approx(sum(w for path, w in weights.items() if path[t] == 1) / total)
    assert stays[3] == pytest.approx(sum(w for path, w in weights.items() if path[2] == path[3]) / total)
    moves = sum(w * sum(path[t] == 0 and path[t + 1] == 1 for t in range(len(rows) - 1)) for path, w in weights.items())
    assert pairs[0, 1] == pytest.approx(moves / total)


def test_the_toy_of_the_planning_notes():
    """Causal accuracy .902 and Sharpe .366, smoothed .949 and .495, true state .481 were one draw; here are 100,000 bars."""
    states, returns = toy(100_000)
    chain = toy_chain()
    logs = chain.log_density(returns)
    causal = causal_filter(logs, chain.start, chain.transition).argmax(axis=1)
    smoothed = smooth(logs, np.array([0, len(logs)]), chain.start, chain.transition)[0].argmax(axis=1)
    assert (causal == states).mean() == pytest.approx(0.902, abs=0.015)
    assert (smoothed == states).mean() == pytest.approx(0.949, abs=0.015)
    truth = next_step_sharpe(states, returns)
    # sign · return: mean .03 · (2 · .98 − 1), second moment .06² + .03²
    assert truth == pytest.approx(0.0288 / math.sqrt(0.0045 - 0.0288**2), abs=0.01)
    assert next_step_sharpe(causal, returns) == pytest.approx(0.366, abs=0.015)
    assert next_step_sharpe(causal, returns) < truth < next_step_sharpe(smoothed, returns)  # smoothing beats the truth: the leak


def test_the_filter_at_t_is_the_same_without_what_comes_after_and_smoothing_is_not():
    chain, (_, returns) = toy_chain(), toy(600)
    logs = chain.log_density(returns)
    whole = causal_filter(logs, chain.start, chain.transition)
    smoothed = smooth(logs, np.array([0, 600]), chain.start, chain.transition)[0]
    for cut in (1, 17, 300, 599):
        assert causal_filter(logs[:cut], chain.start, chain.transition).tobytes() == whole[:cut].tobytes()
        assert smooth(logs[:cut], np.array([0, cut]), chain.start, chain.transition)[0].tobytes() != smoothed[:cut].tobytes()


def test_em_raises_its_objective_and_finds_the_toy():
    _, returns = toy(20_000, seed=3)
    first = GaussianHmm(np.full(2, 0.5), np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[-0.01], [0.01]]), np.full((2, 1, 1), 0.004))
    fitted = fit_hmm(returns, np.array([len(returns)]), first, ridge=0.0, tolerance=1e-9, most_steps=300)
    assert (np.diff(fitted.objective) > -1e-8).all()
    assert_allclose(fitted.model.mean[:, 0], [-MEAN, MEAN], atol=0.004)
    assert_allclose(np.diag(fitted.model.transition), STAY, atol=0.005)
    assert_allclose(np.sqrt(fitted.model.covariance[:, 0, 0]), DEVIATION, atol=0.003)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("temper", [1.0, 0.2])
def test_em_with_prior_gaps_and_temper_still_climbs(tied, temper):
    random = stream(8, "em")
    rows = random.standard_normal((900, 3)) + np.repeat(random.standard_normal((9, 3)), 100, axis=0)
    rows[100:140] = np.nan
    first = random_chain(3, 3, 9, temper)
    fitted = fit_hmm(rows, np.array([400, 0, 500]), first, spell_bars=50.0, prior_spells=5.0, tied=tied, ridge=0.0, most_steps=40)
    assert (np.diff(fitted.objective) > -1e-8).all()
    assert bool(np.ptp(fitted.model.covariance, axis=0).max() == 0.0) is tied
    assert fitted.model.temper == temper


def test_a_step_of_em_weighs_rows_by_tempered_densities_summed_over_all_paths():
    chain, x = random_chain(2, 2, 4, temper=0.3), stream(4, "tempered").standard_normal((5, 2))
    weight = np.zeros((5, 2))
    for path in itertools.product(range(2), repeat=5):
        chance = chain.start[path[0]] * math.prod(chain.transition[a, b] for a, b in itertools.pairwise(path))
        chance *= math.prod(density(chain, state, row) ** 0.3 for state, row in zip(path, x, strict=True))
        weight[np.arange(5), path] += chance
    weight /= weight.sum(axis=1, keepdims=True)
    stepped = fit_hmm(x, np.array([5]), chain, ridge=0.0, most_steps=1).model
    assert_allclose(stepped.mean, (weight.T @ x) / weight.sum(axis=0)[:, None], rtol=1e-10)
    assert_allclose(stepped.start, weight[0], rtol=1e-10)


def test_em_ends_where_that_of_hmmlearn_ends():
    oracle = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn, the oracle, is not installed")
    _, returns = toy(1_500, seed=1)
    first = GaussianHmm(np.full(2, 0.5), np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[-0.02], [0.02]]), np.full((2, 1, 1), 0.004))
    theirs = oracle.GaussianHMM(2, "full", n_iter=300, tol=1e-6, init_params="", min_covar=0.0, covars_prior=0.0, covars_weight=1.0)
    theirs.startprob_, theirs.transmat_, theirs.means_, theirs.covars_ = first.start, first.transition, first.mean, first.covariance
    theirs.fit(returns)
    ours = fit_hmm(returns, np.array([1_500]), first, ridge=0.0, tolerance=1e-11, most_steps=500)
    assert ours.objective[-1] == pytest.approx(theirs.score(returns), abs=0.05)
    assert ours.objective[-1] >= theirs.score(returns) - 1e-6
    assert_allclose(ours.model.mean, theirs.means_, atol=1e-3)
    assert_allclose(ours.model.transition, theirs.transmat_, atol=1e-3)


def test_smoothing_is_that_of_hmmlearn():
    oracle = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn, the oracle, is not installed")
    chain = random_chain(3, 2, 11)
    rows = stream(12, "rows").standard_normal((500, 2))
    theirs = oracle.GaussianHMM(3, "full", init_params="")
    theirs.startprob_, theirs.transmat_, theirs.means_, theirs.covars_ = chain.start, chain.transition, chain.mean, chain.covariance
    gamma, _, likelihood, _ = smooth(chain.log_density(rows), np.array([0, 500]), chain.start, chain.transition)
    assert_allclose(gamma, theirs.predict_proba(rows), atol=1e-9)
    assert likelihood == pytest.approx(theirs.score(rows))


def test_where_a_chain_settles():
    assert_allclose(stationary(np.array([[0.9, 0.1], [0.3, 0.7]])), [0.75, 0.25])  # .1 · .75 = .3 · .25


def test_the_age_is_that_of_simulated_chains():
    """Paths of both chains, weighed by the densities of what was seen: how long their present cell has stood."""
    trend, volatility = random_chain(3, 2, 21), random_chain(2, 2, 22)
    random = stream(23, "age")
    steps, paths = 30, 60_000
    x, y = random.standard_normal((steps, 2)), random.standard_normal((steps, 2))
    found = filter_cells(trend, volatility, x, y)
    weight, age, cells = np.ones(paths), np.zeros(paths), []
    for chain, rows in ((trend, x), (volatility, y)):
        state = random.choice(chain.states, size=paths, p=chain.stationary())
        states = []
        for t in range(steps):
            chance = np.cumsum(chain.transition, axis=1)[state]
            state = (random.random(paths)[:, None] > chance).sum(axis=1)
            states.append(state)
            weight = weight * np.array([density(chain, k, rows[t]) for k in range(chain.states)])[state]
        cells.append(np.array(states))
    cell = 2 * cells[0] + cells[1]
    for t in range(1, steps):
        age = np.where(cell[t] == cell[t - 1], age + 1.0, 0.0)
    # by then almost every path has changed its cell at least once, so that where ages began no longer matters
    share = weight / weight.sum()
    effective = 1.0 / (share**2).sum()
    error = math.sqrt(float((share * (age - (share * age).sum()) ** 2).sum()) / effective)
    assert effective > 100
    assert found.age[-1] == pytest.approx(float((share * age).sum()), abs=4.0 * error + 0.05)
    belief = np.array([share[cell[-1] == c].sum() for c in range(6)])
    assert_allclose(found.belief[-1], belief, atol=4.0 * math.sqrt(0.25 / effective))


def test_without_a_word_the_belief_stays_what_the_chain_settles_in_and_ages_are_the_average():
    trend, volatility = random_chain(3, 2, 31), random_chain(2, 2, 32)
    nothing = np.full((50, 2), np.nan)
    found = filter_cells(trend, volatility, nothing, nothing)
    expected = np.outer(trend.stationary(), volatility.stationary()).ravel()
    assert_allclose(found.belief, np.tile(expected, (50, 1)), rtol=1e-10)
    stay = np.outer(np.diag(trend.transition), np.diag(volatility.transition)).ravel()
    assert_allclose(found.age, (expected * stay / (1.0 - stay)).sum(), rtol=1e-9)
    assert_allclose(found.change, 1.0 - (expected * stay).sum(), rtol=1e-10)
    assert not found.seen.any()


def test_the_share_that_stayed_is_a_chance():
    chain = random_chain(3, 2, 41)
    belief, share = forward(chain.log_density(stream(42, "x").standard_normal((200, 2))), chain.start, chain.transition)
    assert ((share > 0.0) & (share < 1.0)).all()
    assert_allclose(belief.sum(axis=1), 1.0)


def test_what_cannot_be_fitted_or_read_is_refused():
    chain = random_chain(2, 2, 51)
    with pytest.raises(ConfigError, match="nothing to fit"):
        fit_hmm(np.full((5, 2), np.nan), np.array([5]), chain)
    arrays = chain.as_arrays("trend")
    kept = GaussianHmm.from_arrays("trend", arrays)
    assert kept.mean.tobytes() == chain.mean.tobytes()
    with pytest.raises(ModelError, match="lacks"):
        GaussianHmm.from_arrays("volatility", arrays)
    with pytest.raises(ModelError, match="do not fit together"):
        GaussianHmm.from_arrays("trend", {**arrays, "trend/transition": np.ones((2, 2))})
    with pytest.raises(ModelError, match="positive definite"):
        GaussianHmm(chain.start, chain.transition, chain.mean, -chain.covariance).whitening()
