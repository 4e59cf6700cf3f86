"""Metrics of a run: rows worked out by hand, and the loop's figures equal to those read from its journal afterwards."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from cryptoalpha.app.run_metrics import RunMeter, metrics_of_journal, too_many
from cryptoalpha.core.time import DAY, HOUR, SECOND, parse_time
from cryptoalpha.core.values import (
    Alarm,
    Fill,
    MarketState,
    ObservationRef,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    RiskState,
    Sizing,
)
from cryptoalpha.monitoring.alert_rules import alert_rules
from cryptoalpha.monitoring.alerts import AlertBoard
from cryptoalpha.monitoring.config import MonitoringConfig
from cryptoalpha.monitoring.metrics_exposition import exposition
from cryptoalpha.monitoring.ratios import sharpe_ratio
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

START = parse_time("2024-01-01")
BTC, ETH = "BTC/USDT", "ETH/USDT"


def book(at: int, equity: float, positions: tuple[tuple[str, Decimal], ...] = (), peak: float = 100.0) -> PortfolioState:
    money = Decimal(repr(equity))
    return PortfolioState(happened_at=at, known_at=at, cash=money, positions=positions, equity=money, peak_equity=Decimal(repr(peak)))


def standing(at: int, at_risk: float = 0.02, *, level: float = 0.95, mode: str = "armed") -> RiskState:
    limits = (("gross_cap", 0.5, 0.98), ("max_drawdown", 0.1, 0.35))
    return RiskState(
        happened_at=at, known_at=at, limits=limits, exposure=0.75, mode=mode, value_at_risk=at_risk, expected_shortfall=0.03, level=level
    )  # fmt: skip


def seen(at: int, name: str) -> ObservationRef:
    return ObservationRef(happened_at=at - HOUR, known_at=at, subject=name, partition="x", row=0)


def event(at: int, rule: str, state: str, instrument: str = "") -> RiskEvent:
    return RiskEvent(happened_at=at, known_at=at, rule=rule, state=state, message="because", instrument=instrument)


def order(at: int, side: str, name: str = "a") -> Order:
    return Order(happened_at=at, known_at=at, client_id=f"{side}{name}", instrument=BTC, side=side, quantity=Decimal(2))


def fill(at: int, trade: str) -> Fill:
    return Fill(
        happened_at=at, known_at=at, trade_id=trade, client_id="buya", instrument=BTC, side="buy", quantity=Decimal(2), price=Decimal(10),
        fee=Decimal("0.02"), fee_asset="USDT", spread_cost=Decimal("0.01"), impact_cost=Decimal("-0.5"),
    )  # fmt: skip


def alarm(at: int, tier: str = "retrain") -> Alarm:
    return Alarm(
        happened_at=at, known_at=at, detector="cusum", subject="x", tier=tier, statistic=2.0, threshold=1.0, run_length=365.0, message="m"
    )


@pytest.fixture
def meter() -> RunMeter:
    return RunMeter(MonitoringConfig(), [BTC, ETH], HOUR)


def test_what_is_counted_is_counted_by_its_label(meter):
    refusal = Refusal(happened_at=START, known_at=START, instrument=BTC, rule="lot", message="small")
    cut = Sizing(
        happened_at=START, known_at=START, instrument=BTC, requested=1.0, held=0.0, allowed=0.2, cuts=(("gross_cap", 0.2),),
        binding="gross_cap",
    )  # fmt: skip
    whole = Sizing(happened_at=START, known_at=START, instrument=BTC, requested=1.0, held=0.0, allowed=1.0, cuts=(), binding="")
    meter.take(START, [order(START, "buy"), order(START, "buy", "b"), order(START, "sell"), refusal, cut, whole, fill(START, "1")])
    value = meter.metrics.value
    assert (value("cryptoalpha_orders_total", "buy"), value("cryptoalpha_orders_total", "sell")) == (2.0, 1.0)
    assert value("cryptoalpha_refusals_total", "lot") == 1.0
    assert list(meter.metrics.labelled("cryptoalpha_cuts_total")) == [(("gross_cap",), 1.0)]
    assert (value("cryptoalpha_fills_total", "buy"), value("cryptoalpha_traded_quote_total")) == (1.0, 20.0)
    costs = dict(meter.metrics.labelled("cryptoalpha_costs_quote_total"))
    assert costs == {("fee",): 0.02, ("spread",): 0.01, ("impact",): 0.0}  # what was gained is no cost
    assert value("cryptoalpha_journal_rows_total") == 1.0


def test_states_follow_the_last_event_and_the_kill_switch_is_told_apart(meter):
    meter.take(START, [event(START, "kill_switch", "tripping"), event(START, "stale_feed", "open", ETH)])
    assert meter.metrics.value("cryptoalpha_kill_switch") == 1.0
    meter.take(START, [event(START, "kill_switch", "tripped"), event(START, "stale_feed", "closed", ETH)])
    states = dict(meter.metrics.labelled("cryptoalpha_risk_state"))
    assert {key for key, value in states.items() if value == 1.0} == {("kill_switch", "", "tripped"), ("stale_feed", ETH, "closed")}
    assert meter.metrics.value("cryptoalpha_kill_switch") == 1.0
    meter.take(START, [event(START, "kill_switch", "armed")])
    assert meter.metrics.value("cryptoalpha_kill_switch") == 0.0
    assert meter.metrics.value("cryptoalpha_risk_events_total", "kill_switch") == 3.0


def test_limits_mode_and_tail_are_those_told_last(meter):
    meter.take(START, [standing(START), standing(START, 0.04, mode="reduce_only")])
    value = meter.metrics.value
    assert (value("cryptoalpha_limit_used", "gross_cap"), value("cryptoalpha_limit_allowed", "gross_cap")) == (0.5, 0.98)
    assert value("cryptoalpha_drawdown_allowed_ratio") == 0.35
    modes = dict(meter.metrics.labelled("cryptoalpha_mode"))
    assert modes == {("armed",): 0.0, ("reduce_only",): 1.0, ("tripping",): 0.0, ("tripped",): 0.0}
    assert (value("cryptoalpha_value_at_risk_ratio"), value("cryptoalpha_exposure_ratio")) == (0.04, 0.75)


def drawdown_alerts(meter: RunMeter, board: AlertBoard, at: int) -> list[str]:
    return [change.state for change in board.judge(at, meter.metrics) if change.rule.name == "drawdown"]


def resumed(at: int, used: float) -> RiskState:
    limits = (("max_drawdown", used, 0.35),)
    return RiskState(
        happened_at=at, known_at=at, limits=limits, exposure=1.0, mode="armed", value_at_risk=0.0, expected_shortfall=0.0, level=0.95
    )


def test_after_a_person_s_kill_the_drawdown_goes_on_counting_from_the_old_peak(meter):
    """Equity 100 → 90, killed and resumed by a person → 80: a fifth below the peak, as the limit sees it."""
    meter.mark(book(START, 90.0))
    meter.take(START, [event(START, "kill_switch", "armed"), resumed(START, 0.1)])
    meter.mark(book(START, 80.0))
    assert meter.metrics.value("cryptoalpha_drawdown_ratio") == pytest.approx(0.2)


@pytest.mark.parametrize("marks", [True, False], ids=["in the loop", "from the journal"])
def test_after_a_resume_the_drawdown_is_the_one_its_limit_judges_so_the_alert_ends_and_can_fire_again(meter, marks):
    """Equity 100 → 64 (closed) → resume at 64 → 70 → 52: the limit counts 18 of 70, the alert's half of .35 is passed again."""
    board, said, drawdowns = AlertBoard(alert_rules(MonitoringConfig().alerts)), [], []
    rows = [
        (100.0, [resumed(START, 0.0)]),
        (64.0, [event(START, "kill_switch", "tripped"), resumed(START, 0.36)]),
        (64.0, [event(START, "kill_switch", "armed"), resumed(START, 0.0)]),
        (70.0, [resumed(START, 0.0)]),
        (52.0, [resumed(START, 18 / 70)]),
    ]
    for hour, (equity, told) in enumerate(rows):
        at = START + hour * HOUR
        now = book(at, equity)
        meter.take(at, [now, *told])
        if marks:
            meter.mark(now)
        said += drawdown_alerts(meter, board, at)
        drawdowns.append(meter.metrics.value("cryptoalpha_drawdown_ratio"))
    assert drawdowns == [0.0, pytest.approx(0.36), 0.0, 0.0, pytest.approx(18 / 70)]
    assert said == ["firing", "resolved", "firing"]


