"""The audit of training: what a fold of a model was made of may hold nothing that was known after the fold may be used.

At each cut t a small model is trained three times by the recipe that trains the large one: on everything, on data that end some days after
t (`remove`: no scaler, vocabulary or layout of folds may come from the end of history), and on data whose rows known after t are garbage
(`poison`: no label may reach over t). The fold, weights, scalers and state alike, must be the same to the last bit. A recipe that breaks
off on garbage has not been shown clean: that counts as a leak too.

The recipes are the real ones with small settings (`training_recipes`); one fold each, usable from t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.app.audit import AuditReport, Leak, Mode, poisoned
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError
from cryptoalpha.core.time import DAY
from cryptoalpha.store.model_folder import FoldFile, ModelFolder
from cryptoalpha.store.tables import Dataset

JUDGED_DAYS = 20
"""Days after a cut on which the small models are judged; a recipe ends by judging."""


@dataclass(frozen=True)
class Recipe:
    """A way to train a model: `train(dataset, usable_from, folder)` leaves a folder of `kind` with one fold usable from that moment on."""

    kind: str
    train: Callable[[Dataset, int, Path], object]


def audit_training(
    dataset: Dataset,
    recipes: Sequence[Recipe],
    moments: Sequence[int],
    scratch: Path,
    *,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> AuditReport:
    """Train at every moment by every recipe, with and without the future.

    Args:
        moments: cuts, UTC ns; the data must go on for `JUDGED_DAYS` after each.
        scratch: an empty folder for the models.
        advance: told of every training that has finished (3 · cuts · recipes in all).

    Raises:
        ConfigError: if there is no cut.
    """
    if not moments:
        raise ConfigError("a training audit needs at least one moment to cut at")
    report = AuditReport(list(moments), max((len(table) for table in dataset.bars.values()), default=0))
    for recipe in recipes:
        for place, moment in enumerate(moments):
            folder = scratch / f"{recipe.kind}_{place}"
            recipe.train(dataset, moment, folder / "whole")
            whole = ModelFolder.open(folder / "whole", recipe.kind)
            _tell(advance)
            changes: tuple[tuple[Mode, Dataset], ...] = (
                ("remove", dataset.known_until(moment + JUDGED_DAYS * DAY)),
                ("poison", poisoned(dataset, moment, seed)),
            )
            for mode, changed in changes:
                _compare(recipe, whole, changed, moment, mode, folder / mode, report)
                _tell(advance)
    return report


def cut_moments(dataset: Dataset, count: int, *, learn_days: int) -> list[int]:
    """Moments to cut at: as late as judging allows, `JUDGED_DAYS` apart, ascending.

    Raises:
        ConfigError: if the history is too short.
    """
    known = [(int(table.known_at[0]), int(table.known_at[-1])) for table in dataset.bars.values() if len(table)]
    if not known:
        raise ConfigError("there are no bars to train on")
    first, last = min(begin for begin, _ in known), max(end for _, end in known)
    moments = [((last // DAY) - JUDGED_DAYS * (k + 1) - 1) * DAY for k in reversed(range(count))]
    if moments[0] - learn_days * DAY <= first:
        days = learn_days + JUDGED_DAYS * count + 2
        raise ConfigError(f"the history is too short for {count} cuts: {days} days are needed", hint="audit longer data, or cut once")
    return moments


def _compare(recipe: Recipe, whole: ModelFolder, changed: Dataset, moment: int, mode: Mode, folder: Path, report: AuditReport) -> None:
    """Train on changed data and compare every fold that may be used by the cut."""
    try:
        recipe.train(changed, moment, folder)
        again = ModelFolder.open(folder, recipe.kind)
    except CryptoAlphaError as error:
        report.leaks.append(Leak(f"training {recipe.kind} broke off with {type(error).__name__} ({error})", mode, moment, moment, 1))
        return
    old, new = (tuple(fold for fold in each.folds if fold.usable_from <= moment) for each in (whole, again))
    if len(old) != len(new) or not old:
        report.leaks.append(Leak(f"training {recipe.kind}: {len(old)} folds became {len(new)}", mode, moment, moment, 1))
        return
    for before, after in zip(old, new, strict=True):
        differing = _differing(whole, before, again, after, report, recipe.kind)
        if differing:
            report.leaks.append(
                Leak(f"training {recipe.kind}, {before.file}: {', '.join(differing)}", mode, moment, before.usable_from, len(differing))
            )


def _differing(whole: ModelFolder, before: FoldFile, again: ModelFolder, after: FoldFile, report: AuditReport, kind: str) -> list[str]:
    """Names of what differs between two folds, bit for bit; counts what was compared."""
    old, new = whole.read(whole.folds.index(before)), again.read(again.folds.index(after))
    report.add(f"training {kind}/arrays", sum(array.size for array in old.arrays.values()))
    if before.sha256 == after.sha256 and before.usable_from == after.usable_from:
        return []
    names = sorted({*old.arrays, *new.arrays})
    found = [
        name
        for name in names
        if name not in old.arrays or name not in new.arrays or not np.array_equal(_bits(old.arrays[name]), _bits(new.arrays[name]))
    ]
    told, again_told = _told(old.state), _told(new.state)
    found += [f"state {key}" for key in sorted({*told, *again_told}) if told.get(key) != again_told.get(key)]
    return found


def _told(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a fold says of itself, less where its judging ends: that is not part of the model, and removing the future moves it."""
    told = dict(state)
    lineage = told.get("lineage")
    if isinstance(lineage, dict) and isinstance(lineage.get("fold"), dict):
        fold = {key: value for key, value in lineage["fold"].items() if key != "test_until"}
        if isinstance(fold.get("bars"), dict):
            fold["bars"] = {part: count for part, count in fold["bars"].items() if part != "test"}
        told["lineage"] = {**lineage, "fold": fold}
    return told


def _bits(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), dtype=np.uint8)


def _tell(advance: Callable[[int], None] | None) -> None:
    if advance is not None:
        advance(1)
