"""The cap on what one position may lose on one bad day, by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from cryptoalpha.core.values import Decision
from cryptoalpha.risk.book import Book, Proposal, only_reduces
from cryptoalpha.risk.caps import CAPS, risk_tolerance
from cryptoalpha.risk.config import RiskConfig, TailConfig
from cryptoalpha.risk.market_memory import MarketMemory


def limit(wanted: float, held: float, volatility: float, tolerance: float | None) -> float:
    decision = Decision(happened_at=0, known_at=0, instrument="X", agent="a", target_weight=wanted, confidence=1.0, reason="")
    asked = Proposal(decision, 0, wanted, held, 100.0, volatility, Decimal(0), Decimal(0), only_reduces(wanted, held))
    return risk_tolerance(Book(1000.0, [asked], [], MarketMemory(TailConfig())), RiskConfig(risk_tolerance=tolerance))[0]


@pytest.mark.parametrize(
    ("wanted", "held", "volatility", "tolerance", "expected"),
    [
        # 0.955 a year is 0.955 / √365 = 0.05 a day: a weight of 0.4 loses 0.02 on a day of one standard deviation
        (0.9, 0.0, 0.05 * math.sqrt(365), 0.02, 0.4),
        (-0.9, 0.0, 0.05 * math.sqrt(365), 0.02, 0.4),
        (0.9, 0.0, 0.05 * math.sqrt(365), None, math.inf),
        (0.9, 0.0, 0.0, 0.02, math.inf),
        (0.9, 0.0, math.nan, 0.02, 0.0),
        (0.2, 0.9, math.nan, 0.02, math.inf),
    ],
)
def test_one_position_may_lose_so_much_on_a_bad_day(wanted, held, volatility, tolerance, expected):
    assert limit(wanted, held, volatility, tolerance) == pytest.approx(expected)


def test_it_is_named_where_it_binds():
    assert dict(CAPS)["risk_tolerance"] is risk_tolerance
