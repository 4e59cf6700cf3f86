"""Generalised advantages beside hand-worked numbers, closed forms, a slow sum and the mixture of n-step returns that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.actor_critic.gae import gae
from cryptoalpha.learn.replay.n_step import n_step_targets


def episodes(seed, steps, lanes):
    random = stream(seed, "test")
    end = random.random((steps, lanes))
    numbers = [random.normal(size=(steps, lanes)) for _ in range(3)]
    return (*numbers, end < 0.15, end > 0.85)


def slow(rewards, values, after, terminated, truncated, discount, trace):
    """Each advantage as its own sum of discounted surprises, Σ (γλ)^l δ_{t+l}, up to the end of its episode: O(T²)."""
    steps, lanes = rewards.shape
    out = np.zeros((steps, lanes))
    for lane in range(lanes):
        for t in range(steps):
            for k in range(t, steps):
                here = after[k, lane] if truncated[k, lane] or k == steps - 1 else values[k + 1, lane]
                bootstrap = 0.0 if terminated[k, lane] else discount * here
                out[t, lane] += (discount * trace) ** (k - t) * (rewards[k, lane] + bootstrap - values[k, lane])
                if terminated[k, lane] or truncated[k, lane]:
                    break
    return out


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 15), lanes=st.integers(1, 3), discount=st.floats(0, 1), trace=st.floats(0, 1))
def test_advantages_equal_the_slow_sum_and_the_mixture_of_n_step_returns(seed, steps, lanes, discount, trace):
    told = episodes(seed, steps, lanes)
    got = gae(*told, discount=discount, trace=trace)
    assert_allclose(got.advantages, slow(*told, discount, trace), rtol=1e-10, atol=1e-10)
    assert_array_equal(got.returns, got.advantages + told[1])
    # (1 − λ) Σ λ^{n−1} G_n over all n, where G_n no longer changes once n reaches the end
    shares = [(1 - trace) * trace ** (n - 1) for n in range(1, steps)] + [trace ** (steps - 1)]
    mixture = sum(share * n_step_targets(*told, discount=discount, n=n) for n, share in enumerate(shares, start=1))
    assert_allclose(got.returns, mixture, rtol=1e-10, atol=1e-10)


def test_termination_truncation_and_the_end_of_the_record_by_hand():
    # γ = λ = ½, rewards 1 2 4, values 2 4 6; the last state is worth 8, the one that step 1 reached 10.
    column = [np.array(numbers, float)[:, None] for numbers in ([1, 2, 4], [2, 4, 6], [0, 10, 8])]
    never, at_1 = np.zeros((3, 1), bool), np.array([[False], [True], [False]])

    def advantages(terminated, truncated):
        return gae(*column, terminated, truncated, discount=0.5, trace=0.5).advantages[:, 0].tolist()

    assert advantages(never, never) == [1 + 0.25 * 1.5, 1 + 0.25 * 2, 2]  # δ = 1+2−2, 2+3−4, 4+4−6
    assert advantages(never, at_1) == [1 + 0.25 * 3, 3, 2]  # δ₁ = 2 + ½·10 − 4, and nothing of the next episode
    assert advantages(at_1, never) == [1 + 0.25 * -2, -2, 2]  # δ₁ = 2 − 4
    assert advantages(at_1, at_1) == advantages(at_1, never)  # ruined at the last bar is ruined


def test_truncation_equals_what_stable_baselines3_does_to_rewards():
    """It adds γ v(last state) to the reward of a truncated step and then treats every end alike."""
    rewards, values, after, terminated, truncated = episodes(3, 40, 4)
    truncated &= ~terminated
    assert truncated.any()
    ours = gae(rewards, values, after, terminated, truncated, discount=0.97, trace=0.9).advantages
    patched, ends = rewards + np.where(truncated, 0.97 * after, 0.0), terminated | truncated
    carried, wanted = np.zeros(4), np.zeros((40, 4))
    for t in reversed(range(40)):
        alive = 1.0 - ends[t]
        following = values[t + 1] if t < 39 else after[t]
        carried = patched[t] + 0.97 * following * alive - values[t] + 0.97 * 0.9 * alive * carried
        wanted[t] = carried
    assert_allclose(ours, wanted, rtol=1e-12, atol=1e-12)


def test_closed_forms():
    rewards, values, after, _, _ = episodes(5, 30, 1)
    never = np.zeros((30, 1), bool)
    weights = 0.9 ** np.arange(30)
    whole = gae(rewards, values, after, never, never, discount=0.9, trace=1.0).returns[0, 0]
    assert whole == pytest.approx((weights * rewards[:, 0]).sum() + 0.9**30 * after[-1, 0])  # λ = 1: the discounted return
    one = gae(rewards, values, after, never, never, discount=0.9, trace=0.0).returns[:-1]
    assert_allclose(one, rewards[:-1] + 0.9 * values[1:])  # λ = 0: one step
    constant = np.ones((200, 1))
    true = gae(constant, constant * 10, constant * 10, np.zeros((200, 1), bool), np.zeros((200, 1), bool), discount=0.9, trace=0.95)
    assert_allclose(true.advantages, 0.0, atol=1e-12)  # values that are right, 1 / (1 − γ) = 10, leave nothing to gain


def test_what_lies_beyond_an_end_is_not_read():
    rewards, values, after, _, _ = episodes(7, 6, 1)
    ends = np.zeros((6, 1), bool)
    ends[2] = True
    before = gae(rewards, values, after, ends, ~ends & False, discount=0.9, trace=0.9).advantages[:3]
    values[3:] *= 1e6
    rewards[3:] *= -1e6
    after[2] = np.nan
    assert_array_equal(gae(rewards, values, after, ends, ~ends & False, discount=0.9, trace=0.9).advantages[:3], before)


def test_what_cannot_be_an_advantage_is_named():
    rewards, values, after, terminated, truncated = episodes(9, 4, 2)
    with pytest.raises(ConfigError, match=r"λ = 1\.5"):
        gae(rewards, values, after, terminated, truncated, discount=0.9, trace=1.5)
    with pytest.raises(ConfigError, match="five equal shapes"):
        gae(rewards[0], values, after, terminated, truncated, discount=0.9, trace=0.5)
    rewards[2, 1] = np.nan
    with pytest.raises(ModelError, match="step 2 of episode 1"):
        gae(rewards, values, after, terminated, truncated, discount=0.9, trace=0.5)
