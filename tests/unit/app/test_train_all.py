"""`train all`: where its folds lie, what its configuration switches on, and how seconds add up; the trainings have their own tests."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.settings import Settings, read_file_alone
from cryptoalpha.app.train_all import STEPS, Times, Training, plan_stretches
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.folds import plan_folds
from cryptoalpha.store.tables import Dataset

CONFIG = TrainConfig(train_days=60, test_days=30)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 300, start="2021-01-01"), seed=1).dataset


def folds_of(dataset: Dataset, stretches, *, of_signals: bool):
    known_at = next(iter(dataset.bars.values())).open_time + HOUR
    period = stretches.period(of_signals=of_signals)
    known_at = known_at[known_at > (period.since or 0)]
    train = stretches.train(CONFIG, of_signals=of_signals)
    return plan_folds(known_at, known_at + 24 * HOUR, train, test_since=period.test_since, test_until=period.until)


@pytest.mark.parametrize(
    ("test_since", "folds", "earlier", "days"),
    [(None, 2, 2, 30), ("2021-08-29", 2, 2, 30), ("2021-08-20", 3, 1, 23), ("2021-09-03", 2, 2, 28), (None, 3, 9, 30)],
)
def test_fusion_and_agents_learn_from_bars_that_a_fold_before_them_may_answer(dataset, test_since, folds, earlier, days):
    moment = parse_time(test_since) if test_since else None
    found = plan_stretches(dataset, CONFIG, since=None, until=None, test_since=moment, folds=folds, earlier=earlier)
    assert found.test_days == days
    signals, decisions = (folds_of(dataset, found, of_signals=of) for of in (True, False))
    assert len(decisions) == folds
    assert len(signals) == folds + found.earlier
    shortest = (days - folds) * DAY
    assert all(fold.test_until - fold.test_since > shortest for fold in (*signals, *decisions)), "no fold of a bar or two"
    usable = signals[0].usable_from
    for fold in decisions:
        assert fold.train_since >= usable - 2 * HOUR, "opinions on every bar that teaches"
    assert found.earlier == min(earlier, (300 - CONFIG.train_days) // days - folds)


def test_without_room_for_earlier_folds_there_are_none_and_decisions_learn_from_the_whole_history(dataset):
    found = plan_stretches(dataset, CONFIG, since=None, until=None, test_since=parse_time("2021-03-10"), folds=1, earlier=2)
    assert found.earlier == 0
    assert found.period(of_signals=False) == found.period(of_signals=True)


def test_nothing_to_judge_and_nothing_at_all_are_refused(dataset):
    with pytest.raises(ConfigError, match="not before the end"):
        plan_stretches(dataset, CONFIG, since=None, until=None, test_since=parse_time("2022-01-01"), folds=1, earlier=0)
    with pytest.raises(DataMissingError, match="no bars"):
        plan_stretches(Dataset("nothing", {}), CONFIG, since=None, until=None, test_since=None, folds=1, earlier=0)


def test_the_configuration_switches_on_what_was_trained_and_reads_back(dataset, tmp_path):
    from cryptoalpha.app.config_template import render

    stretches = plan_stretches(dataset, CONFIG, since=None, until=None, test_since=None, folds=1, earlier=1)
    training = Training(Settings(), 3, dataset, stretches, tmp_path / "out")
    assert [name for name, _ in training.steps()] == list(STEPS)
    file = tmp_path / "all.yaml"
    file.write_text(render(training.settings_with(*STEPS)), encoding="utf-8")
    read = read_file_alone(file)
    named = {
        "regime": read.signals.regime.model,
        "forecaster": read.signals.forecast.model,
        "genome": read.signals.genome.model,
        "fusion": read.fusion.learning.model,
        "agent": read.agent.planner.model,
    }
    assert {name: Path(path) for name, path in named.items()} == {name: (tmp_path / "out" / name).resolve() for name in STEPS}
    assert {"forecast", "genome"} <= set(read.signals.sources)
    assert len(set(read.signals.sources)) == len(read.signals.sources)
    assert (read.fusion.method, len(read.agent.members)) == ("search", 4)
    partly = training.settings_with("regime")
    assert (partly.signals.sources, partly.fusion, partly.agent) == (Settings().signals.sources, Settings().fusion, Settings().agent)


def test_seconds_of_a_step_that_was_stopped_add_up(tmp_path):
    file = tmp_path / "times.json"

    def stopped() -> None:
        with Times(file).measured("regime"):
            time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    before = json.loads(file.read_text())["regime"]
    assert before["wall_seconds"] >= 0.05 > before["cpu_seconds"]
    again = Times(file)
    with again.measured("regime"):
        np.linalg.svd(np.ones((150, 150)))
    assert again.of("regime")["wall_seconds"] > before["wall_seconds"]
    assert again.of("regime")["cpu_seconds"] >= before["cpu_seconds"]
    with Times(file, fresh=True).measured("regime"):
        pass
    assert json.loads(file.read_text())["regime"]["wall_seconds"] < 0.05
    for damaged in ('{"reg', "[]", '{"regime": {}}'):
        file.write_text(damaged)
        with Times(file).measured("regime"):
            pass
        assert set(json.loads(file.read_text())["regime"]) == {"wall_seconds", "cpu_seconds"}
