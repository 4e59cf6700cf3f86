"""How things learn and plan. The defaults are the user's own numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, Positive, Section

Discount = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class PlannerConfig(Section):
    """[learn.planner] Tree search."""

    simulations: Count = 800
    """Simulations of one decision; AlphaZero's number for chess."""

    c_puct: Positive = 1.4
    """Weight of the prior against the value while searching. Values are rescaled to 0–1 inside the tree, else it would be pure exploration
    on returns of a few basis points."""

    discount: Discount = 0.99
    """Worth of one bar later (above 0, below 1): a horizon of about a hundred bars."""


class EvolutionConfig(Section):
    """[learn.evolution] Evolution strategy on goals that have no gradient, such as Sharpe after costs."""

    population: Annotated[int, Field(ge=2)] = 50
    """Members of one generation (≥ 2); half of them mirror the other half."""

    sigma: Positive = 0.02
    """Standard deviation of the noise added to each weight."""


class FitConfig(Section):
    """[learn.fit] Gradient training."""

    learning_rate: Positive = 1e-4
    """Step size of the optimiser."""

    batch: Count = 32
    """Samples of one step, all processes together."""


class ActorCriticConfig(Section):
    """[learn.actor_critic] The small learner that weighs text signals and proposes actions."""

    value_widths: tuple[Count, ...] = (768, 256, 256, 1)
    """Layer widths of the value network, input to output."""

    policy_widths: tuple[Count, ...] = (768, 256, 128, 5)
    """Layer widths of the policy network, input to output; five market actions, strong sell to strong buy."""

    entropy_weight: Fraction = 0.01
    """Weight of the entropy bonus (0–1), so that the policy keeps trying."""


class DistributedConfig(Section):
    """[learn.distributed] Training on several processes."""

    world_size: Count = 4
    """Processes that train together."""

    backend: Literal["nccl", "gloo"] = "nccl"
    """`nccl` between GPUs, `gloo` between CPU processes."""

    master_address: str = "localhost"
    """Host of the process of rank 0."""

    master_port: Port = 29_500
    """Port of the process of rank 0 (1–65535)."""


class LearnConfig(Section):
    """[learn] How things learn and plan."""

    planner: PlannerConfig = PlannerConfig()
    """Search."""

    evolution: EvolutionConfig = EvolutionConfig()
    """Without gradients."""

    fit: FitConfig = FitConfig()
    """With gradients."""

    actor_critic: ActorCriticConfig = ActorCriticConfig()
    """From outcomes."""

    distributed: DistributedConfig = DistributedConfig()
    """On several processes."""
