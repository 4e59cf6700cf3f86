"""What a forecaster has to beat, fitted on the very rows, features and scalers that it learns from.

- `zero`: prices do not move in any foreseeable way.
- `ewma`: the volatility of the next bars is that of the last ones, times a constant; directions and quantiles as often as in training.
- `ridge`: closed form on the newest bar's scaled features, for the move and for the logarithm of the volatility. The penalty follows from
  a belief (`signals.feature_ridge`), nothing is searched.
- `lightgbm` (extra `baselines`): gradient-boosted trees on the same rows, stopped on the same validation stretch.

Directions of ridge are those of a normal distribution with its move and volatility; quantiles of both are their move plus their volatility
times the quantiles of what was left over in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import erf
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.predictions import Bools, Floats, Outcomes, Predictions
from cryptoalpha.lifecycle.recipes.tallies import LEAST_VOLATILITY
from cryptoalpha.lifecycle.recipes.verdict import EWMA, LIGHTGBM, RIDGE, ZERO
from cryptoalpha.signals.config import FeatureRidgeConfig
from cryptoalpha.signals.feature_ridge import normal_equations, predict, solve_positive

NAMES = (ZERO, EWMA, RIDGE, LIGHTGBM)

VOLATILITY_R2 = 0.3
"""Share of the variance of log volatility that all features together are believed to explain: volatility is far easier than moves."""

TREES = {
    "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 400, "lambda_l2": 10.0, "feature_fraction": 0.5, "bagging_fraction": 0.5,
    "bagging_freq": 1, "max_bin": 63, "num_threads": 1, "deterministic": True, "force_col_wise": True, "verbosity": -1,
}  # fmt: skip
"""Small trees and strong shrinkage, the usual choice where the signal is faint; not tuned on the data it is judged by."""

MOST_TREES = 200
PATIENCE_TREES = 20

_erf: Callable[[Floats], Floats] = np.vectorize(erf, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one fold: features scaled by the fold's own scalers, `[T, N, F]` (0 where missing), the assets that have a bar `[T, N]`,
    and what happened."""

    features: Floats
    present: Bools
    outcomes: Outcomes
    levels: tuple[float, ...]


def is_installed(name: str) -> bool:
    """Whether a baseline's library is there."""
    return name != LIGHTGBM or find_spec("lightgbm") is not None


def baseline(name: str, table: Table, fold: Fold, *, seed: int = 0) -> Predictions:
    """What a baseline, fitted on the fold's training rows, says about its test rows.

    Raises:
        ConfigError: for an unknown name, or if its library is missing.
    """
    if name == ZERO:
        return Predictions(name, location=np.zeros(table.outcomes.move[fold.test].shape))
    if name == EWMA:
        return _ewma(table, fold)
    if name == RIDGE:
        return _from_parts(name, table, fold, lambda horizon: _ridge(table, fold, horizon))
    if name != LIGHTGBM:
        raise ConfigError(f"there is no baseline {name!r}", hint=f"there are: {', '.join(NAMES)}")
    if not is_installed(name):
        raise ConfigError("the baseline lightgbm needs LightGBM", hint="python -m pip install 'cryptoalpha[baselines]'")
    return _from_parts(name, table, fold, lambda horizon: _trees(table, fold, horizon, seed))


def ridge_weights(table: Table, fold: Fold) -> tuple[Floats, Floats]:
    """Weights `[H, F]` and intercepts `[H]` of ridge's expected moves: where the network's straight line may begin. The intercept is 0:
    drift is for other sources to find."""
    weights = np.stack([_solve(table, fold, horizon)[0] for horizon in range(len(table.outcomes.horizon_bars))])
    return weights, np.zeros(len(weights))


def _ewma(table: Table, fold: Fold) -> Predictions:
    outcomes, shape = table.outcomes, table.outcomes.move[fold.test].shape
    volatility, direction = np.empty(shape), np.empty((*shape, 3))
    quantiles = np.empty((*shape, len(table.levels)))
    classes = outcomes.classes()[fold.train]
    for h in range(shape[2]):
        realised, move = outcomes.volatility[fold.train, :, h], outcomes.move[fold.train, :, h]
        volatility[:, :, h] = np.sqrt(np.nanmean(realised**2))  # the constant of least QLIKE
        counts = np.bincount(classes[:, :, h][classes[:, :, h] >= 0], minlength=3)
        direction[:, :, h] = counts / counts.sum()
        quantiles[:, :, h] = np.nanquantile(move, table.levels)
    return Predictions(EWMA, None, direction, volatility, direction.max(axis=3), quantiles if table.levels else None)


@dataclass(frozen=True, eq=False)
class _Parts:
    """One horizon's answers at training rows (for what is left over) and test rows, `[n, N]`."""

    train: tuple[Floats, Floats]
    test: tuple[Floats, Floats]
    direction: Floats | None = None


def _from_parts(name: str, table: Table, fold: Fold, fit: Callable[[int], _Parts]) -> Predictions:
    outcomes, shape = table.outcomes, table.outcomes.move[fold.test].shape
    location, volatility, direction = np.empty(shape), np.empty(shape), np.empty((*shape, 3))
    quantiles = np.empty((*shape, len(table.levels)))
    for h in range(shape[2]):
        parts = fit(h)
        left_over = (outcomes.move[fold.train, :, h] - parts.train[0]) / parts.train[1]
        location[:, :, h], volatility[:, :, h] = parts.test
        chances = _normal_classes(*parts.test, outcomes.sideways) if parts.direction is None else parts.direction
        direction[:, :, h] = chances
        if table.levels:
            spread = np.nanquantile(left_over, table.levels)
            quantiles[:, :, h] = location[:, :, h, None] + volatility[:, :, h, None] * spread
    return Predictions(name, location, direction, volatility, direction.max(axis=3), quantiles if table.levels else None)


