"""One fold of the regime model, in the process that fits it: EM on what came before, then sums over its test bars for the judge.

A fold that is done lies in the workshop as `result_NN.safetensors` and is not fitted again. There is nothing random in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import REGIMES
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.regime_tallies import Outcomes, tally
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop
from cryptoalpha.signals.regime.fitting import AxisFit, fit_regime
from cryptoalpha.signals.regime.model import RegimeDesign, RegimeModel
from cryptoalpha.signals.regime.source import Beliefs, answer, no_beliefs
from cryptoalpha.store.array_file import read_arrays, write_arrays
from cryptoalpha.store.tables import Floats

MODEL = "regime"
RESULT = "regime fold result"
FITTED = 600
"""Units of progress (of `workshop.UNITS`) at which EM is done."""


@dataclass(frozen=True, eq=False)
class RegimeMaterial:
    """What every fold is made of; sent to each process once. Rows are those that the folds count. `first_bar`: number of row 0 since 1970.

    Shapes: `features` `[T, A, 20]`, `usable` `[T, A]`, `known_at` `[T]`.
    """

    features: Floats
    usable: npt.NDArray[np.bool_]
    known_at: npt.NDArray[np.int64]
    outcomes: Outcomes
    first_bar: int
    design: RegimeDesign
    out: Path


def bars_of_day(interval: int) -> int:
    """Bars of a day."""
    return max(1, DAY // interval)


def fit_regime_fold(material: RegimeMaterial, fold: Fold) -> None:
    """Fit one fold and leave its model and its result in the workshop.

    Raises:
        ConfigError: if a stretch has too few bars with all features.
    """
    shop = Workshop(material.out)
    if result_of(shop, fold).exists():
        shop.tell(fold.number, UNITS, "done")
        return
    shop.tell(fold.number, 1, "fitting")
    begin, end = int(fold.train[0]), int(fold.validation[-1]) + 1
    model, fits = fit_regime(
        material.features,
        material.design,
        begin=begin,
        end=end,
        usable_from=fold.usable_from,
        fitted_until=int(material.known_at[end - 1]),
    )
    shop.tell(fold.number, FITTED, "judging")
    learned, judged = np.arange(begin, end), fold.test
    beliefs = believed(material, model, np.concatenate((learned, judged)))
    columns = tally(
        material.features, beliefs, material.outcomes, model, learned=learned, judged=judged, day=bars_of_day(material.design.interval)
    )
    columns["known at"] = material.known_at[judged].astype(np.float64)
    state = {"fold": fold.as_dict(), "file": asdict(model.save(shop.draft, fold.number)), **described(model, fits)}
    write_arrays(result_of(shop, fold), columns, state, kind=RESULT)
    shop.tell(fold.number, UNITS, "done")


def believed(material: RegimeMaterial, model: RegimeModel, rows: npt.NDArray[np.int64]) -> Beliefs:
    """What the model believes at these rows, as the source would say it."""
    found = no_beliefs(material.usable.shape, np.full(len(material.usable), -1, np.int64))
    answer(material.features, 0, material.usable, material.first_bar, model, rows, found)
    return found


def described(model: RegimeModel, fits: dict[str, AxisFit]) -> dict[str, Any]:
    """The model in numbers, for the lineage."""
    chains = {"trend": model.trend, "volatility": model.volatility}
    axes = {
        name: {
            "temper": fit.temper,
            "scores": {f"{temper:g}": score for temper, score in fit.scores.items()},
            "steps": fit.steps,
            "converged": fit.converged,
            "transition": chains[name].transition.tolist(),
            "mean": chains[name].mean.tolist(),
            "spell_bars": (1.0 / (1.0 - np.diag(chains[name].transition))).tolist(),
        }
        for name, fit in fits.items()
    }
    return {"axes": axes, "cells": [" ".join(cell) for cell in REGIMES]}


def result_of(shop: Workshop, fold: Fold) -> Path:
    """Where a fold's result lies once it is done."""
    return shop.place / f"result_{fold.number:02d}.safetensors"


def read_regime_result(shop: Workshop, fold: Fold) -> tuple[Columns, dict[str, Any]]:
    """The per-moment sums of the fold's test bars, and how fitting went."""
    arrays, state = read_arrays(result_of(shop, fold), kind=RESULT)
    return {name: array.astype(np.float64) for name, array in arrays.items()}, state