def test_between_the_states_of_risk_the_peak_after_a_resume_is_followed(meter):
    meter.take(START, [event(START, "kill_switch", "armed"), resumed(START, 0.0)])
    for hour, equity in enumerate([80.0, 90.0, 72.0]):  # the book is marked at every step, told once a day
        meter.mark(book(START + hour * HOUR, equity))
    assert meter.metrics.value("cryptoalpha_drawdown_ratio") == pytest.approx(0.2)  # of 90, not of 100


def test_bars_and_alarms_age_by_the_runs_clock_and_other_observations_do_not_count(meter):
    meter.take(START, [seen(START, BTC), seen(START, "BTC/funding_rate"), alarm(START)])
    meter.refresh(START + 3 * HOUR)
    ages = dict(meter.metrics.labelled("cryptoalpha_bar_age_seconds"))
    assert ages == {(BTC,): 3 * 3600.0}
    assert meter.metrics.value("cryptoalpha_bar_timestamp_seconds") == START / SECOND
    assert meter.metrics.value("cryptoalpha_alarm_age_seconds", "retrain") == 3 * 3600.0
    assert meter.metrics.value("cryptoalpha_retraining_proposed") == 1.0
    meter.refresh(START + 8 * DAY)
    assert meter.metrics.value("cryptoalpha_retraining_proposed") == 0.0


def test_a_position_that_is_closed_reads_zero(meter):
    meter.take(START, [book(START, 100.0, ((BTC, Decimal("0.5")),))])
    meter.take(START, [book(START, 100.0)])
    assert list(meter.metrics.labelled("cryptoalpha_position_base")) == [((BTC,), 0.0)]


