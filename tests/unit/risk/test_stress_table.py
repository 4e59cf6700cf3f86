"""The table of all stresses: what can be told is told, the rest says why."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, DataError
from cryptoalpha.core.time import DAY, SECOND
from cryptoalpha.risk.stress import correlation_shock, worst_gap
from cryptoalpha.risk.stress_table import GAP, stress_test

DAYS = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * SECOND + DAY * np.arange(200)
RETURNS = np.random.default_rng(0).normal(0.0, 0.04, (200, 3))


def test_everything_is_told_where_the_data_are_there():
    table = stress_test([0.3, -0.1, 0.0], RETURNS, DAYS, equity=1e6, daily_values=[1e8, 1e7, np.nan], bar_returns=RETURNS / 5)
    assert [result.name for result in table.results] == ["covid_2020", "correlation", "liquidity", "outage", "gap"]
    assert {name for name, _ in table.missing} == {
        "china_2017", "bubble_2018", "hash_war_2018", "leverage_2021", "terra_2022", "lenders_2022", "ftx_2022", "svb_2023",
    }  # fmt: skip
    assert all(result.by_position.shape == (3,) and result.by_position[2] == 0.0 for result in table.results)
    assert table.worst is min(table.results, key=lambda result: result.total)
    assert next(result for result in table.results if result.name == "gap").total == worst_gap([0.3, -0.1, 0.0], GAP).total


def test_an_instrument_that_is_not_held_spoils_nothing():
    holes = RETURNS.copy()
    holes[:, 2] = np.nan
    with_it = stress_test([0.3, -0.1, 0.0], holes, DAYS, equity=1e6, daily_values=[1e8, 1e7, np.nan], bar_returns=holes)
    without = stress_test([0.3, -0.1], RETURNS[:, :2], DAYS, equity=1e6, daily_values=[1e8, 1e7], bar_returns=RETURNS[:, :2])
    assert [(r.name, r.total) for r in with_it.results] == [(r.name, r.total) for r in without.results]


def test_what_cannot_be_told_says_why():
    table = stress_test([0.3], RETURNS[:30, :1], DAYS[:30], equity=1e6, daily_values=[1e8], bar_returns=RETURNS[:5, :1])
    why = dict(table.missing)
    assert "60 are needed" in why["correlation"]
    assert "30 days on which" in why["liquidity"]
    assert "5 bars of history" in why["outage"]
    assert "0 of them are there" in why["ftx_2022"]
    why = dict(stress_test([0.3], RETURNS[:, :1], DAYS, equity=1e6).missing)
    assert "not given" in why["liquidity"]
    assert "not given" in why["outage"]


def test_an_empty_book_loses_nothing():
    table = stress_test([0.0], RETURNS[:, :1], DAYS, equity=1e6, bar_returns=RETURNS[:, :1])
    assert {result.total for result in table.results} == {0.0}
    assert correlation_shock([0.0], [[0.04]]).total == 0.0


def test_shapes_must_fit():
    with pytest.raises(DataError, match="daily returns"):
        stress_test([0.3], RETURNS, DAYS, equity=1e6)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"daily_values": [1e9]}, DataError),
        ({"daily_values": 1e9}, DataError),
        ({"bar_returns": np.zeros(50)}, DataError),
        ({"bar_returns": np.zeros((50, 1))}, DataError),
        ({"days": np.arange(3)}, DataError),
        ({"daily_returns": "none"}, DataError),
        ({"equity": -1.0}, ConfigError),
        ({"equity": 0.0}, ConfigError),
        ({"equity": math.nan}, ConfigError),
        ({"outage_bars": 0}, ConfigError),
    ],
)
def test_what_makes_no_sense_is_refused_whatever_is_held(changes, error):
    for weights in ([0.5, -0.2], [0.0, 0.0]):
        given = {"daily_returns": np.full((5, 2), 0.01), "days": np.arange(5), "equity": 1e5, **changes}
        with pytest.raises(CryptoAlphaError) as refusal:
            stress_test(weights, given.pop("daily_returns"), given.pop("days"), **given)
        assert type(refusal.value) is error
