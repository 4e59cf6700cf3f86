"""What agents learn through the whole environment (planning facts, learning tests 4 and 5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.app.bench.decisions_agent import (
    MYOPIC_SHARE,
    ONE_STEP,
    TREE,
    environment_speed,
    ou_share_of_optimum,
    planned_policy,
    played_share,
    trained_expert,
)
from cryptoalpha.learn.problems.ou_chain import OuChain

CHAIN = OuChain()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_expert_iteration_through_the_environment_earns_nine_tenths_of_the_optimum():
    experts = [trained_expert(seed, plans=18) for seed in range(4)]
    policies = [planned_policy(chain, TREE, seed=50 + seed) for seed, chain in enumerate(experts)]
    shares = np.array([CHAIN.score(policy) for policy in policies]) / CHAIN.optimum
    assert shares.mean() >= 0.90
    assert shares.min() > MYOPIC_SHARE
    played = played_share(CHAIN, policies[0], seed=7, lanes=512)  # and is paid for it: pairs of episodes, so the error is small
    assert played.error < 0.03
    assert abs(played.share - shares[0]) <= 4.0 * played.error
    # The tree alone does well too; what was learned is what one step ahead sees with it and does not see without.
    one_step = [CHAIN.score(planned_policy(chain, ONE_STEP, seed=9)) / CHAIN.optimum for chain in experts]
    assert np.mean(one_step) >= 0.90
    assert CHAIN.score(planned_policy(trained_expert(0, plans=0), ONE_STEP, seed=9)) / CHAIN.optimum < 0.8


def test_what_the_environment_pays_tells_a_worse_policy_from_the_best():
    myopic = played_share(CHAIN, CHAIN.myopic, seed=1, lanes=512)
    assert abs(myopic.share - MYOPIC_SHARE) <= 4.0 * myopic.error
    assert played_share(CHAIN, CHAIN.optimal, seed=1, lanes=8, steps=5) == (1.0, 0.0)


def test_many_lanes_are_faster_than_one_after_the_other():
    assert environment_speed(lanes=256, steps=40)["env_vectorised_ratio"] >= 20.0  # measured: over 100


@pytest.mark.slow
def test_both_learners_reach_the_target_of_the_bench():
    figures = ou_share_of_optimum(4)
    for name in ("ou", "ou_one_step", "ou_self_play"):
        assert figures[f"{name}_share_mean"] >= 0.90
        assert figures[f"{name}_share_worst"] > figures["ou_myopic"]
        assert abs(figures[f"{name}_played_mean"] - figures[f"{name}_share_mean"]) <= 4.0 * figures[f"{name}_played_error"]
