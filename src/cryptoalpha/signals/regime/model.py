"""One trained regime model: two chains, the scaler of their features, and everything they must not be used without.

What all folds of a folder share (`description`): bar length, features, grid of the filter. Whoever uses the model must match it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.core.values import TRENDS, VOLATILITIES
from cryptoalpha.signals.config import RegimeConfig
from cryptoalpha.signals.regime.features import REGIME_FEATURES, TREND, VOLATILITY
from cryptoalpha.signals.regime.filter import Filtered, filter_cells
from cryptoalpha.signals.regime.hmm import GaussianHmm
from cryptoalpha.signals.scaler import Scaler
from cryptoalpha.store.model_folder import FoldFile, ModelFolder, plain, refuse_other, write_fold, write_folder
from cryptoalpha.store.tables import Floats

KIND = "regime"

CLIP = 5.0
"""Scaled features are cut at this many deviations: beyond it a crash would say so much in one bar that no later bar could answer."""


@dataclass(frozen=True)
class RegimeDesign:
    """What the folds of one model share. `interval`: length of the bars, ns. `config.model` plays no part."""

    config: RegimeConfig
    interval: int

    def described(self) -> dict[str, Any]:
        """For `model.json`, JSON values: data and settings that must match where the model is used."""
        settings = {f"signals.regime.{name}": value for name, value in self.config.model_dump(exclude={"model"}).items()}
        return dict(
            plain(
                {
                    "interval": interval_name(self.interval),
                    "interval_ns": self.interval,
                    "features": {feature.name: feature.formula for feature in REGIME_FEATURES},
                    "clip": CLIP,
                    **settings,
                }
            )
        )

    @classmethod
    def of(cls, folder: ModelFolder, config: RegimeConfig) -> RegimeDesign:
        """The design a folder describes, if it fits these settings and the features of this version.

        Raises:
            ModelError: if it does not, naming each difference; or if the description is malformed.
        """
        try:
            design = cls(config, int(folder.description["interval_ns"]))
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{folder.path} does not describe a regime model", hint="train it anew: cryptoalpha train regime") from None
        refuse_other(str(folder.path), folder.description, design.described(), kind=KIND)
        return design


@dataclass(frozen=True, eq=False)
class RegimeModel:
    """Two chains over scaled features. `usable_from`: the moment (UTC ns) from which bars may be answered.

    Raises:
        ModelError: if a chain has other states or features than its axis.
    """

    design: RegimeDesign
    scaler: Scaler
    trend: GaussianHmm
    volatility: GaussianHmm
    usable_from: int
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for hmm, names, axis in ((self.trend, TRENDS, TREND), (self.volatility, VOLATILITIES, VOLATILITY)):
            if hmm.mean.shape != (len(names), axis.stop - axis.start):
                raise ModelError(f"a regime model needs {len(names)} states of {axis.stop - axis.start} features, got {hmm.mean.shape}")
        if self.scaler.centre.shape != (len(REGIME_FEATURES),) or self.scaler.scale.shape != (len(REGIME_FEATURES),):
            raise ModelError(f"a regime model scales {len(REGIME_FEATURES)} features, got {self.scaler.centre.shape}")

    def scaled(self, features: Floats) -> Floats:
        """Features as the chains see them, NaN where masked. `[..., 20]` → `[..., 20]`."""
        return self.scale(features, self.scaler)

    @staticmethod
    def scale(features: Floats, scaler: Scaler) -> Floats:
        """Features scaled and cut, NaN where masked. `[..., 20]` → `[..., 20]`."""
        values, observed = scaler.apply(features, CLIP)
        return np.where(observed, values, np.nan)

    def filter(self, features: Floats) -> Filtered:
        """Beliefs about one instrument after each bar, beginning with what the chains settle in. `[n, 20]`, unscaled, NaN = masked."""
        scaled = self.scaled(features)
        return filter_cells(self.trend, self.volatility, scaled[:, TREND], scaled[:, VOLATILITY])

    def save(self, folder: Path, number: int) -> FoldFile:
        """Write it as fold `number` of a folder; `finish` completes the folder.

        Raises:
            ModelError: if a parameter is not a finite number.
            StoreError: if the disk refuses.
        """
        arrays = {"scaler/centre": self.scaler.centre, "scaler/scale": self.scaler.scale}
        arrays |= self.trend.as_arrays("trend") | self.volatility.as_arrays("volatility")
        if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise ModelError(f"fold {number} is not fit to be kept: {', '.join(bad)} is not finite")
        state = {
            "usable_from": self.usable_from,
            "fitted_until": self.scaler.fitted_until,
            "description": self.design.described(),
            "lineage": dict(self.lineage),
        }
        return write_fold(folder, number, arrays, state, kind=KIND)

    @classmethod
    def load(cls, folder: ModelFolder, number: int, design: RegimeDesign) -> RegimeModel:
        """Fold `number` of a folder.

        Raises:
            ModelError: if the file is damaged, or was not written by a model of this design.
        """
        kept = folder.read(number)
        where = f"{folder.path / folder.folds[number].file}"
        refuse_other(where, dict(kept.state.get("description") or {}), design.described(), kind=KIND)
        try:
            scaler = Scaler(kept.arrays["scaler/centre"], kept.arrays["scaler/scale"], int(kept.state["fitted_until"]))
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{where} does not say how features are scaled", hint="train it anew: cryptoalpha train regime") from None
        trend, volatility = (GaussianHmm.from_arrays(axis, kept.arrays) for axis in ("trend", "volatility"))
        lineage = dict(kept.state.get("lineage") or {})
        return cls(design, scaler, trend, volatility, folder.folds[number].usable_from, lineage)


def finish(folder: Path, design: RegimeDesign, folds: list[FoldFile], lineage: Mapping[str, Any]) -> ModelFolder:
    """Complete a folder of saved folds.

    Raises:
        ConfigError: if there is no fold, or two take over at the same moment.
    """
    return write_folder(folder, kind=KIND, description=design.described(), lineage=lineage, folds=folds)


def open_regime(config: RegimeConfig) -> tuple[ModelFolder, RegimeDesign]:
    """The folder that `signals.regime.model` names, and the design it holds.

    Raises:
        ConfigError: if none is named, or there is none.
        ModelError: if it does not fit.
    """
    if not config.model:
        raise ConfigError(
            "signals.regime.model names no regime model", hint="train one with `cryptoalpha train regime` and name its folder"
        )
    folder = ModelFolder.open(Path(config.model).expanduser(), KIND)
    return folder, RegimeDesign.of(folder, config)
