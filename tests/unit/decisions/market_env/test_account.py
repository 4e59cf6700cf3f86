"""One step of the books, worked out by hand: a close of 100, 1,000 of equity, an open of 102, a close of 104."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from cryptoalpha.decisions.market_env.account import Accounts, Books
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.market import Known, Period
from cryptoalpha.execution.config import CostConfig

approx = pytest.approx
FREE = {"taker_fee": 0.0, "half_spread": 0.0, "impact": 0.0, "max_participation": None}


def one(**values) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in values.items()}


def settle(held, target, *, costs=None, known=None, period=None, **config):
    """From a weight held to a target of the grid −1, −0.5, 0, 0.5, 1 (indices 0–4)."""
    config = {"positions": 5, "shorts": True, "initial_equity": 1000.0} | config
    accounts = Accounts(EnvironmentConfig(**config), CostConfig(**{**FREE, **(costs or {})}))
    known = {"features": 0.0, "variance": 0.0004, "daily_volatility": 0.04, "daily_turnover": 1e6} | (known or {})
    period = {
        "open": 1.02, "high": 1.05, "low": 1.01, "close": 1.04, "turnover": 1e5,
        "funding_at_open": 0.0, "funding_inside": 0.0, "ended": False,
    } | (period or {})  # fmt: skip
    return accounts.settle(
        Books(np.array([1000.0]), np.array([1000.0 * held])), np.array([target]), Known(**one(**known)), Period(**one(**period))
    )


def test_the_gap_belongs_to_the_old_position_and_the_bar_to_the_new_one():
    done = settle(0.5, 4)  # 5 units, 10 wanted: 500·0.02 in the gap, 1,000·0.02 in the bar
    assert done.rewards[0] == approx(math.log(1030 / 1000))
    assert done.books.value[0] == approx(1040)
    assert done.traded[0] == approx(500)


def test_the_close_just_observed_is_no_price_to_trade_at():
    # a peer's fault: bought at the close of 100, ten units would have earned 40; at the open of 102 they earn 20
    assert settle(0.0, 4).rewards[0] == approx(math.log(1020 / 1000))


def test_a_trade_pays_half_the_spread_impact_and_the_fee_on_what_it_paid():
    done = settle(0.0, 4, costs={"half_spread": 0.001, "impact": 1.0, "taker_fee": 0.002})
    move = 0.001 + 0.04 * math.sqrt(1000 / 1e6)
    assert done.costs[0] == approx(1020 * move + 0.002 * 1020 * (1 + move))
    assert done.rewards[0] == approx(math.log((1020 - done.costs[0]) / 1000))
    sold = settle(1.0, 2, costs={"half_spread": 0.001, "impact": 1.0, "taker_fee": 0.002})
    assert sold.costs[0] == approx(1020 * move + 0.002 * 1020 * (1 - move))
    assert settle(0.0, 2, costs={"half_spread": 0.001}).costs[0] == 0.0


@pytest.mark.parametrize(
    "unknown", [{"period": {"turnover": 0.0}}, {"period": {"turnover": math.nan}}, {"known": {"daily_turnover": math.nan}}]
)
def test_where_volume_is_unknown_the_fixed_slippage_stands_in(unknown):
    done = settle(0.0, 4, costs={"impact": 1.0, "unknown_volume_slippage": 0.003}, **unknown)
    assert done.costs[0] == approx(1020 * 0.003)


def test_a_trade_takes_at_most_its_share_of_the_bar():
    done = settle(0.0, 4, costs={"max_participation": 0.1}, period={"turnover": 4000.0})
    assert done.traded[0] == approx(400)
    assert settle(0.0, 0, costs={"max_participation": 0.1}, period={"turnover": 4000.0}).traded[0] == approx(-400)


def test_longs_pay_positive_funding_and_shorts_receive_it_each_on_what_they_held_then():
    long = settle(1.0, 2, period={"funding_at_open": 0.001, "funding_inside": 0.002})  # held at the open, sold before the second
    assert long.funding[0] == approx(-1020 * 0.001)
    short = settle(0.0, 0, period={"funding_at_open": 0.001, "funding_inside": 0.002})  # sold at the open: owed the second only
    assert short.funding[0] == approx(1040 * 0.002)
    assert short.rewards[0] == approx(math.log((1000 - 20 + 2.08) / 1000))


def test_risk_is_charged_on_the_new_position_by_the_variance_known_before():
    assert settle(0.0, 3, risk_aversion=2.0).penalties[0] == approx(2.0 * 0.25 * 0.0004)
    plain, averse = settle(0.0, 3), settle(0.0, 3, risk_aversion=2.0)
    assert plain.rewards[0] - averse.rewards[0] == approx(0.0002)


def test_the_bucket_held_trades_nothing_although_its_weight_has_drifted():
    assert settle(0.55, 3).traded[0] == 0.0
    assert settle(0.55, 4).traded[0] == approx(450)
    assert settle(0.8, 3).traded[0] == approx(-300)  # 0.8 is nearer to 1


def test_a_linear_reward_is_a_gain_over_a_stake_made_whole_at_no_cost():
    done = settle(0.5, 4, costs={"half_spread": 0.01}, reward="linear", risk_aversion=10.0)
    assert done.rewards[0] == approx(0.5 * 0.02 + 1.0 * 0.02 - 0.5 * 1.02 * 0.01 - 10.0 * 0.0004)
    assert done.books.value[0] == approx(1000.0)


@pytest.mark.parametrize(
    ("held", "target", "period"),
    [
        (1.0, 4, {"open": 0.0, "high": 1.0, "low": 0.0, "close": 1.0}),  # gone at the open
        (-1.0, 0, {"open": 2.0, "high": 2.0, "low": 1.0, "close": 1.0}),  # gone at the open, whatever came later
        (-1.0, 4, {"open": 2.1, "high": 4.0, "low": 2.1, "close": 4.0}),  # gone at the open: what would have been a gain comes too late
        (-1.0, 2, {"open": 2.1, "high": 2.1, "low": 1.0, "close": 1.0}),  # gone with the trade that closes it
        (0.0, 0, {"open": 1.0, "high": 2.0, "low": 1.0, "close": 1.0}),  # gone within the bar
        (0.0, 0, {"open": 1.0, "high": 2.5, "low": 1.0, "close": 2.5}),  # gone at the close
    ],
)
def test_ruin_costs_a_fixed_loss_and_leaves_nothing(held, target, period):
    done = settle(held, target, period=period, risk_aversion=5.0, ruin_loss=7.0)
    assert done.ruined[0]
    assert (done.rewards[0], done.penalties[0], done.books.equity[0], done.books.value[0]) == (-7.0, 0.0, 0.0, 0.0)


def test_who_falls_below_the_maintenance_margin_is_liquidated_at_the_worst_price():
    falls = {"open": 1.0, "high": 1.8, "low": 1.0, "close": 1.0}  # a short of 1,000 is worth 1,800, and 200 are left
    assert not settle(0.0, 0, period=falls).ruined[0]
    assert not settle(0.0, 0, period=falls, maintenance=0.11).ruined[0]
    assert settle(0.0, 0, period=falls, maintenance=0.12).ruined[0]  # 0.12 · 1,800 = 216


def test_a_grid_with_shorts_holds_a_flat_position_exactly():
    accounts = Accounts(EnvironmentConfig(positions=21, shorts=True), CostConfig())
    assert accounts.positions[accounts.flat] == 0.0
    assert (accounts.positions[0], accounts.positions[-1]) == (-1.0, 1.0)
    with pytest.raises(ValidationError, match="make it odd"):
        EnvironmentConfig(positions=8, shorts=True)
