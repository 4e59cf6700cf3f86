"""The fusion's network learns from what was earned and from the search, and from nothing that is not known yet."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, LookAheadError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.fusion.experience import Experience, ExperienceQueue, Lessons
from cryptoalpha.decisions.fusion.learning import FusionLearner, chained
from cryptoalpha.decisions.fusion.learning_config import FusionLearningConfig
from cryptoalpha.decisions.fusion.network import build_network, guide_from, guide_of, network_from, weights_of
from cryptoalpha.learn.problems.two_armed import TwoArmed
from cryptoalpha.nets.config import PolicyValueConfig

torch.set_num_threads(1)

SMALL = PolicyValueConfig(state_width=8, hidden=(64,), value_hidden=32, policy_hidden=32)
BAR = 3_600_000_000_000


def lessons(count, *, choices=2, width=8, horizon=1, seed=0, **columns):
    """Lessons one bar apart, each due `horizon` bars later; `columns` say what matters to a test."""
    random = stream(seed, "lessons")
    decided = np.arange(count) * BAR
    given = {
        "features": random.normal(size=(count, width)).astype(np.float32),
        "legal": np.ones((count, choices), np.bool_),
        "policy_target": np.full((count, choices), 1.0 / choices, np.float32),
        "actions": random.integers(choices, size=count),
        "behaviour": np.full(count, 1.0 / choices),
        "root_values": np.zeros(count),
        "rewards": random.normal(size=count),
        "decided_at": decided,
        "due_at": decided + horizon * BAR,
        "known_at": decided + horizon * BAR,
    }
    return Lessons(**given | columns)


def test_a_fresh_network_has_the_users_widths_and_leaves_the_search_as_it_is():
    net = build_network(24)
    widths = [tuple(layer.weight.shape) for layer in net.trunk if hasattr(layer, "weight")]
    assert widths == [(512, 100), (512, 512), (256, 512)]
    logits, values = guide_of(net).evaluator(stream(0, "states").normal(size=(5, 100)).astype(np.float32))
    assert_array_equal(logits, np.zeros((5, 24)))
    assert_array_equal(values, np.zeros(5))


def test_a_network_comes_back_from_its_weights_and_its_graph_under_the_same_name():
    net = build_network(5, sizes=SMALL, seed=3)
    net.scale_values(0.01, 0.2)
    guide = guide_of(net)
    assert guide_of(network_from(weights_of(net))).version == guide.version
    assert guide_from(guide.graph, version=guide.version).version == guide.version
    with pytest.raises(ModelError):
        guide_from(guide.graph, version="0" * 64)
    with pytest.raises(ModelError):
        network_from({"trunk.0.weight": np.zeros((3, 3), np.float32)})
    with pytest.raises(ModelError):
        network_from({name: np.full_like(array, np.nan) for name, array in weights_of(net).items()})


def two_armed_share(seed, *, steps=250, spoil=lambda rewards, random: rewards):
    """Share of right choices after some steps on realised rewards alone."""
    world, random = TwoArmed(seed), stream(seed, "two-armed", "play")
    net = build_network(2, sizes=SMALL, seed=seed)
    config = FusionLearningConfig(learning_rate=3e-3, batch=64, distillation_weight=0.0, passes=1)
    learner = FusionLearner(net, config, discount=0.0, seed=seed)
    for _ in range(steps):
        features, regimes = world.draw(65, random)  # the last of them only says what followed
        with torch.no_grad():
            policy = torch.softmax(net(torch.tensor(features, dtype=torch.float32))[0].double(), dim=1).numpy()
        actions = (random.random(65) < policy[:, 1]).astype(np.int64)
        rewards = spoil(world.rewards(regimes, actions, random), random)
        given = lessons(65, features=features.astype(np.float32), actions=actions, rewards=rewards)
        given = dataclasses.replace(given, behaviour=policy[np.arange(65), actions])
        learner.teach(given, now=65 * BAR)
    with torch.no_grad():
        return world.share_right(lambda x: net(torch.tensor(x, dtype=torch.float32))[0].argmax(dim=1).numpy())


def test_the_two_armed_regime_is_learned_from_rewards_alone():
    assert two_armed_share(0) >= 0.96  # Bayes: 0.977


def test_rewards_that_belong_to_other_decisions_teach_nothing():
    """Mutation: the check above notices when rewards are shuffled among decisions."""
    assert two_armed_share(0, spoil=lambda rewards, random: random.permutation(rewards)) < 0.9


def test_distillation_reaches_the_searchs_policy():
    random = stream(1, "distillation")
    features = random.normal(size=(512, 8)).astype(np.float32)
    wanted = np.exp(2.0 * features[:, :4])
    wanted[:, 3] = 0.0
    target = (wanted / wanted.sum(axis=1, keepdims=True)).astype(np.float32)
    legal = np.tile([True, True, True, False], (512, 1))
    actions = random.integers(3, size=512)
    given = lessons(512, choices=4, actions=actions, rewards=np.zeros(512), features=features, policy_target=target, legal=legal)
    given = dataclasses.replace(given, behaviour=np.full(512, 1 / 3))
    net = build_network(4, sizes=SMALL, seed=1)
    config = FusionLearningConfig(learning_rate=3e-3, batch=128, entropy_weight=0.0, passes=40)
    FusionLearner(net, config, discount=0.0, seed=1).teach(given, now=600 * BAR)
    with torch.no_grad():
        logs = torch.log_softmax(net(torch.from_numpy(features))[0].double()[:, :3], dim=1).numpy()
    divergence = (target[:, :3] * (np.log(np.maximum(target[:, :3], 1e-30)) - logs)).sum(axis=1).mean()
    assert divergence < 0.03  # the even prior is 0.5 nats away
    assert (target[:, :3] * (np.log(np.maximum(target[:, :3], 1e-30)) - math.log(1 / 3))).sum(axis=1).mean() > 0.4


def test_values_reach_what_a_state_earns_in_the_rewards_own_unit():
    features = stream(2, "values").normal(size=(512, 8)).astype(np.float32)
    given = lessons(512, features=features, rewards=1e-4 * (features[:, 0] + 0.5).astype(np.float64))
    net = build_network(2, sizes=SMALL, seed=2)
    config = FusionLearningConfig(learning_rate=3e-3, batch=128, passes=25)
    learner = FusionLearner(net, config, discount=0.0, seed=2)
    learner.teach(given, now=600 * BAR)
    assert np.abs(learner.values(features) - given.rewards).mean() < 1e-5


def slow_advantages(given, values, discount, trace):
    """The sum written out: A_t = Σ (γλ)^k δ_{t+k h} along the chain, for decisions whose successor is known."""
    place = {at: row for row, at in enumerate(given.decided_at.tolist())}
    found = {}
    for row in range(len(given)):
        total, weight, at = 0.0, 1.0, row
        while at is not None and (after := place.get(int(given.due_at[at]))) is not None:
            total += weight * (given.rewards[at] + discount * values[after] - values[at])
            weight, at = weight * discount * trace, after
        if int(given.due_at[row]) in place:
            found[row] = total
    return found


def test_advantages_follow_chains_of_decisions_one_horizon_apart_also_across_gaps():
    given = lessons(40, horizon=3, seed=4)
    given = given.rows(np.delete(np.arange(40), [11, 25]))
    values = stream(4, "values").normal(size=len(given))
    found = chained(given, values, discount=0.9, trace=0.8)
    slow = slow_advantages(given, values, 0.9, 0.8)
    assert sorted(found.rows.tolist()) == sorted(slow)
    assert_allclose(found.advantages, [slow[row] for row in found.rows.tolist()], atol=1e-12)
    assert_allclose(found.returns, found.advantages + values[found.rows], atol=1e-12)


def test_an_unmatured_label_is_refused_by_queue_and_learner_alike():
    queue = ExperienceQueue(2, width=8)
    even = np.full(2, 0.5, np.float32)
    ticket = queue.remember(Experience(0, 5 * BAR, np.zeros(8, np.float32), np.ones(2, np.bool_), even, 1, 0.5, 0.0))
    with pytest.raises(LookAheadError):
        queue.settle(ticket, 1.0, known_at=4 * BAR)
    queue.settle(ticket, 1.0, known_at=6 * BAR)
    assert len(queue.take(5 * BAR)) == 0
    taken = queue.take(6 * BAR)
    assert taken.rewards.tolist() == [1.0]
    assert len(queue) == 0
    learner = FusionLearner(build_network(2, sizes=SMALL), FusionLearningConfig(), discount=0.9, seed=0)
    with pytest.raises(LookAheadError):
        learner.teach(taken, now=5 * BAR)
    with pytest.raises(LookAheadError):  # a label that claims to be known before it falls due
        learner.teach(lessons(4, horizon=2, known_at=np.arange(4) * BAR), now=99 * BAR)
    assert learner.updates == 0


def test_experience_that_could_not_have_happened_is_refused():
    queue = ExperienceQueue(2, width=8)
    fine = Experience(0, BAR, np.zeros(8, np.float32), np.array([True, False]), np.array([1.0, 0.0], np.float32), 0, 1.0, 0.0)
    for broken in ({"action": 1}, {"behaviour": 0.0}, {"action": 2}):
        with pytest.raises(ConfigError):
            queue.remember(dataclasses.replace(fine, **broken))
    with pytest.raises(ModelError):
        queue.remember(dataclasses.replace(fine, features=np.full(8, np.nan, np.float32)))
    queue.drop(queue.remember(fine))
    assert len(queue) == 0


def test_a_step_that_moves_the_policy_too_far_is_undone():
    given = lessons(300, rewards=np.zeros(300), policy_target=np.tile([1.0, 0.0], (300, 1)).astype(np.float32))
    net = build_network(2, sizes=SMALL, seed=5)
    learner = FusionLearner(net, FusionLearningConfig(learning_rate=0.5, divergence_limit=1e-6), discount=0.0, seed=5)
    before = weights_of(net)
    lesson = learner.teach(given, now=999 * BAR, passes=1)
    assert lesson.updates == 0
    assert lesson.rollbacks == 2
    assert "nats" in lesson.why
    after = weights_of(net)
    assert all(np.array_equal(before[name], after[name]) for name in before if not name.startswith("value_"))  # μ and s were set


def test_a_learner_that_is_interrupted_goes_on_to_the_same_bits(tmp_path):
    given, config = lessons(300), FusionLearningConfig(learning_rate=1e-3, batch=64)
    whole = FusionLearner(build_network(2, sizes=SMALL), config, discount=0.5, seed=6)
    whole.teach(given, now=999 * BAR, passes=1)
    whole.save(tmp_path / "learner")
    whole.teach(given, now=999 * BAR, passes=1)
    again = FusionLearner(build_network(2, sizes=SMALL), config, discount=0.5, seed=6)
    again.restore(tmp_path / "learner")
    again.teach(given, now=999 * BAR, passes=1)
    assert guide_of(again.net).version == guide_of(whole.net).version
