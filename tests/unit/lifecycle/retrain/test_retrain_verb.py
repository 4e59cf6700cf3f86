"""`cryptoalpha retrain`: what waits is said, a campaign over no data is refused before it begins, and `--status` runs nothing."""

from __future__ import annotations

import json

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.core.time import HOUR
from cryptoalpha.lifecycle.retrain.book import BOOK, book
from cryptoalpha.lifecycle.retrain.campaign import campaigns
from cryptoalpha.lifecycle.retrain.triggers import propose, waiting


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def said(capsys, *words: str) -> tuple[int, dict]:
    code = main(["retrain", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_status_of_a_home_without_a_book_makes_none(home, capsys):
    code, told = said(capsys, "--status")
    assert (code, told["result"]) == (0, {"waiting": [], "campaigns": []})
    assert not home.exists()


def test_status_tells_what_waits_and_not_the_settings_of_a_plan(home, capsys):
    propose(home / BOOK, "drift", HOUR, "an edge died", subject="information_coefficient")
    with book(home / BOOK, write=True) as connection:
        connection.execute(
            "INSERT INTO campaign (kind, cause, begun_at, plan) VALUES ('retrain', 'drift', 7, '{\"seed\": 3, \"settings\": {}}')"
        )
    code, told = said(capsys, "--status")
    assert code == 0
    assert [(one["cause"], one["subject"], one["times"]) for one in told["result"]["waiting"]] == [("drift", "information_coefficient", 1)]
    assert told["result"]["campaigns"][0]["plan"] == {"seed": 3}


def test_status_and_now_contradict_each_other(home, capsys):
    assert said(capsys, "--status", "--now")[0] == 2
    assert not home.exists()


def test_without_data_nothing_begins_and_the_wish_waits(home, capsys):
    assert said(capsys, "--now")[0] == 3
    assert campaigns(home / BOOK) == ()
    assert [one.cause for one in waiting(home / BOOK)] == ["hand"]


def test_where_nothing_asks_nothing_is_opened(home, capsys):
    code, told = said(capsys)
    assert (code, told["result"]["did"]) == (0, "nothing")


def test_a_token_that_cannot_be_read_is_a_fault_of_usage_before_anything_is_asked_for(home, capsys):
    code, told = said(capsys, "--now", "--serve", "http://127.0.0.1:9", "--set", "credentials.serving_token=env:NO_SUCH_NAME")
    assert (code, "serving_token" in told["error"]["message"]) == (2, True)
    assert waiting(home / BOOK) == ()


def test_an_address_that_is_none_is_refused(home, capsys):
    assert said(capsys, "--serve", "somewhere")[0] == 2


def test_a_campaign_that_is_not_over_is_gone_on_with_instead_of_another_being_asked_for(home, capsys):
    """A CronJob's `retrain --now` that was killed and started again must not train everything twice."""
    with book(home / BOOK, write=True) as connection:
        connection.execute("INSERT INTO campaign (kind, cause, begun_at, plan) VALUES ('retrain', 'hand', 7, '{\"settings\": {}}')")
        connection.execute("INSERT INTO step (campaign, place, name) VALUES (1, 0, 'of another release')")
    said(capsys, "--now", "--simulated")
    assert waiting(home / BOOK) == ()
    assert [(one.number, one.outcome) for one in campaigns(home / BOOK)] == [(1, "failed")]
