"""From the configured planner to the budget and the rules of one plan."""

from __future__ import annotations

from math import inf

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.config import PlannerConfig
from cryptoalpha.learn.search.contract import Budget, Rules

MIB = 1 << 20


def budget(config: PlannerConfig) -> Budget:
    """What one plan may spend."""
    return Budget(config.simulations, branching=config.branching, outcomes=config.outcomes, memory_bytes=config.memory_mib * MIB)


def acting(config: PlannerConfig) -> Rules:
    """Rules of a decision that counts: no noise, no temperature."""
    return Rules(config.root, pb_c_init=config.c_puct, pb_c_base=config.c_base, considered=config.considered_actions)


def temperature(move: int, *, first: float = 0.75, last: float = 0.15, half_life: float = 19.0) -> float:
    """Temperature of self-play at a move (0 = the first of the episode): from `first` to `last`, half of the way every `half_life` moves.

    Args:
        half_life: in moves; of the distance to `last`. KataGo's 19 are for a board of 19×19.

    Raises:
        ConfigError: a negative move, temperatures that are negative or not finite, or no half-life above 0.

    Source: Wu (2019), "Accelerating self-play learning in Go", the chosen move's temperature in self-play.
    """
    if move < 0 or not 0.0 <= first < inf or not 0.0 <= last < inf or not half_life > 0.0:
        raise ConfigError(f"move {move}, temperatures {first} to {last}, half-life {half_life}: expected ≥ 0, finite ≥ 0 and > 0")
    return last + (first - last) * float(0.5 ** (move / half_life))


def exploring(config: PlannerConfig, temperature: float = 1.0) -> Rules:
    """Rules of self-play: Gumbel noise, or Dirichlet noise and visits^(1/temperature).

    `temperature` is that of one plan; `exploring(config, temperature(move))` lets it fall over an episode.
    """
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
