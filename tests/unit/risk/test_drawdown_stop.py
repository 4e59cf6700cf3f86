"""The drawdown stop trips, stays, and is lifted only by hand."""

from __future__ import annotations

from decimal import Decimal

from cryptoalpha.core.values import PortfolioState
from cryptoalpha.risk.drawdown_stop import DrawdownStop


def state(equity: str, peak: str = "100") -> PortfolioState:
    return PortfolioState(happened_at=0, known_at=0, cash=Decimal(equity), positions=(), equity=Decimal(equity), peak_equity=Decimal(peak))


def test_it_trips_exactly_at_the_limit_and_latches():
    stop = DrawdownStop(0.2)
    assert not stop.watch(1, state("100"))
    assert not stop.watch(2, state("80.01"))
    assert stop.watch(3, state("80"))
    assert stop.watch(4, state("150", "150"))
    assert stop.tripped_at == 3


def test_the_peak_rises_with_equity():
    stop = DrawdownStop(0.2)
    stop.watch(1, state("100"))
    stop.watch(2, state("200", "200"))
    assert stop.watch(3, state("160", "200"))


def test_a_gate_that_starts_late_learns_the_peak_from_the_first_state():
    assert DrawdownStop(0.2).watch(1, state("70", "100"))


def test_resuming_counts_from_present_equity():
    stop = DrawdownStop(0.2)
    stop.watch(1, state("100"))
    assert stop.watch(2, state("75"))
    stop.resume(state("75"))
    assert stop.tripped_at is None
    assert not stop.watch(3, state("61"))
    assert stop.watch(4, state("60"))


def test_the_message_says_since_when_and_why():
    stop = DrawdownStop(0.2)
    stop.watch(1, state("100"))
    stop.watch(0, state("50"))
    assert stop.message == "halted since 1970-01-01T00:00:00Z: equity fell 20% below its peak; entries wait until a person resumes"
