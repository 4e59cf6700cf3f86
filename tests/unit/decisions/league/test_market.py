"""The shared market: worked by hand, what may be known when, and the public's filter against conditioning by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.belief import ROUNDING, PublicFilter
from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.market import START, Luck, SharedMarket
from cryptoalpha.decisions.league.players import Script
from cryptoalpha.decisions.league.population import play

QUIET = {"fundamental_volatility": 0.0, "mispricing_volatility": 0.0, "mispricing_start": 0.0, "scripts": ()}


def quiet(**changes):
    return LeagueMarketConfig(**{**QUIET, **changes})


def luck(config, *, episodes=1, seats=1, seed=0):
    return Luck.draw(config, episodes, seats, stream(seed, "test"))


class Fixed:
    """Holds the inventories it was given, one after the other."""

    name, knows_fundamental = "fixed", False

    def __init__(self, *path):
        self.path = path

    def wants(self, view, held, luck):
        return np.full(len(held), self.path[min(view.number, len(self.path) - 1)])


def test_two_who_buy_together_pay_for_each_other():
    config = quiet(steps=2, permanent_impact=1.0, temporary_impact=1.5, half_spread=2)
    market = SharedMarket(config, luck(config, seats=2))
    auction = market.trade(np.array([[4, 2]]))
    assert auction.paid.tolist() == [[START + 15 + 2, START + 15 + 2]]  # (1 + 1.5)·6 and half the spread
    assert market.price[0] == START + 6
    assert market.view().pressure[0] == 6.0
    auction = market.trade(np.array([[4, 0]]))
    assert auction.paid.tolist() == [[START + 6 - 5, START + 6 - 5 - 2]]  # who does not trade pays nothing
    wealth, liquidity = market.deliver()
    assert wealth.tolist() == [[-4 * 17, -2 * 17 - 2 * 1]]
    assert liquidity.tolist() == [104]


def test_a_single_auction_is_the_cournot_game():
    config = quiet(steps=1, mispricing_start=-40.0, permanent_impact=0.5, temporary_impact=0.5, half_spread=0, limit=40)
    wealth, _ = play(config, [Fixed(10), Fixed(7), Fixed(20)], luck(config, seats=3))
    assert wealth.tolist() == [[q * (40 - 37) for q in (10, 7, 20)]]


def test_nobody_sees_what_comes_after_nor_who_orders_what():
    config = LeagueMarketConfig(steps=3)
    first = luck(config, episodes=5, seats=2)
    moves = first.moves.copy()
    moves[2:] += 9.0  # everything after the second price
    views = []
    for one in (first, replace(first, moves=moves)):
        market = SharedMarket(config, one)
        market.trade(np.ones((5, 2), np.int64))
        views.append(market.view())
    for name in ("price", "estimate", "impact", "change", "pressure"):
        np.testing.assert_array_equal(getattr(views[0], name), getattr(views[1], name))
    assert views[0].fundamental is None
    assert market.view(knows_fundamental=True).fundamental is not None


def test_a_market_goes_on_from_its_state():
    config = LeagueMarketConfig(steps=4)
    whole, half = (SharedMarket(config, luck(config, episodes=3, seats=2)) for _ in range(2))
    wanted = stream(1, "orders").integers(-9, 9, size=(4, 3, 2))
    for orders in wanted:
        whole.trade(orders)
    for orders in wanted[:2]:
        half.trade(orders)
    again = SharedMarket.restored(config, half.state())
    for orders in wanted[2:]:
        again.trade(orders)
    np.testing.assert_array_equal(again.deliver()[0], whole.deliver()[0])
    np.testing.assert_array_equal(again.view().estimate, whole.view().estimate)


def test_the_filter_is_what_conditioning_the_joint_gaussian_gives():
    config = LeagueMarketConfig(steps=4, scripts=())
    phi, walk, size = config.mispricing_persistence, config.fundamental_volatility, config.mispricing_volatility
    count = config.steps + 1
    times = np.arange(count)
    noise = size**2 * phi ** np.abs(times[:, None] - times[None, :])
    seen = noise + walk**2 * np.minimum(times[:, None], times[None, :]) + ROUNDING * np.eye(count)
    prices = np.linalg.cholesky(seen) @ stream(3, "prices").normal(size=count)
    filtered = PublicFilter.of(config)
    estimate = filtered.begin(prices[:1])
    for number in range(count):
        if number:
            estimate = filtered.follow(estimate, prices[number - 1 : number], prices[number : number + 1], number)
        past = slice(0, number + 1)
        exact = noise[number, past] @ np.linalg.solve(seen[past, past], prices[past])
        # The filter predicts from the last price itself, not from its denoised value: exact but for the rounding to whole ticks.
        assert estimate[0] == pytest.approx(exact, abs=0.02)


def test_orders_of_another_shape_or_after_the_end_are_refused():
    config = quiet(steps=1)
    market = SharedMarket(config, luck(config))
    with pytest.raises(ConfigError, match="expected"):
        market.trade(np.zeros((2, 1), np.int64))
    market.trade(np.zeros((1, 1), np.int64))
    with pytest.raises(ConfigError, match="before the end"):
        market.trade(np.zeros((1, 1), np.int64))
    with pytest.raises(ConfigError, match="luck for 1"):
        SharedMarket(quiet(steps=2), luck(config))
    with pytest.raises(ValueError, match="must rise"):
        LeagueMarketConfig(targets=(3, 0))


# Scripted players, in cases that can be worked out.


def test_value_earns_what_the_mispricing_leaves_after_its_own_impact():
    config = quiet(steps=1, mispricing_start=-80.0, permanent_impact=1.0, temporary_impact=1.5, half_spread=2)
    wealth, _ = play(config, [Script("value", config)], luck(config))
    assert wealth[0, 0] == 4 * (80 - 2.5 * 4 - 2)  # 0.05 · 80 = 4 lots


def test_noise_loses_impact_and_spread_and_no_more():
    config = quiet(steps=4, permanent_impact=1.0, temporary_impact=1.5, half_spread=2, limit=100)
    wealth, _ = play(config, [Script("noise", config)], luck(config, episodes=40_000))
    # Four auctions; in two of three an order of 4 lots, independent of the impact of those before, at 2.5·4 + 2 ticks a lot.
    expected = -4 * (2 / 3) * 4 * (2.5 * 4 + 2)
    assert wealth.mean() == pytest.approx(expected, abs=4 * wealth.std() / 200)


def test_momentum_earns_in_a_trend_and_loses_when_the_price_turns():
    trend = quiet(steps=3, drift=40.0, permanent_impact=0.0, temporary_impact=1.0, half_spread=1)
    wealth, _ = play(trend, [Script("momentum", trend)], luck(trend))
    assert wealth[0, 0] == 2 * (80 - 3) + 2 * (40 - 3)  # 2 lots at the second and third price, delivered 80 and 40 higher
    turning = quiet(steps=2, mispricing_start=-100.0, mispricing_persistence=0.0, permanent_impact=0.0, temporary_impact=1.0, half_spread=1)
    wealth, _ = play(turning, [Script("momentum", turning)], luck(turning))
    assert wealth[0, 0] == -5 * (5 + 1)  # the price has come back to value: it buys 5 lots of nothing


def test_a_maker_earns_the_impact_that_others_leave_behind():
    config = quiet(steps=2, permanent_impact=10.0, temporary_impact=1.0, half_spread=2)
    wealth, _ = play(config, [Script("maker", config), Fixed(8)], luck(config, seats=2))
    assert wealth[0, 0] == 4 * (80 - 11 * 4 - 2)  # it sells half of 8 lots, 80 ticks above value
    assert wealth[0, 1] == -8 * (11 * 8 + 2)


def test_the_value_player_insists_on_being_told_the_fundamental():
    config = quiet()
    market = SharedMarket(config, luck(config))
    with pytest.raises(ConfigError, match="fundamental"):
        Script("value", config).wants(market.view(), market.inventories[:, 0], np.zeros(1))
