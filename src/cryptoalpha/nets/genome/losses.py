"""What the market genome is taught with.

Levels are quantiles of the later excursion (pinball); a level holds if no close lies beyond it, judged against the level that was answered,
which is detached so that the net cannot make its calls easier by moving levels; trend, movement and distance are cross-entropies. Tokens of
hidden columns are learned with a balanced binary cross-entropy: on and off weigh the same for each token however rare it is. Weighing by
1/(2r) and 1/(2(1 − r)) shifts the log odds that are learned by exactly −ln(r/(1 − r)); that is taken off what the net answers before it is
compared, so that its answers are plain probabilities all the same.

A column counts if it is `supervised`, present, and its target is known (no NaN, no −1). Every part is a mean over what counts, 0 if nothing
does. Sources: Koenker & Bassett (1978) for the pinball loss; Jumper et al. (2021) for masked tokens and the distogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cryptoalpha.nets.genome.heads import MOST, level_probabilities
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeReading, GenomeTargets


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts in the sum."""

    levels: float = 1.0
    hold: float = 1.0
    trend: float = 0.5
    movement: float = 0.5
    tokens: float = 0.5
    distance: float = 0.3


PRETRAINING = LossWeights(levels=0.0, hold=0.0, trend=0.0, movement=0.0, tokens=1.0, distance=0.3)
"""Masked tokens and distances only."""


def genome_loss(
    reading: GenomeReading,
    inputs: GenomeInputs,
    targets: GenomeTargets,
    *,
    token_prior: Tensor,
    weights: LossWeights = LossWeights(),
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum to descend, and its parts before weighing.

    Args:
        token_prior: log odds of how often each token is on, `[S, V]` (the net's buffer of that name): what on and off are weighed by.
        weights: of the parts.

    Shapes:
        as in `GenomeReading`, `GenomeInputs` and `GenomeTargets` → one number, and `levels`, `hold`, `trend`, `movement`, `tokens`,
        `distance`, one number each.
    """
    counted = targets.supervised & inputs.present.any(1)  # [B, N]
    parts = {
        "levels": level_loss(reading, targets, counted),
        "hold": hold_loss(reading, targets, counted),
        "trend": class_loss(reading.trend, targets.trend, counted),
        "movement": class_loss(reading.movement, targets.movement, counted),
        "tokens": token_loss(reading.tokens, inputs, targets, token_prior),
        "distance": class_loss(reading.distance, targets.distance, _pairs_that_count(counted, inputs)),
    }
    total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
    return total, parts


def level_loss(reading: GenomeReading, targets: GenomeTargets, counted: Tensor) -> Tensor:
    """Mean pinball loss of the levels of both sides, ATR."""
    sides = [
        (pinball(levels, excursion), counted & excursion.isfinite())
        for levels, excursion in ((reading.supports, targets.below), (reading.resistances, targets.above))
    ]
    return torch.stack([mean_where(loss.mean(-1), known) for loss, known in sides]).mean()


def pinball(levels: Tensor, excursion: Tensor) -> Tensor:
    """Pinball loss of each level `[..., K]` against the excursion `[...]`; 0 where that is not finite."""
    known = excursion.isfinite()
    error = torch.where(known, excursion, 0.0)[..., None] - levels
    probability = torch.tensor(level_probabilities(levels.shape[-1]), dtype=levels.dtype, device=levels.device)
    loss = torch.maximum(probability * error, (probability - 1.0) * error)
    return torch.where(known[..., None], loss, 0.0)


def held(reading: GenomeReading, targets: GenomeTargets) -> tuple[Tensor, Tensor]:
    """Whether each answered level held, supports first, and whether that is known, both `[B, N, 2K]` bool."""
    below, above = targets.close_below[..., None], targets.close_above[..., None]
    yes = torch.cat((below <= reading.supports.detach(), above <= reading.resistances.detach()), -1)
    known = torch.cat((below.isfinite().expand_as(reading.supports), above.isfinite().expand_as(reading.resistances)), -1)
    return yes, known


def hold_loss(reading: GenomeReading, targets: GenomeTargets, counted: Tensor) -> Tensor:
    """Binary cross-entropy of the calls that a level holds."""
    yes, known = held(reading, targets)
    loss = functional.binary_cross_entropy_with_logits(reading.hold, yes.to(reading.hold.dtype), reduction="none")
    return mean_where(loss, known & counted[..., None])


def class_loss(logits: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of logits `[..., k]` against classes `[...]`, −1 where unknown."""
    known = counted & (classes >= 0)
    loss = functional.cross_entropy(logits.flatten(0, -2), classes.clamp(min=0).flatten(), reduction="none")
    return mean_where(loss.view(classes.shape), known)


def token_loss(logits: Tensor, inputs: GenomeInputs, targets: GenomeTargets, token_prior: Tensor) -> Tensor:
    """Balanced binary cross-entropy of the tokens of hidden cells whose source was there."""
    known = hidden_cells(inputs)
    odds = token_prior.clamp(-MOST, MOST)[:, None, :]  # beyond it a single rare token would outweigh a batch
    rate = torch.sigmoid(odds)
    weight = torch.where(targets.tokens, 0.5 / rate, 0.5 / (1.0 - rate))
    balanced = logits - odds
    loss = functional.binary_cross_entropy_with_logits(balanced, targets.tokens.to(logits.dtype), reduction="none")
    return mean_where(weight * loss, known)


def hidden_cells(inputs: GenomeInputs) -> Tensor:
    """Tokens that masked-token training asks for, `[B, S, N, V]` bool: of hidden columns, in frames that are there, from known sources."""
    return (inputs.hidden[:, None] & inputs.present)[..., None] & ~inputs.missing


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values that count, 0 if none does."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)


def _pairs_that_count(counted: Tensor, inputs: GenomeInputs) -> Tensor:
    """Distances are known at the later bar j; a hidden j could say nothing of its own price, `[B, N, N]`."""
    seen = inputs.present.any(1) & ~inputs.hidden
    return seen[:, :, None] & (seen & counted)[:, None, :]
