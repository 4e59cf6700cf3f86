"""One trained genome: the network of a fold, and everything it must not be used without.

What all folds of a folder share (`description`): sizes, time frames, horizon, window grid, the tokens and their rules, bar length. Whoever
uses the model must match it: a token whose rule was changed since would be another word under the same name.
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
from cryptoalpha.nets.config import GenomeConfig
from cryptoalpha.nets.genome.market_genome import MarketGenome
from cryptoalpha.signals.config import GenomeSignalConfig
from cryptoalpha.signals.genome.arrays import PAIR_FEATURES
from cryptoalpha.signals.genome.frames import frame_intervals
from cryptoalpha.signals.genome.vocabulary import TOKENS
from cryptoalpha.signals.genome.windows import Grid
from cryptoalpha.store.model_folder import FoldFile, ModelFolder, plain, refuse_other, write_fold, write_folder

KIND = "genome"

_NET = "net/"
_TRAIN = f"train it anew: cryptoalpha train {KIND}"


@dataclass(frozen=True)
class GenomeDesign:
    """What the folds of one genome share. `interval`: length of its base bars, ns. `config.model` plays no part.

    Raises:
        ConfigError: if the sizes name another number of tokens than there are.
    """

    sizes: GenomeConfig
    config: GenomeSignalConfig
    interval: int

    def __post_init__(self) -> None:
        if self.sizes.vocabulary != len(TOKENS):
            raise ConfigError(f"nets.genome.vocabulary is {self.sizes.vocabulary}, and there are {len(TOKENS)} tokens")

    @property
    def intervals(self) -> tuple[int, ...]:
        """Lengths of the time frames, ns, the base bar's first."""
        return frame_intervals(self.config.frames, self.interval)

    @property
    def grid(self) -> Grid:
        """Where its windows lie."""
        return Grid.of(self.sizes.window_bars, self.config.context_share)

    def build(self, seed: int, *, checkpoint_blocks: bool = False) -> MarketGenome:
        """A network with first weights."""
        return MarketGenome(
            self.sizes,
            frames=len(self.intervals),
            pair=len(PAIR_FEATURES),
            horizon=self.config.horizon_bars,
            seed=seed,
            checkpoint_blocks=checkpoint_blocks,
        )

    def described(self) -> dict[str, Any]:
        """For `model.json`: JSON values."""
        return dict(plain({"sizes": self.sizes.model_dump(), **self.demanded()}))

    def demanded(self) -> dict[str, Any]:
        """What data and settings must match where the model is used."""
        settings = {f"signals.genome.{name}": value for name, value in self.config.model_dump(exclude={"model"}).items()}
        return {
            "interval": interval_name(self.interval),
            "interval_ns": self.interval,
            "intervals_ns": list(self.intervals),
            "tokens": {token.name: token.rule for token in TOKENS},
            "pair_features": list(PAIR_FEATURES),
            **settings,
        }

    @classmethod
    def of(cls, folder: ModelFolder, config: GenomeSignalConfig) -> GenomeDesign:
        """The design a folder describes, if it fits these settings and the tokens of this version.

        Raises:
            ModelError: if it does not, naming each difference; or if the description is malformed.
        """
        held = folder.description
        try:
            design = cls(GenomeConfig.model_validate(held["sizes"]), config, int(held["interval_ns"]))
        except (KeyError, TypeError, ValueError, ValidationError, ConfigError):
            raise ModelError(f"{folder.path} does not describe a genome", hint=_TRAIN) from None
        refuse_other(str(folder.path), held, design.demanded(), kind=KIND)
        return design


@dataclass(frozen=True, eq=False)
class GenomeModel:
    """A network and what belongs to it.

    `usable_from`: the moment (UTC ns) from which bars may be answered: every label it was made of was settled an embargo before.
    `temperature`: what the logits of trend and movement are divided by, fitted on validation bars; how often a level holds is calibrated
    inside the network.
    """

    design: GenomeDesign
    net: MarketGenome
    usable_from: int
    temperature: float = 1.0
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, number: int) -> FoldFile:
        """Write it as fold `number` of a folder; `finish` completes the folder.

        Raises:
            ModelError: if a weight or the temperature is not a finite number.
            StoreError: if the disk refuses.
        """
        arrays = {_NET + name: tensor.detach().cpu().numpy() for name, tensor in self.net.state_dict().items()}
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad or not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise ModelError(
                f"fold {number} is not fit to be kept: {', '.join(bad[:3]) or f'its temperature is {self.temperature}'} is not usable"
            )
        state = {
            "usable_from": self.usable_from,
            "temperature": self.temperature,
            "description": self.design.described(),
            "lineage": dict(self.lineage),
        }
        return write_fold(folder, number, arrays, state, kind=KIND)

    @classmethod
    def load(cls, folder: ModelFolder, number: int, design: GenomeDesign) -> GenomeModel:
        """Fold `number` of a folder, ready to answer (evaluation mode).

        Raises:
            ModelError: if the file is damaged, or was not written by a genome of this design.
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
            raise ModelError(f"{where} holds other weights than this version's genome: {', '.join(differing[:3])}", hint=_TRAIN)
        net.load_state_dict(weights)
        try:
            temperature = float(kept.state["temperature"])
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{where} does not say how its chances are calibrated", hint=_TRAIN) from None
        lineage = dict(kept.state.get("lineage") or {})
        return cls(design, net.eval().requires_grad_(False), folder.folds[number].usable_from, temperature, lineage)


def finish(folder: Path, design: GenomeDesign, folds: list[FoldFile], lineage: Mapping[str, Any]) -> ModelFolder:
    """Complete a folder of saved folds.

    Raises:
        ConfigError: if there is no fold, or two take over at the same moment.
    """
    return write_folder(folder, kind=KIND, description=design.described(), lineage=lineage, folds=folds)


def open_genome(config: GenomeSignalConfig) -> tuple[ModelFolder, GenomeDesign]:
    """The folder that `signals.genome.model` names, and the design it holds.

    Raises:
        ConfigError: if none is named, or there is none.
        ModelError: if it does not fit.
    """
    if not config.model:
        raise ConfigError(
            "the source 'genome' needs a trained model, and signals.genome.model is empty",
            hint="train one with `cryptoalpha train genome`, then set signals.genome.model to its folder; or leave 'genome' out",
        )
    folder = ModelFolder.open(Path(config.model).expanduser(), KIND)
    return folder, GenomeDesign.of(folder, config)
