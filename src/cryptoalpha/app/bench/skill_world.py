"""A planted market as the forecaster sees it: features, blocks, labels, and which blocks may teach beside which that judge.

Features of an asset: its last returns and their sums; features of a pair: trailing correlations of three windows, as they stand on real
bars. Chain and text are there and missing, as on most days. All are known with the bar they belong to; labels begin with the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.learn.problems.planted_market import PlantedMarket
from cryptoalpha.learn.splits.folds import walk_forward
from cryptoalpha.nets.forecaster.values import ForecastInputs, ForecastTargets

Floats = NDArray[np.float64]

LAGS = (0, 1, 2)
SUMS = (4, 8, 16)
CORRELATION_BARS = (24, 96, 336)
AHEAD = 24
"""Bars over which the correlation ahead is measured."""


@dataclass(frozen=True, eq=False)
class SkillWorld:
    """Arrays over all bars T of one market, scaled by what the training bars say."""

    own: Floats
    """`[T, A, P]`"""
    pairs: Floats
    """`[T, A, A, F]`"""
    moves: Floats
    """Return of the next bar, `[T, A]`; NaN at the end."""
    correlations: Floats
    """Realised correlation of the next bars, `[T, A, A]`; NaN at the end."""
    oracle: Floats
    """`[T, A]`"""
    context: int
    block: int
    train: NDArray[np.int64]
    """Numbers of the blocks that teach; block k answers bars k·block … (k + 1)·block − 1."""
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def bars(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The bars that these blocks answer, one after the other."""
        return np.asarray((blocks[:, None] * self.block + np.arange(self.block)).reshape(-1))


def skill_world(market: PlantedMarket, *, context: int, block: int, validation_share: float = 0.1, test_share: float = 0.3) -> SkillWorld:
    """Features and labels of a market, cut into blocks: the oldest teach, then validation, then the test, purged by the labels' ends."""
    returns = market.returns
    bars, assets = returns.shape
    first = (max(CORRELATION_BARS) + context) // block + 1
    blocks = np.arange(first, (bars - 1) // block)  # the last bar has no next one, so it is in no block
    starts, ends = blocks * block, (blocks + 1) * block - 1 + AHEAD  # the last label of a block ends here
    (outer,) = walk_forward(starts, ends, folds=1, first_train_share=1.0 - test_share)
    (inner,) = walk_forward(starts[outer.train], ends[outer.train], folds=1, first_train_share=1.0 - validation_share)
    train, validation = blocks[outer.train][inner.train], blocks[outer.train][inner.test]
    own, pairs = own_features(returns), pair_features(returns)
    taught = slice(first * block, (train[-1] + 1) * block)
    off = ~np.eye(assets, dtype=bool)
    own = (own - own[taught].mean(axis=(0, 1))) / own[taught].std(axis=(0, 1))
    pairs = (pairs - pairs[taught][:, off].mean(axis=(0, 1))) / pairs[taught][:, off].std(axis=(0, 1))
    moves = np.full((bars, assets), np.nan)
    moves[:-1] = returns[1:]
    return SkillWorld(own, pairs, moves, correlation_ahead(returns), market.oracle, context, block, train, validation, blocks[outer.test])


def own_features(returns: Floats) -> Floats:
    """Last returns and sums of returns of each asset, `[T, A, P]`, variance about 1."""
    lagged = [np.roll(returns, lag, axis=0) for lag in LAGS]
    for lag, column in zip(LAGS, lagged, strict=True):
        column[:lag] = 0.0
    total = np.concatenate((np.zeros((1, returns.shape[1])), returns.cumsum(axis=0)))
    sums = [(total[1:] - total[np.maximum(np.arange(len(returns)) + 1 - bars, 0)]) / np.sqrt(bars) for bars in SUMS]
    return np.stack((*lagged, *sums), axis=-1)


def pair_features(returns: Floats) -> Floats:
    """Trailing correlations, `[T, A, A, F]`; the first bars see what there is."""
    return np.stack([_windowed_correlation(returns, bars) for bars in CORRELATION_BARS], axis=-1)


def correlation_ahead(returns: Floats) -> Floats:
    """Correlation of the next `AHEAD` returns, `[T, A, A]`; NaN where they are not all known."""
    trailing = _windowed_correlation(returns, AHEAD)
    ahead = np.full(trailing.shape, np.nan)
    ahead[:-AHEAD] = trailing[AHEAD:]
    return ahead


def _windowed_correlation(returns: Floats, bars: int) -> Floats:
    products = returns[:, :, None] * returns[:, None, :]
    total = np.concatenate((np.zeros((1, *products.shape[1:])), products.cumsum(axis=0)))
    begin = np.maximum(np.arange(len(returns)) + 1 - bars, 0)
    mean = total[1:] - total[begin]
    variance = np.maximum(np.einsum("tii->ti", mean), 1e-12)
    return np.asarray(mean / np.sqrt(variance[:, :, None] * variance[:, None, :]))


class SkillBlocks:
    """Blocks of a world as training samples: `(inputs, targets)` per batch. Implements `learn.fit.Samples`."""

    def __init__(self, world: SkillWorld, blocks: NDArray[np.int64]) -> None:
        self.world, self.blocks = world, torch.from_numpy(blocks)
        self._own = torch.from_numpy(world.own.astype(np.float32))
        self._pairs = torch.from_numpy(world.pairs.astype(np.float32))
        self._moves = torch.from_numpy(world.moves.astype(np.float32))
        self._correlations = torch.from_numpy(world.correlations.astype(np.float32))

    def __len__(self) -> int:
        return len(self.blocks)

    def take(self, indices: torch.Tensor) -> tuple[ForecastInputs, ForecastTargets]:
        world = self.world
        rows = world.context + world.block
        at = self.blocks[indices][:, None] * world.block + torch.arange(-world.context, world.block)  # [b, S]
        own, pairs, moves = self._own[at], self._pairs[at], self._moves[at]
        batch, assets = len(at), own.shape[2]
        absent = torch.zeros(batch, rows, assets, 1)
        seen = torch.ones(1, dtype=torch.bool)
        inputs = ForecastInputs(
            price=own,
            price_seen=seen.expand(own.shape),
            chain=absent,
            chain_seen=~seen.expand(absent.shape),
            text=absent,
            text_weight=absent[..., 0],
            pair=pairs,
            pair_seen=seen.expand(pairs.shape),
            present=seen.expand(batch, rows, assets),
        )
        supervised = (torch.arange(rows) >= world.context).expand(batch, rows)
        return inputs, ForecastTargets(moves.unsqueeze(-1), moves.abs().unsqueeze(-1), self._correlations[at], supervised)

    def fingerprint(self) -> str:
        """Sum of all returns and the blocks: worlds are drawn from seeds, so this tells them apart."""
        return f"{float(np.nansum(self.world.moves))!r} {self.blocks.tolist()!r}"
