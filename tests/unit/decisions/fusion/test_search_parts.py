"""The parts of the searched fusion, each a second way: actions by hand, statistics by plain sums, the world by array expressions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import MarketState, Signal
from cryptoalpha.decisions.fusion.charge import Charge
from cryptoalpha.decisions.fusion.scores import Calibration, log_scores, worst_differences
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, EQUAL, FAMILIES, HOLD, RESET, SHRINK, Moves, action_names, equal_weights
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.scenarios import FEWEST, ScenarioPool
from cryptoalpha.decisions.fusion.search.state import BLOCKS, GROSS_AT, UNIFORM, WEIGHT_AT, Reader, summary
from cryptoalpha.decisions.fusion.search.statistics import CELLS, Belief, FamilyStatistics, claim
from cryptoalpha.decisions.fusion.search.world import Fuser, FusionWorld, Risk, positions

CONFIG = SearchConfig()
SPEAKING = np.arange(FAMILIES) < 3
PRIOR = np.array([0.5, 0.3, 0.2] + [0.0] * (FAMILIES - 3))


def row(*weights: float) -> np.ndarray:
    return np.array([[*weights, *[0.0] * (FAMILIES - len(weights))]])


def test_actions_do_to_the_weights_what_their_names_say():
    moves = Moves.of(0.1, PRIOR, SPEAKING)
    even = row(0.5, 0.25, 0.25)
    cases = {
        HOLD: (0.5, 0.25, 0.25),
        1: (0.6 / 1.1, 0.25 / 1.1, 0.25 / 1.1),  # gross is 1 already: the rest makes room
        1 + FAMILIES + 1: (0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9),  # the others take what the second gives up
        RESET: (0.5, 0.3, 0.2),
        EQUAL: (1 / 3, 1 / 3, 1 / 3),
        SHRINK: (0.4, 0.2, 0.2),
    }
    for action, wanted in cases.items():
        assert moves.apply(even, np.array([action]))[0, :3] == pytest.approx(wanted)
    assert moves.apply(row(0.4), np.array([1]))[0, 0] == pytest.approx(0.5)  # below full, + adds to gross
    assert moves.apply(row(0.4), np.array([1 + FAMILIES]))[0, 0] == pytest.approx(0.3)  # − on the only family: gross falls
    names = action_names(("price", "mood", "news"))
    assert (len(names), names[HOLD], names[2], names[1 + FAMILIES + 2], names[SHRINK]) == (ACTIONS, "hold", "+mood", "-news", "shrink")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), action=st.integers(0, ACTIONS - 1))
def test_weights_stay_inside_the_simplex_and_what_is_legal_leads_to_speaking_families(seed: int, action: int):
    draw = stream(seed, "weights")
    weights = draw.dirichlet(np.ones(3)) * draw.uniform(0.0, 1.0)
    moves = Moves.of(0.1, PRIOR, SPEAKING)
    before = row(*weights)
    after = moves.apply(before, np.array([action]))
    assert (after >= 0.0).all()
    assert after.sum() <= 1.0 + 1e-12
    if moves.legal(before, SPEAKING)[0, action]:
        assert not after[0, 3:].any()


def learnt(statistics: FamilyStatistics, seed: int, bars: int, ic: float, *, regime=UNIFORM, instruments: int = 1) -> None:
    draw = stream(seed, "statistics")
    for _ in range(bars):
        outcomes = draw.standard_normal(instruments)
        values = draw.standard_normal((instruments, FAMILIES)) / 3
        values[:, 0] = (ic * outcomes + math.sqrt(1 - ic**2) * 3 * values[:, 0]) / 3
        statistics.learn(values, np.ones_like(values), outcomes, regime)


def test_correlations_are_the_plain_ones_of_weighted_sums():
    config = SearchConfig(half_life_bars=50.0)
    statistics, draw = FamilyStatistics(config, FAMILIES, 1), stream(3, "sums")
    values, outcomes = draw.uniform(-1, 1, (200, FAMILIES)), draw.standard_normal(200)
    for v, y in zip(values, outcomes, strict=True):
        statistics.learn(v[None], np.ones((1, FAMILIES)), np.array([y]), UNIFORM)
    weight = 0.5 ** ((199 - np.arange(200)) / 50.0)
    wanted = [
        (weight * values[:, k] * outcomes).sum() / math.sqrt((weight * values[:, k] ** 2).sum() * (weight * outcomes**2).sum())
        for k in range(FAMILIES)
    ]
    np.testing.assert_allclose(statistics.belief(UNIFORM).ic, wanted, rtol=1e-10)


@pytest.mark.parametrize("horizon", [1, 6])
def test_standard_errors_hold_under_overlap_and_slow_opinions(horizon: int):
    """Worthless random-walk-like opinions about overlapping outcomes: |t| must exceed 2 about one time in twenty, not one in two."""
    config, t = SearchConfig(half_life_bars=1e6), []
    for seed in range(12):
        draw, statistics = stream(seed, "overlap"), FamilyStatistics(config, FAMILIES, horizon)
        noise = draw.standard_normal(600 + horizon)
        opinion = np.zeros(FAMILIES)
        for bar in range(600):
            opinion = 0.95 * opinion + draw.standard_normal(FAMILIES)
            outcome = noise[bar : bar + horizon].sum() / math.sqrt(horizon)
            statistics.learn(opinion[None] / 20, np.ones((1, FAMILIES)), np.array([outcome]), UNIFORM)
        belief = statistics.belief(UNIFORM)
        t.extend((belief.ic / belief.error).tolist())
    assert 0.5 < np.std(t) < 1.25
    assert np.mean(np.abs(t) > 2.0) < 0.12


def test_the_standard_error_is_the_plain_one_of_weighted_blocks():
    """Overlap over 2 bars, so blocks of 4; outcomes of two regimes, seen from one of them, ages counting."""
    config, bars, draw = SearchConfig(half_life_bars=30.0, regime_share=0.5), 80, stream(11, "blocks")
    statistics, cells = FamilyStatistics(config, 1, 2), draw.integers(0, 2, bars)
    values, outcomes = draw.uniform(-1, 1, (bars, 1)), 3.0 * draw.standard_normal((bars, 1))
    for v, y, cell in zip(values, outcomes, cells, strict=True):
        statistics.learn(v[:, None], np.ones((1, 1)), y, np.eye(CELLS)[cell])
    age = 0.5 ** ((bars - 1 - np.arange(bars)) / 30.0)
    weight = age * (0.5 + 0.5 * CELLS * (cells == 1))
    moved = weight * values[:, 0] * outcomes[:, 0]
    scale = (weight * values[:, 0] ** 2).sum() * (weight * outcomes[:, 0] ** 2).sum()
    put_back = (1 + 2 * 0.5) / (1 + 2 * 0.5 * 0.75)  # autocovariance ½ at lag 1, of which a block of 4 sees three quarters
    blocks = put_back * (moved.reshape(-1, 4).sum(axis=1) ** 2).sum() / scale
    effective = age.sum() ** 2 / (age**2).sum()
    floor = 1.0 / (weight.sum() / age.sum() * effective)
    wanted = math.sqrt(max(blocks, floor) * (1 + 6.0 / (effective / 4)))
    assert blocks > floor
    assert statistics.belief(np.eye(CELLS)[1]).error[0] == pytest.approx(wanted, rel=1e-9)


def test_instruments_that_move_as_one_count_once():
    config = SearchConfig(half_life_bars=1e6)
    alone, copies, draw = FamilyStatistics(config, 1, 1), FamilyStatistics(config, 1, 1), stream(0, "copies")
    for _ in range(400):
        value, outcome = draw.standard_normal(1), draw.standard_normal(1)
        alone.learn(value[:, None], np.ones((1, 1)), outcome, UNIFORM)
        copies.learn(np.repeat(value, 8)[:, None], np.ones((8, 1)), np.repeat(outcome, 8), UNIFORM)
    # Eight copies are no surer than one; the floor of independent observations alone would make them √8 times as sure.
    assert copies.belief(UNIFORM).error[0] == pytest.approx(alone.belief(UNIFORM).error[0], rel=0.15)


def test_noise_claims_nothing_and_a_true_family_nearly_all_of_its_correlation():
    none, some = FamilyStatistics(CONFIG, FAMILIES, 1), FamilyStatistics(CONFIG, FAMILIES, 1)
    learnt(none, 1, 1500, 0.0)
    learnt(some, 1, 1500, 0.15)
    assert not none.belief(UNIFORM).slopes.any()
    believer = FamilyStatistics(CONFIG.model_copy(update={"prior_share": 1.0}), FAMILIES, 1)
    learnt(believer, 1, 1500, 0.0)
    assert believer.belief(UNIFORM).slopes.all()  # who takes every correlation for knowledge claims something of all of them
    belief = some.belief(UNIFORM)
    assert np.flatnonzero(belief.slopes).tolist() == [0]
    assert 0.08 / (1 / 3) < belief.slopes[0] < 0.18 / (1 / 3)  # y on v of standard deviation 1/3
    assert belief.chance[0] > 0.95


def test_what_is_claimed_is_the_posterior_of_spike_and_slab_by_numerical_integration():
    seen, error = 0.09, 0.03
    grid = np.linspace(-0.6, 0.6, 40_001)
    like = np.exp(-0.5 * ((seen - grid) / error) ** 2)
    slab = np.exp(-0.5 * (grid / CONFIG.prior_ic) ** 2) / (CONFIG.prior_ic * math.sqrt(2 * math.pi))
    mass = (like * slab).sum() * (grid[1] - grid[0])
    chance = CONFIG.prior_share * mass / (CONFIG.prior_share * mass + (1 - CONFIG.prior_share) * math.exp(-0.5 * (seen / error) ** 2))
    mean = (grid * like * slab).sum() / (like * slab).sum()
    claimed, known = claim(np.array([seen]), np.array([error]), CONFIG)
    assert known[0] == pytest.approx(chance, rel=1e-6)
    assert claimed[0] == pytest.approx(mean * max(0.0, 2 * chance - 1), rel=1e-6)


def test_the_past_counts_by_the_likeness_of_its_regime():
    statistics = FamilyStatistics(SearchConfig(regime_share=1.0, half_life_bars=1e6), FAMILIES, 1)
    bear, bull = np.eye(CELLS)[0], np.eye(CELLS)[4]
    learnt(statistics, 5, 800, 0.4, regime=bear)
    learnt(statistics, 6, 800, -0.4, regime=bull)
    assert statistics.belief(bear).ic[0] > 0.3
    assert statistics.belief(bull).ic[0] < -0.3
    assert abs(statistics.belief(UNIFORM).ic[0]) < 0.1


def filled_pool(seed: int, instruments: int = 3, scenarios: int = 120) -> ScenarioPool:
    pool, draw = ScenarioPool(SearchConfig(pool=100)), stream(seed, "pool")
    for _ in range(scenarios):
        then = draw.uniform(-1, 1, (instruments, FAMILIES)) * SPEAKING
        later = np.clip(0.7 * then + 0.2 * draw.standard_normal(then.shape) * SPEAKING, -1, 1)
        outcomes = draw.standard_normal(instruments) + 0.5 * then[:, 1]
        pool.add(then, later, outcomes, draw.dirichlet(np.ones(CELLS)))
    return pool


def test_outcomes_of_the_pool_are_matched_to_what_is_claimed():
    pool, slopes = filled_pool(0), np.array([0.2, 0.0, -0.1] + [0.0] * (FAMILIES - 3))
    then, matched = pool.then.reshape(-1, FAMILIES)[:, :3], pool.matched(slopes).ravel()
    found, *_ = np.linalg.lstsq(np.column_stack([then, np.ones(len(then))]), matched, rcond=None)
    np.testing.assert_allclose(found, [0.2, 0.0, -0.1, 0.0], atol=1e-6)
    raw, *_ = np.linalg.lstsq(then, pool.outcomes.ravel(), rcond=None)
    assert raw[1] > 0.3  # unmatched, the pool would claim what it happened to see
    assert len(pool) == 100


def world(
    seed: int, *, slopes: np.ndarray | None = None, cost: float = 0.001, pool: ScenarioPool | None = None
) -> tuple[FusionWorld, np.ndarray]:
    draw, reader = stream(seed, "world"), Reader(CONFIG.families, cost)
    names = [f"A{i}/USDT" for i in range(3)]
    states = [MarketState(happened_at=0, known_at=HOUR, instrument=name, price=100.0, volatility=0.6) for name in names]
    signals = [
        Signal(
            happened_at=0, known_at=HOUR, source=kind, type=kind, instrument=name, value=float(draw.uniform(-1, 1)), confidence=0.5,
            predicted_impact=0.0, proposed_action="hold", horizon=24 * HOUR,
        )
        for name in names
        for kind in CONFIG.families[:3]
    ]  # fmt: skip
    reading = reader.read(HOUR, states, signals)
    beta = np.zeros(FAMILIES) if slopes is None else slopes
    moment = np.diag(np.where(SPEAKING, 0.3, 0.0)) + 0.05 * np.outer(SPEAKING, SPEAKING)
    belief = Belief(beta / 3, np.full(FAMILIES, 0.02), np.full(FAMILIES, 0.5), beta, moment)
    moves = Moves.of(CONFIG.delta, PRIOR, reading.speaking)
    drawable = (pool or filled_pool(seed)).drawable(UNIFORM, 3)
    risk = Risk.of(CONFIG, reading, 24)
    made = FusionWorld(
        CONFIG, reading, belief, drawable, moves, risk=risk, scale=0.1, base=summary(reading, belief, PRIOR), evaluator=None
    )  # fmt: skip
    return made, made.pack(reading.values, draw.uniform(-0.5, 0.5, 3), PRIOR)


def test_the_compiled_world_is_the_one_of_array_expressions():
    made, root = world(0, slopes=np.array([0.3, -0.2, 0.1] + [0.0] * (FAMILIES - 3)))
    states, uniforms = np.repeat(root, ACTIONS, axis=0), stream(0, "uniforms").uniform(0, 1, (ACTIONS, 4))
    for _ in range(3):  # three steps deep, every action
        actions = np.arange(ACTIONS)
        fast, plain = made.outcomes(states, actions, uniforms), made.plain_outcomes(states, actions, uniforms)
        np.testing.assert_allclose(fast.states, plain.states, atol=2e-7)
        np.testing.assert_allclose(fast.rewards, plain.rewards, atol=1e-9)
        assert np.array_equal(fast.legal, plain.legal)
        assert np.array_equal(fast.weights, plain.weights)
        states = np.ascontiguousarray(fast.states[:, 2])


def test_the_reward_is_the_expected_log_growth_over_the_matched_scenarios():
    """Second order against the mean of ln(1 + x) over every scenario of the pool with the claimed mean put in."""
    slopes, pool = np.array([0.3, 0.0, 0.1] + [0.0] * (FAMILIES - 3)), filled_pool(4)
    made, root = world(4, slopes=slopes, cost=0.0, pool=pool)
    values = root[0, : 3 * FAMILIES].reshape(3, FAMILIES).astype(float)
    after = made.plain_outcomes(root, np.array([RESET]), np.full((1, 1), 0.5))
    taken = after.states[0, 0, 3 * FAMILIES : 3 * FAMILIES + 3].astype(float)
    share = 0.30 / math.sqrt(3 * (1 + 2 * 0.6))
    staked = share * math.sqrt(24 / 8760) * taken
    residuals = pool.residuals - pool.residuals.mean(axis=0)  # no drift is claimed for an instrument by itself
    outcomes = (values * slopes).sum(axis=1) + residuals
    growth = np.log1p((staked * outcomes).sum(axis=1)).mean()
    unforeseen = (staked * residuals).sum(axis=1)
    assert after.rewards[0] == pytest.approx(growth - 0.5 * CONFIG.risk_aversion * (unforeseen**2).mean(), rel=0.02)


def test_searched_positions_are_the_regression_of_the_outcome_on_the_weighted_opinion():
    draw, slopes = stream(8, "regression"), np.array([0.3, -0.2] + [0.0] * (FAMILIES - 2))
    values = np.zeros((50_000, FAMILIES))
    values[:, :3] = draw.multivariate_normal(np.zeros(3), [[1, 0.4, 0], [0.4, 1, 0.2], [0, 0.2, 1]], 50_000) / 4
    belief = Belief(slopes, np.ones(FAMILIES), np.ones(FAMILIES), slopes, values.T @ values / len(values))
    weights = row(0.3, 0.1, 0.1)
    opinion = values @ (weights[0] * np.where(slopes < 0, -1, 1))
    expected = values @ slopes
    slope = (opinion * expected).sum() / (opinion**2).sum()
    assert Fuser(belief).slope(weights)[0] == pytest.approx(0.5 * slope, rel=1e-9)  # gross .5: half of it is acted on
    whole = row(0.6, 0.4)  # proportional to |β|: nothing is lost
    moves = Fuser(belief).moves(whole, values[None, :5])
    np.testing.assert_allclose(moves[0], expected[:5], rtol=1e-9)


def test_where_nothing_is_claimed_every_action_earns_nothing_but_its_cost():
    made, root = world(1)
    root[0, 3 * FAMILIES : 3 * FAMILIES + 3] = 0.0
    rewards = made.outcomes(np.repeat(root, ACTIONS, axis=0), np.arange(ACTIONS), np.full((ACTIONS, 2), 0.3)).rewards
    assert rewards[HOLD] == 0.0
    assert (rewards <= 0.0).all()
    assert rewards[EQUAL] == pytest.approx(-CONFIG.turnover_cost * np.abs(equal_weights(SPEAKING) - PRIOR).sum())


def test_positions_of_an_instrument_without_volatility_are_none():
    risk = Risk(0.01, np.array([0.3, 0.0]))
    assert positions(np.array([[0.1, 0.1]]), 0.1, risk).tolist() == [[pytest.approx(math.tanh(1.0)), 0.0]]


def test_features_name_weights_and_gross_where_they_are_said_to_stand():
    made, root = world(2)
    shown = made.features(root)
    assert shown.shape == (1, 100)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown[0, WEIGHT_AT : WEIGHT_AT + FAMILIES], PRIOR, atol=1e-6)
    assert shown[0, GROSS_AT] == pytest.approx(1.0)
    assert shown[0, :3] == pytest.approx(root[0, : 3 * FAMILIES].reshape(3, FAMILIES).mean(axis=0)[:3])
    assert len(BLOCKS) * FAMILIES < 100


def test_a_bar_is_read_as_means_of_sources_ages_in_horizons_and_the_cost_that_was_paid():
    reader = Reader(("price", "news"), 0.001)
    state = MarketState(happened_at=0, known_at=HOUR, instrument="A/USDT", price=1.0, volatility=0.5, recent_cost=0.004)
    said = [("price", 0.6, HOUR), ("price", -0.2, HOUR), ("news", 0.5, 0)]
    signals = [
        Signal(
            happened_at=0, known_at=known, source=f"s{n}", type=kind, instrument="A/USDT", value=value, confidence=0.5,
            predicted_impact=0.0, proposed_action="hold", horizon=2 * HOUR,
        )
        for n, (kind, value, known) in enumerate(said)
    ]  # fmt: skip
    reading = reader.read(HOUR, [state], signals)
    assert reading.values[0, :2].tolist() == [pytest.approx(0.2), 0.5]
    assert reading.staleness[:2].tolist() == [0.0, 0.5]
    assert reading.count[:2].tolist() == [2.0, 1.0]
    assert reading.cost == 0.004


def test_what_opinions_keep_of_themselves_is_taken_out_of_how_they_moved():
    """ξ is the remainder of a least-squares line through the origin: nothing of `then` is left in it, family by family."""
    pool, draw, kept = ScenarioPool(CONFIG), stream(11, "moves"), []
    for _ in range(40):
        then = draw.uniform(-1, 1, (2, FAMILIES)) * SPEAKING
        kept.append((then, 0.6 * then + 0.1 * draw.standard_normal(then.shape) * SPEAKING))
        pool.add(*kept[-1], draw.standard_normal(2), UNIFORM)
    drawable, (then, later) = pool.drawable(UNIFORM, 2), map(np.array, zip(*kept, strict=True))
    assert drawable.persistence[SPEAKING] == pytest.approx(0.6, abs=0.1)
    np.testing.assert_allclose((drawable.moves * then).sum(axis=(0, 1)), 0.0, atol=1e-9)
    np.testing.assert_allclose(drawable.moves + drawable.persistence * then, later, atol=1e-12)


def test_a_scenario_that_replaces_another_brings_its_own_regime():
    pool, (bear, bull) = ScenarioPool(SearchConfig(pool=20, regime_share=1.0)), np.eye(CELLS)[[0, 4]]
    for n in range(30):
        pool.add(np.zeros((1, FAMILIES)), np.zeros((1, FAMILIES)), np.ones(1), bear if n < 20 else bull)
    shares = np.diff(pool.drawable(bear, 1).shares, prepend=0.0)
    np.testing.assert_allclose(shares, [0.0] * 10 + [0.1] * 10, atol=1e-12)


def test_few_scenarios_draw_nothing():
    pool = filled_pool(0, scenarios=FEWEST - 1)
    drawable = pool.drawable(UNIFORM, 3)
    assert not drawable.moves.any()
    assert drawable.covariance.tolist() == [[1.0, 0.6, 0.6], [0.6, 1.0, 0.6], [0.6, 0.6, 1.0]]


def test_an_instrument_without_a_past_is_not_free_of_risk():
    """Half the scenarios know a second instrument, none a third: its variance is the assumed one, the second's half and half."""
    pool, draw = ScenarioPool(SearchConfig(regime_share=0.0)), stream(6, "young")
    for n in range(100):
        outcomes = 2.0 * draw.standard_normal(2)
        outcomes[1] = outcomes[1] if n < 50 else np.nan
        pool.add(np.zeros((2, FAMILIES)), np.zeros((2, FAMILIES)), outcomes, UNIFORM)
    covariance = pool.drawable(UNIFORM, 3).covariance
    assert covariance[0, 0] == pytest.approx((pool.residuals[:, 0] ** 2).mean())
    assert covariance[1, 1] == pytest.approx((pool.residuals[:50, 1] ** 2).sum() / 100 + 0.5)
    assert covariance[2, 2] == pytest.approx(1.0)
    assert covariance[1, 2] == pytest.approx(0.3)
    assert np.linalg.eigvalsh(covariance).min() > 0.0


