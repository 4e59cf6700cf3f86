"""The league's market under any orders: nothing is lost, nothing is made, nobody profits from pushing the price alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.market import Luck, SharedMarket


@st.composite
def games(draw):
    steps, seats, episodes = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    config = LeagueMarketConfig(
        steps=steps,
        permanent_impact=draw(st.floats(0.0, 5.0)),
        temporary_impact=draw(st.floats(0.0, 5.0)),
        half_spread=draw(st.integers(0, 9)),
        limit=draw(st.integers(12, 30)),
    )
    orders = stream(draw(st.integers(0, 10**6)), "orders").integers(-40, 41, size=(steps, episodes, seats))
    return config, Luck.draw(config, episodes, seats, stream(draw(st.integers(0, 10**6)), "luck")), orders


@settings(max_examples=40, deadline=None)
@given(games())
def test_cash_and_inventory_are_conserved_to_the_last_tick_and_lot(game):
    config, luck, orders = game
    market = SharedMarket(config, luck)
    for wanted in orders:
        before = market.cash.copy()
        auction = market.trade(wanted)
        np.testing.assert_array_equal(market.cash.sum(axis=1) + market.liquidity_cash, 0)
        np.testing.assert_array_equal(market.inventories.sum(axis=1) + market.liquidity_inventory, 0)
        np.testing.assert_array_equal(market.cash - before, -auction.traded * auction.paid)
        assert np.abs(market.inventories).max() <= config.limit
    wealth, liquidity = market.deliver()
    np.testing.assert_array_equal(wealth.sum(axis=1) + liquidity, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-24, 24), min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 5))
def test_no_round_trip_earns_from_its_own_impact(path, permanent, temporary, spread):
    """With nothing else moving, any way out and back costs what its trades cost and never less than nothing."""
    config = LeagueMarketConfig(
        steps=len(path) + 1, fundamental_volatility=0.0, mispricing_volatility=0.0, mispricing_start=0.0,
        permanent_impact=permanent, temporary_impact=temporary, half_spread=spread, scripts=(),
    )  # fmt: skip
    market = SharedMarket(config, Luck.draw(config, 1, 1, stream(0, "luck")))
    for held in [*path, 0]:
        market.trade(np.array([[held]]))
    wealth, _ = market.deliver()
    trades = np.diff([0, *path, 0])
    # Σ Δq·λ·(inventory after) over a closed path is λ/2·ΣΔq²; η and the spread are paid in full.
    expected = (permanent / 2 + temporary) * (trades**2).sum() + spread * np.abs(trades).sum()
    assert wealth[0, 0] == -expected <= 0
