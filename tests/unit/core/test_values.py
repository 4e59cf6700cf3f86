"""The travelling values: frozen, strict at the boundary, whole after a journey through msgpack."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.values import (
    Adjustment,
    Alarm,
    Bar,
    ChainReading,
    Decision,
    Fill,
    FundingPayment,
    FusedSignal,
    FusionSearch,
    InstrumentRules,
    MarketState,
    ObservationRef,
    Order,
    PortfolioState,
    Post,
    Refusal,
    RiskEvent,
    RiskState,
    Signal,
    Sizing,
    Travelling,
    event_id,
    format_event_id,
    parse_event_id,
    split_event_id,
)

AT = {"happened_at": 10, "known_at": 20}
BAR = {"instrument": "BTC/USDT", "interval": 60, "open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "volume": 5.0}
ORDER = {"client_id": "ca1", "instrument": "BTC/USDT", "side": "buy", "quantity": Decimal("0.10")}

EXAMPLES: list[Travelling] = [
    Bar(**AT, **BAR),
    Post(**AT, post_id="1", source="news", text="Bitcoin »rises«", assets=("BTC", "ETH"), url="u"),
    ChainReading(**AT, asset="*", metric="fear_greed", value=25.0, source="mood"),
    ObservationRef(**AT, subject="BTC/USDT", partition="0123456789abcdef", row=7),
    Signal(
        **AT,
        source="ema",
        type="price",
        instrument="BTC/USDT",
        value=-1.0,
        confidence=0.5,
        predicted_impact=-0.3,
        proposed_action="strong_sell",
        horizon=60,
        quantiles=(-0.1, 0.0, 0.1),
        reference="window",
    ),
    MarketState(**AT, instrument="BTC/USDT", price=101.0, volatility=0.6, regime=(0.2, 0.8), expected_correlation=0.5, features=(1.0,)),
    FusedSignal(
        **AT,
        instrument="BTC/USDT",
        sentiment=0.1,
        direction=-0.2,
        volatility=0.6,
        confidence=0.4,
        urgency=1.0,
        weights=(("ema", 0.75), ("news", -0.25)),
        signals=(65536, 65537),
        market_state=65538,
    ),
    FusionSearch(
        **AT,
        in_charge="ridge",
        reason="not yet proved better",
        regime=(0.1, 0.2, 0.3, 0.1, 0.2, 0.1),
        types=("price", "news"),
        weights_before=(0.5, 0.5),
        weights_after=(0.6, 0.4),
        action="+price",
        candidates=(("+price", 40, 0.3, 1e-4), ("hold", 24, 0.2, 5e-5)),
        line=(("+price", 1e-4),),
        simulations=64,
    ),
    Decision(
        **AT,
        instrument="BTC/USDT",
        agent="council",
        target_weight=-0.1,
        confidence=0.4,
        reason="trend",
        fused=3,
        votes=(("rule", -0.1, 1.0, 0.002),),
        line=((0.2, 1e-3),),
    ),
    Order(**AT, **ORDER, type="limit", limit_price=Decimal("100.50"), reduce_only=True, decision=4, binding_limit="gross", attempt=1),
    Order(**AT, **ORDER, decision=4, worst_price=Decimal("110.5")),
    Refusal(**AT, instrument="BTC/USDT", rule="min_notional", message="3 < 5", decision=4),
    Fill(
        **AT,
        trade_id="t1",
        client_id="ca1",
        instrument="BTC/USDT",
        side="sell",
        quantity=Decimal("0.1"),
        price=Decimal("100.123456789012345678"),
        fee=Decimal("0.01"),
        fee_asset="USDT",
        spread_cost=Decimal("0.005"),
        order=5,
    ),
    Adjustment(
        happened_at=1,
        known_at=2,
        instrument="BTC/USDT",
        quantity=Decimal("-0.1"),
        cash=Decimal("3000"),
        price=Decimal("30000"),
        source="trade 7",
        message="sold by hand",
    ),
    FundingPayment(**AT, instrument="BTC/USDT:USDT", position=Decimal(-1), rate=0.0001, amount=Decimal("0.01")),
    PortfolioState(**AT, cash=Decimal(10), positions=(("BTC/USDT", Decimal("0.1")),), equity=Decimal(80), peak_equity=Decimal(100)),
    InstrumentRules(
        **AT,
        instrument="BTC/USDT",
        venue="binance",
        base="BTC",
        quote="USDT",
        lot=Decimal("0.00001"),
        tick=Decimal("0.01"),
        min_notional=Decimal(5),
    ),
    Sizing(
        **AT,
        instrument="BTC/USDT",
        requested=0.4,
        held=0.1,
        allowed=0.125,
        cuts=(("position_cap", 0.25), ("drawdown_ladder", 0.125)),
        binding="position_cap",
        decision=4,
    ),
    RiskEvent(**AT, rule="kill_switch", state="tripping", message="by hand"),
    RiskState(
        **AT,
        limits=(("gross_cap", 0.5, 0.98),),
        exposure=0.75,
        mode="armed",
        value_at_risk=0.02,
        expected_shortfall=0.03,
        level=0.975,
    ),
    Alarm(
        **AT,
        detector="cusum",
        subject="returns",
        tier="champion",
        statistic=18.0,
        threshold=17.34,
        run_length=730.0,
        message="returns fell",
    ),
]
DECODER = msgspec.msgpack.Decoder(Travelling)
LIMIT_ORDER = next(value for value in EXAMPLES if isinstance(value, Order))


def test_there_is_an_example_of_every_kind():
    assert {type(value) for value in EXAMPLES} == set(get_args(Travelling))


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_value_survives_msgpack_and_json_alone_and_among_others(value):
    assert DECODER.decode(msgspec.msgpack.encode(value)) == value
    assert msgspec.json.decode(msgspec.json.encode(value), type=Travelling) == value
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(EXAMPLES), type=list[Travelling]) == EXAMPLES


def test_an_order_of_a_journal_written_before_worst_prices_were_told_has_none():
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(LIMIT_ORDER))
    assert DECODER.decode(msgspec.msgpack.encode(fields[:-1])) == LIMIT_ORDER


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_value_cannot_be_changed_or_grow_a_field(value):
    with pytest.raises(AttributeError):
        value.known_at = 0
    with pytest.raises((AttributeError, TypeError)):
        value.surprise = 1
    with pytest.raises(TypeError):
        type(value)(**AT, **{name: getattr(value, name) for name in type(value).__struct_fields__[2:]}, surprise=1)


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_unknown_field_is_refused_at_the_boundary(value):
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(msgspec.msgpack.encode([*fields, "surprise"]))


def test_an_unknown_kind_and_a_missing_field_are_refused():
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(msgspec.msgpack.encode(["Rumour", 1, 2]))
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(msgspec.msgpack.encode(["Post", 1, 2, "id"]))


def test_bounds_are_checked_where_values_enter():
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(EXAMPLES[4]))
    place = 1 + Signal.__struct_fields__.index("confidence")
    for confidence in (1.5, -0.1, "high"):
        with pytest.raises(msgspec.ValidationError):
            DECODER.decode(msgspec.msgpack.encode([*fields[:place], confidence, *fields[place + 1 :]]))


def test_money_keeps_every_digit_and_trailing_zero():
    fill = DECODER.decode(msgspec.msgpack.encode(next(value for value in EXAMPLES if isinstance(value, Fill))))
    assert isinstance(fill, Fill)
    assert str(fill.price) == "100.123456789012345678"
    order = DECODER.decode(msgspec.msgpack.encode(LIMIT_ORDER))
    assert isinstance(order, Order)
    assert str(order.limit_price) == "100.50"


def test_nan_volatility_travels():
    state = DECODER.decode(msgspec.msgpack.encode(MarketState(**AT, instrument="X/Y", price=1.0, volatility=math.nan)))
    assert isinstance(state, MarketState)
    assert math.isnan(state.volatility)


@pytest.mark.parametrize(
    "change",
    [
        {"high": 100.5},
        {"low": 100.5},
        {"low": 0.0},
        {"low": -1.0},
        {"high": math.inf},
        {"close": math.nan},
        {"open": math.nan},
        {"high": math.nan},
        {"low": math.nan},
        {"volume": -1.0},
        {"volume": math.inf},
        {"volume": math.nan},
    ],
)
def test_an_impossible_bar_cannot_be_built_or_decoded(change):
    with pytest.raises(DataError, match="impossible") as caught:
        Bar(**AT, **{**BAR, **change})
    assert "bar_gate" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": Decimal(0)},
        {"quantity": Decimal(-1)},
        {"type": "limit"},
        {"type": "market", "limit_price": Decimal(1)},
    ],
)
def test_an_order_that_contradicts_itself_cannot_be_built(change):
    with pytest.raises(DataError, match="order ca1 for BTC/USDT"):
        Order(**AT, **{**ORDER, **change})


def test_drawdown_is_the_loss_from_the_peak():
    state = next(value for value in EXAMPLES if isinstance(value, PortfolioState))
    assert state.drawdown == pytest.approx(0.2)  # 80 of 100
    assert PortfolioState(**AT, cash=Decimal(0), positions=(), equity=Decimal(0), peak_equity=Decimal(0)).drawdown == 0.0


@given(row=st.integers(0, 2**40), index=st.integers(0, 2**16 - 1))
def test_event_ids_are_row_and_place(row, index):
    event = event_id(row, index)
    assert split_event_id(event) == (row, index)
    assert format_event_id(event) == f"{row}.{index}"
    assert parse_event_id(f"{row}.{index}") == event


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.2.3", "a.b", "-1.0", "1.65536", "²." + "1"])
def test_what_is_no_event_id_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="is not an event id") as caught:
        parse_event_id(text)
    assert "1842.7" in caught.value.hint
