"""The gate, rule by rule, on books small enough to work out by hand: equity 1,000, price 100, lot 0.01."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState, Refusal
from cryptoalpha.risk.config import LadderConfig, RiskConfig, TailConfig
from cryptoalpha.risk.gate import RiskGate

NOW = 100 * HOUR
NAMES = ("BTC/USDT", "ETH/USDT")
LOOSE = RiskConfig(
    max_position=1.0, max_gross=1.0, max_cluster=1.0, volatility_target=None, allow_short=True, no_trade_band=0.02,
    tail=TailConfig(max_expected_shortfall=None), ladder=LadderConfig(rungs=()),
)  # fmt: skip


def rules(min_notional: str = "10", lot: str = "0.01") -> dict[str, InstrumentRules]:
    return {
        name: InstrumentRules(
            happened_at=0,
            known_at=0,
            instrument=name,
            venue="test",
            base=name[:3],
            quote="USDT",
            lot=Decimal(lot),
            tick=Decimal("0.01"),
            min_notional=Decimal(min_notional),
        )
        for name in NAMES
    }


def decide(weight: float, name: str = NAMES[0]) -> Decision:
    return Decision(happened_at=NOW, known_at=NOW, instrument=name, agent="rule", target_weight=weight, confidence=1.0, reason="")


def states(price: float = 100.0, volatility: float = 0.5, known_at: int = NOW) -> dict[str, MarketState]:
    return {
        name: MarketState(happened_at=known_at, known_at=known_at, instrument=name, price=price, volatility=volatility) for name in NAMES
    }


def portfolio(equity: str = "1000", peak: str = "1000", **held: str) -> PortfolioState:
    positions = tuple((f"{base}/USDT", Decimal(quantity)) for base, quantity in held.items())
    cash = Decimal(equity) - sum((100 * quantity for _, quantity in positions), Decimal(0))
    return PortfolioState(happened_at=NOW, known_at=NOW, cash=cash, positions=positions, equity=Decimal(equity), peak_equity=Decimal(peak))


def review(config, decisions, book=None, *, known=None, pending=None, venue=None, gate=None):
    gate = gate or RiskGate(config, venue or rules())
    return gate.review(
        NOW,
        decisions,
        events=range(7, 7 + len(decisions)),
        states=states() if known is None else known,
        portfolio=book or portfolio(),
        pending=pending or {},
    ).verdicts


def test_two_orders_decided_at_the_same_moment_have_two_names_and_a_replay_finds_them_again():
    """A late bar becomes known together with the next one: both steps may order, and an id names one order for ever."""

    def names(gate: RiskGate) -> list[tuple[str, int]]:
        made = [review(LOOSE, [decide(weight)], gate=gate)[0] for weight in (0.3, 0.4)]
        return [(order.client_id, order.attempt) for order in made]

    first = names(RiskGate(LOOSE, rules()))
    assert first == names(RiskGate(LOOSE, rules()))
    assert [attempt for _, attempt in first] == [0, 1]
    assert len({name for name, _ in first}) == 2


def test_an_entry_becomes_an_order_of_that_share_of_equity():
    (order,) = review(LOOSE, [decide(0.3)])
    assert isinstance(order, Order)
    assert (order.side, order.quantity, order.type, order.decision) == ("buy", Decimal("3.00"), "market", 7)
    assert (order.binding_limit, order.reduce_only, order.happened_at, order.known_at) == ("", False, NOW, NOW)


def test_quantity_is_rounded_down_to_the_lot():
    (order,) = review(LOOSE, [decide(0.3)], known=states(price=99.97))
    assert order.quantity == Decimal("3.00")  # 3.0009 …
    (order,) = review(LOOSE, [decide(-0.3)], known=states(price=100.03))
    assert (order.side, order.quantity) == ("sell", Decimal("2.99"))  # 2.9991 …


@pytest.mark.parametrize(
    ("config", "weight", "rule", "quantity"),
    [
        ({"max_position": 0.25}, 0.6, "position_cap", "2.50"),
        ({"max_gross": 0.4}, 0.6, "gross_cap", "4.00"),
        ({"volatility_target": 0.2}, 0.6, "volatility_target", "4.00"),
        ({"volatility_target": 0.1, "max_position": 0.25}, 0.6, "volatility_target", "2.00"),
    ],
)
def test_the_smallest_cap_binds_and_is_named(config, weight, rule, quantity):
    (order,) = review(LOOSE.model_copy(update=config), [decide(weight)])
    assert (order.binding_limit, order.quantity) == (rule, Decimal(quantity))


def test_a_forbidden_short_is_refused_from_flat_and_closes_a_long():
    config = LOOSE.model_copy(update={"allow_short": False})
    (refusal,) = review(config, [decide(-0.3)])
    assert isinstance(refusal, Refusal)
    assert (refusal.rule, refusal.decision) == ("short_forbidden", 7)
    (order,) = review(config, [decide(-0.3)], portfolio(BTC="2"))
    assert (order.side, order.quantity, order.reduce_only, order.binding_limit) == ("sell", Decimal(2), True, "short_forbidden")


def test_small_changes_are_left_alone_and_closing_is_not_small():
    assert review(LOOSE, [decide(0.21)], portfolio(BTC="2")) == []
    assert len(review(LOOSE, [decide(0.221)], portfolio(BTC="2"))) == 1
    (order,) = review(LOOSE, [decide(0.0)], portfolio(BTC="0.15"))
    assert (order.side, order.quantity, order.reduce_only) == ("sell", Decimal("0.15"), True)
    assert review(LOOSE, [decide(0.0)]) == []


def test_a_change_within_one_lot_of_what_is_held_is_no_order():
    no_band = LOOSE.model_copy(update={"no_trade_band": 0.0})
    assert review(no_band, [decide(0.2005)], portfolio(BTC="2")) == []


def test_a_flip_crosses_zero_in_one_order_that_is_no_reduction():
    (order,) = review(LOOSE, [decide(-0.1)], portfolio(BTC="2"))
    assert (order.side, order.quantity, order.reduce_only) == ("sell", Decimal("3.00"), False)


def test_too_small_for_the_venue_is_refused_by_name():
    no_band = LOOSE.model_copy(update={"no_trade_band": 0.0})
    (refusal,) = review(no_band, [decide(0.009)])
    assert refusal.rule == "min_notional"
    (refusal,) = review(no_band, [decide(0.0005)])
    assert refusal.rule == "lot"
    assert "0.01" in refusal.message


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_decision_that_is_no_number_is_refused(weight):
    (refusal,) = review(LOOSE, [decide(weight)])
    assert refusal.rule == "not_finite"


@pytest.mark.parametrize("known", [{}, states(price=math.nan), states(price=0.0), states(price=math.inf), states(known_at=NOW - 4 * HOUR)])
def test_nothing_is_entered_blindly_but_everything_can_be_closed(known):
    (refusal,) = review(LOOSE, [decide(0.5)], known=known)
    assert refusal.rule == "no_market_state"
    (order,) = review(LOOSE, [decide(0.0)], portfolio(BTC="2"), known=known)
    assert (order.side, order.quantity, order.reduce_only) == ("sell", Decimal(2), True)


def test_unknown_volatility_forbids_entries_only_where_it_is_needed():
    known = states(volatility=math.nan)
    target = LOOSE.model_copy(update={"volatility_target": 0.3})
    (refusal,) = review(target, [decide(0.5)], known=known)
    assert refusal.rule == "no_market_state"
    (order,) = review(target, [decide(0.1)], portfolio(BTC="2"), known=known)
    assert order.reduce_only
    (order,) = review(LOOSE, [decide(0.5)], known=known)
    assert order.quantity == Decimal("5.00")


def test_unknown_instruments_and_second_decisions_are_refused():
    verdicts = review(LOOSE, [decide(0.3), decide(0.4), decide(0.3, "XRP/USDT")])
    assert [v.rule if isinstance(v, Refusal) else "order" for v in verdicts] == ["duplicate_decision", "unknown_instrument", "order"]
    assert [v.decision for v in verdicts] == [8, 9, 7]


def test_decisions_without_event_ids_are_a_mistake_of_the_caller():
    with pytest.raises(ConfigError, match="1 decisions came with 0 event ids"):
        RiskGate(LOOSE, rules()).review(NOW, [decide(0.1)], events=[], states=states(), portfolio=portfolio())


def test_gross_counts_positions_nobody_decided_on():
    (order,) = review(LOOSE, [decide(0.6)], portfolio(ETH="7"))
    assert (order.quantity, order.binding_limit) == (Decimal("3.00"), "gross_cap")


def test_gross_counts_orders_on_their_way():
    (order,) = review(LOOSE, [decide(0.6)], pending={"ETH/USDT": Decimal(7)})
    assert (order.quantity, order.binding_limit) == (Decimal("3.00"), "gross_cap")


def test_a_position_without_a_price_counts_by_what_equity_leaves_unexplained():
    known = {NAMES[0]: states()[NAMES[0]]}
    (order,) = review(LOOSE, [decide(0.6)], portfolio(ETH="7"), known=known)
    assert (order.quantity, order.binding_limit) == (Decimal("3.00"), "gross_cap")


def test_an_unfinished_order_is_left_to_work_while_it_heads_there():
    assert review(LOOSE, [decide(0.5)], portfolio(BTC="2"), pending={NAMES[0]: Decimal(3)}) == []
    assert review(LOOSE, [decide(0.0)], portfolio(BTC="2"), pending={NAMES[0]: Decimal(-2)}) == []


def test_an_unfinished_order_is_replaced_by_one_counted_from_the_position():
    (order,) = review(LOOSE, [decide(0.4)], portfolio(BTC="2"), pending={NAMES[0]: Decimal(6)})
    assert (order.side, order.quantity) == ("buy", Decimal("2.00"))


def test_an_unfinished_order_that_nobody_wants_is_superseded():
    (refusal,) = review(LOOSE, [decide(0.0)], pending={NAMES[0]: Decimal(6)})
    assert refusal.rule == "superseded"
    (refusal,) = review(LOOSE, [decide(0.2)], portfolio(BTC="2"), pending={NAMES[0]: Decimal(6)})
    assert refusal.rule == "superseded"


def test_units_are_taken_as_they_are_until_a_cap_binds():
    config = LOOSE.model_copy(update={"sizing": "units", "no_trade_band": 0.0})
    (order,) = review(config, [decide(3.0)], known=states(price=99.99))
    assert order.quantity == Decimal(3)
    assert review(config, [decide(3.0)], portfolio(BTC="3")) == []
    (order,) = review(config.model_copy(update={"max_position": 0.25}), [decide(3.0)])
    assert (order.quantity, order.binding_limit) == (Decimal("2.50"), "position_cap")


def test_the_stop_closes_everything_and_refuses_entries():
    gate = RiskGate(LOOSE.model_copy(update={"max_drawdown": 0.2}), rules())
    assert review(LOOSE, [], gate=gate) == []
    assert not gate.kill_switch.stands
    fallen = portfolio("800", BTC="2", ETH="-1")
    verdicts = review(LOOSE, [decide(0.9)], fallen, gate=gate)
    assert gate.kill_switch.stands
    assert [(v.instrument, v.side, v.quantity, v.reduce_only, v.binding_limit) for v in verdicts] == [
        ("BTC/USDT", "sell", Decimal(2), True, "kill_switch"),
        ("ETH/USDT", "buy", Decimal(1), True, "kill_switch"),
    ]
    flat = portfolio("900")
    (refusal,) = review(LOOSE, [decide(0.9)], flat, gate=gate)
    assert (refusal.rule, refusal.decision) == ("kill_switch", 7)
    gate.kill_switch.resume(NOW, by="a person", reason="looked into it")
    (order,) = review(LOOSE, [decide(0.9)], flat, gate=gate)
    assert order.quantity == Decimal("8.10")


def test_the_stop_closes_without_any_decision_and_does_not_ask_twice():
    gate = RiskGate(LOOSE.model_copy(update={"max_drawdown": 0.2}), rules())
    fallen = portfolio("800", BTC="2")
    assert len(review(LOOSE, [], fallen, gate=gate)) == 1
    assert review(LOOSE, [], fallen, gate=gate, pending={"BTC/USDT": Decimal(-2)}) == []
    (refusal,) = review(LOOSE, [], portfolio("800"), gate=gate, pending={"ETH/USDT": Decimal(4)})
    assert (refusal.instrument, refusal.rule, refusal.decision) == ("ETH/USDT", "kill_switch", None)
    assert review(LOOSE, [], portfolio("800", BTC="0.001"), gate=gate) == []  # less than a lot cannot be sold


def test_the_same_review_gives_the_same_orders():
    assert review(LOOSE, [decide(0.3), decide(0.2, NAMES[1])]) == review(LOOSE, [decide(0.3), decide(0.2, NAMES[1])])


def test_two_accounts_never_share_an_order_id():
    one, other = (
        RiskGate(LOOSE, rules(), account=name).review(NOW, [decide(0.3)], events=[1], states=states(), portfolio=portfolio()).verdicts
        for name in ("a", "b")
    )
    assert one[0].client_id != other[0].client_id
