"""`trade` as an operator runs it: a process of its own, killed without warning, stopped politely, or started twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.store.controls import request_control

CONFIG = """
engine: {auto_trading: true}
data: {simulated: {assets: 2, bars: 2600, posts_per_day: 4}}
signals: {sources: [trend, funding, news_tone], keep_features: false}
fusion: {method: equal}
agent: {dead_band: 0.02, long_only: false, smoothing_half_life_bars: 2}
risk: {allow_short: true, no_trade_band: 0.005}
"""
PERIOD = ("--since", "2022-03-20", "--until", "2022-04-10")
STEPS = 21 * 24


class Trader:
    """Starts `cryptoalpha trade` on one store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        self.config = home / "config.yaml"
        self.config.write_text(CONFIG, encoding="utf-8")

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "cryptoalpha.app.cli",
            "trade",
            "--simulated",
            *PERIOD,
            "--config",
            str(self.config),
            "--json",
            *options,
        ]
        return subprocess.Popen(
            command, env={**os.environ, "CRYPTOALPHA_HOME": str(self.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, *options: str) -> dict[str, object]:
        out, err = self.start(*options).communicate(timeout=120)
        document = json.loads(out)
        assert document["ok"], err
        return document["result"]

    def rows(self) -> int:
        """Rows in the journal now."""
        path = self.home / "runs" / "paper" / "journal.sqlite"
        if not path.exists():
            return 0
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT coalesce(max(last), 0) FROM block").fetchone()[0])
        except sqlite3.OperationalError:  # being created
            return 0
        finally:
            connection.close()

    def wait_for_rows(self, process: subprocess.Popen[str], count: int) -> None:
        for _ in range(2000):
            if self.rows() >= count or process.poll() is not None:
                return
            time.sleep(0.01)
        pytest.fail(f"the journal never reached {count} rows")


@pytest.mark.lengthy
def test_a_run_killed_again_and_again_ends_with_the_journal_of_one_that_never_was(tmp_path: Path):
    undisturbed = Trader(tmp_path / "undisturbed").finish()
    assert undisturbed["steps"] == STEPS
    assert undisturbed["fills_this_session"] > 20  # or the test would prove nothing about orders

    killed = Trader(tmp_path / "killed")
    for goal in sorted(stream(5, "kill points").integers(20, STEPS - 50, 3).tolist()):
        process = killed.start("--speed", "720000")  # 5 ms a bar
        killed.wait_for_rows(process, goal)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert goal <= killed.rows() < STEPS
    found = killed.finish()
    assert found["recovered"] >= goal
    assert (found["steps"], found["complete"]) == (STEPS, True)
    assert found["journal_hash"] == undisturbed["journal_hash"]
    assert found["equity"] == undisturbed["equity"]


def test_sigterm_ends_after_the_step_in_hand_and_the_next_start_goes_on(tmp_path: Path):
    trader = Trader(tmp_path / "home")
    process = trader.start("--speed", "360000")
    trader.wait_for_rows(process, 30)
    process.terminate()
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    stopped = json.loads(out)["result"]
    assert not stopped["complete"]
    assert 30 <= stopped["steps"] < STEPS
    assert trader.finish()["recovered"] == stopped["steps"]


def test_ctrl_c_ends_after_the_step_in_hand_with_130_and_a_killed_run_with_4(tmp_path: Path):
    """That a run is killed is the greater news: 130 would hide it from whoever watches exit codes."""
    trader = Trader(tmp_path / "home")
    for goal, code in ((30, 130), (60, 4)):
        process = trader.start("--speed", "360000")
        trader.wait_for_rows(process, goal)
        if code == 4:
            journal = trader.home / "runs" / "paper" / "journal.sqlite"
            request_control(journal, "kill", by="test", reason="smoke", at=1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=180)
        assert process.returncode == code
        assert json.loads(out)["result"]["steps"] >= goal


def test_a_second_process_on_the_store_is_refused(tmp_path: Path):
    trader = Trader(tmp_path / "home")
    first = trader.start("--speed", "36000")
    trader.wait_for_rows(first, 2)
    out, err = trader.start().communicate(timeout=180)
    assert json.loads(out)["error"]["type"] == "StoreLockedError"
    assert str(first.pid) in err
    first.kill()
    first.communicate()


def test_other_settings_do_not_continue_a_run(tmp_path: Path):
    trader = Trader(tmp_path / "home")
    trader.finish()
    process = trader.start("--set", "risk.max_position=0.1")
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 3
    assert "belongs to another run" in json.loads(out)["error"]["message"]


def test_without_auto_trading_decisions_are_journaled_and_nothing_is_sent(tmp_path: Path):
    from cryptoalpha.core.values import Decision, Fill, Order
    from cryptoalpha.store.journal_reader import JournalReader

    trader = Trader(tmp_path / "home")
    found = trader.finish("--set", "engine.auto_trading=false")
    assert found["positions"] == {}
    with JournalReader(trader.home / "runs" / "paper" / "journal.sqlite") as journal:
        kinds = {type(value) for _, _, values in journal.rows() for value in values}
    assert Decision in kinds
    assert not kinds & {Order, Fill}
