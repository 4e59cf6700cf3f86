"""Makes "this level holds with 70 %" mean 70 %: one slope and one shift per level, fitted on bars that did not teach; and one temperature
for the classes of trend and movement.

A logistic regression of what happened on the logit that was answered, by Newton's method, pulled towards "leave it as it is" (slope 1,
shift 0) with the weight of `PRIOR` bars, so that a level which nearly always holds in a short slice is not made certain.

Sources: Platt (1999), "Probabilistic outputs for support vector machines", with the pull as departure; Guo et al. (2017), "On calibration
of modern neural networks", for the temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

PRIOR = 50.0
"""How much the identity weighs, in bars' worth of curvature."""

_STEPS = 25

COLDEST, HOTTEST = 0.25, 20.0
"""Temperatures between which one is looked for. The hottest makes all classes nearly alike: what a net deserves that knows nothing."""


def fit_hold_calibration(logits: Tensor, yes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift of each level's logit.

    Args:
        logits: what the net answered, `[n, levels]`.
        yes: whether the level held, `[n, levels]` bool.
        known: whether that is known, `[n, levels]` bool.

    Returns:
        slope and shift, `[levels]` each, in the logits' dtype; (1, 0) where nothing is known. A slope is never below 0: calls that were
        worse than their reverse become the mean.
    """
    slopes, shifts = [], []
    for level in range(logits.shape[1]):
        rows = known[:, level]
        slope, shift = _fit(logits[rows, level].double(), yes[rows, level].double())
        slopes.append(slope)
        shifts.append(shift)
    return torch.tensor(slopes, dtype=logits.dtype), torch.tensor(shifts, dtype=logits.dtype)


def _fit(logits: Tensor, outcome: Tensor) -> tuple[float, float]:
    beta = _newton(torch.stack((logits, torch.ones_like(logits)), -1), outcome, torch.tensor([1.0, 0.0], dtype=torch.float64))
    if float(beta[0]) >= 0.0:
        return float(beta[0]), float(beta[1])
    return 0.0, float(_newton(torch.ones_like(logits)[:, None], outcome, torch.zeros(1, dtype=torch.float64))[0])


def _newton(design: Tensor, outcome: Tensor, start: Tensor) -> Tensor:
    """Maximum a posteriori of a logistic regression around `start`; the curvature of a coin flip is 1/4."""
    pull = torch.full_like(start, PRIOR / 4.0)
    beta = start.clone()
    for _ in range(_STEPS):
        probability = torch.sigmoid(design @ beta)
        gradient = design.T @ (probability - outcome) + pull * (beta - start)
        curvature = design.T @ (design * (probability * (1.0 - probability))[:, None]) + torch.diag(pull)
        step = torch.linalg.solve(curvature, gradient)
        beta = beta - step.clamp(-2.0, 2.0)  # far from the optimum a Newton step of a logistic overshoots
    return beta


def fit_temperature(logits: Tensor, classes: Tensor) -> float:
    """What logits are divided by so that their cross-entropy is least; 1 where nothing is known.

    Args:
        logits: `[n, k]`.
        classes: what came true, `[n]`, −1 where unknown.
    """
    known = classes >= 0
    if not bool(known.any()):
        return 1.0
    chosen, truth = logits[known].double(), classes[known]
    low, high = torch.tensor([1.0 / HOTTEST, 1.0 / COLDEST], dtype=torch.float64).log().tolist()
    # Cross-entropy is convex in the inverse temperature, so its slope has one sign change and halving finds it.
    for _ in range(40):
        middle = (low + high) / 2.0
        inverse = torch.tensor(middle, dtype=torch.float64).exp().requires_grad_()
        slope = torch.autograd.grad(functional.cross_entropy(chosen * inverse, truth), inverse)[0]
        low, high = (low, middle) if float(slope) > 0.0 else (middle, high)
    return float(torch.tensor(-(low + high) / 2.0, dtype=torch.float64).exp())
