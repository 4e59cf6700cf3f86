"""A strategy on disk: one file that is whole or not there, and that says what it belongs to.

The file is a NumPy archive: `header` (JSON: version, settings, seed, counters, tensors, and what the loop wants to keep) and three arrays
per tensor (accepted weights, both Adam moments), read without pickle. It is written beside its place, synced, and renamed over it.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreError
from cryptoalpha.learn.evolution.strategy import Evolution

VERSION = 1
PARTS = ("accepted", "first", "second")


def save(strategy: Evolution, path: Path, notes: dict[str, Any] | None = None) -> None:
    """Write the strategy and the loop's notes (JSON values) to `path`, atomically.

    Raises:
        ConfigError: while a proposal is neither accepted nor undone.
        StoreError: if the file cannot be written.
    """
    if strategy.is_proposing:
        raise ConfigError("a proposal is open, so the strategy is between two states", hint="accept or undo it, then save")
    header = {
        **_identity(strategy),
        "config": strategy.config.model_dump(),
        "generation": strategy.generation,
        "steps": strategy.steps,
        "notes": notes or {},
    }
    arrays = {f"{part}/{tensor.name}": getattr(tensor, part) for tensor in strategy.tensors for part in PARTS}
    # Not the process id: containers share it. A name of its own would leave litter after a kill; one writer per checkpoint is the rule.
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, allow_pickle=False, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"the checkpoint {path} cannot be written: {error}") from error


def load(strategy: Evolution, path: Path) -> dict[str, Any]:
    """Put the state of `path` into a strategy that was built with the same parameters, settings and seed; returns the loop's notes.

    Raises:
        DataMissingError: if there is no such file.
        StoreError: if it is damaged; nothing is changed then.
        ConfigError: if it belongs to another run, version, setting or network; says which, and nothing is changed.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            _check(strategy, header, path)
            found = {(tensor.name, part): archive[f"{part}/{tensor.name}"] for tensor in strategy.tensors for part in PARTS}
    except FileNotFoundError:
        raise DataMissingError(f"there is no checkpoint {path}") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise StoreError(f"the checkpoint {path} is damaged: {error}", hint="take an earlier copy, or start again without it") from error
    for tensor in strategy.tensors:
        for part in PARTS:
            getattr(tensor, part)[:] = found[tensor.name, part]
    strategy.resume(generation=int(header["generation"]), steps=int(header["steps"]))
    notes: dict[str, Any] = header["notes"]
    return notes


def _identity(strategy: Evolution) -> dict[str, Any]:
    return {
        "format": "cryptoalpha evolution",
        "version": VERSION,
        "seed": strategy.seed,
        "tensors": [[tensor.name, list(tensor.live.shape), tensor.accepted.dtype.str] for tensor in strategy.tensors],
    }


def _check(strategy: Evolution, header: dict[str, Any], path: Path) -> None:
    for name, expected in _identity(strategy).items():
        if header.get(name) != expected:
            raise ConfigError(
                f"the checkpoint {path} has {name} {_short(header.get(name))}, this run {_short(expected)}",
                hint="give it another file, or build the run as the checkpoint's was",
            )
    for name, expected in strategy.config.model_dump().items():
        if header["config"].get(name) != expected:
            raise ConfigError(
                f"the checkpoint {path} was made with learn.evolution.{name} {header['config'].get(name)}, this run has {expected}",
                hint="a run keeps its settings; to change them, start a new one from these weights",
            )


def _sync_folder(folder: Path) -> None:
    """The rename itself reaches the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
