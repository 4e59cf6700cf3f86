"""Kill and resume of a real `trade` process from outside: while it races, hangs, is killed without warning or is not there at all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.values import Fill, Order
from cryptoalpha.store.controls import ControlState, control_state, request_control
from cryptoalpha.store.journal_reader import JournalReader

CONFIG = """
engine: {auto_trading: true}
data: {simulated: {assets: 2, bars: 900, posts_per_day: 1}}
signals: {sources: [trend], keep_features: false}
fusion: {method: equal}
agent: {dead_band: 0.0, long_only: false, smoothing_half_life_bars: 0}
risk: {allow_short: true, no_trade_band: 0.005, orders: {max_entries_per_hour: null}}
"""
PERIOD = ("--since", "2022-01-25", "--until", "2022-02-06")  # the trend has its history by then: entries from the first bars on
STEPS = 12 * 24
FAST = "720000"
"""5 ms a bar."""


class Trader:
    """Starts `cryptoalpha trade` and other verbs on one store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        (home / "config.yaml").write_text(CONFIG, encoding="utf-8")
        self.journal = home / "runs" / "paper" / "journal.sqlite"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, verb: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cryptoalpha.app.cli", verb, "--json", *options]
        environment = {**os.environ, "CRYPTOALPHA_HOME": str(self.home)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def trade(self, speed: str) -> subprocess.Popen[str]:
        return self.start("trade", "--simulated", *PERIOD, "--config", str(self.home / "config.yaml"), "--speed", speed)

    def call(self, verb: str, *options: str) -> tuple[int, dict[str, object], str]:
        """Run a verb to its end: exit code, document, stderr."""
        process = self.start(verb, *options)
        out, err = process.communicate(timeout=120)
        return process.returncode, json.loads(out), err

    def rows(self) -> int:
        if not self.journal.exists():
            return 0
        connection = sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT coalesce(max(last), 0) FROM block").fetchone()[0])
        except sqlite3.OperationalError:  # being created
            return 0
        finally:
            connection.close()

    def wait_for_rows(self, process: subprocess.Popen[str], count: int) -> None:
        for _ in range(12_000):
            if self.rows() >= count or process.poll() is not None:
                return
            time.sleep(0.005)
        pytest.fail(f"the journal never reached {count} rows")

    def kill(self, *, flatten: bool = False) -> tuple[int, int]:
        """Ask, and say how many rows there were before and after it was asked."""
        before = self.rows()
        request_control(self.journal, "kill", by="test", reason="race", at=time.time_ns(), flatten=flatten)
        return before, self.rows()

    def state(self) -> ControlState:
        return control_state(self.journal)

    def orders(self) -> tuple[list[int], list[int]]:
        """Rows with an order that enters, and with one that only reduces."""
        with JournalReader(self.journal) as journal:
            found = [(row, value.reduce_only) for row, _, values in journal.rows() for value in values if isinstance(value, Order)]
        return [row for row, reduces in found if not reduces], [row for row, reduces in found if reduces]

    def killed_rows(self) -> list[tuple[int, int]]:
        """First row of each time the run was killed, and the first row after it."""
        connection = sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)
        taken = connection.execute("SELECT kind, taken_row FROM control WHERE taken_row IS NOT NULL ORDER BY id").fetchall()
        connection.close()
        spans, since = [], None
        for kind, row in taken:
            if kind == "kill" and since is None:
                since = row
            elif kind == "resume":
                assert since is not None
                spans.append((since, row))
                since = None
        return [*spans, (since, STEPS + 1)] if since is not None else spans

    def positions_never_grew(self, spans: list[tuple[int, int]]) -> None:
        """Check the fills while killed, the first row of each span excepted: its bar may have come before a late kill."""
        held: Counter[str] = Counter()
        with JournalReader(self.journal) as journal:
            for row, _, values in journal.rows():
                killed = any(first < row < after for first, after in spans)
                for fill in (value for value in values if isinstance(value, Fill)):
                    now = held[fill.instrument] + (fill.quantity if fill.side == "buy" else -fill.quantity)
                    assert not killed or abs(now) < abs(held[fill.instrument]), f"row {row}: a position grew"
                    held[fill.instrument] = now


@pytest.fixture
def trader(tmp_path: Path) -> Iterator[Trader]:
    found = Trader(tmp_path / "home")
    yield found
    for process in found.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.lengthy
def test_kills_that_race_with_steps_keep_every_later_entry_out(trader: Trader):
    random = stream(3, "kill race")
    process = trader.trade(FAST)
    trader.wait_for_rows(process, 20)
    asked: list[tuple[int, int]] = []
    while process.poll() is None and trader.rows() < STEPS - 60:
        asked.append(trader.kill(flatten=bool(random.random() < 0.3)))
        while process.poll() is None and trader.state().mode != "tripped":
            time.sleep(0.001)
        time.sleep(float(random.uniform(0.0, 0.05)))
        request_control(trader.journal, "resume", by="test", reason="race", at=time.time_ns())
        time.sleep(float(random.uniform(0.02, 0.08)))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    spans = trader.killed_rows()
    assert len(spans) == len(asked) >= 5
    for (first, _), (before, after) in zip(spans, asked, strict=True):
        assert before < first <= after + 1  # the very next row took it
    entries, _ = trader.orders()
    assert entries
    assert [row for row in entries if any(first <= row < after for first, after in spans)] == []
    trader.positions_never_grew(spans)
    assert json.loads(out)["result"]["kill_switch"] == "armed"


