"""The simulated broker, one behaviour at a time. Bars of one hour; price 100 unless said; no spread, no impact, fee 10 basis points."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Fill, FundingPayment, InstrumentRules, Order, Refusal
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.simulated import SimulatedBroker

NAMES = ("BTC/USDT", "ETH/USDT")
NAN = float("nan")
FEE_ONLY = {"half_spread": 0.0, "impact": 0.0, "max_participation": None}


def rules(name: str, *, perpetual: bool = False, quote: str = "USDT") -> InstrumentRules:
    return InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=name,
        venue="t",
        base=name[:3],
        quote=quote,
        lot=Decimal("0.01"),
        tick=Decimal("0.01"),
        min_notional=Decimal(1),
        perpetual=perpetual,
    )


def broker(*, cash: float = 10_000.0, perpetual: bool = False, fill: str = "next_open", funding: bool = True, **costs) -> SimulatedBroker:
    config = ExecutionConfig(initial_cash=cash, costs=CostConfig(**{**FEE_ONLY, **costs}), fill=fill, funding=funding)
    return SimulatedBroker(config, {name: rules(name, perpetual=perpetual) for name in NAMES})


def bar(
    hour: int, open=100.0, close=None, *, high=None, low=None, volume=1000.0, present=(True, True), funding=None, inside=None
) -> BarStep:
    """The bar that opens at `hour`; the second instrument always trades at 50."""
    close = open if close is None else close
    high, low = high or max(open, close), low or min(open, close)
    rows = [
        [value if there else NAN for value, there in zip(pair, present, strict=True)]
        for pair in ((open, 50.0), (high, 50.0), (low, 50.0), (close, 50.0), (volume, 1000.0))
    ]
    start = hour * HOUR
    return BarStep(
        start + HOUR, start, HOUR, NAMES, *rows, list(present), [funding, NAN] if funding else None, [inside, NAN] if inside else None
    )


def order(hour: int, side="buy", quantity="2", *, limit=None, name=NAMES[0], reduce_only=False, client="ca01", worst=None) -> Order:
    """An order decided when the clock read `hour`."""
    return Order(
        happened_at=hour * HOUR,
        known_at=hour * HOUR,
        client_id=client,
        instrument=name,
        side=side,
        quantity=Decimal(quantity),
        type="market" if limit is None else "limit",
        limit_price=None if limit is None else Decimal(limit),
        reduce_only=reduce_only,
        decision=77,
        worst_price=None if worst is None else Decimal(worst),
    )


def test_an_order_fills_at_the_next_open_never_in_the_bar_it_was_decided_on():
    venue = broker()
    assert venue.on_bar(bar(0, 100.0, 103.0)) == []
    venue.submit(order(1), event=5)
    (fill,) = venue.on_bar(bar(1, 104.0, 110.0))
    assert isinstance(fill, Fill)
    assert (fill.price, fill.quantity, fill.side, fill.order) == (Decimal("104.0"), Decimal(2), "buy", 5)
    assert (fill.happened_at, fill.known_at) == (HOUR, 2 * HOUR)
    assert (fill.fee, fill.fee_asset) == (Decimal("0.208"), "USDT")
    assert venue.on_bar(bar(2)) == []
    assert venue.pending() == {}


def test_signal_close_fills_at_the_close_it_was_decided_on():
    venue = broker(fill="signal_close")
    venue.on_bar(bar(0, 100.0, 103.0))
    venue.submit(order(1), event=5)
    (fill,) = venue.on_bar(bar(1, 104.0, 110.0))
    assert (fill.price, fill.happened_at, fill.known_at) == (Decimal("103.0"), HOUR, 2 * HOUR)


def test_spread_is_paid_on_both_sides_and_named():
    venue = broker(half_spread=0.001)
    venue.on_bar(bar(0))
    venue.submit(order(1), event=1)
    (bought,) = venue.on_bar(bar(1))
    venue.submit(order(2, "sell", client="ca02"), event=2)
    (sold,) = venue.on_bar(bar(2))
    assert (bought.price, sold.price) == (Decimal("100.1"), Decimal("99.9"))
    assert (bought.spread_cost, bought.impact_cost, sold.spread_cost) == (Decimal("0.2"), 0, Decimal("0.2"))


def test_impact_follows_the_square_root_law_on_bars_already_closed():
    venue = broker(impact=1.0, half_spread=0.0)
    for hour in range(30):
        venue.on_bar(bar(hour, 100.0, 101.0 if hour % 2 else 100.0, volume=1000.0))
    venue.submit(order(30, quantity="6"), event=1)
    (fill,) = venue.on_bar(bar(30, 100.0, 500.0, volume=9e9))  # its own close and volume must not matter
    returns = [0.01 if hour % 2 else 100 / 101 - 1 for hour in range(1, 30)]
    daily = (sum(r * r for r in returns) / 29 * 24) ** 0.5
    assert float(fill.price) == pytest.approx(100 * (1 + daily * (6 / 24_000) ** 0.5), abs=1e-4)
    assert fill.impact_cost == 6 * (fill.price - 100)
    assert fill.spread_cost == 0


@pytest.mark.parametrize("volume", [0.0, NAN, 1000.0])
def test_without_volume_or_history_a_fixed_slippage_applies(volume):
    venue = broker(impact=1.0, unknown_volume_slippage=0.002, max_participation=0.1)
    venue.on_bar(bar(0))
    venue.submit(order(1), event=1)
    (fill,) = venue.on_bar(bar(1, volume=volume))
    assert fill.price == Decimal("100.2")


def test_an_order_takes_a_tenth_of_the_volume_and_the_rest_waits():
    venue = broker(max_participation=0.1)
    venue.on_bar(bar(0))
    venue.submit(order(1, quantity="2"), event=1)
    (first,) = venue.on_bar(bar(1, volume=5.009))
    assert first.quantity == Decimal("0.50")
    assert venue.pending() == {"BTC/USDT": Decimal("1.50")}
    assert venue.on_bar(bar(2, volume=0.05)) == []  # a tenth is less than a lot
    (second,) = venue.on_bar(bar(3, 105.0, volume=100.0))
    assert (second.quantity, second.price) == (Decimal("1.50"), Decimal("105.0"))
    assert (first.trade_id, second.trade_id) == ("ca01-0", "ca01-1")


def test_a_newer_order_replaces_the_rest_and_cancel_drops_it():
    venue = broker(max_participation=0.1)
    venue.on_bar(bar(0))
    venue.submit(order(1, quantity="2"), event=1)
    venue.on_bar(bar(1, volume=5.0))
    venue.submit(order(2, "sell", "0.3", client="ca02"), event=2)
    assert venue.pending() == {"BTC/USDT": Decimal("-0.3")}
    venue.cancel("BTC/USDT")
    venue.cancel("ETH/USDT")
    assert venue.on_bar(bar(2)) == []


def test_a_missing_bar_is_waited_for_once_and_then_the_order_is_stale():
    for missing, stale in ((1, False), (2, True)):
        venue = broker()
        venue.on_bar(bar(0))
        venue.submit(order(1), event=1)
        for hour in range(1, 1 + missing):
            assert venue.on_bar(bar(hour, present=(False, True))) == []
        (outcome,) = venue.on_bar(bar(1 + missing, 120.0))
        if stale:
            assert isinstance(outcome, Refusal)
            assert (outcome.rule, outcome.decision, outcome.known_at) == ("stale_order", 77, 4 * HOUR)
            assert venue.pending() == {}
        else:
            assert outcome.price == Decimal("120.0")


def test_an_order_known_after_the_open_waits_for_the_next_one():
    venue = broker()
    venue.on_bar(bar(0))
    late = Order(**{**{f: getattr(order(1), f) for f in order(1).__struct_fields__}, "known_at": HOUR + 1})
    venue.submit(late, event=1)
    assert venue.on_bar(bar(1)) == []
    assert len(venue.on_bar(bar(2))) == 1


def test_cash_that_does_not_cover_a_buy_cuts_it_and_says_so():
    venue = broker(cash=1000.0)
    venue.on_bar(bar(0))
    venue.submit(order(1, quantity="10"), event=1)
    fill, refusal = venue.on_bar(bar(1, 101.0))
    assert fill.quantity == Decimal("9.89")  # 1,000 / (101 · 1.001) = 9.891
    assert refusal.rule == "insufficient_cash"
    assert venue.account.cash >= 0
    assert venue.pending() == {}
    venue.submit(order(2, quantity="10", client="ca02"), event=2)
    (refusal,) = venue.on_bar(bar(2))
    assert refusal.rule == "insufficient_cash"


@pytest.mark.parametrize(
    ("side", "opens", "worst", "fills"),
    [
        ("buy", 110.0, "110.11", True),  # 110 and a tenth of a per cent of spread
        ("buy", 110.0, "110.10", False),
        ("buy", 70.0, "110.00", True),
        ("sell", 90.0, "89.91", True),
        ("sell", 90.0, "89.92", False),
        ("sell", 170.0, "89.92", True),
    ],
)
def test_an_entry_beyond_its_worst_price_is_given_up(side, opens, worst, fills):
    venue = broker(half_spread=0.001)
    venue.on_bar(bar(0))
    venue.submit(order(1, side, worst=worst), event=1)
    (outcome,) = venue.on_bar(bar(1, opens))
    assert isinstance(outcome, Fill) is fills
    assert venue.pending() == {}
    if not fills:
        assert (outcome.rule, outcome.decision, venue.account.positions) == ("price_collar", 77, ())
        assert f"beyond {worst}" in outcome.message


def test_the_rest_of_an_entry_is_given_up_when_the_market_leaves():
    venue = broker(max_participation=0.1)
    venue.on_bar(bar(0))
    venue.submit(order(1, quantity="15", worst="105"), event=1)
    (fill,) = venue.on_bar(bar(1, volume=100.0))
    assert fill.quantity == 10
    (refusal,) = venue.on_bar(bar(2, 105.01))
    assert (refusal.rule, venue.pending()) == ("price_collar", {})


def test_sales_come_first_so_that_their_proceeds_count():
    venue = broker(cash=1000.0)
    venue.on_bar(bar(0))
    venue.submit(order(1, quantity="9"), event=1)
    venue.on_bar(bar(1))
    venue.submit(order(2, "sell", "9", client="ca03"), event=3)
    venue.submit(order(2, "buy", "19", name=NAMES[1], client="ca02"), event=2)
    outcomes = venue.on_bar(bar(2))
    assert [(f.instrument, f.side) for f in outcomes] == [("BTC/USDT", "sell"), ("ETH/USDT", "buy")]


def test_a_short_is_covered_by_equity():
    venue = broker(cash=1000.0)
    venue.on_bar(bar(0))
    venue.submit(order(1, "sell", "20"), event=1)
    fill, refusal = venue.on_bar(bar(1))
    assert (fill.quantity, refusal.rule) == (Decimal("9.99"), "insufficient_cash")
    venue.submit(order(2, "buy", "9.99", client="ca02"), event=2)
    (fill,) = venue.on_bar(bar(2, 150.0))  # covering always passes
    assert fill.quantity == Decimal("9.99")


def test_reduce_only_never_opens_or_flips():
    venue = broker()
    venue.on_bar(bar(0))
    venue.submit(order(1, "sell", reduce_only=True), event=1)
    (refusal,) = venue.on_bar(bar(1))
    assert refusal.rule == "nothing_to_reduce"
    venue.submit(order(2, quantity="1", client="ca02"), event=2)
    venue.on_bar(bar(2))
    venue.submit(order(3, "sell", "5", reduce_only=True, client="ca03"), event=3)
    (fill,) = venue.on_bar(bar(3))
    assert (fill.quantity, venue.pending(), venue.account.positions) == (Decimal(1), {}, ())


@pytest.mark.parametrize(
    ("side", "limit", "bar_kwargs", "price"),
    [
        ("buy", "99", {"open": 100.0, "low": 99.0}, None),  # touched, not traded through
        ("buy", "99", {"open": 100.0, "low": 98.9}, "99"),
        ("buy", "99", {"open": 98.5, "low": 98.0}, "98.5"),  # opened below the limit
        ("sell", "101", {"open": 100.0, "high": 101.0}, None),
        ("sell", "101", {"open": 100.0, "high": 101.1}, "101"),
        ("sell", "101", {"open": 102.0, "high": 103.0}, "102.0"),
    ],
)
def test_a_limit_order_fills_only_when_traded_through(side, limit, bar_kwargs, price):
    venue = broker(maker_fee=0.0, taker_fee=0.001)
    venue.on_bar(bar(0))
    venue.submit(order(1, side, limit=limit), event=1)
    outcomes = venue.on_bar(bar(1, **bar_kwargs))
    if price is None:
        assert outcomes == []
        assert venue.pending()
    else:
        (fill,) = outcomes
        assert fill.price == Decimal(price)
        assert (fill.fee == 0) == (price == limit)  # it rested: maker
        assert (fill.spread_cost, fill.impact_cost) == (0, 0)


def test_a_limit_order_does_not_go_stale_and_never_pays_more_than_its_limit():
    venue = broker(half_spread=0.01)
    venue.on_bar(bar(0))
    venue.submit(order(1, limit="95"), event=1)
    for hour in range(1, 10):
        assert venue.on_bar(bar(hour)) == []
    (fill,) = venue.on_bar(bar(10, 94.5, low=94.0))
    assert fill.price == Decimal(95)
    venue.submit(order(11, "sell", limit="96", client="ca02"), event=2)
    (fill,) = venue.on_bar(bar(11, 96.5, high=97.0))
    assert fill.price == Decimal(96)


def test_funding_is_owed_on_what_was_held_before_the_open():
    venue = broker(perpetual=True)
    venue.on_bar(bar(0))
    venue.submit(order(1), event=1)
    (fill,) = venue.on_bar(bar(1, funding=0.001))
    assert isinstance(fill, Fill)  # flat before the open: nothing owed
    (paid,) = venue.on_bar(bar(2, 110.0, funding=0.001))
    assert isinstance(paid, FundingPayment)
    assert (paid.position, paid.amount, paid.happened_at, paid.known_at) == (Decimal(2), Decimal("-0.22"), 2 * HOUR, 3 * HOUR)
    (later,) = venue.on_bar(bar(3, 110.0, 120.0, inside=-0.001))
    assert (later.amount, later.happened_at) == (Decimal("0.24"), 4 * HOUR)


def test_funding_of_an_absent_bar_uses_the_last_known_close():
    venue = broker(perpetual=True)
    venue.on_bar(bar(0))
    venue.submit(order(1), event=1)
    venue.on_bar(bar(1, 100.0, 105.0))
    (paid,) = venue.on_bar(bar(2, present=(False, True), funding=0.001))
    assert paid.amount == Decimal("-0.21")


@pytest.mark.parametrize("settings", [{"perpetual": False}, {"perpetual": True, "funding": False}])
def test_spot_pays_no_funding_and_it_can_be_switched_off(settings):
    venue = broker(**settings)
    venue.on_bar(bar(0))
    venue.submit(order(1), event=1)
    venue.on_bar(bar(1))
    assert venue.on_bar(bar(2, funding=0.001, inside=0.001)) == []


def test_books_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"counted in USDT, but BTC/EUR \(in EUR\)"):
        SimulatedBroker(ExecutionConfig(), {"BTC/EUR": rules("BTC/EUR", quote="EUR")})
    venue = SimulatedBroker(ExecutionConfig(), {NAMES[0]: rules(NAMES[0])})
    with pytest.raises(ConfigError, match="no rules for ETH/USDT"):
        venue.on_bar(bar(0))
    with pytest.raises(ConfigError, match="no rules for ETH/USDT"):
        venue.submit(order(0, name=NAMES[1]), event=1)
    venue = broker()
    venue.on_bar(bar(0))
    with pytest.raises(ConfigError, match="after bars of"):
        venue.on_bar(BarStep(0, 0, HOUR, NAMES[:1], [1.0], [1.0], [1.0], [1.0], [1.0], [True]))


def test_bars_of_an_equal_book_are_accepted():
    venue = broker()
    venue.on_bar(bar(0))
    step = bar(1)
    step.instruments = (NAMES[0], NAMES[1])
    assert venue.on_bar(step) == []
