"""Was a run kept out of the market? Worked out on runs of 61 days whose events are set by hand, and on one that a limit kept still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.backtest import run_backtest
from cryptoalpha.app.explain import explain
from cryptoalpha.app.held_out import held_out_notes
from cryptoalpha.app.period import Period
from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.run_metrics import metrics_of_journal
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.summary import as_dict, report_content, tables
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.core.values import Refusal, RiskEvent, RiskState, parse_event_id
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.monitoring.config import MonitoringConfig
from cryptoalpha.store.journal_reader import JournalReader

START = parse_time("2022-10-15T22:00:00Z")
REASON = "by risk: equity fell 2% below its peak; entries are blocked, pending ones cancelled, everything is closed"


def recorded(*events: tuple[int, str, str, str], instruments: tuple[str, ...] = ("A", "B"), days: int = 61) -> Recorder:
    """A run whose risk changed its state: (moment, rule, state, instrument). It filled one order, as far as the notes can see."""
    recorder = Recorder(instruments)
    recorder.times = [START, START + days * DAY]
    recorder.equity = [100_000.0, 100_000.0]
    recorder.fills = [None]  # type: ignore[list-item]
    for at, rule, state, name in events:
        event = RiskEvent(happened_at=at, known_at=at, rule=rule, state=state, message=REASON, instrument=name)
        recorder.risk_events.append((1, event))
    return recorder


def notes(recorder: Recorder) -> tuple[str, ...]:
    return held_out_notes(recorder, no_trade_band=0.02, quote="USDT")


def test_a_kill_that_still_stands_says_since_when_why_and_for_how_long():
    found = notes(recorded((START + DAY, "kill_switch", "tripping", ""), (START + DAY + HOUR, "kill_switch", "tripped", "")))
    assert found == (
        "The kill switch tripped at 2022-10-16 22:00 (risk: equity fell 2% below its peak): nothing was entered for the last 60 of 61 "
        "days; the figures are of a book that stood still.",
    )


def test_a_kill_that_a_person_resumed_and_one_near_the_end_are_told_without_calling_the_figures_still():
    killed, armed = (START + 10 * DAY, "kill_switch", "tripped", ""), (START + 12 * DAY, "kill_switch", "armed", "")
    found = notes(recorded(killed, armed, (START + 60 * DAY, "kill_switch", "tripping", "")))
    assert [one.split("nothing was entered ")[1] for one in found] == ["until 2022-10-27 22:00.", "for the last 1 of 61 days."]


def test_a_daily_loss_and_breakers_are_told_where_they_stood_most_of_the_time():
    short = (START, "daily_loss", "reduce_only", ""), (START + 30 * DAY, "daily_loss", "normal", "")
    assert notes(recorded(*short)) == ()  # 30 of 61 days: less than half
    longer = (*short, (START + 31 * DAY, "daily_loss", "reduce_only", ""), (START + 33 * DAY, "daily_loss", "normal", ""))
    assert notes(recorded(*longer)) == ("The daily loss let nothing be entered for 32 of 61 days.",)
    one = (START, "stale_feed", "open", "A")
    assert notes(recorded(one)) == ("The breaker stale_feed let nothing be entered for 30 of 61 days.",)  # 61 days of half the book
    assert notes(recorded(one, (START + 60 * DAY, "stale_feed", "half_open", "A"))) == ()
    assert notes(recorded((START, "venue", "open", ""))) == ("The breaker venue let nothing be entered for 61 of 61 days.",)


def test_a_ladder_that_leaves_nothing_is_told():
    recorder = recorded()
    recorder.risk_states = [
        RiskState(
            happened_at=at, known_at=at, limits=(), exposure=share, mode="armed", value_at_risk=0.0, expected_shortfall=0.0, level=0.99
        )
        for at, share in ((START, 1.0), (START + 10 * DAY, 0.0), (START + 50 * DAY, 0.5))
    ]
    assert notes(recorder) == ("Ladder and regime left nothing of any size for 40 of 61 days.",)


def test_a_run_that_could_trade_has_no_note_and_an_empty_one_neither():
    assert notes(recorded()) == ()
    assert notes(Recorder(("A",))) == ()


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=3, bars=24 * 70), seed=5).dataset


def backtest(market, risk: dict[str, object], journal: Path | None = None):
    first = min(int(table.open_time[0]) for table in market.bars.values())
    settings = Settings(risk=risk, fusion={"method": "equal"}, signals={"sources": ("momentum_short",), "keep_features": False})
    return run_backtest(settings, market, Period(first + 30 * DAY, first + 65 * DAY), run="small", journal_path=journal)


def test_limits_below_the_no_trade_band_are_named_where_one_reads_first(market):
    result = backtest(market, {"orders": {"max_notional": 500.0}})
    words = (
        "Nothing was traded: limits cut what was wanted (max_notional to 0.50% of equity at most), and changes below "
        "risk.no_trade_band, 2.00% of equity or 2,000 USDT, are not sent."
    )
    assert result.comparison.verdict.startswith(words)
    assert as_dict(result)["verdict"] == result.comparison.verdict
    assert result.comparison.verdict in tables(result)
    assert report_content(result, command="").comparison.verdict == result.comparison.verdict


def test_the_last_refusal_of_each_rule_can_be_explained(market, tmp_path):
    path = tmp_path / "journal.sqlite"
    result = backtest(market, {"breakers": {"daily_loss_reduce": 0.05, "daily_loss_kill": None}}, path)
    (refused,) = report_content(result, command="").refusals
    assert refused.rule == "daily_loss"
    assert as_dict(result)["last_refusals"] == {"daily_loss": refused.event}
    with JournalReader(path) as journal:
        value = journal.get(parse_event_id(refused.event))
        assert isinstance(value, Refusal)
        assert (value.rule, value.message) == ("daily_loss", refused.example)
        assert explain(journal, refused.event).links[0].words.startswith("refused by daily_loss")
        change = next(one for one in report_content(result, command="").risk.changes if one.state == "reduce_only")
        links = explain(journal, change.event).links
        assert links[0].words.startswith("daily_loss: reduce_only since ")
        assert links[1].words == "gate reduce only; where the limits stood then"
        assert any(detail.startswith("gross_cap: ") for detail in links[1].details)


def test_a_kill_in_a_real_run_is_the_first_thing_said(market):
    result = backtest(market, {"max_drawdown": 0.004, "ladder": {"rungs": ()}})
    tripped = next(event for _, event in result.recorder.risk_events if event.rule == "kill_switch")
    moment = np.datetime64(tripped.happened_at, "ns").astype(str)[:16].replace("T", " ")
    days = (result.recorder.times[-1] - tripped.happened_at) // DAY
    assert result.comparison.verdict.startswith(f"The kill switch tripped at {moment} (risk: equity fell ")
    assert f"): nothing was entered for the last {days} of 35 days" in result.comparison.verdict
    assert not [fill for fill in result.recorder.fills if fill.happened_at > tripped.happened_at + DAY]


def test_report_and_metrics_count_the_same_days_of_the_same_books(market, tmp_path):
    path = tmp_path / "journal.sqlite"
    result = backtest(market, {}, path)
    (gate,) = (one for one in result.tails.tests if one.method == "the gate")
    with JournalReader(path) as journal:
        value = metrics_of_journal(journal, MonitoringConfig()).value
        assert gate.days == value("cryptoalpha_value_at_risk_forecasts_total") > 5
        assert gate.exceedances == value("cryptoalpha_value_at_risk_exceedances_total")
    midnights = result.panel.known_at % DAY == 0
    assert gate.days == int((result.weights[midnights] != 0.0).any(axis=1)[:-1].sum())
