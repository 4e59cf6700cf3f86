"""Training of the agents end to end on a small made-up market: whole folders, the same after an interruption, honest accounts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.app import audit
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig
from cryptoalpha.decisions.alphazero.learning import Lessons
from cryptoalpha.decisions.alphazero.state import DRIFT, LOG_VOLATILITY, SHAPE, UNIT
from cryptoalpha.decisions.alphazero.trained import KIND, TrainedFolds, open_trader
from cryptoalpha.decisions.config import AgentConfig, FusionConfig
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.learn.expert_iteration import FitRecipe
from cryptoalpha.learn.search.contract import Roots
from cryptoalpha.learn.search.scenario_dp import plan_scenarios
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes import agent, agent_fold
from cryptoalpha.lifecycle.recipes.agent import AgentPlan, train_agent
from cryptoalpha.lifecycle.recipes.agent_fold import AgentMaterial, fitted_on, market, states_of
from cryptoalpha.lifecycle.recipes.agent_judging import account, judge_agents, planned_weights, verdict
from cryptoalpha.lifecycle.recipes.forecaster import Period
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.tables import Dataset

torch.set_num_threads(1)

PLAN = AgentPlan(
    SignalsConfig(sources=("trend",)),
    FusionConfig(method="equal"),
    AgentConfig(planner=AlphaZeroConfig(branching=(4, 3), positions=7, typical_ic=1.0), long_only=False),
    TrainConfig(test_days=6, train_days=24, processes=1),
    ExecutionConfig(costs=CostConfig(taker_fee=0.0002)),
    seed=3,
)
TWO = Period(folds=2)
LESSONS = Lessons(rounds=2, plans=2, roots=12, episodes=12, episode_bars=4, fit=FitRecipe(steps=2, batch=16, memory=32, reanalysed=4))


@pytest.fixture(scope="module")
def bars() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 48), 1).dataset


@pytest.fixture(scope="module")
def trained(bars, tmp_path_factory):
    return train_agent(PLAN, bars, TWO, tmp_path_factory.mktemp("agents") / "agent", lessons=LESSONS)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_a_training_leaves_a_whole_folder_and_says_what_it_is_worth(trained):
    folder = ModelFolder.open(trained.path, KIND)
    assert len(folder.folds) == 2
    assert (trained.path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    judged = trained.lineage["judgement"]
    assert {"bootstrap", "quantiles", "garch", "myopic", "rule", "hold"} <= set(judged["scores"])
    assert judged["days"] == 12
    assert json.loads(json.dumps(trained.lineage)) == trained.lineage
    assert len(trained.lines()) == 3
    assert [title for title, _, _ in trained.tables()][1] == "paired differences"
    for fold in trained.lineage["training"]:
        for learned in fold["learned"].values():
            assert len(learned["gates"]) == 2
            assert len(learned["losses"]) == 4
            assert learned["trained"] == any(gate["passed"] for gate in learned["gates"])


def test_the_folder_is_used_by_agents_of_the_same_book_only(trained, bars):
    config = PLAN.agent.planner.model_copy(update={"model": str(trained.path)})
    trader = open_trader("garch", PLAN.agent, config, PLAN.execution.costs, book_size=2, seed=0, interval=3_600 * 10**9)
    folder = ModelFolder.open(trained.path, KIND)
    assert all(folder.read(k).state["learned"] == fold["learned"] for k, fold in enumerate(trained.lineage["training"]))
    fitted = TrainedFolds(folder, "garch", block=12)(folder.folds[1].usable_from)
    assert fitted is not None
    assert fitted.dynamics.persistence == trained.lineage["training"][1]["dynamics"]["persistence"]
    assert trader.grid.shape == (7,)


def test_the_same_training_is_not_repeated_and_another_is_refused(trained, bars):
    assert train_agent(PLAN, bars, TWO, trained.path, lessons=LESSONS).already
    with pytest.raises(ConfigError, match="another training, which differs in seed"):
        train_agent(replace(PLAN, seed=4), bars, TWO, trained.path, lessons=LESSONS)


def test_agents_that_heard_other_opinions_are_another_training(trained, bars, monkeypatch):
    """The settings name a model by its path: they are the same when another model lies there."""
    honest = agent.walked

    def otherwise(tape, config, tell=None):
        walk = honest(tape, config, tell)
        return replace(walk, direction=walk.direction + np.where(np.arange(len(walk.known_at)) == 700, 1e-9, 0.0)[:, None])

    monkeypatch.setattr(agent, "walked", otherwise)
    with pytest.raises(ConfigError, match="another training, which differs in heard"):
        train_agent(PLAN, bars, TWO, trained.path, lessons=LESSONS)


def test_a_fold_holds_nothing_that_became_known_after_it_may_be_used(trained, bars, tmp_path):
    """Neither weights and residuals, nor what value functions were taught from and judged on: all of it shows in the file."""
    first = ModelFolder.open(trained.path, KIND).folds[0]
    again = train_agent(PLAN, audit.poisoned(bars, first.usable_from), TWO, tmp_path / "agent", lessons=LESSONS)
    assert files(again.path)[first.file] == files(trained.path)[first.file]
    assert files(again.path)["fold_01.safetensors"] != files(trained.path)["fold_01.safetensors"]


def test_a_step_is_earned_from_the_open_after_the_decision_to_the_next(bars, material):
    walk, table = material.walk, bars.bars["SIM1/USDT"]
    row = int(np.searchsorted(table.open_time, walk.opened_at[500]))
    assert walk.known_at[500] == table.open_time[row + 1]
    assert walk.step[500, 0] == table.open[row + 2] / table.open[row + 1] - 1.0
    assert np.isnan(walk.step[-2:]).all()


def test_an_interrupted_training_leaves_the_same_folder(trained, bars, tmp_path, monkeypatch):
    """Stopped after the first law of the second fold, with its first round of the second law done."""
    whole, seen = agent_fold.TradingLearner.round, []

    def interrupted(self):
        if len(seen) == 9:
            raise KeyboardInterrupt
        seen.append(1)
        whole(self)

    monkeypatch.setattr(agent_fold.TradingLearner, "round", interrupted)
    out = tmp_path / "agent"
    with pytest.raises(KeyboardInterrupt):
        train_agent(PLAN, bars, TWO, out, lessons=LESSONS)
    assert not out.exists()
    monkeypatch.undo()
    train_agent(PLAN, bars, TWO, out, lessons=LESSONS)
    assert files(out) == files(trained.path)


@pytest.fixture(scope="module")
def material(bars, tmp_path_factory) -> AgentMaterial:
    walk = agent._walk(PLAN, bars, TWO, None)
    return AgentMaterial(walk, PLAN.agent, PLAN.execution.costs, 3, tmp_path_factory.mktemp("material"), LESSONS)


def poisoned(material: AgentMaterial, after: int) -> AgentMaterial:
    """The same walk until bar `after`, and nonsense behind it."""
    walk = material.walk
    changed = {}
    for name in ("price", "volatility", "direction", "move", "belief", "step"):
        array = getattr(walk, name).copy()
        array[after:] = 0.123 + 3.0 * np.random.default_rng(0).random(array[after:].shape)
        changed[name] = array
    changed["direction"] = np.clip(changed["direction"], -1.0, 1.0)
    return replace(material, walk=replace(walk, **changed))


def test_nothing_is_fitted_to_later_bars_and_no_state_knows_them(material):
    rows = np.arange(500, 900)
    base, how = fitted_on(material, rows)
    other, its = fitted_on(poisoned(material, 900), rows)
    assert how == its
    np.testing.assert_array_equal(base.pool.ladder, other.pool.ladder)
    states = states_of(material, base, range(500, 960))
    later = states_of(poisoned(material, 930), base, range(500, 960))
    for name, found in states.rows.items():
        np.testing.assert_array_equal(found[:430], later.rows[name][:430])
        assert not np.array_equal(found[430:], later.rows[name][430:], equal_nan=True)


def test_each_law_has_its_own_state(material):
    base, _ = fitted_on(material, np.arange(500, 800))
    rows = states_of(material, base, range(800, 820)).rows
    assert (rows["garch"][1:, :, LOG_VOLATILITY] != rows["bootstrap"][1:, :, LOG_VOLATILITY]).all()
    np.testing.assert_array_equal(rows["garch"][:, :, DRIFT], rows["bootstrap"][:, :, DRIFT])
    assert (rows["bootstrap"][:, :, SHAPE] == 0.0).all()


def test_a_plan_walked_at_once_is_the_plan_walked_bar_by_bar(material):
    base, _ = fitted_on(material, np.arange(500, 800))
    model, budget = market(material, base, "bootstrap", None), material.trader().budget
    rows = states_of(material, base, range(800, 840)).rows["bootstrap"]
    weights = planned_weights(rows, model, budget, seed=5)
    held = np.full(2, 3)
    wanted = np.zeros(2)
    for t in range(40):
        action = plan_scenarios(Roots(rows[t], held), model, budget, seed=5).action
        wanted = np.where(action == held, wanted, model.positions[action] * rows[t, :, UNIT].astype(float))
        held = action
        np.testing.assert_allclose(weights[t], wanted)
    assert np.abs(weights).max() > 0.0


def test_an_account_is_what_it_is_by_hand():
    """Half of the book in one thing that gains 10 % and then loses 10 %, bought and half sold at one per cent."""
    weights, steps = np.array([[0.5], [0.25]]), np.array([[0.10], [-0.10]])
    costs = np.broadcast_to(np.array([0.01, 0.0]), (2, 1, 2))
    found = account(weights, steps, costs, np.array([1, 2]))
    assert found.daily.sum() == pytest.approx(np.log(1 + 0.05 - 0.005) + np.log(1 - 0.025 - 0.0025))
    assert found.turnover == pytest.approx(0.75 * 365)


def test_a_verdict_needs_an_interval_above_zero():
    rng = np.random.default_rng(0)
    rule = 0.01 * rng.standard_normal(400)
    daily = {"rule": rule, "hold": rule, "myopic": rule, "bootstrap": rule + 0.001, "garch": rule + 0.01 * rng.standard_normal(400)}
    said = verdict(judge_agents(daily, ("bootstrap", "garch"), seed=1))
    assert said["better"] == ["bootstrap"]
    assert "garch cannot be told from the rule agent" in said["words"]


def test_garch_is_found_again_where_it_was_planted(material):
    """Reaction .1, memory .85, Student shocks of four degrees, two coins."""
    rng, changes = np.random.default_rng(2), np.zeros((6_000, 2))
    for coin in range(2):
        variance = 1e-4
        for t in range(6_000):
            changes[t, coin] = np.sqrt(variance) * rng.standard_t(4.0) / np.sqrt(2.0)
            variance = 0.05e-4 + 0.1 * changes[t, coin] ** 2 + 0.85 * variance
    price = 100.0 * np.cumprod(1.0 + np.clip(changes, -0.5, 0.5), axis=0)
    (alpha, beta), degrees, source = agent_fold._garch(replace(material.walk, price=price), np.arange(6_000), material)
    assert source == "quasi maximum likelihood"
    assert alpha == pytest.approx(0.1, abs=0.05)
    assert beta == pytest.approx(0.85, abs=0.07)
    assert degrees in (3.5, 4.0, 5.0)
