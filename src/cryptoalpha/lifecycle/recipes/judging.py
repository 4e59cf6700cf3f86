"""Forecasts beside their baselines: every measure with a block-bootstrap interval, paired differences, Diebold–Mariano tests.

Everything is measured on the same moments and assets for all models: where one of them said nothing, or nothing is known, nobody is judged.
Resampled are blocks of moments with all assets together, since assets move together; a block is on average at least four horizons long,
because outcomes of neighbouring moments overlap (`resampling.HORIZONS_A_BLOCK`).

Sources: Politis & Romano (1994) for the resampling (`monitoring.bootstrap`); Diebold & Mariano (1995) with the Newey–West variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.recipes.predictions import Bools, Floats, Outcomes, Predictions, check
from cryptoalpha.lifecycle.recipes.resampling import RESAMPLES, Columns, mean_block, resampled, unbiased
from cryptoalpha.lifecycle.recipes.tallies import measured, qlike, squared_error, tally
from cryptoalpha.monitoring.accuracy import newey_west_t
from cryptoalpha.monitoring.bootstrap import LEVEL, Interval, interval_of

Measures = dict[str, Interval]


@dataclass(frozen=True)
class DieboldMariano:
    """Is the mean loss of the model smaller than that of another? `statistic` > 0 speaks for the model."""

    against: str
    loss: str
    statistic: float
    p_value: float
    """Two-sided, normal; NaN where the two never differed."""
    moments: int
    lags: int

    @property
    def wins(self) -> bool:
        """Better, beyond chance at 5 %."""
        return self.statistic > 0.0 and self.p_value < 0.05


@dataclass(frozen=True)
class HorizonJudgement:
    """One horizon. `scores` by model, `differences` (the judged model less the other) by baseline."""

    horizon_bars: int
    moments: int
    pairs: int
    """Moments × assets that were judged."""
    mean_block: float
    base_rate: float
    """Share of the commonest class among what happened."""
    scores: Mapping[str, Measures]
    differences: Mapping[str, Measures]
    tests: tuple[DieboldMariano, ...]
    quantile_hits: Mapping[float, float]
    """Share of moves at or below each predicted quantile: calibrated where it is the quantile's own probability."""


