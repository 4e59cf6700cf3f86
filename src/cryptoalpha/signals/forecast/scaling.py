"""The scalers of one training fold: of price, chain and pair features.

Fitted on the rows a fold is trained on and no others; kept in the fold's file beside the weights they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ModelError
from cryptoalpha.signals.forecast.arrays import ForecastArrays
from cryptoalpha.signals.scaler import Scaler, fit_scaler
from cryptoalpha.store.tables import Floats

FAMILIES = ("price", "chain", "pair")

MOST_ROWS = 20_000
"""Rows a scaler of pairs is fitted on at most, evenly spaced: 64 assets have 4,032 pairs at every bar."""


@dataclass(frozen=True, eq=False)
class ForecastScaler:
    """One `Scaler` per family. `clip`: scaled features are cut at this many deviations."""

    price: Scaler
    chain: Scaler
    pair: Scaler
    clip: float

    def as_arrays(self) -> dict[str, Floats]:
        """`scaler/FAMILY/centre` and `scaler/FAMILY/scale`, `[F]` each."""
        return {f"scaler/{name}/{part}": getattr(getattr(self, name), part) for name in FAMILIES for part in ("centre", "scale")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], *, clip: float, fitted_until: int) -> ForecastScaler:
        """The inverse of `as_arrays`.

        Raises:
            ModelError: if a part is missing.
        """
        try:
            price, chain, pair = (
                Scaler(arrays[f"scaler/{name}/centre"], arrays[f"scaler/{name}/scale"], fitted_until) for name in FAMILIES
            )
        except KeyError as error:
            raise ModelError(f"the model has no {error.args[0]}", hint="train it anew: cryptoalpha train forecaster") from None
        return cls(price, chain, pair, clip)


def fit_scalers(arrays: ForecastArrays, rows: npt.NDArray[np.int64], *, clip: float) -> ForecastScaler:
    """Fit on these rows of the frame: every asset that has a bar, and every pair of two that have one.

    An asset is no pair with itself: its correlation of 1 would set the scale.

    Raises:
        ModelError: if none of the rows lies in the arrays.
    """
    chosen = rows - arrays.begin
    chosen = chosen[(chosen >= 0) & (chosen < len(arrays))]
    if not chosen.size:
        raise ModelError("there are no rows to fit scalers on", hint="a fold needs training bars")
    until = int(arrays.known_at[chosen.max()])
    there = arrays.present[chosen]
    price, chain = (fit_scaler(values[chosen][there].astype(np.float64), fitted_until=until) for values in (arrays.price, arrays.chain))
    some = chosen[np.unique(np.linspace(0, chosen.size - 1, min(chosen.size, _pair_rows(arrays.assets))).astype(np.int64))]
    both = arrays.present[some][:, :, None] & arrays.present[some][:, None, :] & ~np.eye(arrays.assets, dtype=bool)
    return ForecastScaler(price, chain, fit_scaler(arrays.pair[some][both].astype(np.float64), fitted_until=until), clip)


def _pair_rows(assets: int) -> int:
    return max(1, MOST_ROWS * 56 // max(56, assets * (assets - 1)))
