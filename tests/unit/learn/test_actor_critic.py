"""The guarded learner: what it undoes, that it says so, that it comes back bit for bit, and that it learns where the sketch diverges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from cryptoalpha.core.errors import ConfigError, LookAheadError, ModelError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.actor_critic.gae import gae
from cryptoalpha.learn.actor_critic.learner import ActorCritic
from cryptoalpha.learn.actor_critic.loss import Batch
from cryptoalpha.learn.config import ActorCriticConfig
from cryptoalpha.learn.problems.two_armed import TwoArmed

torch.set_num_threads(1)


def network(seed, outputs, inputs=8, width=64):
    """One hidden layer, drawn as torch draws it but from this seed's own stream."""
    net = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))
    generator = torch.Generator().manual_seed(int(stream(seed, "network", outputs).integers(1 << 63)))
    with torch.no_grad():
        for parameter in net.parameters():
            fan = inputs if parameter.shape[-1] == inputs or len(parameter) == width else width
            parameter.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan), generator=generator)
    return net


def learner(seed=0, actions=3, **settings):
    settings.setdefault("distillation_weight", 0.0)
    distillation = settings.pop("distillation_weight")
    config = ActorCriticConfig(**({"learning_rate": 3e-3} | settings))
    return ActorCritic(network(seed, actions), network(seed, 1), config, seed=seed, distillation_weight=distillation)


def batch_for(agent, number, rows=32):
    """What the agent does in the number-th batch of states, and what came of it."""
    random = stream(number, "batch")
    features = torch.tensor(random.normal(size=(rows, 8)), dtype=torch.float32)
    acted = agent.act(features)
    returns = torch.tensor(random.normal(size=rows), dtype=torch.float32)
    return Batch(features, acted.actions, acted.log_behaviour, returns - acted.values, returns)


