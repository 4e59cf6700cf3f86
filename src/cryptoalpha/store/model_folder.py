"""A folder of trained models, one per fold of a walk forward, and where they come from.

    MODEL/model.json              kind, what all folds share (sizes, features, encoder …), lineage, and the list of the folds
    MODEL/fold_00.safetensors …   weights and scalers of one fold, and the moment from which it may answer

A bar is answered by the newest fold that may be used at the moment the bar is known, so that a backtest over past years meets at every bar
a model that was trained before it. The folds are written first and `model.json` last: a folder without it is unfinished and refused.

`model.json` holds the SHA-256 of every fold: one that was exchanged, cut off or edited is refused. That finds accidents, not an attacker.

A *series* (`model_series`) is a folder to which folds of later models are added while it is used; what older folds answer never changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError, DataMissingError, ModelError, StoreError
from cryptoalpha.store.array_file import Kept, read_arrays, write_arrays
from cryptoalpha.store.tables import Times
from cryptoalpha.store.whole_file import write_whole

FORMAT = 1
"""Raised when older code cannot read what newer code writes."""


@dataclass(frozen=True)
class FoldFile:
    """One fold's file: its name in the folder, the moment (UTC ns) from which it may answer, and its SHA-256. In a series the fold of a
    later model `takes_over` at a later moment than that."""

    file: str
    usable_from: int
    sha256: str
    takes_over: int | None = None

    @property
    def answers_from(self) -> int:
        """The moment from which it answers, until the next one does."""
        return self.usable_from if self.takes_over is None else self.takes_over

    def as_dict(self) -> dict[str, Any]:
        """For `model.json`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def write_fold(folder: Path, number: int, arrays: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any], *, kind: str) -> FoldFile:
    """Write one fold; `state` must say `usable_from`. Give what it returns to `write_folder`.

    Raises:
        ConfigError: if `usable_from` is not in `state`.
        StoreError: if the disk refuses.
    """
    if not isinstance(state.get("usable_from"), int):
        raise ConfigError("a fold must say from when on it may be used", hint="state['usable_from'] in UTC ns")
    path = folder / f"fold_{number:02d}.safetensors"
    write_arrays(path, arrays, state, kind=_file_kind(kind))
    return FoldFile(path.name, int(state["usable_from"]), _sha256(path))


