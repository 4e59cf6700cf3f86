"""What judges settings of the forecaster: a small training per fold, judged on the bars behind its embargo.

A fold of a trial is a fold of the recipe on less data: scalers and straight line from its own training rows, gradients with early stopping
on its validation stretch, evolution on its accept stretch. It is judged on its test rows: mean loss, rank correlation at the longest
horizon, and the net return of the plain position rule for the ledger. Features and labels are computed once for all trials. Every trial
meets the same folds, first weights and order of samples, so that they differ in their settings alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cryptoalpha import __version__
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.fit import fit
from cryptoalpha.lifecycle.recipes.baselines import ridge_weights
from cryptoalpha.lifecycle.recipes.evolving import cached, evolve_moves
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, panel_and_folds, steps_ahead
from cryptoalpha.lifecycle.recipes.forecaster_fold import OBJECTIVE_STRETCHES, Batch, Material, said, table_of, validator
from cryptoalpha.lifecycle.recipes.position_rule import net_returns
from cryptoalpha.lifecycle.recipes.predictions import Predictions
from cryptoalpha.lifecycle.recipes.tallies import measured, tally
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.tune.config import TuneConfig
from cryptoalpha.lifecycle.tune.space import ForecasterSpace, Params, Value
from cryptoalpha.lifecycle.tune.trial import Score, Search
from cryptoalpha.nets.forecaster.losses import forecast_loss
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.presets import forecaster_sizes, genome_sizes
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.forecast.labels import correlation_horizon, forecast_labels
from cryptoalpha.signals.forecast.model import ForecastDesign
from cryptoalpha.signals.forecast.scaling import ForecastScaler, fit_scalers
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.text import open_encoder
from cryptoalpha.signals.text.encoder import EncoderId
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset

NEVER = int(np.iinfo(np.int64).max)
SPACE = ("learning_rate", "batch", "sigma", "dropout", "heads", "width", "relative")
"""Settings that say what may be drawn."""

CHECK_BLOCKS = 8
"""Blocks computed at once where nothing is learned."""


@dataclass(frozen=True, eq=False)
class TrialMaterial:
    """What a worker holds. `folds` has one more than a trial is judged by where there is a stretch that no trial sees."""

    material: Material
    folds: tuple[Fold, ...]
    space: ForecasterSpace
    objective: str


def forecaster_search(
    plan: Plan,
    config: TuneConfig,
    dataset: Dataset,
    *,
    name: str = "forecaster",
    since: int | None = None,
    until: int | None = None,
    instruments: Sequence[str] | None = None,
) -> Search[TrialMaterial]:
    """A search of the forecaster's settings on the newest folds of a history.

    Args:
        plan: the settings one begins with; all that the space does not hold stays as it is there.
        since, until: bars that may be used, UTC ns.

    Raises:
        DataMissingError: if the history is too short for the folds; says how many days are needed.
        ConfigError: if a fold has no rows left after purge and embargo.
    """
    train = plan.train.model_copy(
        update={"train_days": config.train_days, "test_days": config.test_days, "expanding": False, "epochs": config.epochs,
                "evolve_generations": config.generations, "processes": 1}
    )  # fmt: skip
    plan = replace(plan, train=train)
    wanted = config.folds + config.holdout
    panel, folds = panel_and_folds(plan, dataset, Period(since, until, folds=wanted), instruments)
    if len(folds) < wanted:
        raise DataMissingError(
            f"the history has room for {len(folds)} of {wanted} folds: "
            f"it takes {config.train_days + wanted * config.test_days} days to learn from and to judge on",
            hint="bring more history, or set lifecycle.tune.folds, train_days or test_days lower",
        )
    if config.holdout:
        folds = (*folds[:-2], _short_of(folds[-1], folds[-2], plan, panel), folds[-1])
    material, space = _material(plan, dataset, panel, folds), _space(plan, config)
    holdout = (folds[-1].test_since, folds[-1].test_until) if config.holdout else None
    return Search(
        name=name,
        space=space,
        direction="minimize" if config.objective == "loss" else "maximize",
        folds=config.folds,
        start=partial(_held, TrialMaterial(material, folds, space, config.objective)),
        judge=judge_point,
        identity=_identity(plan, config, dataset, material, folds),
        data=dataset.fingerprint,
        since=folds[0].test_since,
        until=folds[config.folds - 1].test_until,
        holdout=holdout,
        startup_trials=config.startup_trials,
        unpruned_trials=config.unpruned_trials,
    )


def judge_point(held: TrialMaterial, params: Params, fold: int) -> Score:
    """Train on one fold and judge.

    Raises:
        ModelError: if a loss, a gradient or a validation is not finite.
    """
    torch.set_num_threads(1)
    material, chosen = _at(held, params), held.folds[fold]
    blocks = material.blocks
    scaler = fit_scalers(material.arrays, chosen.train, clip=material.design.config.clip)
    net = _trained(material, chosen, blocks, scaler)
    loss = _judged_loss(material, net, blocks, scaler, chosen)
    own = said(net, blocks, chosen.test, scaler, material.arrays.present)
    rank_ic = _rank_ic(material, own, chosen)
    stretch = material.stretch(chosen.test)
    assert own.location is not None
    returns = net_returns(own.location[:, :, -1], stretch)
    days = (stretch.known_at - 1) // DAY
    summed = np.bincount(days - days[0], weights=returns)
    figures = {"loss": loss, "rank_ic": rank_ic}
    value = loss if held.objective == "loss" else rank_ic
    return Score(value, np.asarray((days[0] + np.arange(len(summed))) * DAY, np.int64), np.asarray(summed, np.float64), figures)


def winning_plan(plan: Plan, config: TuneConfig, params: Mapping[str, Value]) -> Plan:
    """The plan with a point's settings in place of its own, for a training in full."""
    space = _space(plan, config)
    nets = plan.nets.model_copy(update={"preset": "custom", "evoformer": space.trunk(params), "genome": genome_sizes(plan.nets)})
    train = plan.train.model_copy(update={"learning_rate": float(params["learning_rate"]), "batch": int(params["batch"])})
    return replace(
        plan, nets=nets, train=train, learn=plan.learn.model_copy(update={"evolution": _evolution(plan.learn.evolution, params)})
    )


