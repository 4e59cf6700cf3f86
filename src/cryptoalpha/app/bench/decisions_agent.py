"""An agent learns a solved market through the whole environment, and the environment's speed.

Two learners on the mean-reverting chain of `learn.problems.ou_chain`, behind `VectorMarketEnv` with its fills, costs and risk penalty:

* expert iteration, as agents that take prices are trained: it plans from the states it met while trading, fits the value net, and trades
  by a small scenario tree with that net at its leaves (`ou`). The tree alone would do well here, so what the net learned is shown by a
  tree of one step (`ou_one_step`), which without it is myopic;
* AlphaZero self-play: tree search in each of 64 episodes, rewards as the environment paid them, the trained net acting without search.

A learner is scored twice. `exact`: the policy that it plays, read off state by state and solved on the chain. `played`: what the
environment paid it, less what it paid the best policy in the same episodes, over the optimum; with one standard error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.app.bench.planner_peers import one_core
from cryptoalpha.decisions.market_env.env import MarketEnv
from cryptoalpha.decisions.market_env.problems import ou_config, ou_costs, ou_market
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.decisions.market_env.world import EnvironmentWorld, VisitedStates
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.expert_iteration import ExpertIteration, FitRecipe
from cryptoalpha.learn.problems.ou_chain import OuChain, Policy
from cryptoalpha.learn.problems.ou_learners import PlayNet, PlayTable, ValueNet, ValueTable, market_features, play_features
from cryptoalpha.learn.search.contract import Budget, Floats, PlanResult, Roots, Rules
from cryptoalpha.learn.search.market_tree import MarketTree
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.scenario_dp import plan_all_positions
from cryptoalpha.learn.self_play import PlayRecipe, SelfPlay, iterate_together

MYOPIC_SHARE = 0.695
"""What the best policy that sees one step ahead earns of the optimum."""

LANES = 64
HORIZON = 10
"""Decisions of a training episode: short, so that new starts are met often."""

TREE = Budget(branching=(8, 4))
ONE_STEP = Budget(branching=(28,))
"""A tree that sees one step: as blind as the myopic policy, but for what the net at its leaves has learned."""
PLAY = Rules(root="puct", dirichlet_fraction=0.25, dirichlet_alpha=1.0, temperature=1.0, first_play_reduction=0.1)


class Played(NamedTuple):
    """What the environment paid a policy, as a share of the optimum, and one standard error of it."""

    share: float
    error: float


def environment(chain: OuChain, lanes: int, *, horizon: int, training: bool) -> VectorMarketEnv:
    """The chain behind the environment: in training from anywhere, else flat from where the market usually is."""
    market = ou_market(chain, start="uniform" if training else "stationary")
    config = ou_config(chain, horizon=horizon, start="anywhere" if training else "flat")
    return VectorMarketEnv(market, config, ou_costs(chain), num_envs=lanes)


def played_share(chain: OuChain, policy: Policy, *, seed: int, lanes: int = 2048, steps: int = 200) -> Played:
    """The policy `[31, 7]` acted out against the best one in the same episodes, discounted; 0.95²⁰⁰ is nothing."""
    totals = []
    for acts in (policy, chain.optimal):
        env = environment(chain, lanes, horizon=steps, training=False)
        seen, told = env.reset(seed=seed)
        total = np.zeros(lanes)
        for step in range(steps):
            seen, rewards, *_, told = env.step(acts[seen[:, 0].astype(np.int64), told["bucket"]])
            total += chain.discount**step * rewards
        totals.append(total)
    difference = (totals[0] - totals[1]) / chain.optimum
    return Played(1.0 + float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(lanes)))


def trained_expert(seed: int, *, plans: int = 60) -> OuChain:
    """The chain with what expert iteration has learned, from states met in the environment, at its leaves."""
    chain = OuChain()
    net = ValueNet(seed)
    chain.guess = table = ValueTable(chain, net)

    def act(markets: Floats, held: NDArray[np.int64]) -> NDArray[np.int64]:
        worth = table(markets)[:, None, :] - chain.trade_costs  # what the net thinks of going anywhere, less the way there
        return np.asarray(worth[np.arange(len(held)), held].argmax(axis=1))

    visited = VisitedStates(environment(chain, LANES, horizon=HORIZON, training=True), act, seed=seed)
    learner = ExpertIteration(
        net,
        chain,
        lambda states: market_features(chain, states),
        lambda random: visited.next(2),
        TREE,
        publish=table.read,
        seed=seed,
        recipe=FitRecipe(value_scale=5.0, memory=10 * LANES),
    )
    for _ in range(plans):
        learner.iterate()
    return chain


def planned_policy(chain: OuChain, budget: Budget, *, seed: int) -> Policy:
    """What a scenario tree of this budget decides everywhere: targets `[31, 7]`."""
    everywhere = Roots(np.arange(chain.states, dtype=np.float32)[:, None])
    return np.asarray(plan_all_positions(everywhere, chain, budget, seed=seed).actions)


class SelfPlayers:
    """Runs of self-play in the environment, one per seed, planned for in one batch: a market state is [market, run]."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.chain = OuChain(guess=self._guess, prior=self._prior)
        self._tree = MarketTree(self.chain)
        self._who = np.repeat(np.arange(len(seeds)), LANES)
        self.tables: list[PlayTable] = []
        self.players = [self._player(seed) for seed in seeds]

    def _player(self, seed: int) -> SelfPlay:
        chain, net = OuChain(), PlayNet(seed)
        table = PlayTable(chain, net)
        self.tables.append(table)
        return SelfPlay(
            EnvironmentWorld(environment(chain, LANES, horizon=HORIZON, training=True), discount=chain.discount, seed=seed),
            self.search,
            net,
            lambda states: play_features(chain, states),
            publish=table.read,
            seed=seed,
            replay=ReplayConfig(capacity=20 * LANES, n_steps=1),
            recipe=PlayRecipe(decisions=3, steps=20, batch=256, learning_rate=5e-3, value_weight=2.0, value_scale=5.0),
        )

    def search(self, roots: Roots, *, seed: int, iteration: int) -> PlanResult:
        """64 simulations for every episode of every run."""
        states = np.stack([roots.states[:, 0], self._who, roots.states[:, 1]], axis=1).astype(np.float32)
        return plan(Roots(states), self._tree, Budget(simulations=64, outcomes=(4,)), seed=seed, rules=PLAY)

    def _guess(self, states: Floats) -> Floats:
        values: Floats = np.stack([table.values for table in self.tables])[states[:, 1].astype(int), states[:, 0].astype(int)]
        return values

    def _prior(self, states: Floats) -> Floats:
        logits: Floats = np.stack([table.logits for table in self.tables])[states[:, 1].astype(int), states[:, 0].astype(int)]
        return logits


