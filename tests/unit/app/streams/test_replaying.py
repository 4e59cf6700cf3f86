"""Recorded messages read again: counts by kind, what cannot be read told with its reason, errors that say what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.data.sources.recording import as_line

T = 1_700_000_000_000


def trade(number: int) -> bytes:
    row = {"e": "trade", "E": T, "s": "BTCUSDT", "t": number, "p": "100.5", "q": "0.25", "T": T, "m": True}
    return json.dumps({"stream": "btcusdt@trade", "data": row}).encode()


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = main(["data", "replay", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out or "{}")


def test_a_folder_of_recordings_is_read_channel_by_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = [as_line(T * 1_000_000 + n, trade(n)) for n in range(30)]
    (tmp_path / "binance.trades-1.jsonl").write_bytes(b"".join([*lines[:20], as_line(T * 1_000_000, b"{nonsense")]))
    with gzip.open(tmp_path / "binance.trades-0.jsonl.gz", "wb") as file:
        file.write(b"".join(lines[20:]))
    code, found = call(capsys, str(tmp_path))
    (channel,) = found["result"]["channels"]  # type: ignore[index]
    assert code == 0
    assert (channel["channel"], channel["messages"], channel["values"]) == ("binance.trades", 31, {"Trade": 30})
    assert sum(channel["unreadable"].values()) == 1


def test_what_nobody_reads_and_what_is_not_there_are_clear_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "replay", str(tmp_path)]) == 3
    told = capsys.readouterr().err
    assert "holds no recordings: no file CHANNEL-*.jsonl" in told
    assert "--as CHANNEL (x, reddit, news, mempool" in " ".join(told.split())
    (tmp_path / "nobody-1.jsonl").write_bytes(as_line(T, b"{}"))
    assert main(["data", "replay", str(tmp_path)]) == 2
    assert "--as names one of" in capsys.readouterr().err
    (tmp_path / "broken.jsonl").write_bytes(b"no recording at all\n")
    assert main(["data", "replay", str(tmp_path / "broken.jsonl"), "--as", "binance"]) == 3
    assert "line 1: b" in capsys.readouterr().err
