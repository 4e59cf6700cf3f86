"""`cryptoalpha alerts`: refused without a token, and what it shows of what was done."""

from __future__ import annotations

import json

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.lifecycle.alerts.book import BOOK, AlertBook
from cryptoalpha.lifecycle.alerts.notices import Notice


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CRYPTOALPHA_ALERTS_TOKEN", raising=False)


def call(capsys, *arguments: str) -> tuple[int, dict]:
    code = main(["alerts", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_without_a_token_it_does_not_listen(capsys, tmp_path, monkeypatch):
    assert call(capsys)[0] == 2
    assert call(capsys, "--token-file", "nowhere")[0] == 2
    (tmp_path / "short").write_text("too short\n")
    code, document = call(capsys, "--token-file", "short", "--port", "0")
    assert (code, document["error"]["type"]) == (2, "ConfigError")
    monkeypatch.setenv("CRYPTOALPHA_ALERTS_TOKEN", "secret-but-short")
    code, document = call(capsys, "--port", "0", "--set", "lifecycle.alerts.scale=nothing")
    assert code == 2
    assert "secret-but-short" not in json.dumps(document)


def test_what_was_done_is_shown_and_looking_makes_no_book(capsys, tmp_path):
    code, document = call(capsys, "--status")
    assert (code, document["result"]) == (0, {"deeds": []})
    assert not (tmp_path / "home" / BOOK).exists()
    book = AlertBook(tmp_path / "home" / BOOK)
    with book.transaction() as connection:
        deed = book.begin(connection, "scale", Notice("high_prediction_latency", {}, "firing", 1, "a"), 2, 3, "2 → 3 replicas")
    book.end(deed, "done", 4, "2 → 3 replicas")
    assert call(capsys, "--status")[1]["result"]["deeds"] == [
        {"alert": "high_prediction_latency", "kind": "scale", "state": "done", "target": 3, "at": 2, "words": "2 → 3 replicas"}
    ]