def judge(
    model: Predictions,
    baselines: Sequence[Predictions],
    outcomes: Outcomes,
    *,
    levels: tuple[float, ...] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[HorizonJudgement, ...]:
    """Judge `model` beside its baselines at every horizon.

    Args:
        levels: probabilities of the quantiles, where there are any.
        seed: of the resampling.

    Raises:
        DataError: for shapes that do not fit, or where nothing can be judged.
        ConfigError: if two models have one name.
    """
    models = [model, *baselines]
    names = [each.name for each in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"models of one name cannot be told apart: {', '.join(names)}")
    for each in models:
        check(each, outcomes)
    return tuple(_judge(models, outcomes, place, levels, seed, resamples, level) for place in range(len(outcomes.horizon_bars)))


def _judge(
    models: Sequence[Predictions], outcomes: Outcomes, horizon: int, levels: tuple[float, ...], seed: int, resamples: int, level: float
) -> HorizonJudgement:
    seen = _common(models, outcomes, horizon)
    used = np.flatnonzero(np.any([part.any(axis=1) for part in seen.values()], axis=0))
    if len(used) < 2:
        raise DataError(
            f"nothing can be judged {outcomes.horizon_bars[horizon]} bars ahead: at {len(used)} moments all models said something "
            "and it is known what happened"
        )
    models, outcomes, seen = [each.rows(used) for each in models], outcomes.rows(used), {name: part[used] for name, part in seen.items()}
    columns = {each.name: tally(each, outcomes, seen, horizon, levels) for each in models}
    block = mean_block(columns[models[0].name].get("rank"), outcomes.horizon_bars[horizon], len(used))
    estimates, draws = _drawn(columns, block, seed, f"horizon {outcomes.horizon_bars[horizon]}", resamples)
    own = models[0].name
    differences = {}
    for each in models[1:]:
        shared = [name for name in draws[own] if name in draws[each.name]]
        gaps = {name: (estimates[own][name] - estimates[each.name][name], draws[own][name] - draws[each.name][name]) for name in shared}
        differences[each.name] = {name: interval_of(value, drawn, level, block) for name, (value, drawn) in gaps.items()}
    scores = {
        name: {
            key: interval_of(estimates[name][key], unbiased(key, estimates[name][key], drawn), level, block) for key, drawn in found.items()
        }
        for name, found in draws.items()
    }
    hits = {q: float(columns[own][f"below {q}"].sum() / columns[own]["quantile n"].sum()) for q in levels if f"below {q}" in columns[own]}
    classes = outcomes.classes()[:, :, horizon]
    counts = np.bincount(classes[classes >= 0], minlength=3)
    pairs = int(max(part.sum() for part in seen.values()))
    tests = _tests(models, outcomes, seen, horizon)
    return HorizonJudgement(
        outcomes.horizon_bars[horizon],
        len(used),
        pairs,
        block,
        float(counts.max() / max(counts.sum(), 1)),
        scores,
        differences,
        tests,
        hits,
    )


def _common(models: Sequence[Predictions], outcomes: Outcomes, horizon: int) -> dict[str, Bools]:
    """By part, where every model that has it said it and it is known what happened `[T, N]`."""
    moved, stormed = np.isfinite(outcomes.move[:, :, horizon]), np.isfinite(outcomes.volatility[:, :, horizon])
    seen = {}
    for part in ("location", "direction", "volatility", "confidence", "quantiles"):
        said = [np.isfinite(found[:, :, horizon]) for each in models if (found := getattr(each, part)) is not None]
        told = [each if each.ndim == 2 else each.all(axis=2) for each in said]
        if told:
            seen[part] = np.logical_and.reduce([stormed if part == "volatility" else moved, *told])
    return seen


def _drawn(
    columns: Mapping[str, Columns], block: float, seed: int, name: str, resamples: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Floats]]]:
    """Every measure of every model: on what happened, and on each resample `[resamples]`."""
    keys = [(model, column) for model, found in columns.items() for column in found]
    table = np.stack([columns[model][column] for model, column in keys], axis=1)  # [T, K]
    totals = resampled(table, block, resamples, stream(seed, "lifecycle", "judging", name))

    def split(rows: Floats) -> dict[str, dict[str, Floats]]:
        return {
            model: measured({column: rows[..., place] for place, (owner, column) in enumerate(keys) if owner == model}) for model in columns
        }

    estimates = {model: {key: float(value) for key, value in found.items()} for model, found in split(table.sum(axis=0)).items()}
    return estimates, split(totals)


def diebold_mariano(own: Floats, other: Floats, *, against: str, loss: str, horizon_bars: int) -> DieboldMariano:
    """Test of equal mean loss; losses `[T]`, NaN where nothing was judged.

    The lag is at least twice the horizon: outcomes of h bars overlap up to h − 1 bars, and Bartlett weights that end there would count only
    two thirds of the variance that the overlap makes.

    Source: Diebold & Mariano (1995), eq. 1, with Bartlett weights.
    """
    gap = other - own
    gap = gap[np.isfinite(gap)]
    lags = min(max(2 * horizon_bars, int(4.0 * (max(gap.size, 1) / 100.0) ** (2.0 / 9.0))), max(gap.size - 1, 0))
    statistic = newey_west_t(gap, lags)
    p_value = erfc(abs(statistic) / sqrt(2.0)) if np.isfinite(statistic) else float("nan")
    return DieboldMariano(against, loss, statistic, p_value, gap.size, lags)


def _tests(models: Sequence[Predictions], outcomes: Outcomes, seen: Mapping[str, Bools], horizon: int) -> tuple[DieboldMariano, ...]:
    own, bars, tests = models[0], outcomes.horizon_bars[horizon], []
    for other in models[1:]:
        if own.location is not None and other.location is not None:
            losses = [
                squared_error(each[:, :, horizon], outcomes.move[:, :, horizon], seen["location"])
                for each in (own.location, other.location)
            ]
            tests.append(diebold_mariano(*losses, against=other.name, loss="squared error of the move", horizon_bars=bars))
        if own.volatility is not None and other.volatility is not None:
            losses = [
                qlike(each[:, :, horizon], outcomes.volatility[:, :, horizon], seen["volatility"])
                for each in (own.volatility, other.volatility)
            ]
            tests.append(diebold_mariano(*losses, against=other.name, loss="QLIKE of the volatility", horizon_bars=bars))
    return tuple(tests)
