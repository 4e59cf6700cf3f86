"""Who competes for the planted edge: the forecaster, with and without its pair representation, ridge regressions and LightGBM.

All learn from the same training bars of a world and answer the same test bars. Penalties and stopping are chosen on the validation bars.
The forecaster is the real one, small; its training is `learn.fit` with the loss it is trained with on real bars.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryptoalpha.app.bench.skill_world import Floats, SkillBlocks, SkillWorld
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit import FitProgress, fit
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.nets.forecaster.losses import forecast_loss
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import ForecastInputs, ForecastTargets

SIZES = EvoformerConfig(
    sequence_width=32,
    pair_width=8,
    head_width=8,
    heads=4,
    pair_heads=2,
    pair_head_width=4,
    outer_width=4,
    blocks=2,
    row_dropout=0.0,
    pair_dropout=0.0,
)
TRAINING = FitConfig(learning_rate=4e-3, batch=4, epochs=1, weight_decay=0.05, warmup=0.05)
"""One pass: a simulated market may be as long as it takes, and what is seen once cannot be learned by heart."""

SIDEWAYS = 0.43
PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)
"""Ridge penalties tried, in observations' worth of a feature of variance 1."""

Batch = tuple[ForecastInputs, ForecastTargets]


def pooled_correlation(predictions: Floats, moves: Floats) -> float:
    """Pearson correlation over all bars and assets together: what the oracle's ρ is.

    0 for predictions that are all alike, which say nothing about which move is the larger.
    """
    predictions, moves = centred(predictions), centred(moves)
    size = float(np.sqrt((predictions**2).sum() * (moves**2).sum()))
    return 0.0 if size == 0.0 else float((predictions * moves).sum()) / size


def centred(values: Floats) -> Floats:
    """`values` less their mean over everything; exactly 0 where they are all alike."""
    return np.zeros_like(values) if (values == values.flat[0]).all() else values - values.mean()


def forecaster_predictions(
    world: SkillWorld,
    *,
    seed: int,
    pairs: bool = True,
    peer_line: bool = True,
    sizes: EvoformerConfig = SIZES,
    training: FitConfig = TRAINING,
    progress: Callable[[FitProgress], None] | None = None,
) -> Floats:
    """Expected moves at the test bars, `[test bars, A]`, of a forecaster trained on this world.

    Args:
        pairs: False leaves out the pair representation.
        peer_line: False holds the straight line over pairs at zero, so that only attention can carry an edge between assets.
    """
    net = Forecaster(
        sizes,
        HeadsConfig(),
        horizons=1,
        price=world.own.shape[-1],
        chain=1,
        text=1,
        pair=world.pairs.shape[-1],
        seed=seed,
        pair_representation=pairs,
    )
    net.peers.requires_grad_(peer_line)  # it begins at zero
    train, validation, test = (SkillBlocks(world, blocks) for blocks in (world.train, world.validation, world.test))
    known = world.moves[world.bars(world.validation)]
    fit(
        net,
        _loss,
        train,
        config=training,
        seed=seed,
        validate=lambda model: -pooled_correlation(located(model, validation), known),
        progress=progress,
    )
    return located(net, test)


def located(net: nn.Module, samples: SkillBlocks, *, batch: int = 16) -> Floats:
    """Expected moves at the answered bars of these blocks, `[bars, A]`."""
    net.eval()
    with torch.no_grad():
        batches = (torch.arange(begin, min(begin + batch, len(samples))) for begin in range(0, len(samples), batch))
        parts = [net(samples.take(some)[0]).location[:, samples.world.context :, :, 0] for some in batches]
    return np.asarray(torch.cat(parts).flatten(0, 1).numpy(), dtype=np.float64)


def pooled_ridge(world: SkillWorld) -> Floats:
    """One ridge on an asset's own features, the same for all assets."""

    def rows(bars: NDArray[np.int64]) -> Floats:
        return world.own[bars].reshape(-1, world.own.shape[-1])

    return _ridge(world, rows, lambda bars: world.moves[bars].reshape(-1, 1))


def asset_ridge(world: SkillWorld) -> Floats:
    """A ridge for each asset on the features of all assets."""
    return _ridge(world, lambda bars: world.own[bars].reshape(len(bars), -1), lambda bars: world.moves[bars])


def told_ridge(world: SkillWorld) -> Floats:
    """One ridge that is told where to look: own features, and those of the peers summed evenly and weighed by each trailing correlation. No
    rival but a mark: what a person finds who has already guessed how this market works."""

    def rows(bars: NDArray[np.int64]) -> Floats:
        own = world.own[bars]
        weights = np.concatenate((np.ones((*world.pairs.shape[1:3], 1))[None].repeat(len(bars), axis=0), world.pairs[bars]), axis=-1)
        others = weights * ~np.eye(own.shape[1], dtype=bool)[:, :, None]
        weighed = np.einsum("tijf,tjp->tifp", others, own).reshape(*own.shape[:2], -1)
        return np.concatenate((own, weighed), axis=-1).reshape(-1, own.shape[-1] * (1 + weights.shape[-1]))

    return _ridge(world, rows, lambda bars: world.moves[bars].reshape(-1, 1))


def lightgbm_predictions(world: SkillWorld, *, seed: int) -> Floats | None:
    """Gradient-boosted trees for each asset on the features of all assets and its trailing correlations; None if not installed."""
    if find_spec("lightgbm") is None:
        return None
    import lightgbm

    settings = {
        "objective": "regression",
        "learning_rate": 0.02,
        "num_leaves": 8,
        "min_data_in_leaf": 200,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "lambda_l2": 10.0,
        "verbosity": -1,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
    }
    columns = []
    for asset in range(world.moves.shape[1]):

        def rows(bars: NDArray[np.int64], asset: int = asset) -> Floats:
            return np.concatenate((world.own[bars].reshape(len(bars), -1), world.pairs[bars, asset].reshape(len(bars), -1)), axis=1)

        train, validation, test = (world.bars(blocks) for blocks in (world.train, world.validation, world.test))
        taught = lightgbm.Dataset(rows(train), world.moves[train, asset])
        checked = lightgbm.Dataset(rows(validation), world.moves[validation, asset], reference=taught)
        stop = lightgbm.early_stopping(50, verbose=False)
        trees = lightgbm.train(settings, taught, num_boost_round=400, valid_sets=[checked], callbacks=[stop])
        columns.append(trees.predict(rows(test)))
    return np.stack(columns, axis=1)


def _ridge(world: SkillWorld, rows: Callable[[NDArray[np.int64]], Floats], wanted: Callable[[NDArray[np.int64]], Floats]) -> Floats:
    train, validation, test = (world.bars(blocks) for blocks in (world.train, world.validation, world.test))
    x, y = rows(train), wanted(train)
    gram, moment = x.T @ x, x.T @ y
    fits = [np.linalg.solve(gram + penalty * np.eye(len(gram)), moment) for penalty in PENALTIES]
    best = max(fits, key=lambda weights: pooled_correlation(rows(validation) @ weights, wanted(validation)))
    return np.asarray((rows(test) @ best).reshape(len(test), -1))


def _loss(net: nn.Module, batch: Batch) -> torch.Tensor:
    return forecast_loss(net(batch[0]), batch[1], sideways=SIDEWAYS)
