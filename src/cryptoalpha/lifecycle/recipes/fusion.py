"""Train the searched fusion: walk-forward folds side by side, judged beside the baselines, kept with where they come from.

    trained = train_fusion(plan, dataset, Period(), home / "models" / "fusion")

The search walks the whole history once without a network, in steps of a few hours; what it lived through teaches the network of every
fold, up to that fold's past. Each fold then evolves settings of the search, and is judged on its validation and its test stretch beside the
untrained search and the baselines. The folder is written whole at the end or not at all (`workshop`).

Interrupted, the folds go on where they were; the walk, two minutes for six years of eight markets, is made again.
"""

from __future__ import annotations

import copy
import hashlib
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.experience import ExperienceQueue, Lessons
from cryptoalpha.decisions.fusion.guided import KIND, described
from cryptoalpha.decisions.fusion.search.actions import ACTIONS
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.folds import Fold, plan_folds
from cryptoalpha.lifecycle.recipes.forecaster import Period
from cryptoalpha.lifecycle.recipes.fusion_fold import MODEL, FusionMaterial, moments_of, read_fusion_result, train_fusion_fold
from cryptoalpha.lifecycle.recipes.fusion_judging import judge_fusion
from cryptoalpha.lifecycle.recipes.fusion_trained import FusionTrained
from cryptoalpha.lifecycle.recipes.fusion_walk import coarse, columns_of, steps_of, walk
from cryptoalpha.lifecycle.recipes.page import page
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.model_folder import FoldFile, write_folder
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

STRIDE = 4
"""Bars of one step of the walk, times `lifecycle.train.stride_bars`: every hour of six years would be searched for an hour."""

TOLD_EVERY = 100


@dataclass(frozen=True)
class FusionPlan:
    """The settings of a training."""

    signals: SignalsConfig
    fusion: FusionConfig
    train: TrainConfig
    seed: int = 0

    @property
    def stride(self) -> int:
        """Bars of one step."""
        return STRIDE * self.train.stride_bars


def train_fusion(
    plan: FusionPlan,
    dataset: Dataset,
    period: Period,
    out: Path,
    *,
    instruments: Sequence[str] | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
) -> FusionTrained:
    """Train, judge, and leave the model at `out`.

    Args:
        fresh: begin anew, and replace a model that lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.

    Raises:
        DataMissingError: if the history is too short.
        ConfigError: if `out` holds something else, another model, or another training that was interrupted.
        ModelError: if a loss is not finite.
        KeyboardInterrupt: after Ctrl-C; what folds have reached is kept.
    """
    shop = Workshop(out)
    old = shop.finished(KIND, fresh=fresh)
    config = coarse(plan.fusion, plan.stride)
    tape = _tape(plan, dataset, period, instruments)
    folds = _folds(plan, tape, period)
    identity = _identity(plan, dataset, folds, tape)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return FusionTrained(out, done, already=True)
    material = _material(plan, config, tape, folds, out, tell)
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), train_fusion_fold, folds, processes=plan.train.processes)
    lineage = as_json({"identity": identity, **_judged(plan, config, folds, shop)})
    _write(shop, plan, tape, folds, lineage)
    return FusionTrained(out, lineage)


def _given(material: FusionMaterial) -> FusionMaterial:
    """What a worker holds: that which it was sent."""
    return material


def _tape(plan: FusionPlan, dataset: Dataset, period: Period, instruments: Sequence[str] | None) -> SignalTape:
    """Signals from a warm-up of the fusion before the first bar that is looked at on."""
    warm_up = int(plan.fusion.warmup_days * DAY) if period.since is not None else 0
    since, until = max(0, (period.since or 0) - warm_up), period.until or np.iinfo(np.int64).max
    return SignalBook(plan.signals).prepare(dataset, since=since, until=int(until), instruments=instruments)


def _folds(plan: FusionPlan, tape: SignalTape, period: Period) -> tuple[Fold, ...]:
    """Folds over the bars of the tape: a label is settled when its horizon has closed."""
    panel, horizon = tape.panel, plan.fusion.horizon_bars
    begin = int(np.searchsorted(panel.open_time, period.since or 0))
    if begin >= len(panel) - horizon:
        raise DataMissingError(f"there are no bars from {iso(period.since or 0)} on", hint="choose an earlier --since")
    ends = np.full(len(panel), np.iinfo(np.int64).max, np.int64)
    ends[:-horizon] = panel.known_at[horizon:]
    bounds = {"test_since": period.test_since, "test_until": period.test_until, "most": period.folds}
    return plan_folds(panel.known_at[begin:], ends[begin:], plan.train, **bounds)


