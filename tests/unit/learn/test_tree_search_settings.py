"""From the configured planner to one plan: what is spent, no noise when it counts, and a temperature that falls."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.config import PlannerConfig
from cryptoalpha.learn.search.contract import Rules
from cryptoalpha.learn.search.settings import acting, budget, exploring, temperature

ODD = PlannerConfig(
    simulations=77,
    root="puct",
    c_puct=2.5,
    c_base=123.0,
    considered_actions=5,
    outcomes=(3, 2),
    branching=(7, 6, 5),
    dirichlet_fraction=0.125,
    dirichlet_alpha=0.7,
    memory_mib=9,
)


def test_a_plan_may_spend_what_is_configured():
    spent = budget(ODD)
    assert (spent.simulations, spent.outcomes, spent.branching, spent.memory_bytes) == (77, (3, 2), (7, 6, 5), 9 * 1024 * 1024)
    assert spent.max_depth is None


def test_a_decision_that_counts_has_neither_noise_nor_temperature():
    assert acting(ODD) == Rules("puct", pb_c_init=2.5, pb_c_base=123.0, considered=5)
    assert (acting(ODD).gumbel_scale, acting(ODD).dirichlet_fraction, acting(ODD).temperature) == (0.0, 0.0, 0.0)


def test_self_play_explores_by_the_configured_noise():
    rules = exploring(ODD, temperature(0))
    assert rules == Rules(
        "puct",
        pb_c_init=2.5,
        pb_c_base=123.0,
        considered=5,
        gumbel_scale=1.0,
        dirichlet_fraction=0.125,
        dirichlet_alpha=0.7,
        temperature=0.75,
    )
    assert exploring(ODD).temperature == 1.0


def test_the_temperature_falls_by_half_of_what_is_left_every_half_life():
    assert [temperature(move) for move in (0, 19, 38)] == pytest.approx([0.75, 0.45, 0.30])
    assert temperature(10_000) == pytest.approx(0.15)
    falling = np.diff([temperature(move) for move in range(200)])
    assert (falling < 0).all()
    np.testing.assert_allclose(falling[1:] / falling[:-1], 0.5 ** (1 / 19), rtol=1e-9)  # the same share of the rest at every move
    assert temperature(3, first=1.0, last=0.0, half_life=3.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("move", "more"), [(-1, {}), (0, {"half_life": 0.0}), (0, {"first": np.nan}), (0, {"last": -0.1}), (0, {"first": np.inf})]
)
def test_a_schedule_that_is_none_is_refused(move, more):
    with pytest.raises(ConfigError, match="half-life"):
        temperature(move, **more)
