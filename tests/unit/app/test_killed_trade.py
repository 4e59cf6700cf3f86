"""`trade` from start to end where its run is killed, or where nobody knows whether it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.trade_session import _room_for
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.store.controls import control_state
from cryptoalpha.store.journal_reader import JournalReader

SETTINGS = """
engine: {auto_trading: true}
data: {simulated: {assets: 1, bars: 200, posts_per_day: 1}}
signals: {sources: [momentum_short], keep_features: false}
fusion: {method: equal}
agent: {dead_band: 0.0}
"""
PERIOD = ("--since", "2022-01-04", "--until", "2022-01-05")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the run `paper` lies or will lie."""
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    (tmp_path / "config.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path / "home" / "runs" / "paper"


def trade(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, object]]:
    config = run.parents[2] / "config.yaml"
    code = main(["trade", "--simulated", *PERIOD, "--config", str(config), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_a_killed_run_ends_with_code_4_and_says_that_it_is_tripped(run, capsys):
    run.mkdir(parents=True)
    (run / "journal.sqlite.kill").touch()
    code, found = trade(run, capsys)
    assert code == 4
    assert (found["result"]["kill_switch"], found["result"]["steps"]) == ("tripped", 24)
    assert found["error"]["type"] == "RiskHaltError"
    assert control_state(run / "journal.sqlite").mode == "tripped"
    assert "it has finished" in found["error"]["message"]
    assert main(["resume", "--run", "paper", "--reason", "r", "--confirm", "resume paper", "--json"]) == 2  # it takes no step any more
    assert "has finished: there is nothing to resume" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert control_state(run / "journal.sqlite").mode == "tripped"


def test_a_run_whose_journal_is_gone_is_not_begun_anew(run, capsys):
    assert trade(run, capsys)[0] == 0
    (run / "journal.sqlite").rename(run / "elsewhere")
    code, found = trade(run, capsys)
    assert (code, found["error"]["type"]) == (4, "RiskHaltError")
    assert "journal.sqlite is gone: the run has traded" in found["error"]["message"]
    assert "--run" in found["error"]["hint"]
    assert not (run / "journal.sqlite").exists()
    assert trade(run, capsys)[0] == 4  # and again: the refused start took nothing away
    assert trade(run, capsys, "--run", "other")[0] == 0
    (run / "elsewhere").rename(run / "journal.sqlite")
    assert trade(run, capsys)[0] == 0
    shutil.rmtree(run)
    assert trade(run, capsys)[0] == 0
    with JournalReader(run / "journal.sqlite") as journal:
        assert len(journal) == 24


def test_a_refused_start_takes_no_kill_away_that_lay_there_before(run):
    run.mkdir(parents=True)
    (run / "journal.sqlite.kill").mkdir()
    with pytest.raises(ConfigError), _room_for(run / "journal.sqlite", Settings()):
        raise ConfigError("refused")
    assert (run / "journal.sqlite.kill").is_dir()