def test_a_day_is_judged_by_the_book_that_was_held_when_it_was_said():
    meter = RunMeter(MonitoringConfig(), [BTC], HOUR)
    prices = [100.0, 97.0, 98.0, 95.0, 90.0]  # −3 %, +1.03 %, −3.06 %, −5.3 %
    said = [0.02, 0.02, 0.04, 0.0]  # exceeded, not, not (the smaller one came later), nothing said
    equities = [97.0, 98.0, 95.0, 95.0, 20.0]  # trades of the day itself are not the forecast's book
    for day, (price, equity) in enumerate(zip(prices, equities, strict=True)):
        at = START + day * DAY
        market = MarketState(happened_at=at, known_at=at, instrument=BTC, price=price, volatility=0.5)
        held = ((BTC, Decimal(repr(equity)) / Decimal(repr(price))),)  # all of it, so that the book moves as the price
        meter.take(at, [book(at, equity, held), market, *([standing(at, said[day])] if day < 4 else [])])
        meter.take(at + HOUR, [book(at + HOUR, 1.0), standing(at + HOUR, 1e-6)])
    value = meter.metrics.value
    assert (value("cryptoalpha_value_at_risk_forecasts_total"), value("cryptoalpha_value_at_risk_exceedances_total")) == (3.0, 1.0)
    assert value("cryptoalpha_exceedance_p_ratio") == too_many(1, 3, 0.95)
    returns = [later / earlier - 1.0 for earlier, later in pairwise(equities)]
    assert value("cryptoalpha_rolling_sharpe_ratio") == pytest.approx(sharpe_ratio(returns, periods_per_year=365))


def test_the_whole_run_is_measured_also_beyond_the_rolling_window():
    config = MonitoringConfig.model_validate({"metrics": {"window_days": 2}})
    meter, equities = RunMeter(config, [BTC], HOUR), [100.0, 110.0, 88.0, 99.0, 111.0, 100.0]
    for day, equity in enumerate(equities):
        meter.take(START + day * DAY, [book(START + day * DAY, equity)])
    returns = [later / earlier - 1.0 for earlier, later in pairwise(equities)]
    value = meter.metrics.value
    assert value("cryptoalpha_run_sharpe_ratio") == pytest.approx(sharpe_ratio(returns, periods_per_year=365))
    assert value("cryptoalpha_rolling_sharpe_ratio") == pytest.approx(sharpe_ratio(returns[-2:], periods_per_year=365))
    assert value("cryptoalpha_run_drawdown_ratio") == pytest.approx(1 - 88 / 110)
    assert value("cryptoalpha_run_underwater_seconds") == 2 * 86_400.0  # the days of 88 and 99; then one more below 111


def test_kupiec_speaks_only_of_too_many():
    assert too_many(7, 255, 0.99) == pytest.approx(0.021126, abs=1e-6)
    assert too_many(0, 250, 0.99) == 1.0  # Kupiec himself: .025 for too few
    assert too_many(3, 300, 0.99) == 1.0


@pytest.mark.parametrize(("p", "year", "five_years"), [(0.01, 0.06, 0.08), (0.05, 0.18, 0.24)])
def test_how_often_a_right_model_is_told_off_is_what_the_setting_says(p, year, five_years):
    """Exactly: the chance of every number of exceedances, day by day, of those runs that were never told of."""
    level, chance, told = 0.975, [1.0], []
    for day in range(1, 5 * 365 + 1):
        chance = [a * level + b * (1.0 - level) for a, b in zip([*chance, 0.0], [0.0, *chance], strict=True)]
        most = next((count for count in range(len(chance)) if too_many(count, day, level) < p), len(chance))
        chance = chance[:most]
        told.append(1.0 - sum(chance))
    assert told[364] == pytest.approx(year, abs=0.005)
    assert told[-1] == pytest.approx(five_years, abs=0.005)


def test_a_journal_gives_the_figures_of_the_loop_that_wrote_it(tmp_path):
    path, meter = tmp_path / "journal.sqlite", RunMeter(MonitoringConfig(), [BTC, ETH], HOUR)
    header = {"interval": "1h", "instruments": f"{BTC},{ETH}"}
    with Journal(path, durable=False, header=header) as journal:
        for hour in range(100):
            at = START + hour * HOUR
            values = [seen(at, BTC), *([seen(at, ETH)] if hour % 3 else []), *([book(at, 100.0 + hour % 7)] if hour % 24 == 0 else [])]
            values += [standing(at)] if hour % 24 == 0 else []
            values += [fill(at, str(hour)), event(at, "venue", "open" if hour % 2 else "closed")] if hour % 10 == 0 else []
            values += [alarm(at)] if hour == 60 else []
            journal.append(at, values)
            meter.take(at, values)
    meter.refresh(at)
    with JournalReader(path) as journal:
        assert exposition(metrics_of_journal(journal, MonitoringConfig())) == exposition(meter.metrics)