def self_play_policies(seeds: Sequence[int], *, iterations: int = 30) -> list[Policy]:
    """What each run's net plays without search: targets `[31, 7]`."""
    runs = SelfPlayers(seeds)
    for _ in range(iterations):
        iterate_together(runs.players, runs.search)
    return [table.policy for table in runs.tables]


def ou_share_of_optimum(seeds: int = 4, *, self_play: bool = True) -> dict[str, float]:
    """Shares of the optimum that agents learn through the environment; targets: mean ≥ 0.90, worst above myopic.

    Returns: means and worst of both learners' exact shares, what the environment paid them and its standard error, CPU seconds.
    """
    chain, every = OuChain(), range(seeds)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with one_core():
        began = time.process_time()
        experts = [trained_expert(seed) for seed in every]
        found = {
            "ou": [planned_policy(chain, TREE, seed=seed) for seed, chain in enumerate(experts)],
            "ou_one_step": [planned_policy(chain, ONE_STEP, seed=seed) for seed, chain in enumerate(experts)],
        }
        if self_play:
            found["ou_self_play"] = self_play_policies(list(every))
        figures: dict[str, float] = {}
        for name, policies in found.items():
            exact = [chain.score(policy) / chain.optimum for policy in policies]
            played = [played_share(chain, policy, seed=1000 + seed) for seed, policy in enumerate(policies)]
            figures |= {
                f"{name}_share_mean": float(np.mean(exact)),
                f"{name}_share_worst": min(exact),
                f"{name}_played_mean": float(np.mean([one.share for one in played])),
                f"{name}_played_error": float(np.sqrt(np.sum([one.error**2 for one in played])) / seeds),
            }
        figures["ou_cpu_seconds"] = time.process_time() - began
    torch.set_num_threads(threads)
    return figures | {"ou_myopic": chain.score(chain.myopic) / chain.optimum}


def environment_speed(*, lanes: int = 256, steps: int = 300) -> dict[str, float]:
    """Steps per CPU second of the chain's environment: one lane, many lanes, and their ratio."""
    chain = OuChain()
    single = MarketEnv(ou_market(chain), ou_config(chain, horizon=steps + 1), ou_costs(chain))
    many = environment(chain, lanes, horizon=steps + 1, training=False)
    actions = np.random.default_rng(0).integers(7, size=(steps, lanes))

    def timed(run: Callable[[int], object]) -> float:
        began = time.process_time()
        for step in range(steps):
            run(step)
        return time.process_time() - began

    single.reset(seed=0)
    many.reset(seed=0)
    one = steps / timed(lambda step: single.step(actions[step, 0]))
    all_lanes = steps * lanes / timed(lambda step: many.step(actions[step]))
    return {"env_steps_per_second": one, "env_steps_per_second_vectorised": all_lanes, "env_vectorised_ratio": all_lanes / one}
