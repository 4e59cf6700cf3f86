"""The same bars through the simulated broker, paper and the live path on the fake exchange: the same orders, fills and equity, to the last
digit. Paper asks nothing that takes a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cryptoalpha.app.chaos.exchange import KEY, SECRET
from cryptoalpha.app.chaos.schedule import MarketKind, Schedule, calm, draw_schedule
from cryptoalpha.app.chaos.session import open_live
from cryptoalpha.app.chaos.world import CASH, HOUR, START, ScheduledAgent, World
from cryptoalpha.app.engine import Engine
from cryptoalpha.app.venues import Venues
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.values import Fill, FundingPayment, Order, Refusal
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.execution.live.points import nobody
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal

BARS = 30  # more than a day of hours


def quiet_day(market: MarketKind, seed: int) -> World:
    drawn: Schedule = calm(draw_schedule(seed, markets=(market,)))
    return World(msgspec.structs.replace(drawn, bars=BARS, thin=False, fees="quote", opening=(), use_stream=True))


def what_happened(journal: Journal, equity: Sequence[Decimal]) -> dict[str, list[Any]]:
    values = [value for _, _, row in journal.rows() for value in row]
    return {
        "orders": [value for value in values if isinstance(value, Order)],
        "fills": [
            (fill.client_id, fill.side, fill.quantity, fill.price, fill.fee, fill.fee_asset, fill.happened_at)
            for fill in values
            if isinstance(fill, Fill)
        ],
        "funding": [(one.instrument, one.amount, one.happened_at) for one in values if isinstance(one, FundingPayment)],
        "refusals": [value.rule for value in values if isinstance(value, Refusal)],
        "equity": list(equity),
    }


def simulated(world: World) -> dict[str, list[Any]]:
    clock, equity = VirtualClock(), []
    with Journal(None, durable=False, header=world.header()) as journal:
        engine = Engine(
            clock=clock, fusion=EqualWeights(), agent=ScheduledAgent(world),
            gate=RiskGate(world.risk, world.rules, account=f"chaos{world.schedule.seed}"),
            broker=SimulatedBroker(world.execution, world.rules), journal=journal,
            portfolio=Portfolio(CASH, list(world.rules), [name for name, rule in world.rules.items() if rule.perpetual]),
        )  # fmt: skip
        for step in world.steps():
            clock.advance_to(step.bar.at)
            equity.append(engine.step(step).portfolio.equity)
        return what_happened(journal, equity)


def exchange_of(world: World) -> FakeExchange:
    account = AccountSettings(key=KEY, secret=SECRET, balances=world.funds, wallet=world.funds["USDT"])
    return FakeExchange(Book.of(world.dataset), world.execution, accounts=[account])


def live(world: World, folder: Path) -> dict[str, list[Any]]:
    equity = []
    with exchange_of(world) as exchange, Journal(folder / "journal.sqlite", durable=True, header=world.header()) as journal:
        known_at = world.panel.known_at.tolist()
        parts = open_live(
            world, journal, folder, exchange.url, reached=nobody, clock=VirtualClock(), known_at=known_at[0], wrap=lambda venue: venue
        )
        try:
            for row, step in enumerate(world.steps()):
                if row:
                    parts.drain()
                    exchange.advance()
                    parts.market_clock.known(known_at[row])
                parts.clock.advance_to(step.bar.at)
                equity.append(parts.engine.step(step).portfolio.equity)
        finally:
            parts.close()
        return what_happened(journal, equity)


def paper(world: World) -> tuple[dict[str, list[Any]], int, int]:
    """The engine on bars that the public client fetched; how many requests took a key, and how many there were."""
    with exchange_of(world) as exchange:
        client = Venues(ExchangeConfig(endpoint=exchange.url)).client(world.execution.live.venue)
        seen = {name: np.empty((0, 6)) for name in world.rules}
        for row in range(world.schedule.bars):
            if row:
                exchange.advance()
            for name, before in seen.items():
                symbol = f"{name}:USDT" if world.is_futures else name
                fresh = client.fetch_ohlcv(symbol, "1h", since=(START + HOUR * row) // 1_000_000, limit=5)
                seen[name] = np.vstack([before, np.array(fresh[:1], dtype=float)])
        state = exchange.state()
    bars = {}
    for name, table in world.dataset.bars.items():
        if name in seen:
            columns = dict(zip(("open", "high", "low", "close", "volume"), seen[name].T[1:], strict=True))
            bars[name] = replace(table, open_time=(seen[name][:, 0] * 1e6).astype(np.int64), **columns)
    fetched = World(world.schedule)
    object.__setattr__(fetched, "dataset", replace(world.dataset, bars=bars))
    return simulated(fetched), state["private_requests"], sum(state["requests"].values())


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_simulated_paper_and_live_on_the_fake_exchange_agree_to_the_last_digit(tmp_path: Path, market: MarketKind):
    world = quiet_day(market, 11)
    expected = simulated(world)
    on_paper, private, asked = paper(world)
    really = live(world, tmp_path)
    assert len(expected["fills"]) > 20
    assert (len(expected["funding"]) > 5) == (market == "futures")
    for what in expected:
        assert on_paper[what] == expected[what], what
        assert really[what] == expected[what], what
    assert private == 0
    assert asked > BARS
