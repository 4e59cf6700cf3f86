"""`bench`: every named benchmark exists; results are kept beside their targets; a kept one counts for its own commit only."""

from __future__ import annotations

import json
from datetime import date
from importlib import import_module
from pathlib import Path

import pytest

from cryptoalpha.app.bench import run
from cryptoalpha.app.bench.results import TARGETS, keep_result, kept_result
from cryptoalpha.app.bench.run import BENCHES, BenchResult, run_bench
from cryptoalpha.core.errors import ConfigError


def test_every_named_benchmark_is_a_function_and_has_targets():
    assert all(callable(getattr(import_module(module), function)) for module, function in BENCHES.values())
    assert set(TARGETS) == set(BENCHES)


def test_an_unknown_benchmark_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match="no benchmark 'speed'") as refused:
        run_bench("speed", repeats=1, advance=lambda _: None)
    assert "engine, planner" in refused.value.hint


def test_a_result_is_kept_beside_its_targets_and_taken_up_for_its_own_commit_only(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run, "code_version", lambda: "abc")
    found = BenchResult("evolution", {"workers_identical": 1.0, "ratio_evotorch_full": None}, ("a note",))
    page = keep_result(tmp_path, found, on=date(2026, 1, 2)).read_text()
    assert "| workers_identical | 1.00 | 1 |" in page
    assert "| ratio_evotorch_full | not installed | ≥ 0.7 |" in page
    kept = kept_result(tmp_path, "evolution", "abc")
    assert kept is not None
    assert kept["figures"] == found.figures
    assert kept_result(tmp_path, "evolution", "abd") is None
    assert kept_result(tmp_path, "planner", "abc") is None
    assert kept_result(tmp_path, "evolution", "unknown") is None


def test_the_document_has_the_keys_that_are_promised():
    document = BenchResult("engine", {"loop_ratio": 0.5}, ()).as_dict()
    assert list(document) == ["bench", "schema", "environment", "figures", "notes"]
    assert {"python", "numpy", "torch", "cpu", "threads", "commit"} <= set(document["environment"])
    json.dumps(document)
