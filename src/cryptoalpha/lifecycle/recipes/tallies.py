"""Per-moment sums from which every measure of a forecast is made.

What sums over moments are good for is said in `resampling`.

Sources: Patton (2011) for QLIKE; Koenker & Bassett (1978) for the pinball loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cryptoalpha.lifecycle.recipes.predictions import DOWN, UP, Bools, Floats, Outcomes, Predictions
from cryptoalpha.lifecycle.recipes.resampling import Columns, Measure, Sums, calibration_error, calibration_gaps, mean, ratio
from cryptoalpha.monitoring.accuracy import CROSS_SECTION

Classes = npt.NDArray[np.int64]

COVERAGES = (1.0, 0.5, 0.25, 0.1)
"""Shares of the calls, the surest first, whose accuracy is told."""

LEAST_VOLATILITY = 0.01
"""Realised volatilities below this (σ_t √h) count as this in QLIKE, whose logarithm an unchanged price would send to infinity."""

SMALLEST_PROBABILITY = 1e-6
"""Below it a probability counts as this in the logarithmic loss."""


def _correlation(sums: Sums) -> Floats:
    n = sums["n"]
    covariance = ratio(sums["pr"], n) - ratio(sums["p"], n) * ratio(sums["r"], n)
    spread_p, spread_r = (ratio(sums[2 * x], n) - ratio(sums[x], n) ** 2 for x in "pr")
    floor = 1e-12 * (ratio(sums["pp"], n) + 1e-300)  # a constant leaves rounding, not variance
    varied = (spread_p > floor) & (spread_r > 0.0)
    return np.where(varied, covariance / np.sqrt(np.where(varied, spread_p * spread_r, 1.0)), np.nan)


MEASURES: dict[str, Measure] = {
    "ic": Measure("IC", 1, _correlation),
    "rank_ic": Measure("rank IC", 1, mean("rank", "rank n")),
    "accuracy": Measure("up/down right", 1, mean("right", "right n")),
    "three_way": Measure("class right", 1, mean("class", "class n")),
    "log_loss": Measure("log loss", -1, mean("log loss", "class n")),
    "qlike": Measure("QLIKE", -1, mean("qlike", "volatility n")),
    "volatility_mae": Measure("volatility MAE", -1, mean("volatility gap", "volatility n")),
    "ece": Measure("ECE", -1, calibration_error("confidence")),
    **{f"selective_{c:.0%}": Measure(f"right at {c:.0%}", 1, mean(f"sure {c}", f"sure {c} n")) for c in COVERAGES},
    "pinball": Measure("pinball", -1, mean("pinball", "quantile n")),
    "coverage": Measure("inside the outer quantiles", 0, mean("inside", "quantile n")),
}
"""By name, in the order of the tables."""


def tally(predictions: Predictions, outcomes: Outcomes, seen: Mapping[str, Bools], horizon: int, levels: tuple[float, ...]) -> Columns:
    """The columns `[T]` of one model at one horizon (its place in `outcomes.horizon_bars`).

    Args:
        seen: by part of the predictions, where it is judged, `[T, N]`; the same for all models that are compared.
        levels: probabilities of the quantiles.
    """
    move, classes = outcomes.move[:, :, horizon], outcomes.classes()[:, :, horizon]
    columns: Columns = {}
    if predictions.location is not None:
        columns |= _of_location(predictions.location[:, :, horizon], move, seen["location"])
    if predictions.direction is not None:
        columns |= _of_direction(predictions.direction[:, :, horizon], move, classes, seen["direction"])
        if predictions.confidence is not None:
            hit = predictions.direction[:, :, horizon].argmax(axis=2) == classes
            columns |= _of_confidence(predictions.confidence[:, :, horizon], hit, seen["direction"] & seen["confidence"])
    if predictions.volatility is not None:
        columns |= _of_volatility(predictions.volatility[:, :, horizon], outcomes.volatility[:, :, horizon], seen["volatility"])
    if predictions.quantiles is not None and levels:
        columns |= _of_quantiles(predictions.quantiles[:, :, horizon], move, seen["quantiles"], levels)
    return columns


def measured(sums: Sums) -> dict[str, Floats]:
    """Every measure whose columns are there."""
    needed = {"ic": "p", "rank_ic": "rank", "accuracy": "right", "three_way": "class", "log_loss": "log loss", "qlike": "qlike"}
    needed |= {"volatility_mae": "volatility gap", "ece": "confidence gap 0", "pinball": "pinball", "coverage": "inside"}
    needed |= {f"selective_{c:.0%}": f"sure {c}" for c in COVERAGES}
    return {name: measure.of(sums) for name, measure in MEASURES.items() if needed[name] in sums}


def squared_error(location: Floats, move: Floats, seen: Bools) -> Floats:
    """Squared error of the expected move, mean over assets at each moment `[T]`; NaN where nothing was seen."""
    return _per_moment((location - move) ** 2, seen)


def qlike(volatility: Floats, realised: Floats, seen: Bools) -> Floats:
    """QLIKE of a volatility, mean over assets at each moment `[T]`; NaN where nothing was seen. RV/s² − ln(RV/s²) − 1."""
    return _per_moment(_qlike(volatility, realised, seen), seen)


def _per_moment(loss: Floats, seen: Bools) -> Floats:
    return ratio(np.where(seen, loss, 0.0).sum(axis=1), seen.sum(axis=1))


def _qlike(volatility: Floats, realised: Floats, seen: Bools) -> Floats:
    ratio = np.where(seen, np.maximum(realised, LEAST_VOLATILITY) / np.where(seen, volatility, 1.0), 1.0) ** 2
    return np.asarray(ratio - np.log(ratio) - 1.0, np.float64)


def _summed(values: Floats | Bools, seen: Bools) -> Floats:
    return np.asarray(np.where(seen, values, 0.0).sum(axis=1), np.float64)


def _of_location(p: Floats, r: Floats, seen: Bools) -> Columns:
    ranks, counted = _rank_products(p, r, seen)
    p, r = np.where(seen, p, 0.0), np.where(seen, r, 0.0)
    sums = {"n": seen, "p": p, "r": r, "pp": p * p, "rr": r * r, "pr": p * r}
    return {**{name: part.sum(axis=1).astype(np.float64) for name, part in sums.items()}, "rank": ranks, "rank n": counted}


def _of_direction(probabilities: Floats, move: Floats, classes: Classes, seen: Bools) -> Columns:
    lean = np.where(seen, probabilities[:, :, UP] - probabilities[:, :, DOWN], 0.0)
    counted = seen & (np.where(seen, move, 0.0) != 0.0) & (lean != 0.0)
    happened = np.take_along_axis(probabilities, np.maximum(classes, 0)[:, :, None], axis=2)[:, :, 0]
    surprise = -np.log(np.maximum(np.where(seen, happened, 1.0), SMALLEST_PROBABILITY))
    return {
        "right": _summed(np.sign(lean) == np.sign(move), counted),
        "right n": counted.sum(axis=1).astype(np.float64),
        "class": _summed(probabilities.argmax(axis=2) == classes, seen),
        "class n": seen.sum(axis=1).astype(np.float64),
        "log loss": _summed(surprise, seen),
    }


def _of_confidence(confidence: Floats, hit: Bools, seen: Bools) -> Columns:
    columns: Columns = {"confidence n": seen.sum(axis=1).astype(np.float64)}
    flat = confidence[seen]
    columns |= calibration_gaps("confidence", confidence, hit, seen)
    ordered = np.sort(flat)[::-1]
    for c in COVERAGES:
        threshold = ordered[min(ordered.size, max(1, int(np.ceil(c * ordered.size)))) - 1] if ordered.size else np.inf
        sure = seen & (np.where(seen, confidence, -1.0) >= threshold)  # equally sure calls are in or out together
        columns[f"sure {c}"], columns[f"sure {c} n"] = _summed(hit, sure), sure.sum(axis=1).astype(np.float64)
    return columns


def _of_volatility(volatility: Floats, realised: Floats, seen: Bools) -> Columns:
    return {
        "qlike": _summed(_qlike(volatility, realised, seen), seen),
        "volatility gap": _summed(np.abs(volatility - realised), seen),
        "volatility n": seen.sum(axis=1).astype(np.float64),
    }


def _of_quantiles(quantiles: Floats, move: Floats, seen: Bools, levels: tuple[float, ...]) -> Columns:
    tau = np.array(levels)
    gap = np.where(seen[:, :, None], move[:, :, None] - quantiles, 0.0)
    loss = np.maximum(tau * gap, (tau - 1.0) * gap).mean(axis=2)
    columns = {
        "pinball": _summed(loss, seen),
        "quantile n": seen.sum(axis=1).astype(np.float64),
        "inside": _summed((move >= quantiles[:, :, 0]) & (move <= quantiles[:, :, -1]), seen),
    }
    return columns | {f"below {q}": _summed(gap[:, :, place] <= 0.0, seen) for place, q in enumerate(levels)}


def _rank_products(p: Floats, r: Floats, seen: Bools) -> tuple[Floats, Floats]:
    """Spearman correlation across assets at each moment with at least five; with fewer assets, along time (see `monitoring.accuracy`)."""
    if p.shape[1] < CROSS_SECTION:
        return _ranks_along_time(p, r, seen)
    count = seen.sum(axis=1, keepdims=True)
    x, y = (_centred(_ranks(side, seen), seen, count) for side in (p, r))
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    used = (count[:, 0] >= CROSS_SECTION) & (scale > 0.0)
    return np.where(used, (x * y).sum(axis=1) / np.where(used, scale, 1.0), 0.0), used.astype(np.float64)


def _ranks(values: Floats, seen: Bools) -> Floats:
    """Average ranks among what was seen at each moment."""
    known = np.where(seen, values, np.nan)
    below = (known[:, None, :] < known[:, :, None]).sum(axis=2)
    equal = (known[:, None, :] == known[:, :, None]).sum(axis=2)
    return np.asarray(below + (equal + 1) / 2.0, np.float64)


def _centred(ranks: Floats, seen: Bools, count: Floats) -> Floats:
    mean = np.where(seen, ranks, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return np.where(seen, ranks - mean, 0.0)


def _ranks_along_time(p: Floats, r: Floats, seen: Bools) -> tuple[Floats, Floats]:
    total, count = np.zeros(len(p)), np.zeros(len(p))
    for asset in range(p.shape[1]):
        at = seen[:, asset]
        x, y = (_time_ranks(side[at, asset]) for side in (p, r))
        if x.size < 3 or x.std() == 0.0 or y.std() == 0.0:
            continue
        total[at] += (x - x.mean()) / x.std() * (y - y.mean()) / y.std()
        count[at] += 1
    return np.divide(total, count, out=np.zeros(len(p)), where=count > 0), (count > 0).astype(np.float64)


def _time_ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], np.float64)
