"""What judges the forecaster's settings: no trial sees the days that are kept back; the winner's settings are what is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.config import EvolutionConfig, LearnConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.forecaster import Plan
from cryptoalpha.lifecycle.tune.config import TuneConfig
from cryptoalpha.lifecycle.tune.forecaster import forecaster_search, judge_point, winning_plan
from cryptoalpha.nets.config import EvoformerConfig, NetsConfig
from cryptoalpha.nets.presets import forecaster_sizes, genome_sizes
from cryptoalpha.signals.config import ForecastConfig, SignalsConfig

torch.set_num_threads(1)

TINY = EvoformerConfig(
    sequence_width=8, pair_width=4, head_width=4, heads=2, pair_heads=1, pair_head_width=4, outer_width=2, blocks=1
)  # fmt: skip
PLAN = Plan(
    NetsConfig(preset="custom", evoformer=TINY),
    SignalsConfig(forecast=ForecastConfig(horizon_bars=(1, 6))),
    LearnConfig(evolution=EvolutionConfig(population=8)),
    TrainConfig(checks_per_epoch=1),
    CostConfig(),
    seed=3,
)
CONFIG = TuneConfig(folds=2, train_days=24, test_days=6, generations=2)
POINT = {"learning_rate": 1e-3, "batch": 4, "sigma": 0.02, "dropout": 0.2, "heads": 2, "head_width": 5}


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=5, bars=24 * 60), 1).dataset


def test_no_trial_sees_the_days_that_are_kept_back(market) -> None:
    search = forecaster_search(PLAN, CONFIG, market)
    assert search.holdout is not None
    assert search.until == search.holdout[0]
    assert search.holdout[1] - search.holdout[0] == 6 * DAY
    bars = {}
    for name, table in market.bars.items():
        wild = np.where(table.known_at > search.holdout[0], 1.0 + 0.5 * np.sin(np.arange(len(table.open_time))), 1.0)
        bars[name] = replace(table, **{column: getattr(table, column) * wild for column in ("open", "high", "low", "close")})
    otherwise = forecaster_search(PLAN, CONFIG, replace(market, bars=bars, fingerprint="otherwise"))
    before, after = (judge_point(one.start(), POINT, 1) for one in (search, otherwise))  # the fold next to those days
    assert before.value == after.value
    np.testing.assert_array_equal(before.returns, after.returns)
    assert judge_point(search.start(), POINT, 2).value != judge_point(otherwise.start(), POINT, 2).value
    assert search.look(POINT) != otherwise.look(POINT)


def test_the_winners_settings_are_those_that_are_trained(market) -> None:
    plan = winning_plan(PLAN, CONFIG, POINT)
    trunk = forecaster_sizes(plan.nets)
    assert (trunk.heads, trunk.head_width, trunk.sequence_width, trunk.row_dropout, trunk.blocks) == (2, 5, 10, 0.2, 1)
    assert (plan.train.batch, plan.train.learning_rate, plan.learn.evolution.sigma) == (4, 1e-3, 0.02)
    assert genome_sizes(plan.nets) == genome_sizes(PLAN.nets)
    small = winning_plan(replace(PLAN, nets=NetsConfig(preset="small")), CONFIG, POINT)
    assert genome_sizes(small.nets) == genome_sizes(NetsConfig(preset="small"))  # the genome is not searched


def test_a_history_too_short_is_refused_with_what_it_takes(market) -> None:
    with pytest.raises(DataMissingError, match="room for 6 of 10 folds: it takes 84 days"):
        forecaster_search(PLAN, CONFIG.model_copy(update={"folds": 9}), market)
