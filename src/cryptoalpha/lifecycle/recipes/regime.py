"""Train the regime model: walk-forward folds, judged beside models without states or without memory, kept with where it comes from.

    trained = train_regime(plan, dataset, Period(), home / "models" / "regime")

Features are computed once. Each fold fits both chains on its own past, chooses how much a bar counts on the later half of it, and is
judged on its test bars exactly as the source would answer them. The folder is written whole at the end or not at all (`workshop`).
"""

from __future__ import annotations

import hashlib
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
from cryptoalpha.lifecycle.recipes.page import page
from cryptoalpha.lifecycle.recipes.regime_fold import MODEL, RegimeMaterial, bars_of_day, fit_regime_fold, read_regime_result
from cryptoalpha.lifecycle.recipes.regime_judging import judge_regime
from cryptoalpha.lifecycle.recipes.regime_tallies import outcomes_of
from cryptoalpha.lifecycle.recipes.regime_trained import RegimeTrained
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime.features import features_reach, regime_features, usual_volatility
from cryptoalpha.signals.regime.model import KIND, RegimeDesign, finish
from cryptoalpha.store.model_folder import FoldFile
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole


def train_regime(
    plan: Plan,
    dataset: Dataset,
    period: Period,
    out: Path,
    *,
    instruments: Sequence[str] | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
) -> RegimeTrained:
    """Train, judge, and leave the model at `out`.

    Args:
        fresh: begin anew, and replace a model that lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.

    Raises:
        DataMissingError: if the history is too short.
        ConfigError: if `out` holds something else, another model, or another training that was interrupted.
        KeyboardInterrupt: after Ctrl-C; folds that are done are kept.
    """
    shop = Workshop(out)
    old = shop.finished(KIND, fresh=fresh)
    panel, folds = _folds(plan, dataset, period, instruments)
    looked_at = plan.signals.regime.warm_up_bars + plan.signals.regime.block_bars
    material = _material(plan, Frame(panel, dataset, first=max(0, int(folds[0].train[0]) - looked_at)), out)
    identity = _identity(plan, material, dataset, folds, panel)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return RegimeTrained(out, done, already=True)
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), fit_regime_fold, folds, processes=plan.train.processes)
    lineage = as_json({"identity": identity, **_judged(material, folds, shop, plan.seed)})
    _write(shop, material.design, folds, lineage)
    return RegimeTrained(out, lineage)


def _given(material: RegimeMaterial) -> RegimeMaterial:
    """What a worker holds: that which it was sent."""
    return material


def _folds(plan: Plan, dataset: Dataset, period: Period, instruments: Sequence[str] | None) -> tuple[Panel, tuple[Fold, ...]]:
    """The panel from the first bar that is looked at on, and the folds by its rows."""
    since, until = period.since or 0, period.until or np.iinfo(np.int64).max
    whole = build_panel(dataset, since=0, until=int(until), instruments=instruments)
    begin = int(np.searchsorted(whole.open_time, since))
    if begin >= len(whole):
        raise DataMissingError(f"{dataset.origin} has no bars from {iso(since)} on", hint="choose an earlier --since")
    known = np.maximum.accumulate(whole.known_at)[begin:]  # a feature is settled when it is known: there is no label
    bounds = {"test_since": period.test_since, "test_until": period.test_until, "most": period.folds}
    folds = plan_folds(known, known, plan.train, **bounds)
    warm_up = features_reach(whole.interval) + plan.signals.regime.warm_up_bars + plan.signals.regime.block_bars
    cut = max(0, begin + int(folds[0].train[0]) - warm_up)
    return whole.rows(cut, len(whole)), plan_folds_at(folds, begin - cut)


def _material(plan: Plan, frame: Frame, out: Path) -> RegimeMaterial:
    """Features and outcomes of all rows."""
    panel, design = frame.panel, RegimeDesign(plan.signals.regime, frame.panel.interval)
    whole = frame.beginning(0)
    per_bar = (whole.slow_interval / panel.interval) ** 0.5  # σ₃₀ is that of a row of the slow grid
    usual = whole.from_slow(tuple(usual_volatility(whole, unit) for unit in whole.slow_unit_return)) / per_bar
    close = np.where(frame.usable, panel.close, np.nan)
    return RegimeMaterial(
        features=regime_features(frame),
        usable=frame.usable,
        known_at=np.maximum.accumulate(panel.known_at),
        outcomes=outcomes_of(close, usual, bars_of_day(panel.interval)),
        first_bar=int(panel.open_time[0]) // panel.interval,
        design=design,
        out=out,
    )


def _identity(plan: Plan, material: RegimeMaterial, dataset: Dataset, folds: Sequence[Fold], panel: Panel) -> dict[str, Any]:
    """What makes a training this one: everything that its result depends on."""
    digest = hashlib.blake2b(np.ascontiguousarray(material.features).view(np.uint8).data, digest_size=16)
    digest.update(np.ascontiguousarray(material.outcomes.move).view(np.uint8).data)
    found = {
        "version": __version__,
        "seed": plan.seed,
        "data": {
            "origin": dataset.origin,
            "fingerprint": dataset.fingerprint,
            "simulated": dataset.simulated,
            "arrays": digest.hexdigest(),
        },
        "instruments": list(panel.instruments),
        "design": material.design.described(),
        "folds": [fold.as_dict() for fold in folds],
    }
    return dict(as_json(found))


def _judged(material: RegimeMaterial, folds: Sequence[Fold], shop: Workshop, seed: int) -> dict[str, Any]:
    """Everything that was found out."""
    results = [read_regime_result(shop, fold) for fold in folds]
    columns = {name: np.concatenate([found[name] for found, _ in results]) for name in results[0][0]}
    judged = judge_regime(columns, day=bars_of_day(material.design.interval), seed=seed)
    return {
        "versions": {"cryptoalpha": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "model": MODEL,
        "judgement": judged.as_dict(),
        "verdict": judged.verdict(),
        "by_fold": [_of_fold(found, bars_of_day(material.design.interval), seed) for found, _ in results],
        "training": [state for _, state in results],
    }


def _of_fold(columns: Columns, day: int, seed: int) -> dict[str, Any] | None:
    """One fold's judgement; None where it is too short for one."""
    if int((columns["time n"] > 0).sum()) <= day:
        return None
    return judge_regime(columns, day=day, seed=seed, resamples=200).as_dict()


def _write(shop: Workshop, design: RegimeDesign, folds: Sequence[Fold], lineage: Mapping[str, Any]) -> None:
    files = [FoldFile(**read_regime_result(shop, fold)[1]["file"]) for fold in folds]
    kept = {file.file for file in files}
    for left in shop.draft.iterdir():
        if left.name not in kept:
            left.unlink() if left.is_file() else shutil.rmtree(left)
    write_whole(shop.draft / "report.html", page(RegimeTrained(shop.out, lineage)))
    finish(shop.draft, design, files, lineage)
    shop.publish()
