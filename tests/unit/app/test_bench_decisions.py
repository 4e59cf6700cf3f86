"""`bench decisions` goes on where it was stopped: parts kept of this commit are read, not measured; those of another commit are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cryptoalpha.app.bench import decisions, decisions_speed
from cryptoalpha.app.bench.decisions import bench_decisions, once
from cryptoalpha.app.bench.decisions_speed import Speed, live_times, whole_settings
from cryptoalpha.app.book import build_engine, tape_steps
from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.core.values import REGIMES
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.alphazero.trader import Trader
from cryptoalpha.decisions.alphazero.value import ValueFunction
from cryptoalpha.decisions.config import MEMBERS
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.store.journal import Journal

KEPT = {
    "speed": {"full_loop_bars_per_second": 40.0, "live_decision_p50_ms": 90.0, "live_decision_p99_ms": 150.0, "live_bars": 100.0,
              "live_signals_p50_ms": 60.0, "live_wall_p50_ms": 95.0, "live_wall_p99_ms": 160.0},
    "fusion": {"fused_over_equal": 2.0, "fused_of_oracle": 0.8, "ic_fused_mean": 0.07, "ic_fused_error": 0.01, "ic_equal_mean": 0.035,
               "ic_equal_error": 0.01, "ic_ridge_mean": 0.07, "ic_ridge_error": 0.01, "ic_hedge_mean": 0.07, "ic_hedge_error": 0.01,
               "ic_oracle_mean": 0.09, "ic_oracle_error": 0.01},
    "noise": {"ic_search_mean": 0.002, "ic_search_error": 0.009, "ic_fused_mean": 0.001, "ic_fused_error": 0.008,
              "share_of_bars_searched_acts": 0.0, "share_of_bars_nothing_claimed": 0.8},
    "simulations": {"direction_mean_difference": 0.0033, "direction_correlation": 0.98, "milliseconds_few": 5.0, "milliseconds_many": 36.0},
    "agent": {"ou_share_mean": 0.98, "ou_share_worst": 0.97, "ou_myopic": 0.695},
    "league": {"cournot_distance": 0.011, "cournot_exploitability_share": 0.044},
}  # fmt: skip


def test_parts_kept_of_this_commit_are_told_and_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "code_version", lambda: "a commit")
    for name, figures in KEPT.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"commit": "a commit", "figures": figures}), encoding="utf-8")
    done: list[int] = []
    figures, notes = bench_decisions(repeats=1, advance=done.append, kept=tmp_path)
    assert sum(done) == len(KEPT)
    assert figures["live_decision_p99_ms"] == 150.0
    assert figures["fusion_ic_over_equal"] == 2.0
    said = "\n".join(notes)
    assert "IC of the search 0.002 ± 0.009" in said
    assert "800 instead of 64 move the direction by 0.0033" in said
    assert "cost 36 ms a bar instead of 5" in said


def test_a_part_of_another_commit_is_measured_anew_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def part() -> dict[str, float]:
        measured.append("once more")
        return {"figure": float(len(measured))}

    for commit, expected in (("first", 1.0), ("first", 1.0), ("second", 2.0), ("unknown", 3.0), ("unknown", 4.0)):
        monkeypatch.setattr(decisions, "code_version", lambda commit=commit: commit)
        assert once(tmp_path, "part", part) == {"figure": expected}
    for damaged in ('{"comm', "[]", '{"commit": "second"}', '{"commit": "second", "figures": {"figure": null}}'):
        (tmp_path / "part.json").write_text(damaged)
        monkeypatch.setattr(decisions, "code_version", lambda: "second")
        assert once(tmp_path, "part", part) == once(tmp_path, "part", part), "measured again, and kept"


def test_what_the_speed_measurement_tells_is_what_the_bench_reads() -> None:
    """`decisions_speed` runs in a process of its own: a key that only one of the two knows would show after ten minutes."""
    assert {field.name for field in fields(Speed)} == set(KEPT["speed"])


@pytest.mark.slow
def test_the_measured_loop_has_every_source_and_every_seat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two assets and half a year: every source speaks at the newest bar, every member of the council votes, every model is asked."""
    engines, regimes = [], []

    def watched(*args: Any, **options: Any) -> Engine:
        engines.append(build_engine(*args, **options))
        return engines[-1]

    def steps(*args: Any) -> Iterator[Step]:
        for step in tape_steps(*args):
            regimes.append([state.regime for state in step.states])
            yield step

    monkeypatch.setattr(decisions_speed, "build_engine", watched)
    monkeypatch.setattr(decisions_speed, "tape_steps", steps)
    dataset = simulate(SimulatedConfig(assets=2, bars=4_400, posts_per_day=8.0), seed=7).dataset
    settings = whole_settings(dataset, tmp_path / "models")
    settings = settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"warmup_days": 1.0})})
    with single_thread():
        taken = live_times(settings, dataset, 4_390, 3, tmp_path)
    assert len(taken) == 3
    assert all(0.0 < signals < cpu for cpu, _, signals in taken)
    assert {"forecast", "genome", "features", "news_tone"} <= set(settings.signals.sources)
    assert len(regimes) == 3
    assert all(len(belief) == len(REGIMES) for states in regimes for belief in states)
    (engine,) = engines
    assert len(engine.fusion.search.version) == 64, "no network guides"
    traders = [member for member in engine.agent.members if isinstance(member, Trader)]
    assert len(traders) == len(MEMBERS) - 1
    assert all(isinstance(one.fitted.leaf, ValueFunction) for one in traders)
    with Journal(tmp_path / "live.journal", durable=True, header={"bench": "decisions"}) as journal:
        assert journal.is_replaying, "what was decided lies in the journal"
