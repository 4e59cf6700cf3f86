"""Train the market genome: walk-forward folds side by side, judged beside what is usual, kept with where it comes from.

    trained = train_genome(plan, dataset, Period(), home / "models" / "genome")

Tokens, prices and outcomes are computed once; each fold begins at what is usual in its own training stretch, learns hidden tokens,
distances, levels, holding, trend and movement together, calibrates on its validation stretch, and answers its test bars, which no part of
it has seen. The folder is written whole at the end or not at all (`workshop`). What each demand means is said in `genome_judging`.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import iso
from cryptoalpha.lifecycle.recipes.folds import Fold, plan_folds
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, plan_folds_at
from cryptoalpha.lifecycle.recipes.genome_fold import MODEL, GenomeMaterial, read_genome_result, train_genome_fold
from cryptoalpha.lifecycle.recipes.genome_judging import judge_genome
from cryptoalpha.lifecycle.recipes.genome_trained import GenomeTrained
from cryptoalpha.lifecycle.recipes.page import page
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.nets.presets import genome_sizes
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.arrays import PRICE_REACH, genome_arrays
from cryptoalpha.signals.genome.frames import frames_reach
from cryptoalpha.signals.genome.model import KIND, GenomeDesign, finish
from cryptoalpha.signals.genome.targets import outcomes
from cryptoalpha.store.model_folder import FoldFile
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

FASTER, SMALLER = 4.0, 2
"""Peak step size over `lifecycle.train.learning_rate`, and `lifecycle.train.batch` over the batch: the genome's net has an eighth of the
forecaster's weights and few hundred steps. Two coins, 300 days: validation loss (tokens weighed .5) 3.561 after 84 steps as configured,
3.538 after 110 steps of 6 times the size in batches half as large."""


def train_genome(
    plan: Plan,
    dataset: Dataset,
    period: Period,
    out: Path,
    *,
    instruments: Sequence[str] | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
) -> GenomeTrained:
    """Train, judge, and leave the model at `out`.

    Args:
        fresh: begin anew, and replace a model that lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.

    Raises:
        DataMissingError: if the history is too short.
        ConfigError: if `out` holds something else, another model, or another training that was interrupted.
        ModelError: if a loss is not finite.
        KeyboardInterrupt: after Ctrl-C; what was reached is kept.
    """
    shop = Workshop(out)
    old = shop.finished(KIND, fresh=fresh)
    panel, folds, design = _folds(plan, dataset, period, instruments)
    begin = max(0, int(folds[0].train[0]) - design.grid.columns)
    arrays = genome_arrays(Frame(panel, dataset, first=begin), design.config.frames, begin=begin)
    identity = _identity(plan, design, arrays.fingerprint(), dataset, folds, panel)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return GenomeTrained(out, done, already=True)
    settings = {
        "learning_rate": FASTER * plan.train.learning_rate,
        "batch": max(1, plan.train.batch // SMALLER),
        "epochs": plan.train.epochs,
    }
    material = GenomeMaterial(
        arrays, outcomes(arrays, design.config.horizon_bars), design, plan.train, plan.learn.fit.model_copy(update=settings), plan.seed, out
    )
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), train_genome_fold, folds, processes=plan.train.processes)
    lineage = as_json({"identity": identity, **_judged(material, folds, shop)})
    _write(shop, design, folds, lineage)
    return GenomeTrained(out, lineage)


def _given(material: GenomeMaterial) -> GenomeMaterial:
    """What a worker holds: that which it was sent."""
    return material


def _folds(plan: Plan, dataset: Dataset, period: Period, instruments: Sequence[str] | None) -> tuple[Panel, tuple[Fold, ...], GenomeDesign]:
    """The panel from the first bar that is looked at on, the folds by its rows, and what all folds share."""
    since, until = period.since or 0, period.until or np.iinfo(np.int64).max
    whole = build_panel(dataset, since=0, until=int(until), instruments=instruments)
    ends = _label_ends(whole, plan.signals)
    begin = int(np.searchsorted(whole.open_time, since))
    if begin >= len(whole):
        raise DataMissingError(f"{dataset.origin} has no bars from {iso(since)} on", hint="choose an earlier --since")
    bounds = {"test_since": period.test_since, "test_until": period.test_until, "most": period.folds}
    folds = plan_folds(whole.known_at[begin:], ends[begin:], plan.train, **bounds)
    design = GenomeDesign(genome_sizes(plan.nets), plan.signals.genome, whole.interval)
    warm_up = max(PRICE_REACH, frames_reach(design.intervals)) + design.grid.columns
    cut = max(0, begin + int(folds[0].train[0]) - warm_up)
    return whole.rows(cut, len(whole)), plan_folds_at(folds, begin - cut), design


def _label_ends(panel: Panel, signals: SignalsConfig) -> np.ndarray[Any, np.dtype[np.int64]]:
    """When the outcomes of each row are settled; those that never are end with the last moment there is."""
    horizon = signals.genome.horizon_bars
    ends = np.full(len(panel), np.iinfo(np.int64).max, np.int64)
    ends[: max(0, len(panel) - horizon)] = np.maximum.accumulate(panel.known_at)[horizon:]
    return ends


def _identity(plan: Plan, design: GenomeDesign, arrays: str, dataset: Dataset, folds: Sequence[Fold], panel: Panel) -> dict[str, Any]:
    """What makes a training this one: everything that its result depends on."""
    found = {
        "version": __version__,
        "seed": plan.seed,
        "data": {"origin": dataset.origin, "fingerprint": dataset.fingerprint, "simulated": dataset.simulated, "arrays": arrays},
        "instruments": list(panel.instruments),
        "design": design.described(),
        "folds": [fold.as_dict() for fold in folds],
        "train": plan.train.model_dump(exclude={"processes", "evolve_generations"}),
        "fit": plan.learn.fit.model_dump(),
    }
    return dict(as_json(found))


def _judged(material: GenomeMaterial, folds: Sequence[Fold], shop: Workshop) -> dict[str, Any]:
    """Everything that was found out."""
    import torch

    results = [read_genome_result(shop, fold) for fold in folds]
    columns = {name: np.concatenate([found[name] for found, _ in results]) for name in results[0][0]}
    states = [state for _, state in results]
    horizon, seed = material.design.config.horizon_bars, material.seed
    judged = judge_genome(columns, horizon=horizon, seed=seed)
    return {
        "versions": {"cryptoalpha": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "model": MODEL,
        "horizon_bars": horizon,
        "judgement": judged.as_dict(),
        "verdict": judged.verdict(),
        "by_fold": [judge_genome(found, horizon=horizon, seed=seed, resamples=200).as_dict() for found, _ in results],
        "training": states,
        "windows": sum(int(state["windows"]) for state in states),
        "bars_per_window": material.grid.columns,
        "converged": all(bool(state["converged"]) for state in states),
    }


def _write(shop: Workshop, design: GenomeDesign, folds: Sequence[Fold], lineage: Mapping[str, Any]) -> None:
    files = [FoldFile(**read_genome_result(shop, fold)[1]["file"]) for fold in folds]
    kept = {file.file for file in files}
    for left in shop.draft.iterdir():
        if left.name not in kept:
            left.unlink() if left.is_file() else shutil.rmtree(left)
    write_whole(shop.draft / "report.html", page(GenomeTrained(shop.out, lineage)))
    finish(shop.draft, design, files, lineage)
    shop.publish()
