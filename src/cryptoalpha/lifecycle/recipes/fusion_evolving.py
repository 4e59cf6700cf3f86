"""The last step of a fusion's training: settings of the search that have no gradient are evolved towards growth out of sample.

Evolved are the size of a step (δ), what a family may be worth at best, how likely it knows anything, how much the regime's likeness counts,
and how long the past is remembered; each as a factor of its configured value, on a log scale. Fitness is what the searched weights earned
per step after costs on the first half of the accept stretch, which taught the network nothing; a generation stays only if the second half
does not do worse. The aversion to risk (λ) is not evolved: it is a taste, and would be evolved away.

Few members over few generations: each of them is a walk over weeks of searches. It finds what is badly wrong, not the last percent.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryptoalpha.decisions.fusion.guided import EVOLVED
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, evolve
from cryptoalpha.learn.search.contract import Evaluator
from cryptoalpha.lifecycle.recipes.fusion_walk import WalkStep, walk

MEMBERS = 4
"""Members of a generation."""

SIGMA, STEP = 0.3, 0.15
"""Noise and step size on the log scale: a member tries settings a third larger or smaller."""

LARGEST = {"delta": 0.5, "prior_share": 0.9, "regime_share": 1.0}
"""Above it a setting makes no sense."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A fusion as it stood at a moment, and the steps that follow."""

    fusion: SearchedFusion
    steps: Sequence[WalkStep]

    def growth(self, evaluator: Evaluator | None, version: str, config: SearchConfig) -> float:
        """What the searched weights earn per step with this network and these settings; −∞ where nothing matures."""
        fusion = copy.deepcopy(self.fusion)
        fusion.adopt(evaluator, version, config)
        since = self.steps[0].at if self.steps else 0
        rewards = [one.reward for one in walk(fusion, self.steps) if one.decided_at >= since and math.isfinite(one.reward)]
        return float(np.mean(rewards)) if rewards else -math.inf


def settings_of(base: SearchConfig, factors: Sequence[float]) -> SearchConfig:
    """`base` with each evolved setting times e to the power of its factor, within what makes sense."""
    update = {}
    for name, factor in zip(EVOLVED, factors, strict=True):
        value = float(getattr(base, name)) * math.exp(max(-3.0, min(3.0, factor)))
        update[name] = min(value, LARGEST.get(name, math.inf))
    return base.model_copy(update=update)


def evolve_settings(
    base: SearchConfig,
    fitness: Callable[[SearchConfig], float],
    accept: Callable[[SearchConfig], float],
    *,
    generations: int,
    seed: int,
    checkpoint: Path,
) -> tuple[list[float], dict[str, float | int]]:
    """Factors (logarithms) of the settings in `EVOLVED`, and what came of it, for the lineage.

    Where the goal cannot be measured to begin with, nothing is evolved.
    """
    start = accept(base)
    if not generations or not math.isfinite(start):
        return [0.0] * len(EVOLVED), {"generations": 0, "kept": 0, "accept_before": start, "accept_after": start}
    factors = torch.zeros(len(EVOLVED))
    config = EvolutionConfig(population=MEMBERS, sigma=SIGMA, learning_rate=STEP)
    done = evolve(
        Evolution({"settings": factors}, config, seed=seed),
        lambda generation: fitness(settings_of(base, factors.tolist())),
        generations=generations,
        accept=lambda: accept(settings_of(base, factors.tolist())),
        checkpoint=checkpoint,
        checkpoint_every=1,
    )
    kept = len(done.history) - done.undone
    after = start if done.best_goal is None else done.best_goal
    return factors.tolist(), {"generations": len(done.history), "kept": kept, "accept_before": start, "accept_after": after}
