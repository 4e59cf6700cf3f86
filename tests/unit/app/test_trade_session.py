"""A session of `trade` that cannot begin leaves its store as it was."""

from __future__ import annotations

import dataclasses
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.engine import StepOutcome
from cryptoalpha.app.settings import Settings, defaults_with
from cryptoalpha.app.sources import open_store, open_venue
from cryptoalpha.app.trade import Session
from cryptoalpha.app.trade_session import TradeRequest, _room_for, run_session
from cryptoalpha.app.venues import Keys
from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreError
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.core.values import PortfolioState, Refusal
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.tables import BarTable

REQUEST = TradeRequest(
    data=None, since="2022-03-20", until="2022-03-22", interval="1h", instruments=None, simulated=True, speed=0.0, feed=None, run="paper"
)
OVERRIDES = ("data.simulated.assets=2", "data.simulated.bars=2000", "signals.sources=[trend]")
PLAIN = defaults_with(OVERRIDES)


def with_cash(cash: float) -> Settings:
    """Settings that pass no check here, so that the engine itself refuses them."""
    return PLAIN.model_copy(update={"execution": PLAIN.execution.model_copy(update={"initial_cash": cash})})


def test_a_refused_start_leaves_nothing_and_the_corrected_one_begins(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot start with"):
        run_session(with_cash(-1.0), tmp_path, REQUEST, say=lambda text: None)
    assert not (tmp_path / "runs" / "paper").exists()
    assert run_session(PLAIN, tmp_path, REQUEST, say=lambda text: None).steps == 48


def test_what_was_there_before_a_refused_start_stays(tmp_path: Path):
    run = tmp_path / "runs" / "paper"
    run.mkdir(parents=True)
    (run / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot start with"):
        run_session(with_cash(-1.0), tmp_path, REQUEST, say=lambda text: None)
    assert [file.name for file in run.iterdir()] == ["note.txt"]
    run_session(PLAIN, tmp_path, REQUEST, say=lambda text: None)
    other = defaults_with([*OVERRIDES, "risk.max_position=0.1", "risk.ladder.rungs=[[0.5, 0.5]]", "monitoring.alerts.memory=0.5"])
    with pytest.raises(StoreError, match="another run") as refusal:
        run_session(other, tmp_path, REQUEST, say=lambda text: None)
    assert "risk.max_position was 0.25 and is 0.1, risk.ladder.rungs was [[0.333" in str(refusal.value)
    assert "alerts" not in str(refusal.value)  # what only tells decides nothing
    (run / "config.json").unlink()  # as in runs of before: the hash alone refuses
    with pytest.raises(StoreError, match="config was"):
        run_session(other, tmp_path, REQUEST, say=lambda text: None)
    assert run_session(PLAIN, tmp_path, REQUEST, say=lambda text: None).recovered == 48


LIVE = TradeRequest(
    data=None, since=None, until=None, interval="5m", instruments=["BTC/USDT", "SIM1/USDT"], simulated=False, speed=0.0, feed=None,
    run="live", keys=Keys("a-key-of-nobody", "a-secret-of-nobody"),
)  # fmt: skip


@pytest.mark.parametrize("change", [{}, {"keys": None, "feed": "binance"}], ids=["live", "paper"])
def test_a_run_on_live_bars_without_history_is_told_the_command_that_gets_it(tmp_path: Path, change: dict[str, object]):
    with pytest.raises(DataMissingError) as refusal:
        run_session(PLAIN, tmp_path, dataclasses.replace(LIVE, **change), say=lambda text: None)  # type: ignore[arg-type]
    assert refusal.value.hint.startswith("cryptoalpha data fetch --venue binance --interval 5m --instruments BTC/USDT,SIM1/USDT --since 20")


def test_a_live_run_takes_the_bars_of_its_own_venue(tmp_path: Path):
    at = parse_time("2024-01-01") + HOUR * np.arange(48)
    ones = np.ones(48)
    with History(Home(tmp_path)) as history:
        for venue, price in (("binance", 100.0), ("kraken", 200.0)):
            table = BarTable("BTC/USDT", HOUR, at, price * ones, price * ones, price * ones, price * ones, ones)
            history.write_bars(venue, table, origin="test")
    wanted = {"interval": "1h", "instruments": None, "now": int(at[-1])}
    for venue, price in (("binance", 100.0), ("kraken", 200.0)):
        assert set(open_venue(tmp_path, venue=venue, **wanted).bars["BTC/USDT"].close) == {price}
    with pytest.raises(StoreError, match="name one venue"):
        open_store(tmp_path, interval="1h", instruments=None)
    with pytest.raises(DataMissingError) as refusal:
        open_venue(tmp_path, venue="okx", **wanted)
    assert "--venue okx --interval 1h --instruments BTC/USDT,ETH/USDT --since 2023-11-" in refusal.value.hint
    for interval, since in (("1s", "2024-01-01"), ("1d", "2021-04-07")):  # 100,000 seconds and 1,000 days before 2024-01-02T23:00
        with pytest.raises(DataMissingError) as refusal:
            open_venue(tmp_path, **{**wanted, "venue": "okx", "interval": interval})
        assert refusal.value.hint.endswith(since)


def test_orders_that_came_too_late_are_one_line_an_instrument(tmp_path: Path):
    said: list[str] = []

    def step(session: Session, *late: str) -> None:
        at = HOUR * (len(said) + 1)
        refusals = [Refusal(happened_at=at, known_at=at, instrument=name, rule="stale_order", message="too late") for name in late]
        book = PortfolioState(happened_at=at, known_at=at, cash=Decimal(1), positions=(), equity=Decimal(1), peak_equity=Decimal(1))
        session.watch(None, StepOutcome(1, book, (), (), None, refusals, refusals))  # type: ignore[arg-type]

    with Journal(tmp_path / "journal.sqlite", durable=False, header={"run": "paper"}) as journal:
        session = Session(journal, 0.0, threading.Event(), said.append, None)
        for _ in range(40):
            step(session, "BTC/USDT", "ETH/USDT")
        step(session, "ETH/USDT")
        assert said == []
        step(session)
        assert [text.split("  ")[1] for text in said] == [
            "BTC/USDT stale_order: 40 orders came too late and went nowhere",
            "ETH/USDT stale_order: 41 orders came too late and went nowhere",
        ]
        step(session, "BTC/USDT")
        session.report("paper", 0, is_complete=False)  # the end tells what was not told yet
    assert [text.split("  ")[1] for text in said[2:]] == ["BTC/USDT stale_order: 1 order came too late and went nowhere"]


def test_a_kill_that_came_before_the_refusal_is_kept(tmp_path: Path):
    journal = tmp_path / "runs" / "paper" / "journal.sqlite"

    def killed_and_refused() -> None:
        Journal(journal, durable=True, header={"run": "paper"}).close()
        request_control(journal, "kill", by="me", reason="wait", at=1)
        raise ConfigError("refused")

    with pytest.raises(ConfigError, match="refused"), _room_for(journal, PLAIN):
        killed_and_refused()
    assert control_state(journal).stands
