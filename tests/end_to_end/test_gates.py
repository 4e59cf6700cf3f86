"""Real candidates before the real gates: small forecasters, trained here, judged by the engine on a made-up market.

Their evidence is all real: backtests beside the baselines, trials from the ledger, trainings on combinatorial splits, removed and poisoned
futures, answers timed in a process of their own, a shadow run. A candidate that sees the next bar is caught twice.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.app.judging_candidates import Ground, all_answer_from, stretches_of
from cryptoalpha.app.settings import Settings, load_settings
from cryptoalpha.app.trials import trial_ledger
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.gates.gate import promotion_gate
from cryptoalpha.lifecycle.gates.values import Entrant, GateReport
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, train_forecaster
from cryptoalpha.signals.forecast.source import ForecastSource
from cryptoalpha.store.tables import Dataset

torch.set_num_threads(1)

SETTINGS = {
    "data.simulated.assets": 2, "data.simulated.bars": 4_800, "nets.preset": "custom", "signals.forecast.horizon_bars": "[1, 6]",
    "nets.evoformer.sequence_width": 8, "nets.evoformer.pair_width": 4, "nets.evoformer.head_width": 4, "nets.evoformer.heads": 2,
    "nets.evoformer.pair_heads": 1, "nets.evoformer.pair_head_width": 4, "nets.evoformer.outer_width": 2, "nets.evoformer.blocks": 1,
    "lifecycle.train.test_days": 40, "lifecycle.train.train_days": 50, "lifecycle.train.epochs": 1,
    "lifecycle.train.evolve_generations": 1, "lifecycle.train.processes": 1, "fusion.warmup_days": 20,
    "lifecycle.gates.stop_at_first": "false", "lifecycle.gates.minimum_days": 30, "lifecycle.gates.holdout_days": 20,
    "lifecycle.gates.audit_bars": 300, "lifecycle.gates.audit_cuts": 1, "lifecycle.gates.path_blocks": 4,
    "lifecycle.gates.shadow_days": 5, "lifecycle.gates.latency_answers": 100, "lifecycle.gates.resamples": 300,
}  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Settings:
    return load_settings(None, overrides=tuple(f"{name}={value}" for name, value in SETTINGS.items()))


@pytest.fixture(scope="module")
def market(config) -> Dataset:
    return simulate(config.data.simulated, config.engine.seed).dataset


@pytest.fixture(scope="module")
def pair(config, market, tmp_path_factory) -> tuple[Entrant, Entrant]:
    """Candidate and champion: one recipe, two seeds, three folds each."""
    place = tmp_path_factory.mktemp("models")

    def made(name: str, seed: int) -> Entrant:
        plan = Plan(config.nets, config.signals, config.learn, config.lifecycle.train, config.execution.costs, seed)
        return Entrant(name, "forecaster", train_forecaster(plan, market, Period(folds=3), place / name).path)

    return made("candidate", 2), made("champion", 1)


def ground(config: Settings, market: Dataset, pair: tuple[Entrant, Entrant], place: Path) -> Ground:
    return Ground(config, market, place / "home", *pair, place / "scratch", look_at_holdout=lambda *_: 1)


def judged(config: Settings, found: Ground) -> GateReport:
    return promotion_gate(found.candidate, found.champion, found.checks(), config.lifecycle.gates, now=lambda: 0)


@pytest.mark.slow
def test_a_forecaster_is_judged_by_all_gates_on_real_evidence(config, market, pair, tmp_path):
    found = ground(config, market, pair, tmp_path)
    report = judged(config, found)
    told = {result.name: result for result in report.results}
    for name in ("look_ahead", "latency", "memory", "shadow_parity"):
        assert told[name].passed, told[name].words
    assert told["paths"].passed is not None
    assert "3 paths from 6 purged trainings" in told["paths"].words
    assert "2 trials" in told["deflated_sharpe"].words  # both backtests are looks
    assert told["overfitting"].passed is not None
    assert told["calibration"].passed is not None
    # 100 days of a random network earn no proof: the gate says so, and the holdout stays closed.
    assert {"walk_forward", "champion", "baselines", "holdout"} <= set(report.refused_by)
    assert told["holdout"].words == "left untouched: walk_forward had refused"
    looks = trial_ledger(tmp_path / "home").looks(None, found.judged.since, found.judged.until)
    assert (looks.trials, looks.sources) == (2, {"gate": 2})
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False)) == report.as_dict()
    assert not (tmp_path / "scratch" / "paths" / "candidate.partial").exists()


@pytest.mark.slow
def test_the_judged_days_are_those_on_which_every_model_answers_and_end_before_the_holdout(config, market, pair, tmp_path):
    found = ground(config, market, pair, tmp_path)
    first = all_answer_from(stretches_of(found.settings_of(pair[0])))
    assert 0 <= found.judged.since + HOUR - first < DAY  # its first bar is answered; a day earlier it would not be
    assert found.judged.until == found.held_out.since == found.held_out.until - 20 * DAY
    late = config.model_copy(
        update={"lifecycle": config.lifecycle.model_copy(update={"gates": config.lifecycle.gates.model_copy(update={"holdout_days": 150})})}
    )
    with pytest.raises(DataMissingError, match="no day is left to be judged"):
        _ = ground(late, market, pair, tmp_path).judged
    elsewhere = replace(pair[0], line="weather")
    with pytest.raises(ConfigError, match="judged by nobody"):
        found.settings_of(elsewhere)


@pytest.mark.slow
def test_a_candidate_that_sees_the_next_bar_is_caught_by_the_audit_and_by_the_shadow_run(config, market, pair, tmp_path, monkeypatch):
    """Each bar is given the opinion of the bar after it: no backtest would mind."""
    honest = ForecastSource.compute

    def peeking(self, frame):
        formed = honest(self, frame)
        value = np.concatenate((formed.value[1:], formed.value[-1:]))
        return replace(formed, value=np.where(np.isfinite(formed.value) & np.isfinite(value), value, formed.value))

    monkeypatch.setattr(ForecastSource, "compute", peeking)
    found = ground(config, market, pair, tmp_path)
    checks = found.checks()
    leaks = checks.audit(pair[0]).leaks
    assert any("signal" in leak or "forecast" in leak for leak in leaks), leaks
    shadowed = checks.shadow(*pair)
    assert shadowed.mismatches > 0
    assert "one by one" in shadowed.first_mismatch
    report = promotion_gate(*pair, checks, config.lifecycle.gates.model_copy(update={"stop_at_first": True}), now=lambda: 0)
    assert report.refused_by[0] == "look_ahead"
    assert "a leak: " in report.of("look_ahead").words


@pytest.mark.slow
def test_a_candidate_that_answers_nan_is_refused_and_says_so(config, market, pair, tmp_path):
    """The newest fold is broken: the days before it were judged well, and it would trade."""
    from cryptoalpha.signals.forecast.model import KIND
    from cryptoalpha.store.model_folder import ModelFolder, write_fold, write_folder

    broken = tmp_path / "broken"
    shutil.copytree(pair[0].path, broken)
    folder = ModelFolder.open(broken, KIND)
    kept = folder.read(2)
    arrays = {name: np.full_like(array, np.nan) if name.startswith("net") else array for name, array in kept.arrays.items()}
    assert any(np.isnan(array).all() for array in arrays.values() if array.dtype.kind == "f")
    files = [*folder.folds[:2], write_fold(broken, 2, arrays, kept.state, kind=KIND)]
    write_folder(broken, kind=KIND, description=folder.description, lineage=folder.lineage, folds=files)
    found = ground(config, market, (replace(pair[0], path=broken), pair[1]), tmp_path)
    report = judged(config, found)
    assert not report.passed
    assert "not finite" in report.of("walk_forward").words
    assert report.of("shadow_parity").passed is False
    assert "failed at 1 bars" in report.of("shadow_parity").words


@pytest.mark.slow
def test_the_verb_attaches_its_report_and_ends_with_6(pair, tmp_path, monkeypatch, capsys):
    import typer

    from cryptoalpha.app.frame import run
    from cryptoalpha.app.verbs import judge
    from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry

    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path))
    registry = ModelRegistry(tmp_path / PLACE, now=lambda: 5)
    version = registry.register(pair[0].path, line="forecaster", data="d", commit="c", config={}, seed=2, metrics={})
    app = typer.Typer(pretty_exceptions_enable=False)
    judge.register(app)
    told = [word for name, value in SETTINGS.items() if "stop_at" not in name for word in ("--set", f"{name}={value}")]
    assert run(app, [version.short, "--simulated", "--json", *told]) == 6
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["type"] == "ValidationFailedError"
    (kept,) = registry.reports(version.id)
    assert kept.content["refused_by"][0] == "walk_forward"
    assert kept.content["champion"] is None
    assert GateReport.from_dict(kept.content).of("paths").words == "not asked: walk_forward had refused"


@pytest.mark.slow
def test_who_passes_everything_else_looks_at_the_holdout_and_the_look_is_counted(config, market, pair, tmp_path):
    """Only the gates of honesty and speed are required here, so that a random network comes as far as the holdout."""
    from cryptoalpha.lifecycle.registry.registry import ModelRegistry

    registry = ModelRegistry(tmp_path / "registry", now=lambda: 5)
    asked = config.lifecycle.gates.model_copy(
        update={"required": ("look_ahead", "latency", "memory", "holdout"), "holdout_probability": 0.0}
    )
    found = [
        Ground(
            config, market, tmp_path / "home", one, None, tmp_path / "scratch",
            look_at_holdout=lambda data, since, until, who=one.id: registry.holdout_touches(data, since, until, by=who),
        )
        for one in pair
    ]  # fmt: skip
    first, second = (promotion_gate(each.candidate, None, each.checks(), asked, now=lambda: 0).of("holdout") for each in found)
    assert "look 2" not in first.words
    assert "held out days" in first.words
    assert second.passed is False
    assert second.words.startswith("this was look 2 at the holdout")
