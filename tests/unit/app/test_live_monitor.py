"""What watches a `trade`: figures equal to the journal's, alerts said once, silence noticed, and a loop that is never disturbed."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.app.engine import Step, StepOutcome
from cryptoalpha.app.live_monitor import LiveMonitor
from cryptoalpha.app.period import Period
from cryptoalpha.app.run_metrics import metrics_of_journal
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.trade import TradeReport, replay
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR, MINUTE, SECOND, parse_time
from cryptoalpha.core.values import FusedSignal, MarketState, ObservationRef, PortfolioState
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.monitoring.metrics import METRICS
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.gate import Review
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import Dataset

STEPS = 200
PROCESS = {
    "cryptoalpha_step_seconds", "cryptoalpha_step_p99_seconds", "cryptoalpha_idle_seconds", "cryptoalpha_memory_bytes",
    "cryptoalpha_memory_ratio", "cryptoalpha_disk_used_ratio", "cryptoalpha_disk_free_bytes", "cryptoalpha_journal_lag_seconds",
    "cryptoalpha_alerts", "cryptoalpha_alerts_fired_total", "cryptoalpha_step_interval_seconds",
}  # fmt: skip
MARKET = {name for name in METRICS if name.startswith(("cryptoalpha_instrument_", "cryptoalpha_venue_"))}
"""Of the market's own days, and of a venue's books, which no journal holds."""
MARKED = {"cryptoalpha_equity_quote", "cryptoalpha_cash_quote", "cryptoalpha_drawdown_ratio"}
"""Known at every step; the journal holds the book only when it changed."""


def settings(**monitoring: object) -> Settings:
    return Settings.model_validate(
        {
            "engine": {"auto_trading": True},
            "data": {"simulated": {"assets": 2, "bars": 1500}},
            "signals": {"sources": ["trend", "momentum_short"], "keep_features": False},
            "fusion": {"method": "equal"},
            "agent": {"dead_band": 0.02, "smoothing_half_life_bars": 2},
            "monitoring": monitoring,
        }
    )


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(settings().data.simulated, 3).dataset


def traded(chosen: Settings, market: Dataset, path: Path, monitor: LiveMonitor | None) -> TradeReport:
    end = int(next(iter(market.bars.values())).open_time[-1]) + HOUR
    return replay(
        chosen, market, Period(end - STEPS * HOUR, end), path, run="paper", speed=0.0, stop=threading.Event(), say=lambda text: None,
        monitor=monitor,
    )  # fmt: skip


def test_the_figures_of_the_loop_are_those_of_its_journal(market, tmp_path):
    with LiveMonitor(settings(), lambda text: None) as monitor:
        report = traded(settings(), market, tmp_path / "a.sqlite", monitor)
        live = monitor.now()
    with JournalReader(tmp_path / "a.sqlite") as journal:
        later = metrics_of_journal(journal, settings().monitoring, settings().lifecycle.alerts)
    for name in METRICS.keys() - PROCESS - MARKED - MARKET:
        assert list(live.labelled(name)) == list(later.labelled(name)), name
    assert live.value("cryptoalpha_fills_total", "buy")
    assert live.value("cryptoalpha_limit_allowed", "gross_cap") == settings().risk.max_gross
    assert report.portfolio is not None
    assert live.value("cryptoalpha_equity_quote") == float(report.portfolio.equity)
    histogram = live.histogram("cryptoalpha_step_seconds")
    assert histogram is not None
    assert sum(histogram.counts) == STEPS == live.value("cryptoalpha_journal_rows_total")


def test_a_trade_judges_the_value_at_risk_of_each_instrument_also_after_a_restart(market, tmp_path):
    chosen = settings().model_copy(update={"risk": settings().risk.model_copy(update={"tail": TailConfig(least_days=30)})})
    found = []
    for _ in range(2):  # the second takes the same steps again
        with LiveMonitor(chosen, lambda text: None) as monitor:
            traded(chosen, market, tmp_path / "a.sqlite", monitor)
            found.append({name: list(monitor.now().labelled(name)) for name in sorted(MARKET)})
    assert found[0] == found[1]
    assert {count for _, count in found[0]["cryptoalpha_instrument_forecasts_total"]} == {8.0}  # midnights in 200 hours
    assert len(found[0]["cryptoalpha_instrument_exceedance_p_ratio"]) == 2


def test_scrapes_all_along_change_nothing_and_the_port_is_free_afterwards(market, tmp_path):
    quiet = traded(settings(), market, tmp_path / "quiet.sqlite", None)
    scraped, done = [], threading.Event()
    chosen = settings(metrics={"port": 0})
    with LiveMonitor(chosen, lambda text: None) as monitor:
        assert monitor.endpoint is not None
        url = monitor.endpoint.url

        def scrape() -> None:
            while not done.is_set():
                with urllib.request.urlopen(url, timeout=5) as answer:
                    scraped.append(answer.read())

        reader = threading.Thread(target=scrape)
        reader.start()
        watched = traded(chosen, market, tmp_path / "watched.sqlite", monitor)
        done.set()
        reader.join()
    assert watched.digest == quiet.digest
    assert any(b"cryptoalpha_equity_quote" in text for text in scraped)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", int(url.split(":")[2].split("/")[0])))


def test_steps_that_are_taken_again_are_counted_but_not_said(market, tmp_path):
    always = settings(alerts={"drawdown": 1e-9})  # fires whenever equity is below its peak
    first: list[str] = []
    with LiveMonitor(always, first.append) as monitor:
        traded(always, market, tmp_path / "a.sqlite", monitor)
        before = monitor.now()
    again: list[str] = []
    with LiveMonitor(always, again.append) as monitor:
        assert traded(always, market, tmp_path / "a.sqlite", monitor).recovered == STEPS
        after = monitor.now()
    fired = sum("alert drawdown:" in text for text in first)
    assert fired >= 1
    assert again == []
    assert after.value("cryptoalpha_alerts_fired_total", "drawdown") == before.value("cryptoalpha_alerts_fired_total", "drawdown") == fired
    assert list(after.labelled("cryptoalpha_orders_total")) == list(before.labelled("cryptoalpha_orders_total"))


def test_a_switch_turns_the_alerts_off(market, tmp_path):
    said: list[str] = []
    chosen = settings(alerts={"enabled": False, "drawdown": 1e-9})
    with LiveMonitor(chosen, said.append) as monitor:
        traded(chosen, market, tmp_path / "a.sqlite", monitor)
    assert said == []


def test_silence_is_noticed_while_the_feed_waits_and_over_with_the_next_bar():
    said: list[str] = []
    clock = VirtualClock()
    start = parse_time("2024-01-01")
    with LiveMonitor(settings(), said.append) as monitor:
        monitor.follow(["BTC/USDT"], HOUR, step_seconds=3600.0, wall=clock)
        monitor.idle()  # nothing has been seen yet, so nothing is late
        step(monitor, clock, start)
        for minute in range(5, 60 * 4, 5):
            clock.advance_to(start + minute * MINUTE)
            monitor.idle()
        assert [text.split("  ")[1].split(":")[0] for text in said] == ["alert stale_data (instrument BTC/USDT)"]
        assert said[0].startswith("2024-01-01T03:05")
        step(monitor, clock, start + 4 * HOUR)
    assert said[1:] == ["2024-01-01T04:00:00Z  alert stale_data (instrument BTC/USDT) is over"]


def test_the_disk_of_the_store_the_lag_of_the_journal_and_live_sources_are_told_and_judged(tmp_path):
    """A bar written two hours late, a source that is down for six minutes: each alert is said, and handed on to who acts."""
    acted: list[tuple[str, str]] = []
    clock, start = VirtualClock(), parse_time("2024-01-01")
    chosen = settings(alerts={"disk": 1e-6})
    with LiveMonitor(
        chosen, lambda text: None, act=lambda change: acted.append((change.rule.name, change.state)), home=tmp_path / "not" / "yet"
    ) as monitor:
        monitor.follow(["BTC/USDT"], HOUR, step_seconds=3600.0, wall=clock)
        monitor.listen_to(lambda put: put("cryptoalpha_source_up", 0.0, "news"))
        clock.advance_to(start + 2 * HOUR)
        watch(monitor, start)
        found = monitor.now()
        assert found.value("cryptoalpha_journal_lag_seconds") == 7200.0
        room = shutil.disk_usage(tmp_path)
        assert found.value("cryptoalpha_disk_used_ratio") == pytest.approx(room.used / (room.used + room.free), abs=0.05)
        assert ("disk_nearly_full", "firing") in acted
        clock.advance_to(start + 2 * HOUR + 6 * MINUTE)
        monitor.idle()
    assert {name for name, state in acted if state == "firing"} == {"disk_nearly_full", "journal_lag", "source_down"}


def test_accuracy_of_the_books_directions_is_judged_bar_by_bar(market, tmp_path):
    """The whole loop: one label for each bar after the first with a direction, counted alike by another eye."""
    with LiveMonitor(settings(), lambda text: None) as monitor:
        traded(settings(), market, tmp_path / "a.sqlite", monitor)
        live = monitor.now()
    said: dict[str, float] = {}
    prices: dict[str, float] = {}
    hits = labels = 0
    with JournalReader(tmp_path / "a.sqlite") as journal:
        for _, _, values in journal.rows():
            now = {each.instrument: each.price for each in values if isinstance(each, MarketState)}
            gain = sum(direction * (now[name] / prices[name] - 1.0) for name, direction in said.items())
            labels += gain != 0.0
            hits += gain > 0.0
            said = {each.instrument: each.direction for each in values if isinstance(each, FusedSignal) and each.weights}
            prices = now
    assert labels > STEPS / 2
    assert (live.value("cryptoalpha_accuracy_labels_total"), live.value("cryptoalpha_accuracy_hits_total")) == (labels, hits)
    assert live.value("cryptoalpha_accuracy_promised_ratio") == pytest.approx(0.45)


def test_bars_of_a_second_that_come_seconds_late_are_not_stale():
    """Ten bars, each nine seconds after the one before; then silence for half a minute and a little more."""
    said: list[str] = []
    clock, start = VirtualClock(), parse_time("2024-01-01")
    with LiveMonitor(settings(), said.append) as monitor:
        monitor.follow(["BTC/USDT"], SECOND, step_seconds=1.0, wall=clock)
        for late in range(10):
            step(monitor, clock, start + 9 * late * SECOND)
            clock.advance_to(start + (9 * late + 8) * SECOND)
            monitor.idle()
        assert said == []
        clock.advance_to(start + (81 + 31) * SECOND)
        monitor.idle()
    assert [text.split("→")[0].endswith("for 31 s ") for text in said if "alert stale_data" in text] == [True]


def test_a_bar_that_comes_late_is_judged_by_the_wall_clock_and_on_a_replay_by_its_own():
    """Five hours pass in the world, none in the run: live bars are stale, history is not."""
    start = parse_time("2024-01-01")
    for wall, stale in ((VirtualClock(), True), (None, False)):
        said: list[str] = []
        with LiveMonitor(settings(), said.append) as monitor:
            monitor.follow(["BTC/USDT"], HOUR, step_seconds=3600.0, wall=wall)
            if wall is not None:
                wall.advance_to(start + 5 * HOUR)
            step(monitor, VirtualClock(), start)
            assert monitor.now().value("cryptoalpha_bar_age_seconds", "BTC/USDT") == (18_000.0 if stale else 0.0)
        assert [text[:33] for text in said] == (["2024-01-01T05:00:00Z  alert stale"] if stale else [])


def test_what_is_said_of_a_step_before_it_is_watched_is_not_its_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("cryptoalpha.app.live_monitor.perf_counter", lambda: now[0])
    with LiveMonitor(settings(), lambda text: None) as monitor:
        monitor.follow(["BTC/USDT"], HOUR, step_seconds=None)
        monitor.begin()
        now[0] += 0.25
        monitor.taken()
        now[0] += 50.0  # a terminal that is slow to scroll
        watch(monitor, parse_time("2024-01-01"))
        histogram = monitor.now().histogram("cryptoalpha_step_seconds")
    assert histogram is not None
    assert histogram.total == 0.25


def test_alerts_are_said_after_the_fills_of_their_step(market, tmp_path):
    """Time runs forward on stderr: what happened in a bar comes before what is judged at its end."""
    chosen, said = settings(alerts={"limit_used": 1e-9}), list[str]()  # speaks as soon as something is held
    end = int(next(iter(market.bars.values())).open_time[-1]) + HOUR
    with LiveMonitor(chosen, said.append) as monitor:
        replay(
            chosen, market, Period(end - STEPS * HOUR, end), tmp_path / "a.sqlite", run="paper", speed=0.0, stop=threading.Event(),
            say=said.append, monitor=monitor,
        )  # fmt: skip
    assert any("alert" in text for text in said)
    assert any(" at " in text and "fee" in text for text in said)
    times = [text.split("  ")[0] for text in said]
    assert times == sorted(times)


def step(monitor: LiveMonitor, clock: VirtualClock, at: int) -> None:
    clock.advance_to(at)
    monitor.begin()
    watch(monitor, at)


def watch(monitor: LiveMonitor, at: int) -> None:
    seen = ObservationRef(happened_at=at - HOUR, known_at=at, subject="BTC/USDT", partition="live", row=0)
    portfolio = PortfolioState(happened_at=at, known_at=at, cash=1, positions=(), equity=1, peak_equity=1)
    bar = BarStep(at, at - HOUR, HOUR, ("BTC/USDT",), [1.0], [1.0], [1.0], [1.0], [1.0], [True])
    monitor.watch(Step(bar, [seen], (), ()), StepOutcome(1, portfolio, (), (), Review([]), (), [seen]), recovering=False)


def test_a_port_that_is_taken_stops_a_trade_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code = main(["trade", "--simulated", "--json", "--set", f"monitoring.metrics.port={other.getsockname()[1]}"])
    document = json.loads(capsys.readouterr().out)
    assert (code, document["error"]["type"]) == (2, "ConfigError")
    assert "monitoring.metrics.port" in document["error"]["hint"]
    assert not (tmp_path / "home" / "runs").exists()
