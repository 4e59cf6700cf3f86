"""Models that follow each other in one folder: who answers a bar is who was in charge when the bar became known.

    SERIES/model.json     as any model folder's, with `series`, and folds that lie where their models do

A run that uses a series goes on when a model takes over: bars before that moment are answered by the model before, in a replay as well. So
a promotion, or the way back, neither ends a run nor changes what it did. Folds are only ever added; the moment at which a model takes over
is written down here, once, and lies ahead of the clock by `AHEAD_SECONDS`, so that whoever follows has seen it before a bar asks for it.

All models of a series fit the same settings: one of another design begins a series of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import SECOND, iso
from cryptoalpha.store.model_folder import FORMAT, FoldFile, ModelFolder, plain
from cryptoalpha.store.whole_file import write_whole

AHEAD_SECONDS = 60.0


def extend_series(place: Path, model: ModelFolder, *, member: str, now: int) -> ModelFolder:
    """Let a model follow the one in charge, or begin the series with it; nothing happens if it is in charge already.

    Args:
        place: folder of the series; made if there is none.
        model: folds of a verified model, which must stay where it lies as long as the series is used.
        member: what it is called, such as the id of its version.
        now: UTC ns.

    Raises:
        ModelError: if it is of another kind or design, or the series was extended for a later moment than this.
        StoreError: if the disk refuses.
    """
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place):
        if not (place / "model.json").is_file():
            return _write(place, model, {"first": member}, (), [{"member": member, "at": None}], _moved(model, place, model.folds))
        found = ModelFolder.open(place, model.kind)
        members = list(found.lineage.get("members", ()))
        if members and members[-1]["member"] == member:
            return found
        if plain(found.description) != plain(model.description):
            raise ModelError(
                f"{member} has another design than the models of {place}",
                hint="it begins a series of its own; runs that follow this one go on with the model they have",
            )
        at = now + round(AHEAD_SECONDS * SECOND)
        if found.folds[-1].answers_from >= at:
            raise ModelError(
                f"{place} already goes on with another model at {iso(found.folds[-1].answers_from)}",
                hint="is the clock right? else try again after that",
            )
        added = _moved(model, place, _from(model.folds, at))
        return _write(place, model, found.series or {}, found.folds, [*members, {"member": member, "at": at}], added)


def _from(folds: tuple[FoldFile, ...], at: int) -> tuple[FoldFile, ...]:
    """The fold that answers at a moment, taking over then, and those after it."""
    before = [fold for fold in folds if fold.answers_from <= at]
    return (*(replace(fold, takes_over=at) for fold in before[-1:]), *(fold for fold in folds if fold.answers_from > at))


def _moved(model: ModelFolder, place: Path, folds: tuple[FoldFile, ...]) -> tuple[FoldFile, ...]:
    """The same folds, named as they lie seen from the series."""
    return tuple(replace(fold, file=os.path.relpath((model.path / fold.file).resolve(), place.resolve())) for fold in folds)


def _write(
    place: Path,
    model: ModelFolder,
    series: Mapping[str, Any],
    before: tuple[FoldFile, ...],
    members: list[dict[str, Any]],
    added: tuple[FoldFile, ...],
) -> ModelFolder:
    content = {
        "format": FORMAT,
        "kind": model.kind,
        "description": dict(model.description),
        "series": dict(series),
        "lineage": {"members": members},
        "folds": [fold.as_dict() for fold in (*before, *added)],
    }
    write_whole(place / "model.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    return ModelFolder.open(place, model.kind)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One writer at a time; the kernel lets go of the lock when its holder ends."""
    with (place / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
