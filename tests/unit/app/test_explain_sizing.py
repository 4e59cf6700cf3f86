"""`explain` tells how risk came to a size: from the journal alone, for orders and refusals, and of journals that hold no sizing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.app.explain import explain
from cryptoalpha.app.sizing_steps import sizing_lines, sizing_steps
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import (
    Decision,
    Fill,
    MarketState,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    Sizing,
    Travelling,
    event_id,
    format_event_id,
)
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

START = 19_000 * DAY
COIN, OTHER = "BTC/USDT", "ETH/USDT"


def at(row: int) -> dict[str, int]:
    moment = START + row * HOUR
    return {"happened_at": moment, "known_at": moment}


def state(row: int, name: str, price: float) -> MarketState:
    return MarketState(**at(row), instrument=name, price=price, volatility=0.6)


def sizing(row: int, decision: int | None, **changes: object) -> Sizing:
    cuts = (("position_cap", 0.25), ("volatility_target", 0.2), ("drawdown_ladder", 0.15), ("regime", 0.075))
    whole = {"requested": 0.4, "held": 0.0, "allowed": 0.075, "cuts": cuts, "binding": "volatility_target", **changes}
    return Sizing(**at(row), instrument=COIN, decision=decision, **whole)  # type: ignore[arg-type]


ORDER = event_id(3, 5)
REFUSAL = event_id(4, 3)
OLD_ORDER = event_id(5, 1)


def rows() -> list[list[Travelling]]:
    """A rung that changes, a bar on which nothing happens, an order, a refusal, and an order as older journals hold it."""
    book = PortfolioState(
        **at(1), cash=Decimal(8_000), positions=((OTHER, Decimal(2)),), equity=Decimal(10_000), peak_equity=Decimal(12_000)
    )
    rung = RiskEvent(**at(1), rule="drawdown_ladder", state="0.75", message="drawdown 16.7 % is beyond the first rung")
    elsewhere = RiskEvent(**at(1), rule="daily_loss", state="normal", message="a new day")
    wish = Decision(**at(3), instrument=COIN, agent="rule", target_weight=0.4, confidence=0.9, reason="trend")
    order = Order(
        **at(3), client_id="ca1", instrument=COIN, side="buy", quantity=Decimal("0.037"), decision=event_id(3, 2),
        binding_limit="volatility_target",
    )  # fmt: skip
    refusal = Refusal(**at(4), instrument=COIN, rule="kill_switch", message="the kill switch stands", decision=event_id(4, 0))
    kill = RiskEvent(**at(4), rule="kill_switch", state="tripping", message="by a person: enough")
    old = Order(**at(5), client_id="ca2", instrument=COIN, side="sell", quantity=Decimal("0.01"), decision=event_id(5, 0))
    fill = Fill(
        **at(6), trade_id="t1", client_id="ca1", instrument=COIN, side="buy", quantity=Decimal("0.037"), price=Decimal(20_000),
        fee=Decimal(1), fee_asset="USDT", order=ORDER,
    )  # fmt: skip
    return [
        [book, rung, elsewhere],
        [state(2, COIN, 20_000.0)],
        [state(3, COIN, 20_000.0), state(3, OTHER, 1_000.0), wish, sizing(3, event_id(3, 2)), sizing(3, event_id(2, 0)), order],
        [wish, sizing(4, event_id(4, 0), allowed=0.0, binding="kill_switch", cuts=(("kill_switch", 0.0),)), kill, refusal],
        [wish, old],
        [fill],
    ]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalReader]:
    path: Path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    with Journal(path, durable=False, header={"run": "test"}) as writer:
        for row, values in enumerate(rows(), start=1):
            writer.append(START + row * HOUR, values)
    with JournalReader(path) as reader:
        yield reader


def test_caps_stand_by_themselves_and_multipliers_scale_the_smallest() -> None:
    steps = sizing_steps(sizing(3, None))
    assert [(step.kind, step.limit, step.size) for step in steps] == [
        ("cap", "position_cap", 0.25),
        ("cap", "volatility_target", 0.2),
        ("multiplier", "drawdown_ladder", 0.15),
        ("multiplier", "regime", 0.075),
    ]
    assert [step.factor for step in steps] == [None, None, pytest.approx(0.75), pytest.approx(0.5)]
    assert [step.limit for step in steps if step.decided] == ["volatility_target"]
    uncut = sizing(3, None, cuts=(), binding="", allowed=0.4)
    assert sizing_lines(uncut) == ["requested +40.00% of equity, held +0.00%", "no limit allows less", "allowed +40.00%"]
    blind = sizing(0, None, requested=0.0, allowed=0.0, held=math.nan, cuts=(), binding="")
    assert sizing_lines(blind)[0] == "requested +0.00% of equity, held what nobody knew a price of"
    blocked = sizing_steps(sizing(3, None, cuts=(("gross_cap", 0.2), ("bad_tick", 0.0), ("drawdown_ladder", 0.1)), binding="bad_tick"))
    assert [(step.kind, step.factor) for step in blocked] == [("cap", None), ("block", None), ("multiplier", 0.5)]
    ladder_alone = sizing_steps(sizing(3, None, requested=-0.4, cuts=(("drawdown_ladder", 0.1),), binding="drawdown_ladder"))
    assert ladder_alone[0].factor == pytest.approx(0.25)


def test_an_order_is_explained_from_the_wish_to_the_lot(journal: JournalReader) -> None:
    found = explain(journal, "ca1")
    kinds = [type(link.value).__name__ for link in found.links]
    assert kinds == ["Order", "Sizing", "RiskEvent", "Decision"]
    assert [link.event for link in found.links] == ["3.5", "3.3", "1.1", "3.2"]
    text = "\n".join(found.lines())
    for words in (
        "requested +40.00% of equity, held +0.00%",
        "position_cap allows 25.00%",
        "volatility_target allows 20.00%  ← decided",
        "× drawdown_ladder (75%) leaves 15.00%",
        "× regime (50%) leaves 7.50%",
        "allowed +7.50%",
        "= +0.0375 at 20000 of 10,000.00; rounded to the lot: buy 0.037",
        "drawdown_ladder: 0.75 since",
    ):
        assert words in text
    assert "daily_loss" not in text  # it did not cut
    assert found.units is not None
    assert found.units.wanted == pytest.approx(0.0375)  # 7.5 % of 8,000 + 2 · 1,000 at 20,000
    assert found.units.after == Decimal("0.037")


def test_a_fill_leads_to_the_same_sizing(journal: JournalReader) -> None:
    assert explain(journal, "t1").links[1:] == explain(journal, "ca1").links


def test_a_refusal_is_explained_with_what_stood_behind_it(journal: JournalReader) -> None:
    found = explain(journal, format_event_id(REFUSAL))
    assert [type(link.value).__name__ for link in found.links] == ["Refusal", "Sizing", "RiskEvent", "Decision"]
    assert found.links[0].words == "refused by kill_switch: the kill switch stands"
    assert "kill_switch: tripping since" in found.links[2].words
    assert "kill_switch lets nothing be added to 0.00%  ← decided" in found.links[1].details
    assert found.units is None


def test_a_journal_without_sizings_is_explained_as_before(journal: JournalReader) -> None:
    found = explain(journal, "ca2")
    assert [type(link.value).__name__ for link in found.links] == ["Order", "Decision"]
    assert found.sizing is None
    assert found.as_dict()["sizing"] is None


def test_programs_read_the_same_steps(journal: JournalReader) -> None:
    said = json.loads(msgspec.json.encode(explain(journal, "ca1").as_dict()["sizing"]))
    assert (said["requested"], said["allowed"], said["binding"]) == (0.4, 0.075, "volatility_target")
    assert [step["limit"] for step in said["steps"]] == ["position_cap", "volatility_target", "drawdown_ladder", "regime"]
    assert said["units"]["after"] == "0.037"
