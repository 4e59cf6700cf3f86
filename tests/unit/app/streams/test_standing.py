"""What `status` and `check` say of live streams when a file is damaged or a server is away: the rest is told all the same."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.servers import FOLDER, STATE_FILE
from cryptoalpha.app.streams.standing import (
    SourceStanding,
    faults_of_servers,
    in_short,
    keep_health,
    set_metrics,
    source_standings,
)
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.streams_config import StreamsConfig
from cryptoalpha.monitoring.metrics import Metrics
from cryptoalpha.monitoring.metrics_exposition import exposition
from cryptoalpha.store.state.sqlite_state import SqliteState


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, in a working directory without settings."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_status_tells_what_it_knows_before_it_fails_on_a_damaged_state(home: Path, capsys: pytest.CaptureFixture[str]):
    (home / FOLDER).mkdir(parents=True)
    (home / FOLDER / STATE_FILE).write_bytes(b"no database at all, and longer than a header of one hundred bytes " * 4)
    assert main(["status"]) == 3
    told = capsys.readouterr()
    assert "no runs yet" in told.out
    assert "how live sources fare is not known" in told.out
    assert "corrupt" in told.err


def test_status_tells_what_it_knows_where_redis_is_away(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("redis", reason="the client of Redis is not installed")
    streams = ["--set", "data.streams.backend=servers", "--set", "data.streams.redis_address=127.0.0.1:1"]
    assert main(["status", *streams, "--set", "data.streams.answer_seconds=0.05"]) == 5
    told = capsys.readouterr()
    assert "no runs yet" in told.out
    assert "127.0.0.1:1 does not answer" in told.err


def test_check_names_each_server_that_is_away(capsys: pytest.CaptureFixture[str]):
    for package in ("aiokafka", "redis"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as there:
        here = f"127.0.0.1:{there.getsockname()[1]}"
        servers = ["data.streams.listen=true", "data.streams.backend=servers", f"data.streams.kafka_servers={here},127.0.0.1:1",
                   "data.streams.redis_address=nowhere"]  # fmt: skip
        assert main(["check", "--json", *(part for one in servers for part in ("--set", one))]) == 5
        found = [one["found"] for one in json.loads(capsys.readouterr().out)["result"]["checks"] if one["name"] == "stream servers"]
        assert found == [
            "Kafka at 127.0.0.1:1 does not answer: Connection refused",
            "data.streams.redis_address: 'nowhere' is not host:port",
        ]
        assert main(["check", *(part for one in (*servers, f"data.streams.kafka_servers={here}") for part in ("--set", one))]) == 2
        assert faults_of_servers(StreamsConfig(backend="servers", kafka_servers=here, redis_address=here)) == []
    assert faults_of_servers(StreamsConfig(kafka_servers="127.0.0.1:1")) == []


def test_check_names_a_package_that_servers_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "aiokafka", None)  # as if it were not installed
    with socket.create_server(("127.0.0.1", 0)) as there:
        here = f"127.0.0.1:{there.getsockname()[1]}"
        servers = ["data.streams.listen=true", "data.streams.backend=servers", f"data.streams.kafka_servers={here}",
                   f"data.streams.redis_address={here}"]  # fmt: skip
        assert main(["check", *(part for one in servers for part in ("--set", one))]) == 2
    assert "Kafka needs the package aiokafka" in capsys.readouterr().out


def test_listen_on_an_empty_store_names_both_ways_out(capsys: pytest.CaptureFixture[str]):
    assert main(["listen", "--seconds", "0"]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "cryptoalpha data fetch --venue binance" in told
    assert "or --no-agents, which runs sources alone" in told


def test_listen_says_what_kind_of_fault_a_server_is(capsys: pytest.CaptureFixture[str]):
    """An address that is none is a fault of usage; a home that cannot be written one of the store."""
    pytest.importorskip("aiokafka", reason="the client of Kafka is not installed")
    listen = ["listen", "--no-agents", "--seconds", "0", "--set", "data.streams.backend=servers"]
    assert main([*listen, "--set", "data.streams.redis_address=http://localhost:6379"]) == 2
    assert "redis_address: 'http://localhost:6379' is not host:port" in capsys.readouterr().err


def test_listen_in_a_home_that_cannot_be_written(home: Path, capsys: pytest.CaptureFixture[str]):
    home.write_text("a file, where a folder should be")
    assert main(["listen", "--no-agents", "--seconds", "0"]) == 3
    assert "choose a writable folder" in " ".join(capsys.readouterr().err.split())


def test_a_family_that_fell_silent_is_shown_beside_its_source_and_measured(home: Path):
    now = 1_000 * SECOND
    fine = Health("connected", messages=50, last_message=now - SECOND)
    parts = {
        "books": fine,
        "bars": Health("connected", messages=3, last_message=now - 90 * SECOND),
        "trades": Health("waiting", reason="HTTP 503"),
    }
    venue = Health("connected", "trades: HTTP 503", 53, last_message=now - SECOND, least_lag_seconds=-0.5, parts=parts)

    async def kept() -> None:
        async with SqliteState(home / FOLDER / STATE_FILE) as state:
            await keep_health(state, {"binance": venue, "news": fine}, now)

    asyncio.run(kept())
    settings = Settings()
    binance, news = source_standings(settings, home, now=now)
    assert [row[:2] + row[5:] for row in binance.rows()] == [
        ("binance", "connected", "1 s ago", "trades: HTTP 503"),
        ("binance.bars", "connected", "90 s ago", ""),
        ("binance.trades", "waiting", "–", "HTTP 503"),
    ]
    assert len(news.rows()) == 1
    assert binance.as_dict()["parts"]["bars"]["messages"] == 3
    assert binance.as_dict()["least_lag_seconds"] == -0.5

    metrics = Metrics()
    set_metrics(metrics.set, {"binance": binance.health, "news": news.health}, {}, now=now, is_open=False)
    told = exposition(metrics)
    for line in (
        'cryptoalpha_source_least_lag_seconds{source="binance"} -0.5',
        'cryptoalpha_source_part_up{part="trades",source="binance"} 0.0',
        'cryptoalpha_source_part_up{part="books",source="binance"} 1.0',
        'cryptoalpha_source_part_age_seconds{part="bars",source="binance"} 90.0',
        "cryptoalpha_stream_open 0.0",
    ):
        assert line in told, told


def test_long_reasons_are_cut_in_a_table_and_whole_in_json():
    long = SourceStanding("x", Health("waiting", "w" * 161), 1.0, None)
    assert long.row()[-1] == "w" * 159 + "…"
    assert long.as_dict()["reason"] == "w" * 161
    assert in_short("w" * 160) == "w" * 160
