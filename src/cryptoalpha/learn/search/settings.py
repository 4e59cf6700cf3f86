"""From the configured planner to the budget and the rules of one plan."""

from __future__ import annotations

from cryptoalpha.learn.config import PlannerConfig
from cryptoalpha.learn.search.contract import Budget, Rules

MIB = 1 << 20


def budget(config: PlannerConfig) -> Budget:
    """What one plan may spend."""
    return Budget(config.simulations, branching=config.branching, outcomes=config.outcomes, memory_bytes=config.memory_mib * MIB)


def acting(config: PlannerConfig) -> Rules:
    """Rules of a decision that counts: no noise, no temperature."""
    return Rules(config.root, pb_c_init=config.c_puct, pb_c_base=config.c_base, considered=config.considered_actions)


def exploring(config: PlannerConfig, temperature: float = 1.0) -> Rules:
    """Rules of self-play: Gumbel noise, or Dirichlet noise and visits^(1/temperature)."""
    return Rules(
        config.root,
        pb_c_init=config.c_puct,
        pb_c_base=config.c_base,
        considered=config.considered_actions,
        gumbel_scale=1.0,
        dirichlet_fraction=config.dirichlet_fraction,
        dirichlet_alpha=config.dirichlet_alpha,
        temperature=temperature,
    )
