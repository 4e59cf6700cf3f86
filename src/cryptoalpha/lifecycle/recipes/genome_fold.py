"""One fold of the genome, in the process that trains it: gradients, calibration of holding, and what it says about its test bars.

Tokens of hidden bars, distances and structure are learned together from the first step: the trunk is shared, and a window costs one pass
instead of two. The net begins at what is usual in its training stretch (`genome_usual`), so everything it learns is what the baselines do
not know.

Everything is a function of the data, the settings and the seed. A fold that is done lies in the workshop as `result_NN.safetensors` and is
not trained again; one that was interrupted goes on from its checkpoint, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cryptoalpha.core.time import DAY
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit import FitReport, fit
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.fold_progress import AFTER_FIT, converged, result_file, teller, train_once, windows_seen
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.genome_answers import Record, answers, happened, record
from cryptoalpha.lifecycle.recipes.genome_tallies import tally
from cryptoalpha.lifecycle.recipes.genome_usual import Usual, usual_of
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop
from cryptoalpha.nets.genome.calibration import fit_hold_calibration, fit_temperature
from cryptoalpha.nets.genome.losses import LossWeights, genome_loss
from cryptoalpha.nets.genome.market_genome import MarketGenome
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeTargets
from cryptoalpha.signals.genome.arrays import GenomeArrays
from cryptoalpha.signals.genome.model import GenomeDesign, GenomeModel
from cryptoalpha.signals.genome.targets import Outcomes
from cryptoalpha.signals.genome.windows import Grid, Windows, WindowSamples
from cryptoalpha.store.array_file import read_arrays, write_arrays
from cryptoalpha.store.tables import Floats

MODEL = "genome"
RESULT = "genome fold result"

HIDE = 0.15
"""Share of bars hidden while training; BERT's and AlphaFold's."""

CONTEXT = 8
"""One in so many columns of a training window only gives context; the others all teach. Half a window of context, as the source answers
with, would double the passes per taught bar."""

EVERY = 2
"""Of so many training windows one is used, times `lifecycle.train.stride_bars`: instruments move together, and a laptop has two cores."""

LOOKED_AT = 96
"""Validation windows of one look, evenly spread; all of them would take longer than the training between two looks."""

TEACH = LossWeights()
"""Weights of the parts where gradients are taken."""

CHOOSE = LossWeights(tokens=0.1)
"""Weights of the parts where validation chooses the weights to keep. Balanced, a bar with a rare token counts up to 28 times (1/(2r), r no
less than sigmoid(−4)), and few validation windows hold few of them: at the .5 that teaches, their luck would choose the levels, too."""

AFTER_CALIBRATION = 860
"""Units of progress."""

Rows = npt.NDArray[np.int64]
Batch = tuple[GenomeInputs, GenomeTargets]


@dataclass(frozen=True, eq=False)
class GenomeMaterial:
    """What every fold is made of; sent to each process once. `arrays` and `outcomes` have the rows that the folds count."""

    arrays: GenomeArrays
    outcomes: Outcomes
    design: GenomeDesign
    train: TrainConfig
    fit: FitConfig
    seed: int
    out: Path

    @property
    def grid(self) -> Grid:
        """Windows as the source answers them."""
        return Grid.of(self.design.sizes.window_bars, self.design.config.context_share)

    @property
    def answered(self) -> Windows:
        """The same windows with outcomes."""
        return Windows(self.arrays, self.grid, self.outcomes, self.design.sizes.distance_bins)

    @property
    def taught(self) -> Windows:
        """Windows of the same length of which nearly every bar teaches."""
        columns = self.grid.columns
        grid = Grid(columns // CONTEXT, columns - columns // CONTEXT)
        return Windows(self.arrays, grid, self.outcomes, self.design.sizes.distance_bins)


def train_genome_fold(material: GenomeMaterial, fold: Fold) -> None:
    """Train one fold and leave its model and its result in the workshop. In a worker process a signal ends it with its checkpoint written.

    Raises:
        ModelError: if a loss is not finite.
        FitInterrupted: after Ctrl-C, in this process.
    """
    shop = Workshop(material.out)
    train_once(shop, fold, lambda: _train(material, fold, shop))


def read_genome_result(shop: Workshop, fold: Fold) -> tuple[Columns, dict[str, Any]]:
    """The per-moment sums of the fold's test bars, and how training went."""
    arrays, state = read_arrays(result_file(shop, fold), kind=RESULT)
    return {name: array.astype(np.float64) for name, array in arrays.items()}, state