def _material(
    plan: FusionPlan, config: FusionConfig, tape: SignalTape, folds: Sequence[Fold], out: Path, tell: Tell | None
) -> FusionMaterial:
    """The walk without a network: its lessons, what it was worth, and the fusion as it stood where the folds begin."""
    steps = steps_of(tape, plan.stride)
    queue = ExperienceQueue(ACTIONS, capacity=4 * config.horizon_bars + 64)
    fusion = SearchedFusion(config, seed=plan.seed, experience=queue)
    wanted = sorted({moment for fold in folds for moment in moments_of(fold)})
    snapshots: dict[int, SearchedFusion] = {}
    lessons: list[Lessons] = []

    def before(at: int) -> None:
        lessons.append(queue.take(at))
        while wanted and wanted[0] <= at:
            fusion.experience = None  # who goes on from here is taught by nobody
            snapshots[wanted.pop(0)] = copy.deepcopy(fusion)
            fusion.experience = queue

    def told(done: int) -> None:
        if tell is not None and done % TOLD_EVERY == 0:
            tell(done, len(steps), "walking the history without a network")

    matured = walk(fusion, steps, before=before, told=told)
    first = min(moment for fold in folds for moment in moments_of(fold))
    return FusionMaterial(
        steps=tuple(step for step in steps if step.at >= first),
        lessons=Lessons.joined(lessons),
        untrained=columns_of(matured),
        snapshots=snapshots,
        config=config,
        whole=plan.fusion,
        train=plan.train,
        seed=plan.seed,
        out=out,
    )


def _identity(plan: FusionPlan, dataset: Dataset, folds: Sequence[Fold], tape: SignalTape) -> dict[str, Any]:
    """What makes a training this one: everything that its result depends on."""
    found = {
        "version": __version__,
        "seed": plan.seed,
        "data": {"origin": dataset.origin, "fingerprint": dataset.fingerprint, "simulated": dataset.simulated},
        "instruments": list(tape.panel.instruments),
        "tape": _fingerprint(tape),
        "signals": plan.signals.model_dump(),
        "fusion": plan.fusion.model_dump(exclude={"method": True, "online": True, "learning": {"model"}}),
        "train": plan.train.model_dump(exclude={"processes"}),
        "folds": [fold.as_dict() for fold in folds],
    }
    return dict(as_json(found))


def _fingerprint(tape: SignalTape) -> str:
    """Hash of all that the walk rests on: a path in the settings may hold another model tomorrow."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(tape.arrays().items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _judged(plan: FusionPlan, config: FusionConfig, folds: Sequence[Fold], shop: Workshop) -> dict[str, Any]:
    """Everything that was found out, over the test stretches of all folds end to end."""
    results = [read_fusion_result(shop, fold) for fold in folds]
    columns = {name: np.concatenate([found[name] for found, _ in results]) for name in results[0][0]}
    judged = judge_fusion(columns, horizon=config.horizon_bars, seed=plan.seed)
    return {
        "versions": {"cryptoalpha": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "model": MODEL,
        "stride_bars": plan.stride,
        "judgement": judged.as_dict(),
        "verdict": judged.verdict(),
        "by_fold": [judge_fusion(found, horizon=config.horizon_bars, seed=plan.seed, resamples=200).as_dict() for found, _ in results],
        "training": [state for _, state in results],
    }


def _write(shop: Workshop, plan: FusionPlan, tape: SignalTape, folds: Sequence[Fold], lineage: Mapping[str, Any]) -> None:
    files = [FoldFile(**read_fusion_result(shop, fold)[1]["file"]) for fold in folds]
    kept = {file.file for file in files}
    for left in shop.draft.iterdir():
        if left.name not in kept:
            left.unlink() if left.is_file() else shutil.rmtree(left)
    write_whole(shop.draft / "report.html", page(FusionTrained(shop.out, lineage)))
    description = {**described(plan.fusion), "interval": tape.panel.interval}
    write_folder(shop.draft, kind=KIND, description=description, lineage=lineage, folds=files)
    shop.publish()