def weights(agent):
    return [parameter.detach().clone() for net in (agent.policy, agent.value) for parameter in net.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- the guard


def test_a_step_too_far_is_undone_with_the_optimisers_memory_and_reported():
    guarded, calm = learner(divergence_limit=0.05), learner(divergence_limit=0.05)
    first, wild, last = batch_for(guarded, 0), batch_for(guarded, 1), batch_for(guarded, 2)
    wild = replace(wild, features=wild.features * 1_000)
    assert guarded.update(first).rolled_back == ""
    before = weights(guarded)
    for times in (1, 2):  # the second time, what was brought back must not have been written into
        report = guarded.update(wild)
        assert "nats, more than 0.05" in report.rolled_back
        assert report.divergence > 0.05
        assert (report.updates, report.rollbacks) == (1, times)
        assert same(weights(guarded), before)
    # One that never saw the wild batch: only if Adam's memory came back too do both go on alike.
    calm.update(first)
    assert same(weights(calm), before)
    guarded.update(last)
    calm.update(last)
    assert same(weights(guarded), weights(calm))


def test_without_the_limit_the_same_step_would_have_moved_the_policy_that_far():
    guarded, free = learner(divergence_limit=0.05), learner(divergence_limit=1e9)
    wild = batch_for(free, 1)
    wild = replace(wild, features=wild.features * 1_000)
    assert free.update(wild).divergence == guarded.update(wild).divergence > 0.05
    assert not same(weights(free), weights(guarded))


def test_a_loss_that_overflows_changes_nothing():
    agent = learner()
    batch = batch_for(agent, 0)
    before = weights(agent)
    report = agent.update(replace(batch, returns=torch.full((32,), 1e30)))  # its square is no float32
    assert report.rolled_back == "the loss is inf"
    assert math.isnan(report.divergence)
    assert same(weights(agent), before)


class Kinked(nn.Module):
    """√|w x| is finite at 0, its slope is not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 3))

    def forward(self, features):
        return (features @ self.weight).abs().sqrt()


def test_a_gradient_that_is_not_finite_changes_nothing():
    agent = ActorCritic(Kinked(), network(0, 1), ActorCriticConfig(), seed=0)
    before = weights(agent)
    report = agent.update(batch_for(agent, 0))
    assert report.rolled_back == "the gradient's norm is nan"
    assert same(weights(agent), before)


def test_weights_spoiled_from_outside_come_back_and_are_reported():
    agent = learner()
    agent.update(batch_for(agent, 0))
    before, batch = weights(agent), batch_for(agent, 1)
    with torch.no_grad():
        agent.value[0].weight[3, 3] = torch.nan
    with pytest.raises(ModelError, match="row 0 has no usable policy"):
        agent.act(batch.features)
    assert agent.update(batch).rolled_back == "a weight was not finite before the update"
    assert same(weights(agent), before)
    assert agent.update(batch).rolled_back == ""


def test_weights_changed_well_from_outside_are_what_a_bad_step_returns_to():
    agent = learner()
    agent.update(batch_for(agent, 0))
    with torch.no_grad():
        agent.policy[0].weight.mul_(0.5)
    given, batch = weights(agent), batch_for(agent, 1)
    assert agent.update(replace(batch, returns=torch.full((32,), 1e30))).rolled_back == "the loss is inf"
    assert same(weights(agent), given)


def test_a_batch_with_an_action_hardly_ever_taken_still_teaches():
    agent = learner(divergence_limit=10.0)
    batch = batch_for(agent, 0)
    rare = batch.log_behaviour.clone()
    rare[int(batch.advantages.argmin())] = -60.0
    before = weights(agent)
    report = agent.update(replace(batch, log_behaviour=rare))
    assert report.rolled_back == ""
    assert report.gradient_norm < 10.0
    assert not same(weights(agent), before)


def test_a_mask_of_numbers_is_refused():
    agent = learner()
    with pytest.raises(ConfigError, match=r"legal is torch.int64, expected torch.bool"):
        agent.act(torch.zeros(2, 8), torch.ones(2, 3, dtype=torch.int64))


def test_a_network_that_begins_with_nan_is_refused():
    net = network(0, 3)
    with torch.no_grad():
        net[0].bias[0] = torch.inf
    with pytest.raises(ModelError, match="before anything was learned"):
        ActorCritic(net, network(0, 1), ActorCriticConfig(), seed=0)


# --- honesty, masks, reports


def test_a_reward_from_the_future_does_not_teach():
    agent = learner()
    batch = replace(batch_for(agent, 0), known_at=np.arange(32) * 10**9)
    before = weights(agent)
    with pytest.raises(LookAheadError, match="row 21 is known at 1970-01-01T00:00:21Z, but the clock reads 1970-01-01T00:00:20Z"):
        agent.update(batch, now=20 * 10**9)
    with pytest.raises(ConfigError, match="not told what time it is"):
        agent.update(batch)
    with pytest.raises(LookAheadError, match="row 31"):
        agent.update(batch, now=31 * 10**9 - 1)
    assert same(weights(agent), before)
    agent.update(batch, now=31 * 10**9)
    assert not same(weights(agent), before)


def test_only_legal_actions_are_drawn_as_often_as_the_policy_says():
    agent = learner(actions=4)
    features = torch.tensor(np.tile(stream(0, "test").normal(size=8), (20_000, 1)), dtype=torch.float32)
    legal = torch.tensor([True, False, True, True]).expand(20_000, 4)
    acted = agent.act(features, legal)
    chance = torch.softmax(agent.policy(features[:1]).detach()[0, [0, 2, 3]].double(), 0).numpy()
    seen = np.bincount(acted.actions.numpy(), minlength=4)
    assert seen[1] == 0
    assert float(((seen[[0, 2, 3]] - 20_000 * chance) ** 2 / (20_000 * chance)).sum()) < 13.8  # chi-square, 2 degrees, once in a thousand
    assert set(agent.act(features, legal, greedy=True).actions.tolist()) == {[0, 2, 3][int(chance.argmax())]}
    with pytest.raises(ModelError, match="row 7"):
        agent.act(features[:9], torch.tensor([[True] * 4] * 7 + [[False] * 4] + [[True] * 4]))


def test_the_report_says_what_happened():
    agent = learner(entropy_weight=0.5, entropy_half_life_updates=2)
    batch = batch_for(agent, 0)
    report = agent.update(batch)
    assert report.entropy_weight == 0.5
    assert report.clip_fraction == 0.0
    old = torch.log_softmax(learner().policy(batch.features), 1).detach().double()
    new = torch.log_softmax(agent.policy(batch.features), 1).detach().double()
    assert report.divergence == pytest.approx(float((old.exp() * (old - new)).sum(1).mean()), rel=1e-9)
    said = learner().value(batch.features).squeeze(1).detach().numpy().astype(float)
    returns = batch.returns.numpy().astype(float)
    assert report.explained_variance == pytest.approx(1 - np.var(returns - said) / np.var(returns))
    second = agent.update(replace(batch, log_behaviour=batch.log_behaviour - 1.0))  # as if each action had been e times rarer
    assert second.clip_fraction == 1.0
    assert second.entropy_weight == pytest.approx(0.5 / math.sqrt(2))


def test_a_search_can_be_distilled_into_the_policy():
    agent = learner(distillation_weight=1.0, entropy_weight=0.0, divergence_limit=10.0)
    features = torch.tensor(stream(0, "test").normal(size=(64, 8)), dtype=torch.float32)
    target = torch.zeros(64, 3)
    target[torch.arange(64), (features[:, 0] > 0).long() * 2] = 1.0
    for _ in range(150):
        acted = agent.act(features)
        nothing = torch.zeros(64)
        report = agent.update(Batch(features, acted.actions, acted.log_behaviour, nothing, nothing, policy_target=target))
    assert report.distillation_loss < 0.1
    assert (agent.act(features, greedy=True).actions == target.argmax(1)).all()


# --- saved and restored


def test_a_restored_learner_goes_on_bit_for_bit(tmp_path):
    agent, other = learner(seed=1), learner(seed=2)
    for number in range(5):
        agent.update(batch_for(agent, number))
    agent.save(tmp_path / "learner")
    other.restore(tmp_path / "learner")
    for number in range(5, 10):
        one, two = batch_for(agent, number), batch_for(other, number)
        assert torch.equal(one.actions, two.actions)
        assert agent.update(one) == other.update(two)
    assert same(weights(agent), weights(other))
    agent.save(tmp_path / "one")
    other.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_learner_of_other_settings_is_refused_with_what_differs(tmp_path):
    agent = learner(learning_rate=1e-3)
    agent.update(batch_for(agent, 0))
    agent.save(tmp_path / "learner")
    other = learner(learning_rate=0.5, distillation_weight=1.0)
    before = weights(other)
    message = r"distillation_weight was 0.0, is 1.0; learn.actor_critic.learning_rate was 0.001, is 0.5"
    with pytest.raises(ConfigError, match=message):
        other.restore(tmp_path / "learner")
    assert same(weights(other), before)
    assert other.updates == 0


def test_a_damaged_file_or_one_of_other_networks_changes_nothing(tmp_path):
    agent = learner()
    agent.update(batch_for(agent, 0))
    agent.save(tmp_path / "learner")
    stranger = ActorCritic(network(0, 3, width=32), network(0, 1), ActorCriticConfig(), seed=0)
    before = weights(stranger)
    with pytest.raises(StoreError, match=r"of other networks: \['optimiser.0', .*'policy.0.weight'|policy.0.bias"):
        stranger.restore(tmp_path / "learner")
    assert same(weights(stranger), before)
    content = bytearray((tmp_path / "learner").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "learner").write_bytes(content)
    kept = weights(agent)
    with pytest.raises(StoreError, match="checksum"):
        agent.restore(tmp_path / "learner")
    assert same(weights(agent), kept)


# --- learning


def test_two_seeds_differ_and_one_seed_repeats():
    features = torch.zeros(100, 8)
    assert_array_equal(learner(seed=1).act(features).actions, learner(seed=1).act(features).actions)
    other = ActorCritic(network(1, 3), network(1, 1), ActorCriticConfig(), seed=2)
    assert not torch.equal(learner(seed=1).act(features).actions, other.act(features).actions)


@pytest.mark.parametrize("seed", range(4))
def test_the_two_armed_regime_problem_is_learned_to_the_bayes_optimum(seed):
    world, random = TwoArmed(seed), stream(seed, "two-armed", "play")
    agent = learner(seed, actions=2)
    never, always = np.zeros((1, 64), bool), np.ones((1, 64), bool)
    for _ in range(400):
        drawn, regimes = world.draw(64, random)
        features = torch.tensor(drawn, dtype=torch.float32)
        acted = agent.act(features)
        rewards = world.rewards(regimes, acted.actions.numpy(), random)[None]
        made = gae(rewards, acted.values.numpy()[None], np.zeros((1, 64)), always, never, discount=0.99, trace=0.95)
        advantages, returns = (torch.tensor(part[0], dtype=torch.float32) for part in made)
        report = agent.update(Batch(features, acted.actions, acted.log_behaviour, advantages, returns))
    assert report.rollbacks == 0
    right = world.share_right(lambda seen: agent.act(torch.tensor(seen, dtype=torch.float32), greedy=True).actions.numpy())
    assert 0.96 <= right < world.optimum + 0.003  # 20,000 draws: three standard errors


def test_the_optimum_is_what_choosing_by_the_first_feature_reaches():
    world = TwoArmed(0)
    assert world.optimum == pytest.approx(0.97725, abs=1e-5)  # Φ(2)
    assert world.share_right(lambda seen: (seen[:, 0] > 0).astype(int)) == pytest.approx(world.optimum, abs=0.003)


@pytest.mark.parametrize("seed", range(4))
def test_the_sketchs_loss_diverges_on_the_same_problem(seed):
    """Mutation: no taken action in the loss, log of a softmax, the advantage not detached, nothing normalised or clipped."""
    world, random = TwoArmed(seed), stream(seed, "two-armed", "play")
    policy, value = network(seed, 2), network(seed, 1)
    optimiser = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=3e-3)
    updates = 0
    while updates < 400 and all(bool(torch.isfinite(parameter).all()) for parameter in policy.parameters()):
        updates += 1
        drawn, regimes = world.draw(64, random)
        features = torch.tensor(drawn, dtype=torch.float32)
        chances = torch.softmax(policy(features), dim=-1)
        actions = (random.random(64) < chances[:, 1].detach().numpy()).astype(int)
        rewards = torch.tensor(world.rewards(regimes, actions, random), dtype=torch.float32)
        advantage = rewards - value(features).squeeze(1)
        loss = -(torch.log(chances) * advantage[:, None]).mean() + advantage.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert updates <= 110
