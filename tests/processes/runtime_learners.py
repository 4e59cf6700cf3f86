"""Small learners that tests start in other processes, some of which die on purpose."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cryptoalpha.learn.config import EvolutionConfig, ReplayConfig
from cryptoalpha.learn.evolution import Evolution, Replica
from cryptoalpha.learn.expert_iteration import ExpertIteration, FitRecipe, Planner
from cryptoalpha.learn.problems.ou_chain import OuChain
from cryptoalpha.learn.problems.ou_learners import OuEpisodes, PlayNet, PlayTable, ValueNet, ValueTable, market_features, play_features
from cryptoalpha.learn.search.contract import Budget, Roots
from cryptoalpha.learn.search.scenario_dp import plan_scenarios
from cryptoalpha.learn.self_play import PlayRecipe, SelfPlay
from cryptoalpha.learn.self_play_together import Player

BUDGET = Budget(branching=(4, 4))


def die_at(path):
    # the first process that comes here dies, once; the learner itself never
    if path and os.environ.get("CRYPTOALPHA_TEST_LEARNER") != str(os.getpid()) and Path(path).exists():
        try:
            Path(path).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def replica(fatal_generation=-1, path=""):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        x = torch.randn(64, 6)
    y = torch.sin(x.sum(1, keepdim=True))

    def fitness(generation):
        if generation == fatal_generation:
            die_at(path)
        with torch.no_grad():
            return -float(((net(x) - y) ** 2).mean())

    return Replica(Evolution(net, EvolutionConfig(population=12, learning_rate=0.01), seed=5), fitness)


def player(seed=3, path=""):
    chain = OuChain()
    net = PlayNet(seed)
    table = PlayTable(chain, net)
    chain.guess = table.guess

    def search(roots, *, seed, iteration):
        if iteration == 1:
            die_at(path)
        here = Roots(roots.states[:, :1], roots.states[:, 1].astype(np.int64))
        return plan_scenarios(here, chain, Budget(branching=(8,)), seed=seed)

    return Player(OuEpisodes(chain, 8, seed=seed), search, net, partial(play_features, chain), table.read)


def play_learner(seed=3):
    here = player(seed)
    recipe = PlayRecipe(decisions=4, steps=5, batch=64, value_scale=5.0)
    replay = ReplayConfig(capacity=512, n_steps=3)
    return SelfPlay(here.world, here.search, here.net, here.features, publish=here.publish, seed=seed, replay=replay, recipe=recipe)


def planner(path=""):
    chain, net = OuChain(), ValueNet(1)
    table = chain.guess = ValueTable(chain, net)
    plans = 0

    def publish():
        nonlocal plans
        plans += 1
        if plans == 2:
            die_at(path)
        table.read()

    return Planner(net, chain, BUDGET, publish)


def plan_learner(at_once=0, planners=None):
    here = planner()
    recipe = FitRecipe(steps=6, batch=32, planned_at_once=at_once, reanalysed=7)
    features = partial(market_features, here.model)
    return ExpertIteration(here.net, here.model, features, roots, BUDGET, publish=here.publish, seed=9, recipe=recipe, planners=planners)


def roots(random):
    return random.integers(0, 31, size=(24, 1)).astype(np.float32)


def weights(net):
    return b"".join(value.numpy().tobytes() for value in net.state_dict().values())
