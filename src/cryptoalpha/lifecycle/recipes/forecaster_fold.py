"""One fold of the forecaster, in the process that trains it: gradients, evolution, calibration, and what it says about its test bars.

Everything is a function of the data, the settings and the seed. A fold that is done lies in the workshop as `result_NN.safetensors` and is
not trained again; one that was interrupted goes on from its checkpoints, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cryptoalpha.core.time import DAY
from cryptoalpha.learn.config import EvolutionConfig, FitConfig
from cryptoalpha.learn.fit import fit
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.baselines import NAMES, Table, baseline, is_installed, ridge_weights
from cryptoalpha.lifecycle.recipes.evolving import cached, evolve_moves
from cryptoalpha.lifecycle.recipes.fold_progress import AFTER_FIT, converged, result_file, teller, train_once, windows_seen
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.position_rule import Stretch
from cryptoalpha.lifecycle.recipes.predictions import Outcomes, Predictions, classes_of
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop
from cryptoalpha.nets.forecaster.by_row import read_block
from cryptoalpha.nets.forecaster.calibration import calibrate_temperature
from cryptoalpha.nets.forecaster.losses import forecast_loss
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import ForecastInputs
from cryptoalpha.signals.forecast.arrays import ForecastArrays
from cryptoalpha.signals.forecast.blocks import Blocks, BlockSamples
from cryptoalpha.signals.forecast.labels import ForecastLabels
from cryptoalpha.signals.forecast.model import ForecastDesign, ForecastModel
from cryptoalpha.signals.forecast.scaling import ForecastScaler, fit_scalers
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.store.array_file import read_arrays, write_arrays

MODEL = "forecaster"
RESULT = "forecaster fold result"

OBJECTIVE_STRETCHES = 2.0
"""Length of what evolution learns from, the newest training bars, in accept stretches."""

AFTER_EVOLUTION, AFTER_TEST = 850, 930
"""Units of progress."""

Rows = npt.NDArray[np.int64]
Batch = tuple[ForecastInputs, Any]


@dataclass(frozen=True, eq=False)
class Material:
    """What every fold is made of; sent to each process once."""

    arrays: ForecastArrays
    labels: ForecastLabels
    step: npt.NDArray[np.float64]
    """Simple return from the open after each row of the frame to the next one, `[T, N]`."""
    design: ForecastDesign
    train: TrainConfig
    fit: FitConfig
    evolution: EvolutionConfig
    cost: float
    seed: int
    out: Path
    sentiment: Mapping[str, npt.NDArray[np.float32]] | None = None
    """Weights of the sentiment head that labelled texts taught; every fold's network is given them, and no market loss moves them."""

    @property
    def blocks(self) -> Blocks:
        """The grid of blocks, with labels."""
        return Blocks(self.arrays, self.design.config, self.labels)

    def stretch(self, rows: Rows) -> Stretch:
        """The bars of these rows for the position rule."""
        place = rows - self.arrays.begin
        hold = self.design.config.horizon_bars[-1]
        return Stretch(self.arrays.known_at[place], self.arrays.sigma[place], self.step[rows], hold, self.cost)

    def outcomes(self) -> Outcomes:
        """What happened after every row of the frame."""
        move, volatility = self.labels.move.astype(np.float64), self.labels.volatility.astype(np.float64)
        known_at = np.concatenate((np.zeros(self.arrays.begin, np.int64), self.arrays.known_at))
        return Outcomes(known_at, move, volatility, self.design.config.horizon_bars, self.design.config.sideways)


def train_fold(material: Material, fold: Fold) -> None:
    """Train one fold and leave its model and its result in the workshop. In a worker process a signal ends it with its checkpoint written.

    Raises:
        ModelError: if a loss is not finite.
        FitInterrupted: after Ctrl-C, in this process.
    """
    shop = Workshop(material.out)
    train_once(shop, fold, lambda: _train(material, fold, shop))


def read_result(shop: Workshop, fold: Fold) -> tuple[list[Predictions], dict[str, Any]]:
    """What the fold's model and its baselines said about its test bars, and how training went."""
    arrays, state = read_arrays(result_file(shop, fold), kind=RESULT)
    parts: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        model, part = name.split("/")
        parts.setdefault(model, {})[part] = array.astype(np.float64)
    return [Predictions(model, **parts[model]) for model in state["models"]], state