def _evolution(config: EvolutionConfig, params: Mapping[str, Value]) -> EvolutionConfig:
    return config.model_copy(update={"sigma": float(params["sigma"])}) if "sigma" in params else config


def _held(held: TrialMaterial) -> TrialMaterial:
    """What a worker holds: that which it was sent."""
    return held


def _space(plan: Plan, config: TuneConfig) -> ForecasterSpace:
    sizes = forecaster_sizes(plan.nets)
    now = {
        "learning_rate": plan.train.learning_rate, "batch": plan.train.batch, "sigma": plan.learn.evolution.sigma,
        "dropout": sizes.row_dropout, "heads": sizes.heads, "head_width": sizes.sequence_width // sizes.heads,
    }  # fmt: skip
    return ForecasterSpace(config, sizes, plan.signals.forecast.block_bars, now)


def _short_of(unseen: Fold, fold: Fold, plan: Plan, panel: Panel) -> Fold:
    """The fold without the newest bars that it is judged on, whose labels reach into the days that no trial may see."""
    longest = max(plan.signals.forecast.horizon_bars[-1], correlation_horizon(plan.signals.forecast, panel.interval)) + 2
    latest = unseen.test_since - round(plan.train.embargo_days * DAY) - longest * panel.interval
    rows = fold.test[panel.known_at[fold.test] <= latest]
    if not len(rows):
        raise ConfigError("the embargo before the unseen days leaves nothing to judge", hint="set lifecycle.tune.test_days higher")
    return replace(fold, test=rows)


def _material(plan: Plan, dataset: Dataset, panel: Panel, folds: Sequence[Fold]) -> Material:
    config, encoder = plan.signals.forecast, open_encoder(plan.signals.text)
    design = ForecastDesign(
        sizes=forecaster_sizes(plan.nets), heads=plan.nets.heads, config=config, news=plan.signals.news, interval=panel.interval,
        encoder=EncoderId.of(encoder),
    )  # fmt: skip
    frame = Frame(panel, dataset, first=int(folds[0].train[0]))
    arrays = forecast_arrays(frame, config, encoder, news=plan.signals.news)
    labels = forecast_labels(panel, frame.sigma, config)
    cost = plan.costs.taker_fee + plan.costs.half_spread
    fits = plan.learn.fit.model_copy(update={"epochs": plan.train.epochs})
    return Material(arrays, labels, steps_ahead(panel), design, plan.train, fits, plan.learn.evolution, cost, plan.seed, Path())


