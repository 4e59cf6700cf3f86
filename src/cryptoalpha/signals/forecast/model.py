"""One trained forecaster: the network of a fold, its scalers, and everything it must not be used without.

What all folds of a folder share (`description`): sizes, heads, horizons, blocks, feature names, text encoder, bar length. Whoever uses the
model must match it: another encoder is refused even where its vectors are as wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.signals.chain_features import CHAIN_FEATURES
from cryptoalpha.signals.config import ForecastConfig, NewsConfig
from cryptoalpha.signals.forecast.pairs import pair_feature_names
from cryptoalpha.signals.forecast.scaling import ForecastScaler
from cryptoalpha.signals.price_features import PRICE_FEATURES
from cryptoalpha.signals.text.encoder import EncoderId
from cryptoalpha.store.model_folder import FoldFile, ModelFolder, plain, refuse_other, write_fold, write_folder

KIND = "forecaster"

TAUGHT = "taught by labelled texts"
"""What a description says of sentiment; where it says nothing, nobody taught the head and it is unavailable."""

_NET = "net/"


@dataclass(frozen=True)
class ForecastDesign:
    """What the folds of one forecaster share. `interval`: length of its bars, ns. `config.model` plays no part."""

    sizes: EvoformerConfig
    heads: HeadsConfig
    config: ForecastConfig
    news: NewsConfig
    interval: int
    encoder: EncoderId
    pair_representation: bool = True
    sentiment: bool = False
    """Whether labelled texts taught the sentiment head; without them it is unavailable."""

    def build(self, seed: int) -> Forecaster:
        """A network with first weights."""
        return Forecaster(
            self.sizes,
            self.heads,
            horizons=len(self.config.horizon_bars),
            price=len(PRICE_FEATURES),
            chain=len(CHAIN_FEATURES),
            text=self.encoder.width,
            pair=len(pair_feature_names(self.config.correlation_bars)),
            seed=seed,
            pair_representation=self.pair_representation,
        )

    def described(self) -> dict[str, Any]:
        """For `model.json`: JSON values."""
        described = {
            "sizes": self.sizes.model_dump(),
            "heads": self.heads.model_dump(),
            "pair_representation": self.pair_representation,
            "encoder": self.encoder.as_dict(),
            **({"sentiment": TAUGHT} if self.sentiment else {}),
            **self.demanded(),
        }
        return dict(plain(described))

    def demanded(self) -> dict[str, Any]:
        """What data and settings must match where the model is used."""
        settings = {f"signals.forecast.{name}": value for name, value in self.config.model_dump(exclude={"model"}).items()}
        texts = {f"signals.news.{name}": getattr(self.news, name) for name in ("market_weight", "repeat_days")}
        return {
            "interval": interval_name(self.interval),
            "interval_ns": self.interval,
            "price_features": [spec.name for spec in PRICE_FEATURES],
            "chain_features": [spec.name for spec in CHAIN_FEATURES],
            "pair_features": list(pair_feature_names(self.config.correlation_bars)),
            **settings,
            **texts,
        }

    @classmethod
    def of(cls, folder: ModelFolder, config: ForecastConfig, news: NewsConfig) -> ForecastDesign:
        """The design a folder describes, if it fits these settings and the features of this version.

        Raises:
            ModelError: if it does not, naming each difference; or if the description is malformed.
        """
        where, held = str(folder.path), folder.description
        try:
            design = cls(
                sizes=EvoformerConfig.model_validate(held["sizes"]),
                heads=HeadsConfig.model_validate(held["heads"]),
                config=config,
                news=news,
                interval=int(held["interval_ns"]),
                encoder=EncoderId.read(held["encoder"], where),
                pair_representation=bool(held["pair_representation"]),
                sentiment=held.get("sentiment") == TAUGHT,
            )
        except (KeyError, TypeError, ValueError, ValidationError):
            raise ModelError(f"{where} does not describe a forecaster", hint=f"train it anew: cryptoalpha train {KIND}") from None
        refuse_other(where, held, design.demanded(), kind=KIND)
        return design


@dataclass(frozen=True, eq=False)
class ForecastModel:
    """A network and what belongs to it.

    `usable_from`: the moment (UTC ns) from which bars may be answered: every label it was made of was settled an embargo before.
    `strength`: root mean square of the location of the longest horizon on validation bars, in σ √h; what counts as a strong opinion.
    """

    design: ForecastDesign
    net: Forecaster
    scaler: ForecastScaler
    usable_from: int
    strength: float
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, number: int) -> FoldFile:
        """Write it as fold `number` of a folder; `finish` completes the folder.

        Raises:
            ModelError: if a weight, a scaler or the strength is not a finite number.
            StoreError: if the disk refuses.
        """
        arrays = {_NET + name: tensor.detach().cpu().numpy() for name, tensor in self.net.state_dict().items()}
        arrays |= self.scaler.as_arrays()
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad or not (math.isfinite(self.strength) and self.strength > 0.0):
            raise ModelError(
                f"fold {number} is not fit to be kept: {', '.join(bad[:3]) or f'its strength is {self.strength}'} is not usable"
            )
        state = {
            "usable_from": self.usable_from,
            "strength": self.strength,
            "fitted_until": self.scaler.price.fitted_until,
            "description": self.design.described(),
            "lineage": dict(self.lineage),
        }
        return write_fold(folder, number, arrays, state, kind=KIND)

    @classmethod
    def load(cls, folder: ModelFolder, number: int, design: ForecastDesign) -> ForecastModel:
        """Fold `number` of a folder, ready to answer (evaluation mode).

        Raises:
            ModelError: if the file is damaged, or was not written by a forecaster of this design.
        """
        kept = folder.read(number)
        where = f"{folder.path / folder.folds[number].file}"
        refuse_other(where, dict(kept.state.get("description") or {}), design.described(), kind=KIND)
        net = design.build(seed=0)
        weights = {name[len(_NET) :]: torch.from_numpy(array) for name, array in kept.arrays.items() if name.startswith(_NET)}
        wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if wanted != found:
            differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            raise ModelError(
                f"{where} holds other weights than this version's forecaster: {', '.join(differing[:3])}",
                hint=f"train it anew: cryptoalpha train {KIND}",
            )
        net.load_state_dict(weights)
        try:
            strength, until = float(kept.state["strength"]), int(kept.state["fitted_until"])
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{where} does not say how strong its opinions are", hint=f"train it anew: cryptoalpha train {KIND}") from None
        scaler = ForecastScaler.from_arrays(kept.arrays, clip=design.config.clip, fitted_until=until)
        lineage = dict(kept.state.get("lineage") or {})
        return cls(design, net.eval().requires_grad_(False), scaler, folder.folds[number].usable_from, strength, lineage)


def finish(folder: Path, design: ForecastDesign, folds: list[FoldFile], lineage: Mapping[str, Any]) -> ModelFolder:
    """Complete a folder of saved folds.

    Raises:
        ConfigError: if there is no fold, or two take over at the same moment.
    """
    return write_folder(folder, kind=KIND, description=design.described(), lineage=lineage, folds=folds)


def open_forecaster(config: ForecastConfig, news: NewsConfig) -> tuple[ModelFolder, ForecastDesign]:
    """The folder that `signals.forecast.model` names, and the design it holds.

    Raises:
        ConfigError: if none is named, or there is none.
        ModelError: if it does not fit.
    """
    if not config.model:
        raise ConfigError(
            "the source 'forecast' needs a trained model, and signals.forecast.model is empty",
            hint="train one with `cryptoalpha train forecaster`, then set signals.forecast.model to its folder; or leave 'forecast' out",
        )
    folder = ModelFolder.open(Path(config.model).expanduser(), KIND)
    return folder, ForecastDesign.of(folder, config, news)
