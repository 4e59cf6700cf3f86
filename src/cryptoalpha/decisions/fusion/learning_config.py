"""Settings of how the searched fusion learns: offline (`train fusion`) and beside a running loop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section
from cryptoalpha.learn.config import ActorCriticConfig


class FusionLearningConfig(Section):
    """[fusion.learning] Which network guides the fusion's search, and how it is taught."""

    model: str = ""
    """Folder of trained networks (`cryptoalpha train fusion`); empty = none. Every bar is decided with the newest one trained before it."""

    learning_rate: Positive = 3e-4
    """Step size of Adam; the user's."""

    batch: Count = 256
    """Decisions of one step."""

    passes: Count = 4
    """Passes over the lessons. The ratio to the policy that acted is clipped, so more of them teach less and less."""

    gae_lambda: Fraction = 0.95
    """How far advantages look along rewards rather than at the next value (0–1); Schulman et al. 2016."""

    value_weight: Positive = 0.5
    """Weight of the value loss."""

    distillation_weight: NonNegative = 1.0
    """Weight of the cross-entropy to the search's policy, beside 1 for the advantages. Equal: what the search found is an improvement at
    every decision, what was earned is noisy."""

    entropy_weight: Fraction = 0.01
    """Weight of the entropy bonus (0–1), so that the policy keeps trying."""

    ratio_clip: Fraction = 0.2
    """How far the probability of an action may have moved from the policy that took it before the action stops teaching (0–1)."""

    gradient_clip: Positive = 0.5
    """Largest norm of the gradient."""

    divergence_limit: Positive = 0.1
    """KL divergence (nats) of one step above which it is undone."""

    def actor_critic(self) -> ActorCriticConfig:
        """The same settings as the learner underneath takes them."""
        return ActorCriticConfig(
            learning_rate=self.learning_rate,
            gae_lambda=self.gae_lambda,
            value_weight=self.value_weight,
            entropy_weight=self.entropy_weight,
            gradient_clip=self.gradient_clip,
            ratio_clip=self.ratio_clip,
            divergence_limit=self.divergence_limit,
        )


class FusionOnlineConfig(Section):
    """[fusion.online] Learning while the loop runs: a challenger is taught in a process of its own and has to beat the champion."""

    enabled: bool = False
    """Whether a network learns beside the loop. Off: the champion of the trained folder stays."""

    every_bars: Count = 168
    """Bars between two lessons. A week of hours: seven independent horizons of a day."""

    delay_bars: Count = 24
    """Bars after a lesson at which its result may take over, in a replay and live. A day of hours: far more than a lesson takes, so that
    a live run has it ready where a replay takes it."""

    judged_on: Count = 336
    """Decisions at least, each judged before it is taught, on which the challenger is compared with the champion. Two weeks of hours."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence (above 0.5, below 1) with which the challenger must be better, one-sided."""

    memory: Count = 8_760
    """Newest decisions that are kept to be taught again. A year of hours."""

    rehearsed: Annotated[int, Field(ge=0)] = 3
    """Older decisions that are taught beside each new one, so that what was known is not forgotten. A lesson of a week then takes some
    tenths of a second of the learner's core."""

    patience_lessons: Count = 8
    """Lessons after which a challenger that has not proved better is dropped for a fresh copy of the champion."""
