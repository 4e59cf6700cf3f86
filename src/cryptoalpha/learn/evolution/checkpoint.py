"""A strategy on disk: one array file that is whole or not there, and that says what it belongs to.

Per tensor three arrays (accepted weights, both Adam moments); beside them version, settings, seed, counters, tensors, and what the loop
wants to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.learn.evolution.strategy import Evolution
from cryptoalpha.store.array_file import read_arrays, write_arrays

KIND = "evolution strategy"
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
    state = {
        **_identity(strategy),
        "config": strategy.config.model_dump(),
        "generation": strategy.generation,
        "steps": strategy.steps,
        "notes": notes or {},
    }
    write_arrays(path, {f"{part}/{tensor.name}": getattr(tensor, part) for tensor in strategy.tensors for part in PARTS}, state, kind=KIND)


def load(strategy: Evolution, path: Path) -> dict[str, Any]:
    """Put the state of `path` into a strategy that was built with the same parameters, settings and seed; returns the loop's notes.

    Raises:
        DataMissingError: if there is no such file.
        StoreError: if it is damaged, no such file, or lacks an array, or one is not finite; nothing is changed then.
        ConfigError: if it belongs to another run, version, setting or network; says which, and nothing is changed.
    """
    arrays, state = read_arrays(path, kind=KIND)
    _check(strategy, state, path)
    _check_arrays(strategy, arrays, path)
    for tensor in strategy.tensors:
        for part in PARTS:
            getattr(tensor, part)[:] = arrays[f"{part}/{tensor.name}"]
    strategy.resume(generation=int(state["generation"]), steps=int(state["steps"]))
    notes: dict[str, Any] = state["notes"]
    return notes


def _identity(strategy: Evolution) -> dict[str, Any]:
    return {
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
        made_with = header.get("config", {}).get(name)
        if made_with != expected:
            raise ConfigError(
                f"the checkpoint {path} was made with learn.evolution.{name} {made_with}, this run has {expected}",
                hint="a run keeps its settings; to change them, start a new one from these weights",
            )


def _check_arrays(strategy: Evolution, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """All of them, before the first is written: half a checkpoint is no state of any run."""
    for tensor in strategy.tensors:
        for part in PARTS:
            name, own = f"{part}/{tensor.name}", getattr(tensor, part)
            found = arrays.get(name)
            if found is None:
                raise StoreError(f"the checkpoint {path} has no array {name!r}", hint="restore it from a copy, or delete it and begin anew")
            if (found.shape, found.dtype) != (own.shape, own.dtype):
                raise StoreError(f"the checkpoint {path} has {name!r} as {found.dtype}{found.shape}, expected {own.dtype}{own.shape}")
            if not np.isfinite(found).all() or (part == "second" and (found < 0).any()):
                raise StoreError(
                    f"the checkpoint {path} holds values in {name!r} that no run can have come to (NaN, ∞, a second moment below 0)",
                    hint="restore it from a copy, or delete it and begin anew",
                )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
