"""What tests start in other processes: modules of `tests/processes`, found by name there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

PROCESSES = Path(__file__).resolve().parents[3] / "processes"


@pytest.fixture
def actors(monkeypatch):
    monkeypatch.syspath_prepend(PROCESSES)
    return importlib.import_module("runtime_actors")


@pytest.fixture
def learners(monkeypatch):
    monkeypatch.syspath_prepend(PROCESSES)
    return importlib.import_module("runtime_learners")
