"""Does the forecaster find what is there, and nothing where nothing is? Planted markets with a known oracle.

    cryptoalpha bench skill --json --repeats 5

For each strength of the edge (oracle IC .10 and .05) and each of `repeats` seeds a market is drawn. Everybody learns from its first 70 %,
the newest tenth of them for stopping and penalties, and is judged on the last 30 %, purged of labels that overlap. A figure is the mean IC
over the seeds as a share of the oracle's IC on the same bars; IC is the correlation over all bars and assets. Groups change every 2,000
bars, so what was learned about names is worth little at the test, what was learned about relations all. `without_pairs` is the same
network without its pair representation, `without_peer_line` without the straight line over pairs, so that attention alone must carry
the edge, `told_ridge` a regression that is told which sums to look at: the edge is linear in them, so it is a mark near the best there is.

On pure noise the interval of the IC (stationary block bootstrap over bars, 95 %) should hold 0: on 19 of 20 seeds if all is honest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cryptoalpha.app.bench.skill_models import (
    asset_ridge,
    centred,
    forecaster_predictions,
    lightgbm_predictions,
    pooled_correlation,
    pooled_ridge,
    told_ridge,
)
from cryptoalpha.app.bench.skill_world import Floats, SkillWorld, skill_world
from cryptoalpha.learn.problems.planted_market import planted_market
from cryptoalpha.monitoring.bootstrap import Interval, bootstrap_interval

Figures = dict[str, float | None]

EDGES = (0.10, 0.05)
BARS = {0.10: 40_000, 0.05: 80_000, 0.0: 40_000}
"""Length of a market by its edge; half the edge would need four times the bars to be known as well, and gets twice as many."""
CONTEXT, BLOCK = 8, 56
FIRST_SEED = 100
"""Seeds below served to choose sizes, step size and length; what is reported comes from seeds that chose nothing."""
RESAMPLES = 1_000


@dataclass(frozen=True)
class EdgeResult:
    """Mean IC of each competitor over all seeds; None where it is not installed."""

    oracle: float
    scores: dict[str, float | None]

    def share(self, name: str) -> float | None:
        score = self.scores[name]
        return None if score is None else score / self.oracle


def bench_skill(*, repeats: int, advance: Callable[[int], None]) -> tuple[Figures, tuple[str, ...]]:
    """Measure on `repeats` seeds; returns figures by key and notes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: Figures = {}
    notes: list[str] = []
    try:
        for edge in EDGES:
            result = edge_result(edge, seeds=repeats, bars=BARS[edge], advance=advance)
            key = f"edge{round(100 * edge):02d}"
            figures.update({f"{key}_share_{name}": result.share(name) for name in result.scores})
            figures[f"{key}_over_best_ridge"] = _over_best(result, ("pooled_ridge", "asset_ridge"))
            figures[f"{key}_over_without_pairs"] = _over_best(result, ("without_pairs",))
            figures[f"{key}_over_told_ridge"] = _over_best(result, ("told_ridge",))
            notes.append(f"oracle IC {edge}: measured {result.oracle:.4f}, mean of {repeats} seeds, {BARS[edge]:,} bars of 8 assets each")
            if result.scores["lightgbm"] is None:
                notes.append("LightGBM is not installed: python -m pip install 'cryptoalpha[baselines]'")
        intervals, pooled = noise_intervals(seeds=repeats, bars=BARS[0.0], advance=advance)
    finally:
        torch.set_num_threads(threads)
    figures["noise_ic"], figures["noise_ic_low"], figures["noise_ic_high"] = pooled.estimate, pooled.low, pooled.high
    figures["noise_intervals_with_zero"] = float(np.mean([one.low <= 0.0 <= one.high for one in intervals]))
    notes.append("noise: interval of all seeds' test bars together; and the share of single seeds whose interval holds 0")
    return figures, tuple(notes)


def edge_result(edge: float, *, seeds: int, bars: int, advance: Callable[[int], None]) -> EdgeResult:
    """Everybody on `seeds` markets of this edge."""
    oracle: list[float] = []
    scores: dict[str, list[float | None]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        world = _world(edge, bars, seed)
        test = world.bars(world.test)
        moves = world.moves[test]
        oracle.append(pooled_correlation(world.oracle[test], moves))
        found: dict[str, Floats | None] = {
            "forecaster": forecaster_predictions(world, seed=seed),
            "without_pairs": forecaster_predictions(world, seed=seed, pairs=False),
            "without_peer_line": forecaster_predictions(world, seed=seed, peer_line=False),
            "pooled_ridge": pooled_ridge(world),
            "asset_ridge": asset_ridge(world),
            "told_ridge": told_ridge(world),
            "lightgbm": lightgbm_predictions(world, seed=seed),
        }
        for name, predictions in found.items():
            scores.setdefault(name, []).append(None if predictions is None else pooled_correlation(predictions, moves))
        advance(1)
    return EdgeResult(float(np.mean(oracle)), {name: _mean(values) for name, values in scores.items()})


def noise_intervals(*, seeds: int, bars: int, advance: Callable[[int], None]) -> tuple[list[Interval], Interval]:
    """Intervals of the forecaster's IC on markets without an edge: of each seed, and of all test bars together."""
    intervals, predictions, moves = [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        world = _world(0.0, bars, seed)
        predicted, moved = forecaster_predictions(world, seed=seed), world.moves[world.bars(world.test)]
        intervals.append(correlation_interval(predicted, moved, seed=seed))
        predictions.append(centred(predicted) / max(float(predicted.std()), 1e-12))  # each seed counts alike
        moves.append(moved)
        advance(1)
    return intervals, correlation_interval(np.concatenate(predictions), np.concatenate(moves), seed=0)


def correlation_interval(predictions: Floats, moves: Floats, *, seed: int) -> Interval:
    """Block-bootstrap interval of the pooled correlation `[T, A]`: bars are resampled in blocks, all assets of a bar together.

    The products of a bar are divided by the sizes over all bars, so that the mean of their series is the correlation.
    """
    predictions, moves = centred(predictions), centred(moves)
    size = float(np.sqrt((predictions**2).mean() * (moves**2).mean()))
    series = (predictions * moves).mean(axis=1) / (1.0 if size == 0.0 else size)
    return bootstrap_interval(series, lambda drawn: float(drawn.mean()), seed=seed, name="skill", resamples=RESAMPLES)


def _world(edge: float, bars: int, seed: int) -> SkillWorld:
    return skill_world(planted_market(ic=edge, bars=bars, seed=seed), context=CONTEXT, block=BLOCK)


def _over_best(result: EdgeResult, names: tuple[str, ...]) -> float | None:
    """The forecaster's mean IC over the best of these; None if none of them has one above 0."""
    best, own = max((score for name in names if (score := result.scores[name]) is not None), default=0.0), result.scores["forecaster"]
    return own / best if own is not None and best > 0.0 else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