def _identity(plan: Plan, config: TuneConfig, dataset: Dataset, material: Material, folds: Sequence[Fold]) -> dict[str, Any]:
    """What a study depends on besides its points."""
    found = {
        "version": __version__,
        "data": {"origin": dataset.origin, "fingerprint": dataset.fingerprint, "arrays": material.arrays.fingerprint()},
        "design": material.design.described(),
        "fold_list": [fold.as_dict() for fold in folds],
        "train": plan.train.model_dump(exclude={"processes", "learning_rate", "batch"}),
        "fit": material.fit.model_dump(exclude={"learning_rate", "batch"}),
        "evolution": plan.learn.evolution.model_dump(exclude={"sigma"}),
        "costs": {"taker_fee": plan.costs.taker_fee, "half_spread": plan.costs.half_spread},
        "space": config.model_dump(include=set(SPACE)),
        "objective": config.objective,
    }
    return dict(as_json(found))


def _at(held: TrialMaterial, params: Params) -> Material:
    """The material with the settings of a point."""
    base = held.material
    fits = base.fit.model_copy(update={"learning_rate": float(params["learning_rate"]), "batch": int(params["batch"])})
    design = replace(base.design, sizes=held.space.trunk(params))
    return replace(base, design=design, fit=fits, evolution=_evolution(base.evolution, params))


def _trained(material: Material, fold: Fold, blocks: Blocks, scaler: ForecastScaler) -> Forecaster:
    """The network of one fold: gradients, then evolution, as the recipe does it, without checkpoints: a trial is short."""
    net, seed = material.design.build(material.seed + fold.number), material.seed + fold.number
    net.set_linear(torch.from_numpy(ridge_weights(table_of(material, scaler), fold)[0]).float())
    embargo = round(material.train.embargo_days * DAY)
    samples = blocks.samples(fold.train, scaler, known_by=fold.accept_since - embargo, every=material.train.stride_bars)
    looks = blocks.samples(fold.validation, scaler, known_by=fold.test_since - embargo)
    fit(
        net,
        partial(_loss, material),
        samples,
        config=material.fit,
        seed=seed,
        validate=validator(partial(_loss, material), looks, CHECK_BLOCKS),
        checks_per_epoch=material.train.checks_per_epoch,
    )
    net.eval()
    if material.train.evolve_generations and len(fold.accept):
        newest = fold.train[-round(OBJECTIVE_STRETCHES * len(fold.accept)) :]
        teach, accept = (cached(net, blocks, rows, scaler) for rows in (newest, fold.accept))
        with tempfile.TemporaryDirectory(prefix="cryptoalpha-tune-") as place:
            evolve_moves(
                net,
                (teach, material.stretch(newest)),
                (accept, material.stretch(fold.accept)),
                material.evolution,
                generations=material.train.evolve_generations,
                seed=seed,
                checkpoint=Path(place) / "evolution.safetensors",
            )
    return net


def _loss(material: Material, model: nn.Module, batch: Batch) -> torch.Tensor:
    design = material.design
    return forecast_loss(model(batch[0]), batch[1], sideways=design.config.sideways, quantiles=design.heads.quantiles)


def _judged_loss(material: Material, net: Forecaster, blocks: Blocks, scaler: ForecastScaler, fold: Fold) -> float:
    """Mean loss over the blocks of the judged bars."""
    judged = blocks.samples(fold.test, scaler, known_by=NEVER)
    with torch.no_grad():
        return validator(partial(_loss, material), judged, CHECK_BLOCKS)(net)


def _rank_ic(material: Material, own: Predictions, fold: Fold) -> float:
    """Rank correlation of expected and realised moves at the longest horizon; NaN where it is not defined."""
    outcomes, last = material.outcomes().rows(fold.test), len(material.design.config.horizon_bars) - 1
    assert own.location is not None
    seen = np.isfinite(own.location[:, :, last]) & np.isfinite(outcomes.move[:, :, last])
    columns = tally(Predictions(own.name, location=own.location), outcomes, {"location": seen}, last, ())
    return float(measured({name: column.sum() for name, column in columns.items()})["rank_ic"])
