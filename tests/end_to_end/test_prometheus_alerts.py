"""The whole way with the real programs: a `trade` at work, Prometheus, Alertmanager, `cryptoalpha alerts`, the book of retraining.

Everything is configured as docs/alerts.md says, with ports that are free and looks each second. A trade whose directions come true too
seldom has retraining proposed, and one that is killed is known to the webhook, each well within a minute; both are measured and printed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cryptoalpha.lifecycle.alerts.book import AlertBook
from cryptoalpha.lifecycle.retrain.triggers import waiting

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "alerts.md"
SETTINGS = (
    "data.simulated.assets=2", "data.simulated.bars=3000", "signals.sources=[trend, momentum_short]", "signals.keep_features=false",
    "fusion.method=equal", "engine.auto_trading=true", "monitoring.drift.enabled=false", "monitoring.metrics.port=0",
    # a promise that nobody keeps: the first direction that does not come true is an alarm
    "lifecycle.alerts.accuracy_baseline=1.0", "lifecycle.alerts.accuracy_run_length_days=0.0417",
    "lifecycle.alerts.accuracy_alarm_days=1000",
)  # fmt: skip


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed (Debian packages prometheus and prometheus-alertmanager)"
        pytest.fail(missing) if os.environ.get("TESTS_SKIP_NOTHING") == "1" else pytest.skip(missing)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


class Programs:
    """Started processes, their output in files; all are ended at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, list[subprocess.Popen[bytes]]()
        self.environment = {**os.environ, "CRYPTOALPHA_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
            )

    def ours(self, name: str, *arguments: str) -> None:
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        self.start(name, sys.executable, "-m", "cryptoalpha", *arguments, *settings)

    def call(self, *arguments: str) -> Any:
        command = [sys.executable, "-m", "cryptoalpha", *arguments, "--json"]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["result"]

    def said(self, name: str, pattern: str, seconds: float = 60.0) -> str:
        """The first group of what a program's output must hold within so many seconds."""

        def look() -> str | None:
            found = re.search(pattern, (self.folder / f"{name}.log").read_text(errors="replace"))
            return found.group(1) if found else None

        return self.awaited(look, f"{name} never said {pattern}", seconds)

    def awaited(self, look: Callable[[], Any], missed: str, seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.1)
        logs = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(self.folder.glob("*.log")))
        raise AssertionError(f"{missed}\n{logs}")


@pytest.fixture
def programs(tmp_path) -> Iterator[Programs]:
    made = Programs(tmp_path)
    yield made
    for process in made.running:
        process.terminate()
    for process in made.running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def scraped(address: str) -> bytes:
    """The metrics as they are."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        found: bytes = answer.read()
    return found


def documented(name: str, **changes: str) -> str:
    """The file that the guide shows, with these words changed."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"`{name}`:")[2].partition("```yaml\n")[2].partition("```")[0]
    for before, after in changes.items():
        assert before in text, f"{name} of the guide no longer says {before}"
        text = text.replace(before, after)
    return text


@pytest.mark.lengthy
def test_what_the_engine_tells_reaches_the_webhook_and_the_book_of_retraining_within_a_minute(programs, tmp_path, capsys):
    prometheus, alertmanager = program("prometheus"), program("prometheus-alertmanager")
    (tmp_path / "alerts.token").write_text("a token of the end-to-end test\n")
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    (tmp_path / "rules.yaml").write_text(programs.call("status", "--alert-rules", *settings)["rule_file"])

    programs.ours("alerts", "alerts", "--token-file", "alerts.token", "--port", "0")
    webhook = programs.said("alerts", r"alerts are heard at (http://\S+)")
    manager = free_port()
    faster = {"group_interval: 5s": "group_interval: 1s", "http://127.0.0.1:9095/v1/alerts": webhook}
    (tmp_path / "alertmanager.yaml").write_text(documented("alertmanager.yaml", **faster))
    programs.start(
        "alertmanager", alertmanager, "--config.file=alertmanager.yaml", "--storage.path=am",
        f"--web.listen-address=127.0.0.1:{manager}", "--cluster.listen-address=",
    )  # fmt: skip
    programs.ours("trade", "trade", "--simulated", "--run", "paper", "--speed", "36000")  # ten bars of an hour each second
    address = programs.said("trade", r"metrics at http://(\S+)/metrics")
    replaced = {"5s": "1s", "127.0.0.1:9093": f"127.0.0.1:{manager}", "127.0.0.1:9464": address}
    (tmp_path / "prometheus.yaml").write_text(documented("prometheus.yaml", **replaced))
    storage, place = "--storage.tsdb.path=tsdb", f"--web.listen-address=127.0.0.1:{free_port()}"
    programs.start("prometheus", prometheus, "--config.file=prometheus.yaml", storage, place)
    programs.awaited(lambda: b"cryptoalpha_accuracy_alarm_age_seconds " in scraped(address), "no direction was ever wrong", 120.0)
    begun = time.monotonic()
    home = tmp_path / "home"
    trigger = programs.awaited(lambda: waiting(home / "lifecycle" / "retrain.sqlite"), "nobody proposed retraining")[0]
    proposed = time.monotonic() - begun
    assert (trigger.cause, trigger.subject, trigger.campaign) == ("accuracy", "low_prediction_accuracy", None)

    killed = time.monotonic()
    programs.call("kill", "--run", "paper", "--reason", "to see it alerted")
    book = AlertBook(home / "lifecycle" / "alerts.sqlite")
    programs.awaited(lambda: "kill_switch" in book.standing(), "the webhook was never told of the kill")
    told = time.monotonic() - killed
    programs.call("resume", "--run", "paper", "--reason", "it was seen", "--confirm", "resume paper")
    programs.awaited(lambda: "kill_switch" not in book.standing(), "the webhook was never told that the kill is over")

    (deed,) = programs.call("alerts", "--status")["deeds"]
    assert (deed["alert"], deed["kind"], deed["state"]) == ("low_prediction_accuracy", "retrain", "done")
    assert proposed < 60.0
    assert told < 60.0
    with capsys.disabled():
        print(f"\nfrom the alarm in the metrics to the proposal {proposed:.1f} s; from the kill to the webhook {told:.1f} s")