def _normal_classes(location: Floats, volatility: Floats, sideways: float) -> Floats:
    up = 0.5 - 0.5 * _erf((sideways - location) / (volatility * np.sqrt(2.0)))
    down = 0.5 - 0.5 * _erf((sideways + location) / (volatility * np.sqrt(2.0)))
    return np.stack((up, down, 1.0 - up - down), axis=-1)


def _labelled(table: Table, fold: Fold, horizon: int) -> Bools:
    """Training rows and assets that have a bar, a move and a volatility, `[n, N]`."""
    outcomes = table.outcomes
    known = np.isfinite(outcomes.move[fold.train, :, horizon]) & np.isfinite(outcomes.volatility[fold.train, :, horizon])
    return np.asarray(table.present[fold.train] & known)


def _solve(table: Table, fold: Fold, horizon: int) -> tuple[Floats, Floats]:
    """Weights `[F]` for the move and for log volatility (its mean is the second answer's last entry)."""
    belief, outcomes = FeatureRidgeConfig(), table.outcomes
    labelled = _labelled(table, fold, horizon)
    rows = np.ascontiguousarray(table.features[fold.train][labelled], np.float64)
    move = np.clip(outcomes.move[fold.train, :, horizon][labelled], -belief.label_clip, belief.label_clip)
    storm = np.log(np.maximum(outcomes.volatility[fold.train, :, horizon][labelled], LEAST_VOLATILITY))
    n, width = rows.shape
    bars = max(1, int(labelled.any(axis=1).sum()))
    independent = min(1.0, 1.0 / outcomes.horizon_bars[horizon]) / (1.0 + max(0.0, n / bars - 1.0) * belief.asset_correlation)
    gram, moment = normal_equations(rows, move - move.mean())
    other = predict(np.ascontiguousarray(rows.T), storm - storm.mean())
    solved = [
        solve_positive(gram / n + width / (r2 * n * independent) * np.eye(width), side / n)
        for side, r2 in ((moment, belief.prior_r2), (other, VOLATILITY_R2))
    ]
    return solved[0], np.append(solved[1], storm.mean())


def _ridge(table: Table, fold: Fold, horizon: int) -> _Parts:
    weights, storm = _solve(table, fold, horizon)

    def said(rows: np.ndarray) -> tuple[Floats, Floats]:
        flat = np.ascontiguousarray(table.features[rows].reshape(-1, len(weights)), np.float64)
        shape = table.features[rows].shape[:2]
        return predict(flat, weights).reshape(shape), np.exp(predict(flat, storm[:-1]) + storm[-1]).reshape(shape)

    train, test = said(fold.train), said(fold.test)
    return _level(table, fold, horizon, train, test)


def _level(
    table: Table, fold: Fold, horizon: int, train: tuple[Floats, Floats], test: tuple[Floats, Floats], direction: Floats | None = None
) -> _Parts:
    """Volatility times the constant of least QLIKE in training: the exponential of a mean logarithm is too low."""
    ratio = (table.outcomes.volatility[fold.train, :, horizon] / train[1])[_labelled(table, fold, horizon)]
    factor = float(np.sqrt(np.mean(ratio**2)))
    return _Parts((train[0], train[1] * factor), (test[0], test[1] * factor), direction)


def _trees(table: Table, fold: Fold, horizon: int, seed: int) -> _Parts:
    import lightgbm

    outcomes, belief = table.outcomes, FeatureRidgeConfig()
    move, storm = outcomes.move[:, :, horizon], np.log(np.maximum(outcomes.volatility[:, :, horizon], LEAST_VOLATILITY))
    classes = outcomes.classes()[:, :, horizon].astype(np.float64)
    usable = table.present & np.isfinite(move) & np.isfinite(storm)

    def fitted(target: Floats, objective: dict[str, object]) -> Callable[[np.ndarray], Floats]:
        sets: list[Any] = []
        for rows in (fold.train, fold.validation):
            chosen = usable[rows]
            sets.append(lightgbm.Dataset(table.features[rows][chosen], target[rows][chosen], reference=sets[0] if sets else None))
        stop = lightgbm.early_stopping(PATIENCE_TREES, verbose=False)
        booster = lightgbm.train({**TREES, **objective, "seed": seed}, sets[0], MOST_TREES, valid_sets=[sets[1]], callbacks=[stop])

        def said(rows: np.ndarray) -> Floats:
            features = table.features[rows]
            answers = np.asarray(booster.predict(features.reshape(-1, features.shape[2]), num_threads=1), np.float64)
            return answers.reshape(*features.shape[:2], *answers.shape[1:])

        return said

    where = fitted(np.clip(move, -belief.label_clip, belief.label_clip), {"objective": "regression"})
    how_much = fitted(storm, {"objective": "regression"})
    which = fitted(classes, {"objective": "multiclass", "num_class": 3})
    train, test = ((where(rows), np.exp(how_much(rows))) for rows in (fold.train, fold.test))
    return _level(table, fold, horizon, train, test, which(fold.test))
