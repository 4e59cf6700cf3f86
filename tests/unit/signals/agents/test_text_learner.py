"""Learning from matured outcomes: what is planted is found, nothing is learned before it is known, and a restart changes no bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import LookAheadError
from cryptoalpha.learn.config import ActorCriticConfig
from cryptoalpha.signals.agents.learner import POSITIONS, LearnerSettings, TextLearner, arrays_of, outcome

WIDTHS = {"policy_widths": (16, 16, 8, 5), "value_widths": (16, 16, 16, 1), "learning_rate": 5e-3}


def learner(seed=0, **changes):
    return TextLearner(LearnerSettings(6, batch=64, capacity=4_096), ActorCriticConfig(**WIDTHS | changes), seed=seed)


def planted(rng, count):
    """States whose first number is the move to come, half hidden by noise."""
    inputs = rng.normal(size=(count, 6)).astype(np.float32)
    return inputs, inputs[:, 0] + rng.normal(size=count)


def test_outcomes_by_hand():
    moves, costs = np.array([2.0, 2.0, -1.0, 0.5, 0.0]), np.full(5, 0.1)
    assert outcome(np.array([0, 1, 2, 3, 4]), moves, costs).tolist() == pytest.approx([-2.1, -1.05, 0.0, 0.2, -0.1])


def test_the_users_widths_are_the_default():
    learned = TextLearner(LearnerSettings(387, capacity=16), ActorCriticConfig(), seed=0)
    shapes = {name: tuple(tensor.shape) for name, tensor in learned.policy.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "projection.linear.weight": (768, 387),
        "head.0.weight": (256, 768),
        "head.2.weight": (128, 256),
        "head.4.weight": (5, 128),
    }
    shapes = {
        name: tuple(tensor.shape) for name, tensor in learned.value.named_parameters() if name.startswith("head") and "weight" in name
    }
    assert shapes == {"head.0.weight": (256, 768), "head.2.weight": (256, 256), "head.4.weight": (1, 256)}


def taught(one, rng, rounds, *, settle_ahead=10):
    now = 0
    for _ in range(rounds):
        inputs, move = planted(rng, 64)
        now += 1
        actions, tickets = one.decide(inputs, decided_at=np.full(64, now), due_at=np.full(64, now + settle_ahead))
        one.settle(tickets, outcome(actions, move, np.full(64, 0.05)), known_at=np.full(64, now + settle_ahead))
        one.learn(now)
    return now


def test_what_is_planted_is_found():
    one, rng = learner(), np.random.default_rng(0)
    before, move = planted(rng, 1_000)
    one.fit_scaler(before)
    taught(one, rng, 250)
    value, shares = one.answers(before)
    earned = outcome(shares.argmax(axis=1), move, np.full(1_000, 0.05))
    assert earned.mean() > 0.6  # of the 0.75 that always taking the right side earns
    expected = np.abs(before[:, 0])
    assert np.corrcoef(value, expected)[0, 1] > 0.6  # the value tells where something can be earned


def test_nothing_is_learned_before_it_is_known():
    one, rng = learner(), np.random.default_rng(0)
    inputs, move = planted(rng, 64)
    weights = arrays_of(one.policy, one.value)
    actions, tickets = one.decide(inputs, decided_at=np.full(64, 1), due_at=np.full(64, 100))
    one.settle(tickets, outcome(actions, move, np.zeros(64)), known_at=np.full(64, 100))
    assert one.learn(99) == 0
    assert all(np.array_equal(a, weights[name]) for name, a in arrays_of(one.policy, one.value).items())
    assert one.learn(100) == 64
    assert any(not np.array_equal(a, weights[name]) for name, a in arrays_of(one.policy, one.value).items())
    with pytest.raises(LookAheadError):
        one.decide(inputs, decided_at=np.full(64, 5), due_at=np.full(64, 4))


def test_a_restart_in_the_middle_changes_no_bit(tmp_path):
    whole, cut = learner(), learner()
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    taught(whole, rng, 40)
    taught(cut, again, 40)
    cut.save(tmp_path / "learner.safetensors")
    resumed = learner(seed=0)
    resumed.restore(tmp_path / "learner.safetensors")
    assert len(resumed.waiting) == len(cut.waiting) > 0
    taught(whole, rng, 20)
    taught(resumed, again, 20)
    for name, array in arrays_of(whole.policy, whole.value).items():
        assert np.array_equal(array, arrays_of(resumed.policy, resumed.value)[name]), name


def test_a_state_gets_its_answer_whatever_stands_beside_it():
    one, rng = learner(), np.random.default_rng(2)
    inputs, _ = planted(rng, 50)
    value, shares = one.answers(inputs)
    assert np.array_equal(one.answers(inputs[7:8])[1][0], shares[7])
    assert one.answers(inputs[7:8])[0][0] == value[7]
    assert np.allclose(shares.sum(axis=1), 1.0)
    assert set(POSITIONS.tolist()) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    with torch.no_grad():
        assert np.allclose(one.value(torch.from_numpy(inputs)).squeeze(1).numpy(), value, atol=1e-6)


def test_states_are_scaled_by_what_was_seen_before():
    """Whoever sees the same in other units answers the same."""
    seen, _ = planted(np.random.default_rng(5), 500)
    here, there, unscaled = learner(), learner(), learner()
    here.fit_scaler(seen)
    there.fit_scaler(64.0 * seen + 3.0)
    for one, other in zip(here.answers(seen), there.answers(64.0 * seen + 3.0), strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert np.abs(there.answers(64.0 * seen + 3.0)[0] - unscaled.answers(64.0 * seen + 3.0)[0]).max() > 0.1


def test_an_outcome_that_a_clock_at_fault_lets_through_is_refused_again():
    one = learner()
    inputs, move = planted(np.random.default_rng(6), 64)
    actions, tickets = one.decide(inputs, decided_at=np.full(64, 1), due_at=np.full(64, 11))
    one.settle(tickets, outcome(actions, move, np.zeros(64)), known_at=np.full(64, 11))
    ripe = one.waiting.mature(11)
    one.waiting.mature = lambda now: ripe
    with pytest.raises(LookAheadError):
        one.learn(10)
    assert one.learn(11) == 64


def test_of_many_reports_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr("cryptoalpha.signals.agents.learner.REPORTS", 2)
    one = learner()
    reports = []
    for _ in range(4):
        taught(one, np.random.default_rng(7), 1, settle_ahead=0)
        reports.append(one.reports[-1])
    assert one.reports == reports[-2:]


def test_an_advantage_is_what_an_outcome_was_beyond_the_expected():
    one, seen = learner(), []
    update = one.learner.update
    one.learner.update = lambda batch, *, now: (seen.append(batch), update(batch, now=now))[1]
    inputs, move = planted(np.random.default_rng(8), 64)
    expected, _ = one.answers(inputs)
    actions, tickets = one.decide(inputs, decided_at=np.full(64, 1), due_at=np.full(64, 2))
    rewards = outcome(actions, move, np.zeros(64))
    one.settle(tickets, rewards, known_at=np.full(64, 2))
    one.learn(2)
    (batch,) = seen
    assert batch.returns.numpy() == pytest.approx(rewards.astype(np.float32))
    assert batch.advantages.numpy() == pytest.approx(rewards - expected, abs=1e-5)
    assert np.abs(expected).max() > 0.01