def test_log_scores_are_differences_of_gaussian_log_densities():
    predictions, outcomes = np.array([[0.1, -0.2, 0.3], [0.0, 0.0, 0.0]]), np.array([1.0, 0.5, np.nan])

    def density(m: float, y: float) -> float:
        return -0.5 * math.log(2 * math.pi) - 0.5 * (y - m) ** 2

    wanted = np.mean([density(0.1, 1.0) - density(0.0, 1.0), density(-0.2, 0.5) - density(0.0, 0.5)])
    assert log_scores(predictions, outcomes) == pytest.approx([wanted, 0.0])
    assert worst_differences(predictions, outcomes)[0, 1] == pytest.approx(np.mean([0.4 + 0.005, 0.8 + 0.02]))


def test_calibration_finds_the_slope_of_a_direction_that_knows_and_none_for_noise():
    draw = stream(2, "calibration")
    knows, noise = Calibration(CONFIG, 1), Calibration(CONFIG, 1)
    for _ in range(2000):
        outcome = draw.standard_normal(1)
        knows.learn(np.clip(0.2 * outcome + draw.standard_normal(1), -3, 3) / 3, outcome)
        noise.learn(draw.uniform(-1, 1, 1), outcome)
    assert knows.slope == pytest.approx(0.2 * 3, rel=0.35)  # cov / var = .2 / (1.04 / 9) / 3
    assert noise.slope == 0.0


