"""A market with an exact solution behind the environment: what it pays is what the solution says, outcome by outcome and on average."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.decisions.market_env.problems import ou_config, ou_costs, ou_market
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.decisions.market_env.world import EnvironmentWorld, VisitedStates
from cryptoalpha.learn.problems.ou_chain import OuChain

CHAIN = OuChain()


def environment(lanes, *, horizon=256, start="flat", spread="stationary"):
    return VectorMarketEnv(ou_market(CHAIN, start=spread), ou_config(CHAIN, horizon=horizon, start=start), ou_costs(CHAIN), num_envs=lanes)


def expected_rewards() -> np.ndarray:
    """`[31, 7, 7]`: what the environment pays on average in market x from p to a, every outcome lived through, weighted by its chance."""
    likely = CHAIN.transitions > 1e-13
    here, there = np.nonzero(likely)
    above = np.cumsum(CHAIN.transitions, axis=1)
    middle = (above - CHAIN.transitions / 2.0)[here, there]  # a uniform in the middle of the outcome's share
    env = environment(len(here), horizon=2)
    rewards = np.zeros((31, 7, 7))
    for held in range(7):
        env.reset(seed=0, options={"place": here[:, None], "position": held})
        began = env.lanes.state() | {"uniforms": np.stack([middle, middle], axis=1)}
        for action in range(7):
            env.lanes.load(began)
            seen, paid, *_ = env.step(np.full(len(here), action))
            assert seen[:, 0].tolist() == there.tolist()
            np.add.at(rewards, (here, held, action), paid * CHAIN.transitions[here, there])
    return rewards


def test_in_expectation_it_pays_the_rewards_of_the_chain_and_scores_policies_as_solved():
    rewards = expected_rewards()
    np.testing.assert_allclose(rewards, CHAIN.rewards, atol=1e-11)
    chain = OuChain()
    chain.rewards = rewards  # the solution again, from what the environment paid
    assert chain.optimum == pytest.approx(1.2716, abs=5e-5)
    assert chain.score(chain.myopic) / chain.optimum == pytest.approx(0.695, abs=5e-4)
    assert chain.score(chain.always(6)) == pytest.approx(-2.30, abs=5e-3)


@pytest.mark.parametrize(("name", "score"), [("optimal", 1.2716), ("myopic", 0.8838), ("always long", -2.30), ("flat", 0.0)])
def test_played_out_policies_earn_their_exact_score_within_four_standard_errors(name, score):
    policy = {"optimal": CHAIN.optimal, "myopic": CHAIN.myopic, "always long": CHAIN.always(6), "flat": CHAIN.always(3)}[name]
    env, total = environment(1000, horizon=200), np.zeros(1000)
    seen, told = env.reset(seed=5)
    for step in range(200):
        seen, rewards, *_, told = env.step(policy[seen[:, 0].astype(int), told["bucket"]])
        total += 0.95**step * rewards
    assert abs(total.mean() - score) <= 4.0 * total.std() / np.sqrt(1000) + 1e-4
    assert abs(CHAIN.score(policy) - score) < 1e-4


def test_a_world_tells_the_state_an_episode_ended_in_and_begins_another():
    world = EnvironmentWorld(environment(4, horizon=3, start="anywhere", spread="uniform"), discount=0.95, seed=1)
    reached = world.observe().states
    for turn in range(9):
        roots = world.observe()
        assert np.array_equal(roots.states, reached) or turn % 3 == 0
        assert roots.legal.shape == (4, 7)
        actions = np.array([turn % 7, 1, 2, 3])
        happened = world.act(actions)
        reached = happened.reached
        np.testing.assert_array_equal(reached[:, 1], actions)  # the position that was reached, not the new episode's
        np.testing.assert_array_equal(happened.truncated, np.full(4, turn % 3 == 2))
        assert not happened.terminated.any()
        np.testing.assert_array_equal(happened.discounts, np.full(4, 0.95))
        moved = CHAIN.grid[reached[:, 0].astype(int)] - CHAIN.grid[roots.states[:, 0].astype(int)]
        target, held = CHAIN.positions[actions], CHAIN.positions[roots.states[:, 1].astype(int)]
        np.testing.assert_allclose(happened.rewards, target * moved - 0.3 * np.abs(target - held) - 0.1 * target**2, atol=1e-12)


def test_a_world_goes_on_from_its_state_bit_for_bit():
    def run(world, turns):
        out = []
        for turn in turns:
            happened = world.act(np.full(3, turn % 7))
            out += [happened.rewards, happened.reached, world.observe().states]
        return np.concatenate([part.ravel() for part in out])

    first = EnvironmentWorld(environment(3, horizon=4, start="anywhere"), discount=0.95, seed=1)
    run(first, range(6))
    kept = first.state()
    wanted = run(first, range(6, 20))
    other = EnvironmentWorld(environment(3, horizon=4, start="anywhere"), discount=0.95, seed=2)
    other.load(kept)
    np.testing.assert_array_equal(run(other, range(6, 20)), wanted)


def test_visited_states_are_those_that_were_acted_in():
    seen = []

    def act(features, held):
        seen.append(features)
        return (held + 1) % 7

    visited = VisitedStates(environment(5, horizon=6), act, seed=3)
    met = np.concatenate([visited.next(4), visited.next(4)])
    np.testing.assert_array_equal(met, np.concatenate(seen))
    assert met.shape == (40, 1)
    assert len(np.unique(met)) > 5
