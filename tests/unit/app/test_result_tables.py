"""What a run's tables say of limits, watches and instruments, worked out by hand on a handful of values."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.result_tables import by_instrument, by_year
from cryptoalpha.app.risk_summary import risk_record, watch_note
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.core.values import Fill, FundingPayment, PortfolioState, RiskState, Sizing
from cryptoalpha.monitoring.comparison import EquitySeries, assess
from cryptoalpha.monitoring.drift.config import DriftConfig

START = parse_time("2022-01-01")


def fill(name: str, side: str, quantity: str, price: str, fee: str, spread: str, impact: str) -> Fill:
    return Fill(
        happened_at=START, known_at=START, trade_id=name + side, client_id=name, instrument=name, side=side, quantity=Decimal(quantity),
        price=Decimal(price), fee=Decimal(fee), fee_asset="USDT", spread_cost=Decimal(spread), impact_cost=Decimal(impact),
    )  # fmt: skip


def test_by_instrument_by_hand():
    """A bought 2 at 100 and sold 1 at 130; it holds 1, worth 110. B sold 3 at 10 and holds −3, worth 12 each. Half a year."""
    recorder = Recorder(("A", "B"))
    recorder.fills = [
        fill("A", "buy", "2", "100", "0.50", "0.20", "0.10"),
        fill("A", "sell", "1", "130", "0.25", "0.10", "0.05"),
        fill("B", "sell", "3", "10", "0.03", "0.02", "0.01"),
    ]
    recorder.funding = [
        FundingPayment(happened_at=START, known_at=START, instrument="B", position=Decimal(-3), rate=0.01, amount=Decimal("0.40"))
    ]
    recorder.equity = [990.0, 1_010.0]
    recorder.times = [START, START + HOUR]
    recorder._closes = [[100.0, 10.0], [110.0, 12.0]]
    recorder.last = PortfolioState(
        happened_at=START, known_at=START, cash=Decimal(0), positions=(("A", Decimal(1)), ("B", Decimal(-3))), equity=Decimal(1_010),
        peak_equity=Decimal(1_010),
    )  # fmt: skip
    rows = {one.instrument: one for one in by_instrument(recorder, years=0.5)}
    a, b = rows["A"], rows["B"]
    assert a.net == pytest.approx(-200.0 - 0.5 + 130.0 - 0.25 + 110.0)
    assert b.net == pytest.approx(30.0 - 0.03 + 0.4 - 36.0)
    assert (a.fees, a.spread, a.impact, a.funding_received) == pytest.approx((0.75, 0.3, 0.15, 0.0))
    assert (b.fees, b.spread, b.impact, b.funding_received) == pytest.approx((0.03, 0.02, 0.01, 0.4))
    assert (a.traded, a.fills, b.traded, b.fills) == (330.0, 2, 30.0, 1)
    assert a.turnover == pytest.approx(0.5 * 330.0 / 1_000.0 / 0.5)  # half of what was traded, over mean equity, per year
    assert b.turnover == pytest.approx(0.5 * 30.0 / 1_000.0 / 0.5)


def test_the_mean_cut_is_a_mean_and_the_largest_size_left_is_kept():
    recorder = Recorder(("A",))
    for wanted, left in ((0.5, 0.1), (-0.5, -0.3), (0.4, 0.4)):
        recorder._note_cut(
            Sizing(
                happened_at=START, known_at=START, instrument="A", requested=wanted, held=0.0, allowed=left,
                cuts=(("gross_cap", abs(left)),), binding="gross_cap" if wanted != left else "", decision=1,
            )
        )  # fmt: skip
    (cut,) = risk_record(recorder).cuts
    assert (cut.limit, cut.times, cut.mean_cut) == ("gross_cap", 2, pytest.approx(0.3))
    assert recorder.cut_to["gross_cap"] == 0.3


def test_limits_bear_the_time_at_which_they_were_told():
    recorder = Recorder(("A",))
    assert risk_record(recorder).limits_at is None
    for at in (START, START + 5 * HOUR):
        recorder.risk_states.append(
            RiskState(
                happened_at=at, known_at=at, limits=(("gross_cap", 0.2, 1.0),), exposure=1.0, mode="armed", value_at_risk=0.01,
                expected_shortfall=0.02, level=0.99,
            )
        )  # fmt: skip
    assert risk_record(recorder).limits_at == START + 5 * HOUR


def test_an_alarm_that_could_not_be_raised_is_no_all_clear():
    config = DriftConfig(reference_days=90)
    assert watch_note(config, [START, START + 90 * DAY]) == ""
    short = watch_note(config, [START, START + 61 * DAY])
    assert "from 90 days, and this run has 61" in short
    assert watch_note(DriftConfig(enabled=False), [START, START + 900 * DAY]) == "Nothing was watched: monitoring.drift.enabled is off."
    recorder = Recorder(("A",))
    recorder.times = [START, START + 61 * DAY]
    assert risk_record(recorder, config).watching == short


def test_the_row_of_all_days_is_the_headline():
    """One function, one seed, as many resamples: the same interval in the tile, the measures and the table of years."""
    returns = 0.001 + np.random.default_rng(4).normal(0.0, 0.02, 400)
    series = EquitySeries.of_marks("s", START + DAY * np.arange(1, 401), 1_000.0 * np.cumprod(1.0 + returns), 1_000.0)
    whole = by_year(series.daily, seed=3)[-1]
    headline = assess(series, seed=3)
    assert whole.label == "all"
    assert whole.sharpe == headline.sharpe
    assert (whole.volatility, whole.max_drawdown) == (headline.volatility, headline.drawdown.depth)
