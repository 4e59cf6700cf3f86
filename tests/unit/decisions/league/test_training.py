"""The league's training: it finds Nash, is one run however often it was interrupted, and lets nobody worse in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.decisions.league import training
from cryptoalpha.decisions.league.config import LeagueConfig, LeagueMarketConfig
from cryptoalpha.decisions.league.cournot_learning import learn_cournot
from cryptoalpha.decisions.league.judging import exploitability, gate
from cryptoalpha.decisions.league.players import Weights, features, softmax
from cryptoalpha.decisions.league.population import Population
from cryptoalpha.decisions.league.ratings import Estimate
from cryptoalpha.decisions.league.training import League, weights_of
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.policy_value import PolicyValueNet


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(**changes):
    given = {
        "market": LeagueMarketConfig(steps=3), "rounds": 4, "episodes": 8, "simulations": 16, "hidden": (16,), "steps": 4, "batch": 32,
        "judged_episodes": 128,
    }  # fmt: skip
    return LeagueConfig(**(given | changes))


def finished(league):
    while not league.is_done:
        league.round()
    return league


def same(one, other):
    assert one.rounds == other.rounds
    for name, array in one.population.weights.arrays().items():
        np.testing.assert_array_equal(array, other.population.weights.arrays()[name])


def test_three_learners_find_nash_through_the_whole_loop():
    found = learn_cournot(3, seed=0, rounds=20)
    assert found.distance <= 0.025
    assert found.exploitability_end <= 0.25 * found.exploitability_start


@pytest.mark.slow
def test_exploitability_in_the_shared_market_falls_to_a_quarter():
    league = League(LeagueConfig(rounds=10, episodes=32, simulations=16, judged_episodes=512), seed=1)
    start = exploitability(league.population, league.members, episodes=512, seed=0)
    finished(league)
    end = exploitability(league.population, league.members, episodes=512, seed=0)
    newest = exploitability(league.population.only(-1), league.members, episodes=512, seed=0)
    assert start.gain.low > 0.0
    assert end.gain.mean <= 0.25 * start.gain.mean
    assert newest.gain.mean <= 0.1 * start.gain.mean


def test_a_training_killed_after_any_round_comes_to_the_same_population(tmp_path):
    config = small(market=LeagueMarketConfig(steps=3), rounds=4)
    whole = finished(League(config, seed=5))
    for kill_after in (1, 3):
        place = tmp_path / str(kill_after)
        first = League(config, seed=5)
        assert not first.load(place)
        for _ in range(kill_after):
            first.round()
            first.save(place)
        first.round()  # what was not saved is lost
        second = League(config, seed=5)
        assert second.load(place)
        assert len(second.rounds) == kill_after
        same(finished(second), whole)
        assert len(list(place.glob("memory_*"))) == 1


def test_a_checkpoint_in_the_middle_of_an_episode_goes_on_there(tmp_path):
    """Lessons of another length than episodes: the table, who sits at it and their luck are part of the state."""
    config = small(rounds=3)
    leagues = [League(config, seed=2) for _ in range(3)]
    for league in leagues:
        league.world.act(np.zeros(8, np.int64))  # now every lesson ends within an episode
    whole, first, second = leagues
    finished(whole)
    first.round()
    first.save(tmp_path)
    second.load(tmp_path)
    same(finished(second), whole)


def test_another_training_and_damage_are_refused(tmp_path):
    league = League(small(), seed=1)
    league.round()
    league.save(tmp_path)
    with pytest.raises(ConfigError, match="seed was 1, is 2"):
        League(small(), seed=2).load(tmp_path)
    with pytest.raises(ConfigError, match="players was 3, is 2"):
        League(small(players=2), seed=1).load(tmp_path)
    assert League(small(rounds=9), seed=1).load(tmp_path)  # more rounds are a longer run, not another one
    file = tmp_path / "league.checkpoint"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match="damaged"):
        League(small(), seed=1).load(tmp_path)


def test_a_seed_is_a_training_and_another_seed_another():
    one, other, third = (finished(League(small(rounds=2), seed=seed)) for seed in (4, 4, 5))
    same(one, other)
    assert one.rounds != third.rounds


def test_the_gate_keeps_out_who_is_worse_and_lets_in_who_is_the_same():
    league = League(small(), seed=1)
    twin = Population(league.config.market, league.population.weights)
    found = gate(twin, league.population, 2, episodes=256, seed=0, number=1)
    assert (found.mean, found.error) == (0.0, 0.0)  # same seat, same luck, same dice

    arrays = league.population.weights.arrays()
    wild = arrays | {"policy.1.b": np.where(np.arange(9) % 8 == 0, 50.0, 0.0).astype(np.float32)[None, None]}  # all in, either way
    rash = gate(Population(league.config.market, Weights.of(wild)), league.population, 2, episodes=256, seed=0, number=1)
    assert rash.high < 0.0

    league.player.iterate = lambda: _lesson(league, wild)
    assert not league.round().joined
    assert len(league.population) == 1


@pytest.mark.parametrize(("mean", "joins"), [(0.5, True), (-1.6, True), (-1.7, False)])  # 1.645 standard errors at 95 %
def test_who_is_worse_within_the_noise_joins_and_beyond_it_does_not(monkeypatch, mean, joins):
    league = League(small(), seed=1)
    league.player.iterate = lambda: _lesson(league, league.population.weights.arrays())
    monkeypatch.setattr(training, "gate", lambda *given, **named: Estimate(mean, 1.0))
    assert league.round().joined is joins
    assert len(league.population) == 1 + joins


def _lesson(league, arrays):
    """A lesson that turns the learner into what `arrays` say."""
    with torch.no_grad():
        league.net.policy[-1].bias.copy_(torch.from_numpy(arrays["policy.1.b"][0, 0]))
    from cryptoalpha.learn.self_play import Lesson

    return Lesson(0.0, 0.0, 0.0, 0)


def test_members_drawn_for_a_seat_are_drawn_evenly_and_play_their_own_policy():
    league = League(small(), seed=1)
    population = league.population.joined(League(small(), seed=2).population.weights).joined(League(small(), seed=3).population.weights)
    who = population.draw((30_000,), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(who) / 30_000, 1 / 3, atol=0.015)
    read = features(population.market, 1, *np.random.default_rng(1).normal(0.0, 30.0, size=(5, 12)))
    shares = population.shares(read, np.arange(12) % 3)
    for row in range(12):
        np.testing.assert_allclose(shares[row], population.policies(read)[row % 3, row], rtol=1e-5)
    np.testing.assert_allclose(population.average(read), population.policies(read).mean(axis=0))
    assert len(population.first(2)) == 2
    assert len(population.only(-1)) == 1


def test_a_frozen_member_answers_what_its_net_did():
    net = PolicyValueNet(PolicyValueConfig(state_width=7, hidden=(16, 8), policy_hidden=8, value_hidden=8), 5, seed=3)
    net.scale_values(2.0, 3.0)
    frozen = weights_of(net)
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32))
    with torch.no_grad():
        logits, values = net(states)
        for weight in net.parameters():
            weight.zero_()  # what is frozen does not follow
    said = frozen.answers(states.numpy())
    np.testing.assert_allclose(said[0][0], logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(said[1][0], values.numpy(), atol=1e-5)
    np.testing.assert_allclose(softmax(said[0]).sum(axis=-1), 1.0)
