"""The actor-critic loss.

    L = −mean(min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)) + c_v · mean((R̂ − V)²) − c_e · mean(H(π)) + c_d · mean(CE(π_search, π))

with ρ = π(a) / μ(a) against the policy μ that really acted, such as a search or an older self. Where μ = π, ρ is exactly 1 and the gradient
of the first term is that of −mean(log π(a) Â), plain advantage actor-critic; where π has already moved too far in the direction that
the advantage asks for, the action stops teaching. ρ is held at 3 (dual clip): without that, a bad action that μ hardly ever took would
outweigh the whole batch without bound.
Advantages are constants here (detached), brought to mean 0 and standard deviation 1 per batch.

Source: Mnih et al. (2016), A3C/A2C; Schulman et al. (2017), PPO, equation 7, for the clipped ratio; Ye et al. (2020),
"Mastering Complex Control in MOBA Games with Deep Reinforcement Learning", for the dual clip; Silver et al. (2017), AlphaGo Zero, for
learning from a search's policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryptoalpha.core.errors import ConfigError, ModelError

LARGEST_RATIO = 3.0
"""c of the dual clip: above it a row teaches nothing. Its value is that of Ye et al."""

CERTAIN = 1e-4
"""How far rounding may lift the log of a probability above 0."""


@dataclass(frozen=True)
class Batch:
    """What is learned from at once.

    Shapes: features `[N, …]`, actions `[N]` (int64), log_behaviour `[N]` (log of the probability with which the acting policy took that
    action), advantages and returns `[N]`, legal `[N, A]` (True = allowed), policy_target `[N, A]` (what a search would do; rows sum to 1),
    known_at `[N]` (UTC ns at which the rewards in it were known).
    """

    features: Tensor
    actions: Tensor
    log_behaviour: Tensor
    advantages: Tensor
    returns: Tensor
    legal: Tensor | None = None
    policy_target: Tensor | None = None
    known_at: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Weights:
    """c_v, c_e, c_d and ε of the loss."""

    value: float
    entropy: float
    distillation: float
    ratio_clip: float


@dataclass(frozen=True)
class Loss:
    """The loss and its terms, before their weights. Shapes: scalars, but log_policy `[N, A]` and ratio `[N]`."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    distillation: Tensor
    log_policy: Tensor
    ratio: Tensor


def log_policy(logits: Tensor, legal: Tensor | None) -> Tensor:
    """Log probabilities `[N, A]` of `Categorical(logits)` among the legal actions; an illegal one has probability exactly 0.

    The smallest number stands for −∞, which would turn gradients into NaN.
    """
    if legal is not None:
        logits = logits.masked_fill(~legal, torch.finfo(logits.dtype).min)
    return torch.log_softmax(logits, dim=-1)


def normalised(advantages: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1, as constants; a single row is left as it is."""
    constant = advantages.detach()
    return constant if len(constant) < 2 else (constant - constant.mean()) / (constant.std() + 1e-8)


def actor_critic_loss(logits: Tensor, values: Tensor, batch: Batch, weights: Weights) -> Loss:
    """The loss of what the networks said, logits `[N, A]` and values `[N]`, about a checked batch."""
    logs = log_policy(logits, batch.legal)
    taken = logs.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
    ratio = torch.exp((taken - batch.log_behaviour).clamp(max=math.log(LARGEST_RATIO)))  # before exp: ∞ would make the gradient NaN
    advantage = normalised(batch.advantages)
    clipped = ratio.clamp(1.0 - weights.ratio_clip, 1.0 + weights.ratio_clip)
    policy = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    value = (batch.returns.detach() - values).square().mean()
    entropy = -(logs.exp() * logs).sum(dim=-1).mean()
    total = policy + weights.value * value - weights.entropy * entropy
    distillation = torch.zeros_like(total)
    if batch.policy_target is not None:
        distillation = -(batch.policy_target.detach() * logs).sum(dim=-1).mean()
        total = total + weights.distillation * distillation
    return Loss(total, policy, value, entropy, distillation, logs, ratio)


def check_numbers(batch: Batch) -> None:
    """Refuse what no network should be shown.

    Raises:
        ConfigError: for shapes that do not fit, actions that are not int64 or a mask that is not bool.
        ModelError: for a value that is not finite, or a probability above 1; the row is named.
    """
    rows = len(batch)
    if batch.actions.dtype != torch.int64:
        raise ConfigError(f"actions are {batch.actions.dtype}, expected torch.int64")
    check_mask(batch.legal)
    one = {"actions": batch.actions, "log_behaviour": batch.log_behaviour, "advantages": batch.advantages, "returns": batch.returns}
    wrong = {name: tuple(part.shape) for name, part in one.items() if part.shape != (rows,)}
    if wrong or len(batch.features) != rows or rows == 0:
        raise ConfigError(f"a batch of {rows} rows: {wrong}, features {tuple(batch.features.shape)} do not fit, expected one entry per row")
    numbers = {"features": batch.features, **{name: part for name, part in one.items() if name != "actions"}}
    if batch.policy_target is not None:
        numbers["policy_target"] = batch.policy_target
    for name, part in numbers.items():
        _refuse(~torch.isfinite(part).reshape(rows, -1).all(dim=1), f"{name} is not finite")
    _refuse(batch.log_behaviour > CERTAIN, "log_behaviour is above 0, a probability above 1")


def check_mask(legal: Tensor | None) -> None:
    """Refuse a mask that is not bool: turned over bit by bit, a number 1 would still be true.

    Raises:
        ConfigError: naming its type.
    """
    if legal is not None and legal.dtype != torch.bool:
        raise ConfigError(f"legal is {legal.dtype}, expected torch.bool")


def check_actions(batch: Batch, actions: int) -> None:
    """Refuse what does not fit a policy over so many actions.

    Raises:
        ConfigError: for shapes that do not fit.
        ModelError: for a row without legal action, an illegal action taken or aimed at; the row is named.
    """
    for name, part in (("legal", batch.legal), ("policy_target", batch.policy_target)):
        if part is not None and part.shape != (len(batch), actions):
            raise ConfigError(f"{name} has shape {tuple(part.shape)}, expected [{len(batch)}, {actions}]")
    _refuse((batch.actions < 0) | (batch.actions >= actions), f"the action taken is none of the {actions}")
    if batch.legal is not None:
        _refuse(~batch.legal.any(dim=1), "no action is legal")
        _refuse(~batch.legal.gather(1, batch.actions.unsqueeze(1)).squeeze(1), "the action taken is illegal")
    if batch.policy_target is not None:
        target = batch.policy_target
        _refuse((target < 0).any(dim=1) | ((target.sum(dim=1) - 1.0).abs() > 1e-4), "policy_target is no distribution")
        if batch.legal is not None:
            _refuse((target.masked_fill(batch.legal, 0.0) > 0).any(dim=1), "policy_target takes an illegal action")


def _refuse(bad: Any, why: str) -> None:
    if bad.any():
        raise ModelError(f"row {int(bad.int().argmax())} of the batch cannot be learned from: {why}")
