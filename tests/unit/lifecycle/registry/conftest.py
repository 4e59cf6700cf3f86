"""A small model folder, quickly made: two folds of a few numbers; and a registry whose clock is moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.lifecycle.registry.version import Version
from cryptoalpha.store.model_folder import write_fold, write_folder


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000)


@pytest.fixture
def registry(tmp_path: Path, clock: VirtualClock) -> ModelRegistry:
    return ModelRegistry(tmp_path / "registry", now=clock.now)


def _write_model(folder: Path, kind: str = "forecaster", value: float = 1.0) -> Path:
    """A whole model folder of two folds."""
    folds = [
        write_fold(folder, number, {"weights": np.full(4, value + number)}, {"usable_from": 100 * (number + 1)}, kind=kind)
        for number in range(2)
    ]
    lineage = {"identity": {"data": "d", "seed": 7, "settings": {}}}
    write_folder(folder, kind=kind, description={"width": 4}, lineage=lineage, folds=folds)
    return folder


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """Write a whole model folder: `write_model(folder, kind, value)`."""
    return _write_model


@pytest.fixture
def registered(registry: ModelRegistry, tmp_path: Path) -> Callable[..., Version]:
    """Register a model whose weights begin at `value`."""

    def register(value: float = 1.0, *, line: str = "forecaster", parent: str | None = None, into: ModelRegistry | None = None) -> Version:
        folder = _write_model(tmp_path / f"made {line} {value}", line, value)
        told = {"data": "d1", "commit": "c1", "config": {"epochs": 2}, "seed": 7, "metrics": {"rank_ic": 0.03}}
        return (into or registry).register(folder, line=line, parent=parent, **told)

    return register
