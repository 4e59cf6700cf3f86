"""The actor-critic loss: its value beside plain NumPy, its gradient beside finite differences, its guards by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.actor_critic.loss import Batch, Weights, actor_critic_loss, check_actions, check_numbers, log_policy, normalised

torch.set_num_threads(1)

WEIGHTS = Weights(value=0.5, entropy=0.01, distillation=0.7, ratio_clip=0.2)


def case(seed=0, rows=12, actions=4):
    """Logits and values of a network, and a batch that another policy acted in; no ratio within 2 % of where clipping sets in."""
    random = stream(seed, "test")
    legal = random.random((rows, actions)) < 0.7
    taken = random.integers(actions, size=rows)
    legal[np.arange(rows), taken] = True
    target = np.where(legal, random.random((rows, actions)) + 0.1, 0.0)
    logits = torch.tensor(random.normal(size=(rows, actions)), requires_grad=True)
    values = torch.tensor(random.normal(size=rows), requires_grad=True)
    logs = log_policy(logits, torch.tensor(legal)).detach()[torch.arange(rows), torch.tensor(taken)]
    ratio = torch.tensor(random.choice([0.5, 0.9, 1.0, 1.1, 1.6], size=rows))
    batch = Batch(
        features=torch.tensor(random.normal(size=(rows, 3))),
        actions=torch.tensor(taken),
        log_behaviour=logs - ratio.log(),
        advantages=torch.tensor(random.normal(size=rows)),
        returns=torch.tensor(random.normal(size=rows)),
        legal=torch.tensor(legal),
        policy_target=torch.tensor(target / target.sum(axis=1, keepdims=True)),
    )
    return logits, values, batch


def plainly(logits, values, batch, weights):
    """The same loss, one row after the other."""
    advantages = batch.advantages.numpy()
    scaled = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    policy, value, entropy, distillation = [], [], [], []
    for row in range(len(batch)):
        legal = np.flatnonzero(batch.legal[row].numpy())
        odds = np.exp(logits[row].detach().numpy()[legal])
        chance = dict(zip(legal.tolist(), odds / odds.sum(), strict=True))
        ratio = chance[int(batch.actions[row])] / np.exp(float(batch.log_behaviour[row]))
        limited = min(max(ratio, 1 - weights.ratio_clip), 1 + weights.ratio_clip)
        policy.append(-min(ratio * scaled[row], limited * scaled[row]))
        value.append((float(batch.returns[row]) - float(values.detach()[row])) ** 2)
        entropy.append(-sum(p * np.log(p) for p in chance.values()))
        distillation.append(-sum(float(batch.policy_target[row, a]) * np.log(p) for a, p in chance.items()))
    means = [np.mean(part) for part in (policy, value, entropy, distillation)]
    return means[0] + weights.value * means[1] - weights.entropy * means[2] + weights.distillation * means[3], means


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_what_its_formula_says(seed):
    logits, values, batch = case(seed)
    loss = actor_critic_loss(logits, values, batch, WEIGHTS)
    total, means = plainly(logits, values, batch, WEIGHTS)
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-12)
    terms = [float(term.detach()) for term in (loss.policy, loss.value, loss.entropy, loss.distillation)]
    assert_allclose(terms, means, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_equals_finite_differences(seed):
    logits, values, batch = case(seed)
    assert torch.autograd.gradcheck(lambda one, two: actor_critic_loss(one, two, batch, WEIGHTS).total, (logits, values), atol=1e-8)


def gradients(loss, *of):
    return torch.autograd.grad(loss, of)


def test_on_the_acting_policy_itself_the_guard_does_nothing_to_the_last_bit():
    logits, values, batch = case()
    taken = log_policy(logits, batch.legal)[torch.arange(len(batch)), batch.actions]
    plain_batch = replace(batch, log_behaviour=taken.detach(), policy_target=None)
    for clip in (0.0, 0.2):
        weights = replace(WEIGHTS, entropy=0.0, ratio_clip=clip)
        loss = actor_critic_loss(logits, values, plain_batch, weights)
        assert torch.equal(loss.ratio, torch.ones_like(loss.ratio))
        again = log_policy(logits, batch.legal)[torch.arange(len(batch)), batch.actions]
        a2c = -(again * normalised(batch.advantages)).mean() + weights.value * (batch.returns - values).square().mean()
        for ours, plain in zip(gradients(loss.total, logits, values), gradients(a2c, logits, values), strict=True):
            assert torch.equal(ours, plain)


def test_an_action_that_has_moved_far_enough_teaches_nothing_more():
    # Rows: ratio 2 or ½, advantage up or down. Only what would push further is silenced.
    logits = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    ratio = torch.tensor([2.0, 2.0, 0.5, 0.5], dtype=torch.float64)
    batch = Batch(
        features=torch.zeros(4, 1),
        actions=torch.zeros(4, dtype=torch.int64),
        log_behaviour=np.log(0.5) - ratio.log(),
        advantages=torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64),
        returns=torch.zeros(4, dtype=torch.float64),
    )
    loss = actor_critic_loss(logits, torch.zeros(4, dtype=torch.float64), batch, replace(WEIGHTS, entropy=0.0))
    (gradient,) = gradients(loss.policy, logits)
    scale = float(normalised(batch.advantages)[0])
    # d(ρ Â)/d(logit of the taken action) = ρ Â (1 − ½), mean over 4 rows
    assert_allclose(gradient[:, 0], [0.0, 2.0 * scale / 8, -0.5 * scale / 8, 0.0], atol=1e-15)


@pytest.mark.parametrize("log_behaviour", [-60.0, -1e4])
def test_an_action_hardly_ever_taken_cannot_outweigh_the_batch(log_behaviour):
    # Row 0 is such an action, and bad: unbounded, its ρ would be e^60. Held at c = 3 it costs −3Â and teaches nothing; row 1 does as ever.
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    batch = Batch(
        features=torch.zeros(2, 1),
        actions=torch.zeros(2, dtype=torch.int64),
        log_behaviour=torch.tensor([log_behaviour, np.log(0.5)], dtype=torch.float64),
        advantages=torch.tensor([-1.0, 1.0], dtype=torch.float64),
        returns=torch.zeros(2, dtype=torch.float64),
    )
    loss = actor_critic_loss(logits, torch.zeros(2, dtype=torch.float64), batch, replace(WEIGHTS, entropy=0.0))
    (gradient,) = gradients(loss.policy, logits)
    scale = float(normalised(batch.advantages)[1])
    assert float(loss.policy.detach()) == pytest.approx((3.0 - 1.0) * scale / 2)
    assert_allclose(gradient, [[0.0, 0.0], [-scale / 4, scale / 4]], atol=1e-15)


def test_returns_and_the_searchs_policy_are_constants():
    logits, values, batch = case()
    returns, target = batch.returns.clone().requires_grad_(), batch.policy_target.clone().requires_grad_()
    actor_critic_loss(logits, values, replace(batch, returns=returns, policy_target=target), WEIGHTS).total.backward()
    assert returns.grad is None
    assert target.grad is None
    assert values.grad is not None


def test_an_illegal_action_has_probability_zero_and_no_gradient():
    logits = torch.tensor([[0.3, 80.0, -0.2]], requires_grad=True)
    logs = log_policy(logits, torch.tensor([[True, False, True]]))
    assert logs.exp()[0, 1] == 0.0
    assert_allclose(logs.exp()[0, [0, 2]].detach(), np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum(), rtol=1e-6)
    entropy = -(logs.exp() * logs).sum()
    (gradient,) = gradients(entropy, logits)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 1] == 0.0


def test_logits_are_logits():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    wanted = torch.distributions.Categorical(logits=logits)
    assert_allclose(log_policy(logits, None), wanted.logits, rtol=1e-6)


def test_advantages_are_constants_of_mean_0_and_deviation_1():
    raw = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    out = normalised(raw)
    assert not out.requires_grad
    assert_allclose([float(out.mean()), float(out.std())], [0.0, 1.0], atol=1e-6)
    assert float(normalised(raw[:1])) == 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"actions": torch.tensor([0, 1, 4])}, ModelError, "row 2 .* none of the 4"),
        ({"legal": torch.tensor([[True] * 4, [False] * 4, [True] * 4])}, ModelError, "row 1 .* no action is legal"),
        ({"legal": torch.tensor([[True] * 4, [True] * 4, [True, True, False, True]])}, ModelError, "row 2 .* taken is illegal"),
        ({"features": torch.tensor([[0.0], [np.nan], [0.0]])}, ModelError, "row 1 .* features is not finite"),
        ({"returns": torch.tensor([0.0, 0.0, np.inf])}, ModelError, "row 2 .* returns is not finite"),
        ({"policy_target": torch.full((3, 4), 0.3)}, ModelError, "row 0 .* no distribution"),
        (
            {"policy_target": torch.full((3, 4), 0.25), "legal": torch.tensor([[True] * 4, [True] * 4, [False, True, True, True]])},
            ModelError,
            "row 2 .* takes an illegal action",
        ),
        ({"policy_target": torch.full((3, 2), 0.5)}, ConfigError, "expected \\[3, 4\\]"),
        ({"log_behaviour": torch.tensor([0.0, 0.1, 0.0])}, ModelError, "row 1 .* a probability above 1"),
        ({"actions": torch.zeros(3)}, ConfigError, "actions are torch.float32, expected torch.int64"),
        ({"legal": torch.ones(3, 4, dtype=torch.int64)}, ConfigError, "legal is torch.int64, expected torch.bool"),
        ({"advantages": torch.zeros(2)}, ConfigError, "'advantages': \\(2,\\)"),
        ({"features": torch.zeros(4, 1)}, ConfigError, "do not fit"),
    ],
)
def test_a_row_that_cannot_teach_is_named(change, error, message):
    good = Batch(torch.zeros(3, 1), torch.tensor([0, 1, 2]), torch.zeros(3), torch.zeros(3), torch.zeros(3))
    check_numbers(good)
    check_actions(good, 4)

    def check():
        check_numbers(replace(good, **change))
        check_actions(replace(good, **change), 4)

    with pytest.raises(error, match=message):
        check()