def _train(material: GenomeMaterial, fold: Fold, shop: Workshop) -> None:
    sizes, number = material.design.sizes, fold.number
    rows = np.concatenate((fold.train, fold.accept))  # nothing is evolved, so nothing need be kept for acceptance
    usual = usual_of(
        material.arrays, material.outcomes, rows, supports=sizes.supports, resistances=sizes.resistances, classes=sizes.trend_classes
    )
    net = material.design.build(material.seed + number)
    begin_at(net, usual)
    report, samples = _fit(material, fold, net, rows, shop)
    net.eval()
    shop.tell(number, AFTER_FIT, "calibrating")
    settled = record(net, material.answered, fold.validation)
    temperature = calibrate(net, settled)
    shop.tell(number, AFTER_CALIBRATION, "testing")
    said = answers(net, material.answered, fold.test, temperature=temperature)
    truth = happened(material.arrays, material.outcomes, fold.test)
    columns = tally(said, truth, usual.holding(climatology(settled)))
    state: dict[str, Any] = {
        "losses": report.losses.tolist(),
        "validations": report.validations.tolist(),
        "steps": report.steps,
        "best_step": report.best_step,
        "stopped": report.stopped,
        "converged": converged(report.validations),
        "windows": windows_seen(report, samples, material.fit.batch),
        "hold_scale": net.hold_scale.tolist(),
        "hold_shift": net.hold_shift.tolist(),
        "temperature": temperature,
        "token_rates": usual.tokens.tolist(),
        "fold": fold.as_dict(),
    }
    lineage = {"fold": fold.as_dict(), "converged": state["converged"]}
    file = GenomeModel(material.design, net, fold.usable_from, temperature, lineage).save(shop.draft, number)
    state["file"] = {"file": file.file, "usable_from": file.usable_from, "sha256": file.sha256}
    write_arrays(result_file(shop, fold), columns, state, kind=RESULT)
    shop.tell(number, UNITS, "done")


def begin_at(net: MarketGenome, usual: Usual) -> None:
    """Let an untrained net answer what is usual."""
    net.start_from(**{name: torch.from_numpy(part).float() for name, part in usual.as_arrays().items()})


def calibrate(net: MarketGenome, found: Record) -> float:
    """Fit the hold head's slopes and shifts in place, and the temperature of trend and movement, to bars that did not teach."""
    known = np.isfinite(found.held)
    yes = torch.from_numpy(known & (np.where(known, found.held, 0.0) > 0.5))
    net.calibrate_hold(*fit_hold_calibration(torch.from_numpy(found.hold), yes, torch.from_numpy(known)))
    logits, classes = np.concatenate((found.trend, found.movement)), np.concatenate((found.trend_class, found.movement_class))
    return fit_temperature(torch.from_numpy(logits), torch.from_numpy(classes))


def climatology(found: Record) -> Floats:
    """How often each of the net's levels held, `[2K]`: on the bars that its own chances of holding are calibrated to, or those chances
    would win by having seen newer bars; not on bars its levels were fitted to, where they hold more often than later."""
    return np.asarray(np.nanmean(found.held, axis=0), np.float64)


def _fit(material: GenomeMaterial, fold: Fold, net: MarketGenome, rows: Rows, shop: Workshop) -> tuple[FitReport, int]:
    embargo, number = round(material.train.embargo_days * DAY), fold.number
    samples = material.taught.samples(
        rows, known_by=fold.validation_since - embargo, hide=HIDE, seed=material.seed + number, every=EVERY * material.train.stride_bars
    )
    looks = material.answered.samples(fold.validation, known_by=fold.test_since - embargo, hide=HIDE, seed=material.seed + number)

    def loss(model: nn.Module, batch: Batch, weights: LossWeights = TEACH) -> torch.Tensor:
        return genome_loss(model(batch[0]), *batch, token_prior=net.token_prior, weights=weights)[0]

    report = fit(
        net,
        loss,
        samples,
        config=material.fit,
        seed=material.seed + number,
        validate=validator(partial(loss, weights=CHOOSE), looks, material.fit.batch),
        checkpoint=shop.place / f"fit_{number:02d}.checkpoint",
        progress=teller(shop, number),
        labels={"fold": number},
        checks_per_epoch=material.train.checks_per_epoch,
    )
    return report, len(samples)


def validator(loss: Callable[[nn.Module, Batch], torch.Tensor], looks: WindowSamples, batch: int) -> Callable[[nn.Module], float]:
    """Mean loss over validation windows, evenly spread."""
    chosen = torch.linspace(0, len(looks) - 1, min(LOOKED_AT, len(looks))).long()
    batches = [(looks.take(part), len(part)) for part in torch.split(chosen, batch)]

    def validate(model: nn.Module) -> float:
        return sum(float(loss(model, taken)) * count for taken, count in batches) / len(chosen)

    return validate
