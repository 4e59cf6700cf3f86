"""What people are told: on stderr, and at the addresses they named, which nobody sees."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cryptoalpha.app.alarms import Alarms
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.values import RiskEvent
from cryptoalpha.monitoring.alert_rules import alert_rules
from cryptoalpha.monitoring.alerts import AlertChange
from cryptoalpha.monitoring.config import AlertsConfig

pytest.importorskip("apprise", reason="alerts to people need the extra `alerts`")
CANARY = "canary-password-77"


@pytest.fixture
def inbox() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A service on this machine, and what it was sent."""
    got: list[dict[str, str]] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Inbox)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, got
    server.shutdown()
    thread.join()
    server.server_close()


def event(state: str) -> RiskEvent:
    return RiskEvent(happened_at=1, known_at=1, rule="stale_feed", state=state, message="no bar for 3 intervals", instrument="BTC/USDT")


def test_alarms_are_said_and_sent_and_calm_is_not(inbox):
    port, got = inbox
    said: list[str] = []
    hidden: list[str] = []
    chosen = Settings.model_validate({"credentials": {"alert_urls": f"json://user:{CANARY}@127.0.0.1:{port}/"}})
    with Alarms(chosen, said.append, hidden.extend) as alarms:
        alarms("unknown_order", "nobody knows what became of it")
        alarms.of_risk(event("open"))
        alarms.of_risk(event("closed"))
        deadline = time.monotonic() + 10.0
        while len(got) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert sorted((each["title"], each["message"]) for each in got) == [
        ("cryptoalpha: stale_feed of BTC/USDT is open", "no bar for 3 intervals"),
        ("cryptoalpha: unknown_order", "nobody knows what became of it"),
    ]
    (line,) = said
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ALERT unknown_order: nobody knows what became of it", line)
    assert all(CANARY in text for text in hidden)
    assert CANARY not in line


def test_the_end_of_an_alert_is_sent_too_and_looks_better_than_its_beginning(inbox):
    port, got = inbox
    said: list[str] = []
    (rule,) = [each for each in alert_rules(AlertsConfig()) if each.name == "kill_switch"]
    chosen = Settings.model_validate({"credentials": {"alert_urls": f"json://127.0.0.1:{port}/"}})
    with Alarms(chosen, said.append, lambda found: None) as alarms:
        alarms.of_rule(AlertChange(rule, (), "firing", 1, 0.9))
        alarms.of_rule(AlertChange(rule, (), "resolved", 2, 0.9))  # so soon: of the same subject, and told when the session ends
    assert [(each["title"], each["type"]) for each in got] == [(f"cryptoalpha: {rule.name}", kind) for kind in ("failure", "success")]
    assert said == [], "the monitor says them"


def test_what_could_not_be_sent_is_said_at_the_end():
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        said: list[str] = []
        chosen = Settings.model_validate({"credentials": {"alert_urls": f"json://127.0.0.1:{taken.getsockname()[1]}/"}})
        with Alarms(chosen, said.append, lambda found: None) as alarms:
            alarms("unknown_order", "nobody knows what became of it")
    assert len(said) == 2
    assert said[1].startswith("1 alerts could not be sent on")


def test_without_an_address_an_alarm_is_only_said():
    said: list[str] = []
    with Alarms(Settings(), said.append, lambda found: None) as alarms:
        alarms("stale_feed", "no bar")
        alarms.of_risk(event("open"))
    assert len(said) == 1, "changes of state are said by the session itself"