@pytest.mark.slow
def test_a_kill_of_a_hung_process_returns_at_once_and_holds_when_it_wakes(trader: Trader):
    process = trader.trade(FAST)
    trader.wait_for_rows(process, 60)
    process.send_signal(signal.SIGSTOP)
    before = trader.rows()
    began = time.monotonic()
    code, found, err = trader.call("kill", "--flatten", "--reason", "it hangs")
    assert (code, time.monotonic() - began < 15.0) == (0, True), err  # most of it is starting Python on a busy machine
    assert [each["run"] for each in found["result"]["killed"]] == ["paper"]
    assert trader.state().mode == "requested"
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "is killed by" in json.loads(out)["error"]["message"]
    entries, _ = trader.orders()
    ((first, _),) = trader.killed_rows()
    assert first <= before + 2
    assert max(entries) < first  # some before, none after
    assert json.loads(out)["result"]["positions"] == {}
    assert trader.state().mode == "tripped"


@pytest.mark.slow
def test_a_process_stopped_anywhere_lets_a_kill_through_and_keeps_it(trader: Trader):
    """Stopped thirty times; where it held the lock of its journal the kill lies in a file until it wakes."""
    process = trader.trade("360000")
    trader.wait_for_rows(process, 20)
    random = stream(4, "stops")
    longest, flags = 0.0, 0
    for _ in range(30):
        time.sleep(float(random.uniform(0.0, 0.02)))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        control = request_control(trader.journal, "kill", by="test", reason="hung", at=time.time_ns(), patience_seconds=0.2)
        longest, flags = max(longest, time.monotonic() - began), flags + (control.id == 0)
        rows = trader.rows()
        process.send_signal(signal.SIGCONT)
        while process.poll() is None and trader.state().mode != "tripped":
            time.sleep(0.001)
        if process.poll() is None:
            under_way = control.id == 0  # the row whose commit had begun; its order is cancelled before a bar can fill it
            assert [row for row in trader.orders()[0] if row > rows + under_way] == []
            request_control(trader.journal, "resume", by="test", reason="on", at=time.time_ns())
    print(f"{flags} kills of 30 came as a file, the longest took {longest:.2f} s")
    assert longest < 5.0
    process.communicate(timeout=120)
    trader.positions_never_grew(trader.killed_rows())
    assert process.returncode in (0, 4)


@pytest.mark.slow
def test_sigkill_between_any_two_steps_loses_no_kill_and_no_resume(trader: Trader):
    random = stream(5, "sigkill")
    for lap in range(4):
        process = trader.trade(FAST)
        goal = int(random.integers(35, 50)) * (lap + 1)
        trader.wait_for_rows(process, goal)
        if lap % 2 == 0:  # asked while it lives, killed at once
            trader.kill()
        process.kill()
        process.communicate()
        if lap % 2 == 1:  # asked while there is no process
            trader.kill(flatten=True)
        entries = trader.orders()[0]
        assert trader.state().stands
        with_kill = trader.rows()
        process = trader.trade(FAST)
        for _ in range(int(20 / 0.01)):
            if trader.state().mode == "tripped" or process.poll() is not None:
                break
            time.sleep(0.01)
        trader.wait_for_rows(process, with_kill + 10)
        process.kill()
        process.communicate()
        assert trader.state().mode == "tripped"
        assert trader.orders()[0] == entries  # not one more
        request_control(trader.journal, "resume", by="test", reason="on", at=time.time_ns())
    process = trader.trade("0")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, json.loads(out)["result"]["steps"]) == (0, STEPS), err
    spans = trader.killed_rows()
    assert len(spans) == 4
    assert [row for row in trader.orders()[0] if any(first <= row < after for first, after in spans)] == []
    trader.positions_never_grew(spans)
    assert max(trader.orders()[0]) > spans[-1][1]  # and it trades again


@pytest.mark.slow
def test_the_verbs_as_a_person_uses_them(trader: Trader):
    process = trader.trade(FAST)
    trader.wait_for_rows(process, 40)
    process.terminate()
    process.communicate(timeout=120)
    assert trader.call("kill", "--run", "other")[0] == 3
    assert trader.call("resume", "--run", "paper", "--reason", "x", "--confirm", "resume paper")[0] == 2  # nothing is killed
    assert trader.call("kill", "--reason", "stopped and killed")[0] == 0
    code, found, _ = trader.call("resume", "--run", "paper", "--reason", "x", "--confirm", "resume paper")
    assert (code, found["error"]["type"]) == (4, "RiskHaltError")  # no step took it
    process = trader.trade(FAST)
    while process.poll() is None and trader.state().mode != "tripped":
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "the run is killed by" in err
    assert json.loads(out)["warnings"]
    for wrong in (["--confirm", "resume"], ["--confirm", "yes"], []):
        assert trader.call("resume", "--run", "paper", "--reason", "x", *wrong)[0] == 2
    assert trader.call("resume", "--run", "paper", "--reason", " ", "--confirm", "resume paper")[0] == 2
    assert trader.state().mode == "tripped"
    assert trader.call("resume", "--run", "paper", "--reason", "checked", "--confirm", "resume paper")[0] == 0
    assert trader.state().mode == "armed"