def test_calibration_is_renewed_once_per_horizon():
    calibration, draw, slopes = Calibration(CONFIG, 5), stream(3, "renewed"), [0.0]
    for _ in range(400):
        direction = draw.uniform(-1, 1, 4)
        calibration.learn(direction, 0.5 * direction + draw.standard_normal(4))
        slopes.append(calibration.slope)
    renewed = [n for n, (before, after) in enumerate(itertools.pairwise(slopes), start=1) if before != after]
    assert len(renewed) > 10
    assert all(n % 5 == 0 for n in renewed)


def judged(charge: Charge, seed: int, bars: int, better: int | None, *, size: float = 0.25) -> list[int]:
    """Everyone predicts noise of the same size, `better` the truth with it; who acts after every bar."""
    draw, acting = stream(seed, "judged"), []
    for _ in range(bars):
        truth = draw.standard_normal(4) * size
        predictions = draw.standard_normal((4, 4)) * size
        if better is not None:
            predictions[better] = truth
        outcomes = np.clip(truth + draw.standard_normal(4), -4, 4)
        charge.learn(log_scores(predictions, outcomes), worst_differences(predictions, outcomes), 4)
        acting.append(charge.acting)
    return acting


def test_the_search_takes_charge_when_it_is_better_and_loses_it_when_another_is():
    charge = Charge(SearchConfig(half_life_bars=100.0), 2)
    assert charge.acting == 1
    acting = judged(charge, 0, 600, better=0)
    assert acting[-1] == 0
    assert sum(a != b for a, b in itertools.pairwise(acting)) == 1  # it came once and stayed
    assert judged(charge, 1, 600, better=2)[-1] == 2
    assert "hedge acts" in charge.reason()