def _train(material: Material, fold: Fold, shop: Workshop) -> None:
    blocks, number = material.blocks, fold.number
    scaler = fit_scalers(material.arrays, fold.train, clip=material.design.config.clip)
    table = table_of(material, scaler)
    net = material.design.build(material.seed + number)
    net.set_linear(torch.from_numpy(ridge_weights(table, fold)[0]).float())
    if material.sentiment is not None:
        net.sentiment.load_state_dict({name: torch.from_numpy(values) for name, values in material.sentiment.items()})
    embargo = round(material.train.embargo_days * DAY)
    samples = blocks.samples(fold.train, scaler, known_by=fold.accept_since - embargo, every=material.train.stride_bars)
    looks = blocks.samples(fold.validation, scaler, known_by=fold.test_since - embargo)
    levels = material.design.heads.quantiles

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        return forecast_loss(model(batch[0]), batch[1], sideways=material.design.config.sideways, quantiles=levels)

    report = fit(
        net,
        loss,
        samples,
        config=material.fit,
        seed=material.seed + number,
        validate=validator(loss, looks, material.fit.batch),
        checkpoint=shop.place / f"fit_{number:02d}.checkpoint",
        progress=teller(shop, number),
        labels={"fold": number, "encoder": str(material.design.encoder)},
        checks_per_epoch=material.train.checks_per_epoch,
    )
    net.eval()
    shop.tell(number, AFTER_FIT, "evolving")
    evolved = _evolve(material, fold, net, blocks, scaler, shop)
    shop.tell(number, AFTER_EVOLUTION, "testing")
    strength = _calibrate(material, fold, net, blocks, scaler)
    own = said(net, blocks, fold.test, scaler, material.arrays.present)
    shop.tell(number, AFTER_TEST, "baselines")
    others = [baseline(name, table, fold, seed=material.seed) for name in NAMES if is_installed(name)]
    windows = windows_seen(report, len(samples), material.fit.batch)
    state = {
        "models": [own.name, *(each.name for each in others)],
        "losses": report.losses.tolist(),
        "validations": report.validations.tolist(),
        "steps": report.steps,
        "best_step": report.best_step,
        "stopped": report.stopped,
        "converged": converged(report.validations),
        "windows": windows,
        "bars_per_window": blocks.rows_per_block,
        "evolution": evolved,
        "temperature": net.assets.temperature.tolist(),
        "fold": fold.as_dict(),
    }
    model = ForecastModel(
        material.design, net, scaler, fold.usable_from, strength, {"fold": fold.as_dict(), "converged": state["converged"]}
    )
    file = model.save(shop.draft, number)
    state["file"] = {"file": file.file, "usable_from": file.usable_from, "sha256": file.sha256}
    arrays = {f"{each.name}/{part}": values.astype(np.float32) for each in (own, *others) for part, values in each.parts().items()}
    write_arrays(result_file(shop, fold), arrays, state, kind=RESULT)
    shop.tell(number, UNITS, "done")


def said(net: Forecaster, blocks: Blocks, rows: Rows, scaler: ForecastScaler, present: npt.NDArray[np.bool_]) -> Predictions:
    """What the network says at these rows, block by block as the source asks it; NaN where an asset has no bar."""
    parts: dict[str, list[npt.NDArray[np.float64]]] = {}
    answered = np.arange(blocks.rows_per_block) >= blocks.config.context_bars
    with single_thread():
        for number in blocks.holding(rows):
            block = np.array([number])
            found = np.isin(blocks.rows_of(block)[0], rows) & answered
            for first, forecast in read_block(net, blocks.inputs(block, scaler), context=blocks.config.context_bars):
                answers = {
                    "location": forecast.location,
                    "direction": forecast.direction.softmax(dim=-1),
                    "volatility": forecast.volatility,
                    "confidence": torch.sigmoid(forecast.confidence),
                    "quantiles": forecast.quantiles,
                }
                here = found[first : first + forecast.location.shape[1]]
                for name, answer in answers.items():
                    parts.setdefault(name, []).append(answer[0].numpy()[here].astype(np.float64))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    absent = ~present[rows - blocks.arrays.begin]
    for values in joined.values():
        values[absent] = np.nan
    return Predictions(MODEL, **joined)


def table_of(material: Material, scaler: ForecastScaler) -> Table:
    """Every row of the frame, scaled as the network sees it; rows before the arrays are absent."""
    arrays, begin = material.arrays, material.arrays.begin
    scaled = np.concatenate(
        [side.apply(values, scaler.clip)[0] for side, values in ((scaler.price, arrays.price), (scaler.chain, arrays.chain))], axis=2
    )
    features = np.concatenate((np.zeros((begin, *scaled.shape[1:]), np.float32), scaled.astype(np.float32)))
    present = np.concatenate((np.zeros((begin, arrays.assets), bool), arrays.present))
    return Table(features, present, material.outcomes(), material.design.heads.quantiles)


def validator(loss: Callable[[nn.Module, Batch], torch.Tensor], looks: BlockSamples, batch: int) -> Callable[[nn.Module], float]:
    """Mean loss over the validation blocks."""

    def validate(model: nn.Module) -> float:
        total = 0.0
        for start in range(0, len(looks), batch):
            chosen = torch.arange(start, min(start + batch, len(looks)))
            total += float(loss(model, looks.take(chosen))) * len(chosen)
        return total / len(looks)

    return validate


def _evolve(
    material: Material, fold: Fold, net: Forecaster, blocks: Blocks, scaler: ForecastScaler, shop: Workshop
) -> dict[str, float | int]:
    if not material.train.evolve_generations or not len(fold.accept):
        return {"generations": 0, "kept": 0}
    newest = fold.train[-round(OBJECTIVE_STRETCHES * len(fold.accept)) :]
    teach, accept = (cached(net, blocks, rows, scaler) for rows in (newest, fold.accept))
    return evolve_moves(
        net,
        (teach, material.stretch(newest)),
        (accept, material.stretch(fold.accept)),
        material.evolution,
        generations=material.train.evolve_generations,
        seed=material.seed + fold.number,
        checkpoint=shop.place / f"evolution_{fold.number:02d}.safetensors",
    )


def _calibrate(material: Material, fold: Fold, net: Forecaster, blocks: Blocks, scaler: ForecastScaler) -> float:
    """Set the temperature of each horizon's confidence on the validation stretch; the strength of its expected moves."""
    found = said(net, blocks, fold.validation, scaler, material.arrays.present)
    assert found.location is not None
    assert found.direction is not None
    assert found.confidence is not None
    classes = classes_of(material.labels.move[fold.validation].astype(np.float64), material.design.config.sideways)
    right = np.where(classes >= 0, found.direction.argmax(axis=3) == classes, np.nan)
    sure = np.clip(found.confidence, 1e-7, 1.0 - 1e-7)
    logits = np.log(sure) - np.log1p(-sure)
    net.set_temperature(torch.tensor([calibrate_temperature(logits[:, :, h], right[:, :, h]) for h in range(classes.shape[2])]))
    return max(float(np.sqrt(np.nanmean(found.location[:, :, -1] ** 2))), 1e-6)
