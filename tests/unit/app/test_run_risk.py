"""`status`: limits with headroom from the end of a journal, what people asked of a run, and what it prints for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cryptoalpha.app.cli import main
from cryptoalpha.app.run_risk import LOOK_BACK, run_risk
from cryptoalpha.core.time import DAY, HOUR, MINUTE, parse_time
from cryptoalpha.core.values import Alarm, MarketState, Refusal, RiskEvent, RiskState, Travelling
from cryptoalpha.store.controls import request_control
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

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


def journal_of(home: Path, run: str = "paper") -> Journal:
    (home / "runs" / run).mkdir(parents=True, exist_ok=True)
    header = {"interval": "1h", "instruments": "BTC/USDT", "auto_trading": "True"}
    return Journal(home / "runs" / run / "journal.sqlite", durable=False, header=header)


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
    assert [line.split() for line in said.splitlines() if line.startswith("gross_cap")] == [["gross_cap", "0.25", "0.98", "0.73"]]
    assert "drawdown_ladder: 2: drawdown_ladder says so" in said
    assert "retraining is proposed" in said
    code, document = call(capsys)
    (run,) = document["result"]["runs"]
    assert code == 0
    assert run["risk"]["limits"][0] == {"name": "gross_cap", "used": 0.25, "allowed": 0.98, "left": 0.73}
    assert (run["risk"]["ladder"], run["risk"]["proposes_retraining"], run["kill"]["mode"]) == ("2", True, "armed")


def test_a_kill_that_no_step_has_taken_yet_shows_at_once(home, capsys):
    with journal_of(home) as journal:
        journal.append(START, [standing(START, 0.25)])
    request_control(home / "runs" / "paper" / "journal.sqlite", "kill", by="somebody", reason="smoke", at=START)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "kill requested" in said
    assert "run paper is killed (requested) by somebody: smoke" in said


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


@pytest.mark.parametrize(("arguments", "code"), [(("--run", "nobody"), 3), (("--metrics",), 3), (("--metrics", "--alert-rules"), 2)])
def test_what_cannot_be_shown_is_said_with_what_to_do(capsys, arguments, code):
    found, document = call(capsys, *arguments)
    assert found == code
    assert document["error"]["hint"]
