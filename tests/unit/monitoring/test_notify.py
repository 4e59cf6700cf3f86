"""Alerts to people, delivered by apprise to an HTTP server on loopback."""

from __future__ import annotations

import builtins
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring import notify
from cryptoalpha.monitoring.alert_rules import alert_rules
from cryptoalpha.monitoring.alerts import AlertChange
from cryptoalpha.monitoring.config import AlertsConfig
from cryptoalpha.monitoring.notify import THREAD_NAME, Notifier

pytest.importorskip("apprise")

SECRET = "canary5ecret"


class Inbox:
    """A service that people read: what it was sent, and how often it was asked."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.asked: list[float] = []
        self.failures = 0
        """How many requests are answered with an error first."""
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.asked.append(time.monotonic())
                if inbox.failures > 0:
                    inbox.failures -= 1
                    self.send_response(503)
                else:
                    inbox.messages.append(json.loads(body))
                    self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://person:{SECRET}@127.0.0.1:{self.server.server_port}/{SECRET}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        """May be called again."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    opened = Inbox()
    yield opened
    opened.close()


def until(claim: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def deliverers() -> int:
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


def test_what_is_told_arrives_in_order(inbox):
    notifier = Notifier([inbox.url])
    notifier.tell("cryptoalpha: unknown_order", "order ca1 of BTC/USDT", mood="failure")
    notifier.tell("cryptoalpha: second", "text")
    notifier.close()
    assert [(m["title"], m["message"], m["type"]) for m in inbox.messages] == [
        ("cryptoalpha: unknown_order", "order ca1 of BTC/USDT", "failure"),
        ("cryptoalpha: second", "text", "warning"),
    ]
    assert (deliverers(), notifier.undelivered) == (0, 0)
    notifier.close()
    notifier.tell("too", "late")
    assert notifier.undelivered == 1


def test_a_failing_service_is_tried_again_with_growing_waits(inbox):
    inbox.failures = 3
    notifier = Notifier([inbox.url], first_wait_seconds=0.05)
    notifier.tell("t", "b")
    until(lambda: len(inbox.messages) == 1)
    notifier.close()
    gaps = [later - earlier for earlier, later in zip(inbox.asked, inbox.asked[1:], strict=False)]
    assert len(gaps) == 3
    assert all(gap >= full / 2 for gap, full in zip(gaps, (0.05, 0.1, 0.2), strict=True))
    assert notifier.undelivered == 0


def test_a_message_is_given_up_after_its_attempts_and_the_next_is_tried(inbox):
    inbox.failures = 3
    notifier = Notifier([inbox.url], attempts=3, first_wait_seconds=0.01)
    notifier.tell("lost", "b")
    notifier.tell("kept", "b")
    until(lambda: len(inbox.messages) == 1)
    notifier.close()
    assert [m["title"] for m in inbox.messages] == ["kept"]
    assert (notifier.undelivered, len(inbox.asked)) == (1, 4)


def test_a_service_that_hangs_delays_neither_the_caller_nor_another_address(inbox):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        notifier = Notifier([f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=1.0", inbox.url], capacity=10)
        begun = time.process_time(), time.monotonic()
        for number in range(200):
            notifier.tell(f"{number}", "b")
        assert time.monotonic() - begun[1] < 1.0  # a single wait for the silent one takes as long
        until(lambda: bool(inbox.messages) and inbox.messages[-1]["title"] == "199")
        begun_closing = time.monotonic()
        notifier.close(timeout_seconds=0.2)
        assert time.monotonic() - begun_closing < 0.9
        assert notifier.undelivered >= 189  # the silent one's queue keeps the newest 10
    until(lambda: deliverers() == 0)


def test_where_too_many_wait_the_oldest_are_dropped_and_that_is_told(inbox):
    inbox.failures = 1
    notifier = Notifier([inbox.url], capacity=3, first_wait_seconds=0.4)
    notifier.tell("0", "b")
    until(lambda: len(inbox.asked) == 1)  # it is on its second attempt; the others wait
    for number in range(1, 9):
        notifier.tell(f"{number}", "b")
    until(lambda: len(inbox.messages) == 4)
    notifier.close()
    assert [m["title"] for m in inbox.messages] == ["0", "6", "7", "8"]
    assert inbox.messages[1]["message"] == "b\n(5 older messages were dropped: too many waited)"
    assert inbox.messages[2]["message"] == "b"
    assert notifier.undelivered == 5


def test_repeats_are_held_back_and_the_last_word_is_told(inbox):
    notifier = Notifier([inbox.url], repeat_seconds=0.3)
    for number in range(5):
        notifier.tell("t", f"value {number}", about="one subject")
    notifier.tell("t", "another", about="another subject")
    until(lambda: len(inbox.messages) == 2)
    assert [m["message"] for m in inbox.messages] == ["value 0", "another"]
    until(lambda: len(inbox.messages) == 3)
    assert inbox.messages[2]["message"] == "value 4\n(4 messages of this subject were held back; this is the last)"
    assert inbox.asked[2] - inbox.asked[0] >= 0.25
    notifier.tell("t", "value 5", about="one subject")  # its time begins anew with each message
    notifier.close()  # what is held back goes out at the end
    assert inbox.messages[3]["message"] == "value 5"


def test_equal_messages_are_one_subject_and_different_ones_are_not(inbox):
    notifier = Notifier([inbox.url])
    for text in ("a", "a", "b", "a"):
        notifier.tell("t", text)
    until(lambda: len(inbox.messages) == 2)
    notifier.close()
    assert [m["message"] for m in inbox.messages] == ["a", "b", "a\n(2 messages of this subject were held back; this is the last)"]


def test_only_so_many_subjects_are_remembered(inbox, monkeypatch):
    monkeypatch.setattr(notify, "REMEMBERED_SUBJECTS", 2)
    notifier = Notifier([inbox.url])
    for subject in ("a", "a", "b", "c"):  # the third subject makes the first forgotten: what it held back is told
        notifier.tell(subject, "x", about=subject)
    until(lambda: len(inbox.messages) == 4)
    notifier.close()
    assert sorted(m["title"] for m in inbox.messages) == ["a", "a", "b", "c"]


def test_a_change_of_an_alert_says_what_to_do(inbox):
    rule = next(rule for rule in alert_rules(AlertsConfig()) if rule.name == "stale_data")
    notifier = Notifier([inbox.url])
    for instrument in ("BTC/USDT", "ETH/USDT"):
        notifier.tell_change(AlertChange(rule, (instrument,), "firing", 1, 4.0))
    notifier.tell_change(AlertChange(rule, ("BTC/USDT",), "resolved", 2, 4.0))
    notifier.close()
    assert [(m["title"], m["type"]) for m in inbox.messages] == [
        ("cryptoalpha: stale_data", "warning"),
        ("cryptoalpha: stale_data", "warning"),
        ("cryptoalpha: stale_data", "success"),
    ]
    assert "BTC/USDT" in inbox.messages[0]["message"]
    assert rule.action in inbox.messages[0]["message"]
    assert inbox.messages[2]["message"].endswith("is over")


def test_an_address_is_never_shown(inbox, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    inbox.failures = 1
    notifier = Notifier([inbox.url], first_wait_seconds=0.01)
    notifier.tell("t", "b")
    until(lambda: len(inbox.messages) == 1)
    inbox.close()
    notifier.tell("nobody", "listens")
    notifier.close(timeout_seconds=0.3)
    with pytest.raises(ConfigError) as refused:
        Notifier([f"nosuchservice://{SECRET}"])
    shown = [caplog.text, *capfd.readouterr(), str(refused.value), repr(refused.value), repr(notifier), repr(vars(notifier))]
    assert SECRET not in "".join(shown)
    logging.getLogger("urllib3.connectionpool").filters.clear()
    Notifier([inbox.url]).close()  # each silences it again
    assert len(logging.getLogger("urllib3.connectionpool").filters) == 1
    assert "address 1 of 1" in str(refused.value)


def test_without_the_package_people_are_told_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "apprise":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="apprise") as refused:
        Notifier(["json://127.0.0.1"])
    assert "cryptoalpha[alerts]" in refused.value.hint