def overlapping(charge: Charge, seed: int, bars: int, horizon: int = 24) -> bool:
    """Whether equals were ever replaced: slow predictions of no worth about the sums of `horizon` heavy-tailed moves, judged every bar."""
    draw, instruments = stream(seed, "overlapping"), 3
    moves = np.cumsum(draw.standard_t(3, (bars + horizon, 1)) * 0.8 + draw.standard_t(3, (bars + horizon, instruments)) * 0.6, axis=0)
    outcomes = np.clip((moves[horizon:] - moves[:-horizon]) / math.sqrt(3 * horizon), -4, 4)
    predictions = draw.standard_normal((4, instruments))
    for y in outcomes:
        predictions = 0.98 * predictions + math.sqrt(1 - 0.98**2) * draw.standard_normal((4, instruments))
        charge.learn(log_scores(0.2 * predictions, y), worst_differences(0.2 * predictions, y), instruments)
        if charge.acting != 1:
            return True
    return False


def test_outcomes_that_overlap_prove_no_more_than_they_should():
    """Mutation: one gambler who plays every overlapping outcome takes luck that lasts a day for skill."""
    assert sum(overlapping(Charge(CONFIG, 24), seed, 1200) for seed in range(16)) <= 2
    assert sum(overlapping(Charge(CONFIG, 1), seed, 1200) for seed in range(16)) >= 5


