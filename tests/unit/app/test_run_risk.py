"""`status`: limits with headroom from the end of a journal, what people asked of a run, and what it prints for Prometheus."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cryptoalpha.app.cli import main
from cryptoalpha.app.run_risk import LOOK_BACK, UNITS, LimitUse, run_risk
from cryptoalpha.app.runs import list_runs
from cryptoalpha.core.time import DAY, HOUR, MINUTE, parse_time
from cryptoalpha.core.values import Alarm, MarketState, Refusal, RiskEvent, RiskState, Travelling
from cryptoalpha.risk import risk_state
from cryptoalpha.store.controls import request_control
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.lock import StoreLock

START = parse_time("2024-01-01")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def standing(at: int, used: float) -> RiskState:
    limits = (("gross_cap", used, 0.98), ("max_drawdown", 0.4, 0.35))
    return RiskState(
        happened_at=at, known_at=at, limits=limits, exposure=0.5, mode="armed", value_at_risk=0.02, expected_shortfall=0.03, level=0.975
    )


def event(at: int, rule: str, state: str, instrument: str = "") -> RiskEvent:
    return RiskEvent(happened_at=at, known_at=at, rule=rule, state=state, message=f"{rule} says so", instrument=instrument)


def alarm(at: int, subject: str) -> Alarm:
    return Alarm(
        happened_at=at, known_at=at, detector="cusum", subject=subject, tier="retrain", statistic=2.0, threshold=1.0, run_length=365.0,
        message=f"{subject} moved",
    )  # fmt: skip


def filler(at: int, name: str = "RiskState") -> MarketState:
    return MarketState(happened_at=at, known_at=at, instrument=name, price=1.0, volatility=0.5)  # its name must fool nobody


TRADES = {"interval": "1h", "instruments": "BTC/USDT", "auto_trading": "True"}


def folder(home: Path, run: str = "paper") -> Path:
    (home / "runs" / run).mkdir(parents=True, exist_ok=True)
    return home / "runs" / run


def journal_of(home: Path, run: str = "paper") -> Journal:
    return Journal(folder(home, run) / "journal.sqlite", durable=False, header=TRADES)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict]:
    code = main(["status", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_newest_state_counts_and_what_is_left_is_told(home):
    with journal_of(home) as journal:
        for hour in range(300):
            at = START + hour * HOUR
            told = [standing(at, hour / 1000)] if hour % 24 == 0 else []
            journal.append(at, [filler(at), *told, *([event(at, "venue", "open" if hour < 100 else "closed")] if hour % 50 == 0 else [])])
    with JournalReader(home / "runs" / "paper" / "journal.sqlite") as journal:
        risk = run_risk(journal)
    assert risk is not None
    assert [(limit.name, limit.used, limit.left) for limit in risk.limits] == [
        ("gross_cap", 0.288, pytest.approx(0.692)),
        ("max_drawdown", 0.4, pytest.approx(-0.05)),  # exceeded: nothing is left, less than nothing
    ]
    assert [(one.rule, one.state) for one in risk.states] == [("venue", "closed")]


def test_alarms_and_events_older_than_thirty_days_are_not_looked_for(home):
    last = START + LOOK_BACK + 10 * DAY
    with journal_of(home) as journal:
        journal.append(START, [event(START, "drawdown_ladder", "2"), alarm(START, "old")])
        for at in (last - LOOK_BACK, last):
            journal.append(at, [standing(at, 0.1), event(at, "stale_feed", "open", f"I{at == last}"), alarm(at, f"seen{at == last}")])
    with JournalReader(home / "runs" / "paper" / "journal.sqlite") as journal:
        risk = run_risk(journal)
    assert risk is not None
    assert risk.ladder == "0"
    assert [one.subject for one in risk.alarms] == ["seenTrue", "seenFalse"]  # the newest first
    assert [one.instrument for one in risk.states] == ["IFalse", "ITrue"]
    assert risk.proposes_retraining


def test_an_alarm_that_is_repeated_is_shown_once_with_its_last_time(home):
    with journal_of(home) as journal:
        for day in range(9):
            at = START + day * DAY
            journal.append(at, [standing(at, 0.1), alarm(at, "outcome" if day else "prediction")])
    with JournalReader(home / "runs" / "paper" / "journal.sqlite") as journal:
        risk = run_risk(journal)
    assert risk is not None
    assert [(one.subject, one.known_at) for one in risk.alarms] == [("outcome", START + 8 * DAY), ("prediction", START)]


def test_limits_are_shown_in_their_units_with_all_their_digits():
    shown = {each.name: (each.shown(each.used), each.shown(each.left), each.unit) for each in (
        LimitUse("max_notional", 1234567.5, 2_000_000.0), LimitUse("order_rate", 3.0, 120.0), LimitUse("liquidity", 0.0625, 1.0),
        LimitUse("max_drawdown", 0.01234, 0.35), LimitUse("heat", 0.05, math.inf),
    )}  # fmt: skip
    assert shown == {
        "max_notional": ("1,234,567.50", "765,432.50", "quote currency"),
        "order_rate": ("3", "117", "entries an hour"),
        "liquidity": ("0.06", "0.94", "days"),
        "max_drawdown": ("0.0123", "0.3377", "fraction of the peak"),
        "heat": ("0.0500", "inf", "fraction of equity"),
    }


def test_every_limit_of_the_gate_has_its_unit():
    names = set(re.findall(r'\(\s*"(\w+)",', Path(risk_state.__file__).read_text()))
    assert names >= set(UNITS)
    assert {"gross_cap", "position_cap", "cluster_cap", "expected_shortfall", "heat"} >= names - set(UNITS)  # fractions of equity


def test_a_run_that_never_told_its_limits_has_none(home, capsys):
    with journal_of(home) as journal:
        journal.append(START, [filler(START)])
    code, document = call(capsys)
    assert (code, document["result"]["runs"][0]["risk"]) == (0, None)


class Counting(JournalReader):
    """Counts the rows that are decoded and remembers the oldest that was looked at."""

    decoded, oldest = 0, 10**9

    def read(self, row: int) -> tuple[int, list[Travelling]]:
        self.decoded += 1
        return super().read(row)

    def raw(self, start: int = 1, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        self.oldest = min(self.oldest, start)
        return super().raw(start, stop)


def test_the_end_of_a_long_journal_is_read_beside_its_writer_without_the_rest(home):
    days, path = 45, home / "runs" / "paper" / "journal.sqlite"
    with journal_of(home) as journal:
        for minute in range(days * 1440):
            at = START + minute * MINUTE
            journal.append(at, [filler(at, "BTC"), *([standing(at, 0.5)] if minute % 1440 == 0 else [])])
        journal.commit()
        with Counting(path) as reader:
            risk = run_risk(reader)
            assert reader.decoded == 30
            assert reader.oldest > (days - 30) * 1440 - 8192
        journal.append(at + MINUTE, [standing(at + MINUTE, 0.9)])
        journal.commit()
        with Counting(path) as reader:
            later = run_risk(reader)
    assert risk is not None
    assert later is not None
    assert (risk.limits[0].used, later.limits[0].used) == (0.5, 0.9)


def test_status_tells_people_and_programs_where_a_run_stands(home, capsys):
    at = START + DAY
    with journal_of(home) as journal:
        refused = Refusal(happened_at=at, known_at=at, instrument="BTC/USDT", rule="venue", message="no")
        journal.append(at, [standing(at, 0.25), event(at, "drawdown_ladder", "2"), alarm(at, "prediction"), refused])
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "run paper at 2024-01-02T00:00:00Z: armed, exposure 50% (ladder rung 2)" in said
    assert [line.split() for line in said.splitlines() if line.startswith("gross_cap")] == [
        ["gross_cap", "0.2500", "0.9800", "0.7300", "fraction", "of", "equity"]
    ]
    assert "2024-01-02T00:00:00Z  drawdown_ladder: 2: drawdown_ladder says so" in said
    assert "2024-01-02T00:00:00Z  drift alarm (retrain): prediction moved" in said
    assert "retraining is proposed" in said
    code, document = call(capsys)
    (run,) = document["result"]["runs"]
    assert code == 0
    assert run["risk"]["limits"][0] == {"name": "gross_cap", "used": 0.25, "allowed": 0.98, "left": 0.73, "unit": "fraction of equity"}
    assert (run["risk"]["ladder"], run["risk"]["proposes_retraining"], run["kill"]["mode"]) == ("2", True, "armed")


def test_a_kill_that_no_step_has_taken_yet_shows_at_once(home, capsys):
    with journal_of(home) as journal:
        journal.append(START, [standing(START, 0.25)])
    request_control(home / "runs" / "paper" / "journal.sqlite", "kill", by="somebody", reason="smoke", at=START)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "kill requested" in said
    assert "run paper is killed (requested) by somebody: smoke" in said
    assert call(capsys)[1]["result"]["runs"][0]["kill"]["at"] == "2024-01-01T00:00:00Z"
    request_control(home / "runs" / "paper" / "journal.sqlite", "kill", by="other", reason="worse", at=START + HOUR, flatten=True)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "killed and flattened (requested) by somebody: smoke; 2 kills stand, the last by other at 2024-01-01T01:00:00Z: worse" in said
    assert call(capsys)[1]["result"]["runs"][0]["kill"]["latest"]["reason"] == "worse"


def aged(path: Path, seconds: float) -> None:
    for file in path.parent.iterdir():
        os.utime(file, (time.time() - seconds, time.time() - seconds))


def test_looking_makes_nothing_younger(home, capsys):
    """A reader of a journal that was closed cleanly leaves an empty write-ahead log beside it."""
    with journal_of(home) as journal:
        journal.append(START, [standing(START, 0.25)])
    path = home / "runs" / "paper" / "journal.sqlite"
    aged(path, 7200.0)
    for _ in range(3):
        code, document = call(capsys, "--max-age", "3600")
        assert code == 3
        assert document["result"]["runs"][0]["age_seconds"] > 7000.0
    assert list_runs(home) == ["paper"]
    later = journal_of(home, "later")
    later.append(START, [standing(START, 0.25)])
    later.close()
    aged(home / "runs" / "later" / "journal.sqlite", 3600.0)
    (path.with_name("journal.sqlite-wal")).touch()
    assert list_runs(home) == ["paper", "later"]


def test_rows_that_lie_in_the_log_of_a_writer_at_work_count(home, capsys):
    with Journal(folder(home) / "journal.sqlite", durable=True, header=TRADES) as journal:
        journal.append(START, [standing(START, 0.25)])
        aged(home / "runs" / "paper" / "journal.sqlite", 7200.0)
        assert call(capsys, "--max-age", "3600")[0] == 3
        journal.append(START + HOUR, [standing(START + HOUR, 0.25)])
        assert call(capsys, "--max-age", "3600")[0] == 0


def test_rows_of_live_bars_are_as_old_as_they_say(home, capsys, monkeypatch):
    """Whatever touched the file since: a kill, a copy, a backup."""
    path = folder(home) / "journal.sqlite"
    with Journal(path, durable=True, header=TRADES | {"begun": str(START)}) as journal:
        journal.append(START, [standing(START, 0.25)])
    request_control(path, "kill", by="x", reason="y", at=START)
    code, document = call(capsys, "--max-age", "3600")
    assert (code, document["error"]["type"]) == (3, "DataError")
    assert document["result"]["runs"][0]["age_seconds"] > 365 * 86_400.0


def test_a_trade_that_died_is_not_hidden_by_a_backtest_made_since(home, capsys):
    with journal_of(home) as journal:
        journal.append(START, [standing(START, 0.25)])
    aged(home / "runs" / "paper" / "journal.sqlite", 7200.0)
    backtest(home)
    code, document = call(capsys, "--max-age", "3600")
    assert code == 3
    assert document["error"]["message"].startswith("the last row of paper was written")
    assert call(capsys, "--max-age", "3600", "--run", "back")[0] == 0


def backtest(home: Path) -> None:
    (home / "runs" / "back").mkdir(parents=True)
    with Journal(home / "runs" / "back" / "journal.sqlite", durable=False, header={"interval": "1h", "instruments": "X"}) as journal:
        journal.append(START, [standing(START, 0.75)])
    (home / "runs" / "back" / "metrics.json").write_text("{}")


def test_the_trade_at_work_is_shown_before_a_backtest_that_is_newer(home, capsys):
    with journal_of(home) as journal:
        journal.append(START, [standing(START, 0.25)])
    aged(home / "runs" / "paper" / "journal.sqlite", 60.0)
    backtest(home)
    assert call(capsys, "--metrics")[1]["result"]["run"] == "back"  # nobody is at work: the newest
    with StoreLock(Home(home)):
        assert call(capsys, "--metrics")[1]["result"]["run"] == "paper"
        assert main(["status"]) == 0
        assert "run paper at" in capsys.readouterr().out


def test_metrics_of_the_newest_run_are_printed_as_prometheus_reads_them(home, capsys):
    with journal_of(home) as journal:
        journal.append(START, [standing(START, 0.25)])
    assert main(["status", "--metrics"]) == 0
    families = {family.name: family for family in text_string_to_metric_families(capsys.readouterr().out)}
    used = {sample.labels["limit"]: sample.value for sample in families["cryptoalpha_limit_used"].samples}
    assert used == {"gross_cap": 0.25, "max_drawdown": 0.4}
    code, document = call(capsys, "--metrics", "--run", "paper")
    assert (code, document["result"]["run"]) == (0, "paper")


def test_alert_rules_follow_the_settings_and_need_no_run(capsys):
    assert main(["status", "--alert-rules", "--set", "monitoring.alerts.stale_bars=7"]) == 0
    rules = {rule["alert"]: rule for rule in yaml.safe_load(capsys.readouterr().out)["groups"][0]["rules"]}
    assert "7.0 * cryptoalpha_bar_interval_seconds" in rules["stale_data"]["expr"]
    assert 'up{job="cryptoalpha"}' in rules["process_gone"]["expr"]
    assert main(["status", "--alert-rules", "--set", "monitoring.alerts.job=paper-eu"]) == 0
    assert 'absent(up{job="paper-eu"})' in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code"), [(("--run", "nobody"), 3), (("--metrics",), 3), (("--metrics", "--alert-rules"), 2)])
def test_what_cannot_be_shown_is_said_with_what_to_do(capsys, arguments, code):
    found, document = call(capsys, *arguments)
    assert found == code
    assert document["error"]["hint"]
