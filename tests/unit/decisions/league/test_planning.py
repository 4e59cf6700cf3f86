"""The market as a learner plans in it, against the market itself; and no gain where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.best_response import best_response, between
from cryptoalpha.decisions.league.config import LeagueConfig, LeagueMarketConfig
from cryptoalpha.decisions.league.cournot_game import Cournot
from cryptoalpha.decisions.league.cournot_learning import cournot_settings, mixture
from cryptoalpha.decisions.league.judging import Company, LinearResponder, exploitability, payoff_table
from cryptoalpha.decisions.league.market import Luck, SharedMarket
from cryptoalpha.decisions.league.planning import ESTIMATE, HELD, IMPACT, OTHERS, LeagueModel, read, states_of
from cryptoalpha.decisions.league.players import Weights
from cryptoalpha.decisions.league.population import Population, Seat, orders, scripted
from cryptoalpha.decisions.league.training import League
from cryptoalpha.learn.search.contract import Budget, Roots, Rules
from cryptoalpha.learn.search.plan import plan


def league(**market):
    return League(LeagueConfig(market=LeagueMarketConfig(**market), episodes=8), seed=1)


class Zero(LeagueModel):
    """The model with an untrained guess: every action alike, nothing to come."""

    def evaluate(self, states):
        return np.zeros((len(states), self.actions), np.float32), np.zeros(len(states), np.float32)


def test_the_planned_auction_is_the_mean_of_the_played_ones():
    """Reward, impact, estimate and inventories of the model against 6,000 first auctions of the market, members drawn anew each."""
    one = league(scripts=("value", "momentum"), mispricing_start=70.0)
    market, model, count, action = one.config.market, one.model, 6_000, 6
    players = [*(Seat(one.population, np.zeros(count, np.int64)) for _ in range(2)), *scripted(market)]
    table = SharedMarket(market, Luck.draw(market, count, 5, stream(0, "luck")))
    before = states_of(table.view(), table.inventories[:, 0], np.zeros(count))
    target = market.targets[action]
    wanted = orders(table, [LinearResponder(market, 0.0, 1.0, 0.0), *players])
    wanted[:, 0] = target
    fair = table.price - table.estimate - table.impact
    auction = table.trade(wanted)
    earned = auction.traded[:, 0] * (fair - auction.paid[:, 0]) / model.unit
    uniforms = (np.arange(64) + 0.5)[None, :] / 64
    said = model.outcomes(before[:1], np.array([action]), uniforms)
    # Impact is rounded to whole ticks when paid, and the value player's lots to whole lots: half a unit each at most.
    assert said.rewards[0] == pytest.approx(earned.mean(), abs=4 * earned.std() / count**0.5 + target * 1.5 / model.unit)
    after = states_of(table.view(), table.inventories[:, 0], np.zeros(count))
    mean = (said.states[0] * said.weights[0][:, None]).sum(axis=0)
    for column, slack in ((ESTIMATE, 0.3), (IMPACT, 0.6), (HELD, 1e-6)):
        error = float(after[:, column].std()) / count**0.5
        assert mean[column] == pytest.approx(after[:, column].mean(), abs=4 * error + slack)
    assert mean[OTHERS] == pytest.approx(auction.traded[:, 1:3].mean(), abs=4 * float(auction.traded[:, 1:3].std()) / (2 * count) ** 0.5)
    assert not said.terminal.any()


def test_outcomes_are_matched_to_their_means_whatever_the_draw():
    one = league()
    states = np.array([[0, 50.0, -10.0, 3.0, 2.0, 6.0, -3.0]], np.float32)
    expected = one.model.expected(states)
    for seed in range(5):
        u = stream(seed, "u").uniform(0.01, 0.99, size=(1, 4))
        said = one.model.outcomes(states, np.array([2]), u)
        assert said.states[0, :, ESTIMATE].mean() == pytest.approx(0.8 * 50.0, abs=1e-4)
        lots = (one.config.market.targets[2] - 6.0) + expected[1][0] + expected[2][0]
        assert said.states[0, :, IMPACT].mean() == pytest.approx(-10.0 + lots, abs=1e-4)


def test_without_mispricing_nothing_is_claimed_and_nothing_traded():
    """A price that only walks, and costs: from flat with an untrained guess no action is ever worth more than nothing, however deep the
    search; and where exploring does not blur it (one auction ahead), it holds."""
    one = league(mispricing_volatility=0.0, scripts=())
    market = one.config.market
    flat = market.targets.index(0)
    idle = one.population.weights.arrays() | {"policy.1.w": np.zeros((1, 32, 9), np.float32)}
    idle["policy.1.b"] = np.where(np.arange(9) == flat, 50.0, 0.0).astype(np.float32)[None, None]  # the others stay flat
    model = Zero(market, 2, Population(market, Weights.of(idle)), one.population.weights)
    roots = Roots(np.zeros((4, 7), np.float32))
    deep = plan(roots, model, Budget(simulations=400, outcomes=(4, 2)), seed=3)
    assert deep.q.max() <= 1e-6
    assert deep.value.max() <= 1e-6
    near = plan(roots, model, Budget(simulations=64, outcomes=(4, 2), max_depth=1), seed=3)
    np.testing.assert_array_equal(near.action, flat)
    lots = np.abs(np.array(market.targets))
    np.testing.assert_allclose(near.q[0] * model.unit, -(market.impact * lots + market.half_spread) * lots, atol=1e-3)


def test_the_search_finds_the_best_answer_in_one_auction():
    settings = cournot_settings(3)
    one, game = League(settings, seed=0), Cournot(3)
    model = Zero(settings.market, 2, one.population, one.population.weights)
    states = np.zeros((1, 7), np.float32)
    states[0, ESTIMATE] = -60.0  # a larger edge, so that something is left beside a random population
    found = plan(Roots(states), model, Budget(simulations=400, outcomes=(1,)), seed=0, rules=Rules(considered=41))
    demand = -states[0, ESTIMATE] / 40.0
    worth = game.grid * (demand - (game.grid + 2 * _asked(one, states)))
    assert found.action[0] == int(np.argmax(worth))
    np.testing.assert_allclose(found.q[0][found.visits[0] > 0], worth[found.visits[0] > 0], atol=1e-5)


def _asked(one, states):
    """What a member brings on average where it reads this state (as share of 40 lots)."""
    return float(one.population.average(read(one.config.market, states, OTHERS))[0] @ np.linspace(0.0, 1.0, 41))


def test_the_best_response_in_one_auction_is_the_formula():
    league_ = League(cournot_settings(3), seed=0)
    game, shares = Cournot(3), mixture(league_.population)
    chosen = best_response(league_.population, 2)
    held = np.zeros(1, np.int64)
    table = SharedMarket(league_.config.market, Luck.draw(league_.config.market, 1, 3, stream(0, "luck")))
    lots = int(chosen.wants(table.view(), held, np.zeros(1))[0])
    assert lots == int(np.argmax(game.payoffs(float(shares @ game.grid))))
    found = exploitability(league_.population, 2, episodes=8192, seed=0)
    assert found.gain.mean / 1600 == pytest.approx(game.exploitability(shares), abs=4 * found.gain.error / 1600)


def test_the_best_response_buys_what_is_cheap_and_sells_what_is_dear():
    chosen = best_response(league(steps=2).population, 2)
    flat, middle = int(np.flatnonzero(chosen.targets == 0)[0]), len(chosen.axis) // 2
    for number in range(2):
        wanted = chosen.targets[chosen.actions[number, :, middle, flat]]
        assert (np.diff(wanted) <= 0).all()  # the estimate is of the mispricing: the dearer, the less
        assert wanted[0] > 0 > wanted[-1]


def test_a_population_of_best_responders_leaves_nothing_to_gain():
    """Exploitability is a difference on the same luck: the responder against itself gains exactly 0."""
    one = league()
    responder = LinearResponder(one.config.market, 0.06, 0.67, 0.5)
    company = Company.draw(one.population, 2, 64, 0, "same")
    np.testing.assert_array_equal(company.wealth(responder), company.wealth(responder))
    assert exploitability(one.population, 2, episodes=256, seed=0).gain.low > 0  # an untrained population can be exploited


def test_a_pay_off_table_pairs_everyone_with_everyone():
    one = league()
    population = one.population.joined(League(one.config, seed=2).population.weights)
    found = payoff_table(population, 2, most=5, episodes=256, seed=0)
    assert found.payoffs.shape == (2, 2)
    assert found.who.tolist() == [0, 1]
    assert (found.errors > 0).all()
    np.testing.assert_allclose(found.scores + found.scores.T, 1.0)
    assert (found.scores[0, 1] > 0.5) == (found.ratings[0] > found.ratings[1])


def test_interpolation_is_exact_for_bilinear_tables():
    axis = np.linspace(-2.0, 2.0, 5)
    table = 1.0 + 2.0 * axis[:, None] - 3.0 * axis[None, :] + 0.5 * axis[:, None] * axis[None, :]
    x, y = stream(0, "points").uniform(-2.0, 2.0, size=(2, 20))
    np.testing.assert_allclose(between(table, axis, x, y), 1.0 + 2.0 * x - 3.0 * y + 0.5 * x * y)
    assert between(table, axis, np.array([9.0]), np.array([-9.0]))[0] == pytest.approx(table[-1, 0])
