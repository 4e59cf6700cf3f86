"""Was the winner of many trials picked for its luck? The probability of backtest overfitting, by cross-validation over all halves.

The history is cut into blocks; every choice of half of them is once the sample in which the best trial is picked and once the sample in
which the pick is judged. If the picks rank below the middle in the other half as often as not, picking was worth nothing.

Source: Bailey, Borwein, López de Prado & Zhu (2017), "The probability of backtest overfitting" (combinatorially symmetric
cross-validation). Departures: `T mod blocks` of the oldest rows are dropped; equal results share their average rank; a trial that does
not vary within a half has a Sharpe ratio of 0 there, so that trials which stood idle can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, as_floats
from cryptoalpha.monitoring.ratios import FLOOR, NAN, NOISE

_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class BacktestOverfitting:
    """What became of the pick of each half in the other half."""

    probability: float
    """Share of picks that ranked at or below the middle of all trials in the other half (0–1); .5 means that picking was worth nothing.
    NaN where all trials are alike and there is nothing to pick (`reason`)."""
    degradation: float
    """Slope of the pick's Sharpe ratio outside its sample on that within it; NaN where all picks looked alike (`reason`)."""
    loss_probability: float
    """Share of picks with a negative Sharpe ratio outside their sample."""
    trials: int
    blocks: int
    rows: int
    """Rows used: a whole number per block."""
    logits: Floats = field(repr=False)
    """`[C]` ln(ω / (1 − ω)) of the pick's relative rank ω in the other half, one per choice of blocks; at most 0 means overfitted."""
    inside: Floats = field(repr=False)
    """`[C]` Sharpe ratio of the pick in the half it was picked in, per period."""
    outside: Floats = field(repr=False)
    """`[C]` its Sharpe ratio in the other half, per period."""
    reason: str | None = None
    """Why `degradation`, or `probability` too, is NaN."""


def probability_of_backtest_overfitting(trial_returns: ArrayLike, *, blocks: int = 16) -> BacktestOverfitting:
    """Probability that the best of several trials was overfitted.

    Args:
        trial_returns: `[T, N]` returns of all N trials ever made, over the same T periods.
        blocks: even number of blocks S; there are S over S/2 choices, 12,870 for 16.

    Raises:
        ConfigError: for an odd number of blocks, fewer than 2 or more than 20 (184,756 choices).
        DataError: for fewer than two trials, fewer than two rows per block, or values that are not finite.
    """
    x = _trials(trial_returns, blocks)
    rows = x.shape[0] // blocks
    x = x[x.shape[0] - rows * blocks :]
    parts = (x - x.mean(axis=0)).reshape(blocks, rows, -1)
    halves = np.array(list(combinations(range(blocks), blocks // 2)))  # the i-th choice and the i-th from the end are complements
    picked = np.zeros((len(halves), blocks))
    np.put_along_axis(picked, halves, 1.0, axis=1)
    sums, squares = parts.sum(axis=1), (parts * parts).sum(axis=1)  # [S, N]
    half, noise = rows * blocks // 2, np.maximum(NOISE * np.abs(x).max(axis=0), FLOOR)
    pairs, step = len(halves) // 2, max(1, _CELLS_AT_ONCE // x.shape[1])
    logits, inside, outside = (np.empty(len(halves)) for _ in range(3))
    for start in range(0, pairs, step):
        one = np.arange(start, min(start + step, pairs))
        other = len(halves) - 1 - one
        left, right = (_sharpe(picked[c], sums, squares, x.mean(axis=0), half, noise) for c in (one, other))
        for c, a, b in ((one, left, right), (other, right, left)):
            logits[c], inside[c], outside[c] = _judged(a, b)
    slope, reason = _slope(inside, outside)
    probability = float(np.mean(logits <= 0.0))
    if bool(np.all(x == x[:, :1])) or bool(np.all(np.std(x, axis=0, ddof=1) <= noise)):  # all tied, which the logits call overfitted
        probability, slope, reason = NAN, NAN, "all trials are alike: there is nothing to pick"
    return BacktestOverfitting(
        probability,
        slope,
        float(np.mean(outside < 0.0)),
        x.shape[1],
        blocks,
        rows * blocks,
        logits,
        inside,
        outside,
        reason,
    )


def _trials(trial_returns: ArrayLike, blocks: int) -> Floats:
    if blocks % 2 or not 2 <= blocks <= 20:
        raise ConfigError(f"blocks is {blocks}, expected an even number from 2 to 20", hint="16 gives 12,870 choices, enough for any use")
    x = as_floats(trial_returns, name="trial_returns")
    if x.ndim != 2 or x.shape[1] < 2:
        raise DataError(f"trial_returns has shape {x.shape}, expected [periods, trials] with at least two trials")
    if x.shape[0] < 2 * blocks:
        raise DataError(f"{x.shape[0]} rows for {blocks} blocks, expected at least two per block", hint="use fewer blocks")
    if not np.isfinite(x).all():
        raise DataError("trial_returns holds NaN or infinity", hint="all trials must cover the same periods")
    return x


def _sharpe(picked: Floats, sums: Floats, squares: Floats, mean: Floats, count: int, noise: Floats) -> Floats:
    """Sharpe ratio of every trial in every half, `[choices, N]`, from the block sums of returns less their overall mean."""
    total = np.einsum("cs,sn->cn", picked, sums)  # not `@`: its last bit depends on how many threads the linear algebra has
    centred = np.einsum("cs,sn->cn", picked, squares) - total * total / count
    spread = np.sqrt(np.maximum(centred, 0.0) / (count - 1))
    varied = spread > noise * np.sqrt(count)  # what the difference of two sums of squares leaves of a constant
    return np.asarray(np.where(varied, (mean + total / count) / np.where(varied, spread, 1.0), 0.0), dtype=np.float64)


def _judged(inside: Floats, outside: Floats) -> tuple[Floats, Floats, Floats]:
    """Logit of the relative rank, and the Sharpe ratios in and out of sample, of the best trial of each row."""
    best = np.argmax(inside, axis=1)[:, None]
    result = np.take_along_axis(outside, best, axis=1)
    rank = (outside < result).sum(axis=1) + ((outside == result).sum(axis=1) + 1) / 2.0
    omega = rank / (outside.shape[1] + 1)
    return np.log(omega / (1.0 - omega)), np.take_along_axis(inside, best, axis=1)[:, 0], result[:, 0]


def _slope(inside: Floats, outside: Floats) -> tuple[float, str | None]:
    away = inside - inside.mean()
    total = float(np.sum(away * away))
    if not np.sqrt(total / inside.size) > max(NOISE * float(np.abs(inside).max()), FLOOR):
        return NAN, "all picks had the same Sharpe ratio in their sample"
    return float(np.sum(away * (outside - outside.mean()))) / total, None