def test_evidence_is_the_mean_wealth_of_gamblers_who_take_turns():
    """Two by hand: what enters, what each round multiplies, and what has not entered yet."""
    charge, gains = Charge(CONFIG.model_copy(update={"assumed_correlation": 0.0}), 2), [0.3, -0.2, 0.1, 0.25]
    for gain in gains:
        charge.learn(np.array([gain, 0.0, 0.0, 0.0]), np.full((4, 4), 0.5), 1)
    ends = []
    for own in (gains[0::2], gains[1::2]):
        wealth, reserve = 0.0, 1.0
        for n, gain in enumerate(own, start=2):
            share = 1.0 / (2.1098 * n * math.log(n) ** 2)
            wealth, reserve = (wealth + share) * (1.0 + 0.5 * gain), reserve - share
        ends.append(wealth + reserve)
    assert charge.evidence[0, 1] == pytest.approx(sum(ends) / 2)
    assert sum(1.0 / (n * math.log(n) ** 2) for n in range(2, 200_000)) + 1.0 / math.log(200_000) == pytest.approx(2.1098, abs=2e-4)


def test_instruments_that_move_together_stake_as_the_independent_ones_among_them():
    charge = Charge(CONFIG.model_copy(update={"assumed_correlation": 0.6}), 1)
    charge.learn(np.array([0.3, 0.0, 0.0, 0.0]), np.full((4, 4), 0.01), 4)
    entered, stake = 1.0 / (2.1098 * 2 * math.log(2) ** 2), 0.5 * 4 / (1 + 3 * 0.6)
    assert charge.evidence[0, 1] == pytest.approx(1.0 + entered * stake * 0.3)