def write_folder(
    folder: Path, *, kind: str, description: Mapping[str, Any], lineage: Mapping[str, Any], folds: Sequence[FoldFile]
) -> ModelFolder:
    """Finish a folder whose folds are written.

    Args:
        kind: `forecaster` or `genome`: also the verb that trains one.
        description: what all folds share and a user of the model must match (JSON values).
        lineage: dataset hash, folds, settings, versions, seed, measures (JSON values).

    Raises:
        ConfigError: if there is no fold, or two are usable from the same moment.
        StoreError: if the disk refuses.
    """
    moments = [fold.usable_from for fold in folds]
    if not folds or len(set(moments)) < len(moments):
        raise ConfigError(f"a model needs folds that take over at different moments, got {moments}")
    ordered = sorted(folds, key=lambda fold: fold.usable_from)
    content = {
        "format": FORMAT,
        "kind": kind,
        "description": dict(description),
        "lineage": dict(lineage),
        "folds": [fold.as_dict() for fold in ordered],
    }
    write_whole(folder / "model.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    return ModelFolder.open(folder, kind)


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """An open folder. `folds` in the order in which they take over."""

    path: Path
    kind: str
    description: Mapping[str, Any]
    lineage: Mapping[str, Any]
    folds: tuple[FoldFile, ...]
    series: Mapping[str, Any] | None = None
    """Of a series: whose models follow each other in it."""
    seen: tuple[int, int, int] = (0, 0, 0)
    """Which `model.json` was read."""

    @classmethod
    def open(cls, path: Path, kind: str) -> ModelFolder:
        """Read `model.json`; the folds are read when they are needed.

        Raises:
            ConfigError: if there is no such folder, it is unfinished or holds a model of another kind.
            ModelError: if it is written in another format or cannot be understood.
        """
        file = path / "model.json"
        hint = f"train one: cryptoalpha train {kind}"
        try:
            seen = _seen(file)
            content = json.loads(file.read_text(encoding="utf-8"))
            found, number = content["kind"], content["format"]
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{path} holds no trained model: there is no {file.name}", hint=hint) from None
        except OSError as error:
            raise ModelError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{file} is damaged: it is no description of a model", hint=hint) from None
        if found != kind:
            raise ConfigError(f"{path} holds a model of kind {found!r}, expected {kind!r}", hint="name the folder of the right model")
        if number != FORMAT:
            raise ModelError(f"{path} is written in format {number}, this version reads {FORMAT}", hint=hint)
        try:
            folds = tuple(_fold_file(one) for one in content["folds"])
            description, lineage = dict(content["description"]), dict(content["lineage"])
            series = dict(content["series"]) if "series" in content else None
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{file} is damaged: its list of folds or its description is malformed", hint=hint) from None
        moments = [fold.answers_from for fold in folds]
        if not folds or any(b <= a for a, b in pairwise(moments)):
            raise ModelError(f"{file} is damaged: its folds do not take over one after the other", hint=hint)
        if any(fold.answers_from < fold.usable_from for fold in folds):
            raise ModelError(f"{file} is damaged: a fold answers before it may be used", hint=hint)
        return cls(path, kind, description, lineage, folds, series, seen)

    def refreshed(self) -> ModelFolder:
        """A series as it is now, with the folds that were added since it was opened; a folder that is none never changes.

        Raises:
            ModelError: if what was there is no longer there: bars that were answered would be answered otherwise.
        """
        if self.series is None:
            return self
        try:
            unchanged = _seen(self.path / "model.json") == self.seen
        except OSError as error:
            raise ModelError(f"{self.path} cannot be read any more: {error.strerror}", hint="put it back") from error
        if unchanged:
            return self
        now = ModelFolder.open(self.path, self.kind)
        if now.folds[: len(self.folds)] != self.folds or now.description != self.description:
            raise ModelError(
                f"{self.path} was changed while it is used: a series may only grow",
                hint="put back what was there, or begin a run of its own",
            )
        return now

    def numbers_at(self, known_at: Times) -> npt.NDArray[np.int64]:
        """The fold that answers at each moment, −1 before the first. Any shape."""
        moments = np.array([fold.answers_from for fold in self.folds], np.int64)
        return np.asarray(np.searchsorted(moments, known_at, side="right") - 1, np.int64)

    def read(self, number: int) -> Kept:
        """Arrays and state of one fold.

        Raises:
            ModelError: if its file is missing, damaged, exchanged, or says something else than `model.json`.
        """
        fold = self.folds[number]
        path = self.path / fold.file
        hint = "restore the folder from a copy, or train it anew"
        try:
            kept, digest = read_arrays(path, kind=_file_kind(self.kind)), _sha256(path)
        except (StoreError, DataMissingError) as error:
            raise ModelError(f"fold {number} of {self.path} cannot be used: {error}", hint=hint) from error
        if digest != fold.sha256:
            raise ModelError(f"{path} is not the file that {self.path / 'model.json'} speaks of: its SHA-256 differs", hint=hint)
        if kept.state.get("usable_from") != fold.usable_from:
            raise ModelError(
                f"{path} may be used from {kept.state.get('usable_from')}, model.json says {fold.usable_from}: one of them is wrong",
                hint=hint,
            )
        return kept


def folder_digest(file: Path) -> str:
    """SHA-256 of what a `model.json` says of its models, which are part of a run's identity. A series stays the one it is as it grows: what
    it answered before is answered by the same models still.

    Raises:
        OSError: if it cannot be read.
    """
    content = file.read_bytes()
    try:
        told = json.loads(content)
        if "series" in told:
            content = json.dumps([told["kind"], told["description"], told["series"]], sort_keys=True).encode()
    except (ValueError, KeyError, TypeError):
        pass  # whoever opens it says what is wrong
    return hashlib.sha256(content).hexdigest()


def refuse_other(where: str, trained: Mapping[str, Any], given: Mapping[str, Any], *, kind: str) -> None:
    """Refuse to use a model with other settings, features or bars than it was trained with. Compared are the names in `given`.

    Raises:
        ModelError: naming each difference.
    """
    differing = [name for name in given if plain(trained.get(name)) != plain(given[name])]
    if differing:
        listed = "; ".join(f"{name} is {_short(given[name])}, trained with {_short(trained.get(name))}" for name in differing)
        raise ModelError(f"{where} does not fit: {listed}", hint=f"use what it was trained with, or train anew: cryptoalpha train {kind}")


def plain(value: Any) -> Any:
    """The value as JSON would give it back: tuples are lists."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _fold_file(told: Mapping[str, Any]) -> FoldFile:
    over = told.get("takes_over")
    return FoldFile(str(told["file"]), int(told["usable_from"]), str(told["sha256"]), None if over is None else int(over))


def _seen(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _file_kind(kind: str) -> str:
    return f"cryptoalpha {kind} fold"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
