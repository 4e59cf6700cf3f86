"""Rounding is down, always; ids are stable."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from cryptoalpha.risk.rounding import client_order_id, round_to_lot


@pytest.mark.parametrize(
    ("quantity", "lot", "expected"),
    [("1.2399", "0.01", "1.23"), ("-1.2399", "0.01", "-1.23"), ("7", "5", "5"), ("0.009", "0.01", "0"), ("0.3", "0.1", "0.3")],
)
def test_quantities_are_rounded_towards_zero(quantity, lot, expected):
    assert round_to_lot(Decimal(quantity), Decimal(lot)) == Decimal(expected)


def test_the_same_decision_has_the_same_id_and_any_other_another():
    base = ("main", "BTC/USDT", "rule", 5, 0)
    one = client_order_id(*base)
    assert one == client_order_id(*base)
    assert re.fullmatch(r"ca[0-9a-f]{30}", one)
    others = [("paper", *base[1:]), ("main", "ETH/USDT", *base[2:]), ("main", "BTC/USDT", "x", 5, 0), (*base[:3], 6, 0), (*base[:4], 1)]
    assert len({one, *(client_order_id(*other) for other in others)}) == 6


def test_names_cannot_run_into_each_other():
    assert client_order_id("a", "bc", "d", 1, 0) != client_order_id("ab", "c", "d", 1, 0)
