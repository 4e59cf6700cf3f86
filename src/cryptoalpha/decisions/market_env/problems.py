"""Problems with known answers as markets to live in."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.market import Array, ModelMarket
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.problems.ou_chain import OuChain

Start = Literal["stationary", "uniform"]


def ou_market(chain: OuChain, *, start: Start = "stationary") -> ModelMarket:
    """The mean-reverting chain of `learn.problems.ou_chain`: the state is its index, the variance of its next step is 1.

    Each of the 30 coins behind Rouwenhorst's chain turns with chance 0.05, so that the variance is the same in every state.

    Args:
        start: states as often as the chain visits them, or all equally often, so that the tails are learned too.
    """
    share = np.cumsum(chain.stationary if start == "stationary" else np.full(chain.states, 1.0 / chain.states))

    def begin(uniforms: Array) -> Array:
        return np.minimum(np.searchsorted(share, uniforms, side="right"), chain.states - 1)[:, None].astype(np.float64)

    return ModelMarket(chain, begin, variance=lambda states: np.ones(len(states)), low=np.zeros(1), high=np.full(1, chain.states - 1.0))


def ou_config(chain: OuChain, *, horizon: int = 256, start: Literal["flat", "anywhere"] = "flat") -> EnvironmentConfig:
    """The chain's rewards: returns of a stake of 1, risk penalty 0.1·a²; with `ou_costs`."""
    return EnvironmentConfig(
        positions=len(chain.positions), shorts=True, horizon=horizon, reward="linear", risk_aversion=chain.risk_aversion,
        initial_equity=1.0, start=start,
    )  # fmt: skip


def ou_costs(chain: OuChain) -> CostConfig:
    """0.3 per unit traded, as half a spread; nothing else."""
    return CostConfig(taker_fee=0.0, maker_fee=0.0, half_spread=chain.trade_cost, impact=0.0, max_participation=None)
