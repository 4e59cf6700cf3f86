"""What `status` says of a live run when things are not well: its process is gone, its venue does not answer."""

from __future__ import annotations

import json

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.app.live.status import SILENT_SECONDS, LiveStatus
from cryptoalpha.core.time import SECOND


def status(*, beat_seconds: float, has_ended: bool = False) -> LiveStatus:
    standing: dict[str, object] = {"compared_at": 900 * SECOND, "is_listening": True, "foreign_orders": 0}
    return LiveStatus(
        run="live", venue="binance", account="0123", instruments=("BTC/USDT",), beat_seconds=beat_seconds, has_ended=has_ended,
        standing=standing, ledger=None, now=1_000 * SECOND,
    )  # fmt: skip


def test_a_process_that_gave_its_last_sign_long_ago_is_not_said_to_listen():
    alive, gone, closed = status(beat_seconds=4.0), status(beat_seconds=SILENT_SECONDS + 1.0), status(beat_seconds=4.0, has_ended=True)
    assert (alive.is_alive, gone.is_alive, closed.is_alive) == (True, False, False)
    assert "listening" in " ".join(alive.lines())
    assert "killed" not in " ".join(alive.lines())
    assert "listening" not in " ".join(gone.lines())
    assert "it hangs, or was killed" in gone.lines()[0]
    assert "listening" not in " ".join(closed.lines())
    assert "its session was closed" in closed.lines()[0]
    assert all("books compared 100 s ago" in " ".join(each.lines()) for each in (alive, gone, closed))


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_known_here_is_shown_although_the_venue_does_not_answer(tmp_path, monkeypatch, capsys, as_json):
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path))
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_KEY", "a-key-of-nobody")
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_SECRET", "a-word-of-nobody")
    options = ["--set", "data.exchange.endpoint=http://127.0.0.1:1", "--set", "execution.live.alert_after_seconds=0.1"]
    assert main(["status", "--venue", *options, *(["--json"] if as_json else [])]) == 5
    shown = capsys.readouterr()
    if as_json:
        document = json.loads(shown.out)
        assert document["ok"] is False
        assert "does not answer" in json.dumps(document, ensure_ascii=False)
    else:
        assert "no runs yet" in shown.out
        assert "does not answer" in shown.err