def test_no_stake_can_be_lost_whatever_happens():
    charge = Charge(CONFIG, 1)
    charge.learn(np.array([-9.0, 0.0, 0.0, 0.0]), np.full((4, 4), 9.0), 1)
    first = 1.0 / (2.1098 * 2 * math.log(2) ** 2)
    assert charge.evidence[0, 1] == pytest.approx(1.0 - 0.5 * first)  # half of what has entered, never more


def test_evidence_without_end_stays_a_number():
    charge = Charge(CONFIG, 1)
    for _ in range(1500):
        charge.learn(np.array([0.6, 0.0, 0.0, 0.0]), np.full((4, 4), 0.5), 4)
    assert 1e99 < charge.evidence[0, 1] < math.inf


def test_who_is_better_than_one_baseline_and_no_better_than_another_does_not_act():
    charge, draw = Charge(CONFIG, 1), stream(9, "twins")
    for _ in range(400):
        truth = 0.25 * draw.standard_normal(4)
        predictions = np.stack([truth, 0.25 * draw.standard_normal(4), 0.8 * truth, 0.25 * draw.standard_normal(4)])
        outcomes = np.clip(truth + draw.standard_normal(4), -4, 4)
        charge.learn(log_scores(predictions, outcomes), worst_differences(predictions, outcomes), 4)
        assert charge.acting != 0
    assert charge.evidence[0, 1] > 100.0
    assert charge.acting == 2


def test_who_has_lost_charge_begins_anew():
    charge = Charge(CONFIG.model_copy(update={"half_life_bars": 50.0}), 1)
    assert judged(charge, 3, 300, better=0)[-1] == 0
    assert charge.evidence[0, 1:].min() > 100.0
    for seed in itertools.count(4):
        if judged(charge, seed, 5, better=2)[-1] != 0:
            break
    assert charge.evidence[0].max() < 2.0
    assert judged(charge, 3, 300, better=2)[-1] == 2
    assert charge.evidence[1, 2] < 2.0  # the ridge that was replaced, too


def test_equals_never_take_charge_by_luck_more_often_than_stated():
    taken = sum(any(a != 1 for a in judged(Charge(CONFIG, 1), seed, 300, better=None)) for seed in range(15))
    assert taken <= 3  # three rivals, α = .05 each at the most
