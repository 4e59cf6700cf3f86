"""What `status` says of a run's book, against the portfolio and the session's own report of the same run."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from cryptoalpha.app import run_book as room
from cryptoalpha.app.cli import main
from cryptoalpha.app.run_book import run_book
from cryptoalpha.app.settings import defaults_with
from cryptoalpha.app.trade import TradeReport
from cryptoalpha.app.trade_session import TradeRequest, run_session
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Fill, Order, Refusal
from cryptoalpha.store.journal_reader import JournalReader

PLAIN = defaults_with(
    (
        "engine.auto_trading=true",
        "data.simulated.assets=3",
        "data.simulated.bars=1500",
        "data.simulated.posts_per_day=1",
        "signals.sources=[momentum_short]",
        "signals.keep_features=false",
        "fusion.method=equal",
        "agent.dead_band=0.0",
    )
)


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TradeReport]:
    """Ten days on paper, ended by its source."""
    home = tmp_path_factory.mktemp("home")
    request = TradeRequest(
        data=None, since="2022-01-20", until="2022-01-30", interval="1h", instruments=None, simulated=True, speed=0.0, feed=None,
        run="paper",
    )  # fmt: skip
    return home, run_session(PLAIN, home, request, say=lambda text: None)


def test_the_book_is_the_portfolio_of_the_session_and_its_lots(traded: tuple[Path, TradeReport]):
    home, report = traded
    with JournalReader(home / "runs" / "paper" / "journal.sqlite") as journal:
        book = run_book(journal)
        rows = list(journal.rows())
    assert book is not None
    assert report.portfolio is not None
    assert report.portfolio.positions
    assert (book.at, book.cash) == (rows[-1][1], report.portfolio.cash)
    assert book.equity == report.portfolio.equity
    assert {each.instrument: each.quantity for each in book.holdings if each.quantity} == dict(report.portfolio.positions)
    assert {each.instrument: each.standing for each in book.holdings} == dict(report.earned)
    profit = Decimal(0)
    for each in book.holdings:
        assert each.standing is not None
        profit += each.standing.realised_by_average - each.standing.fees + each.standing.funding + (each.unrealised or Decimal(0))
    assert abs(profit - (report.portfolio.equity - Decimal(repr(PLAIN.execution.initial_cash)))) < Decimal("1e-6")

    values = [(at, value) for _, at, found in rows for value in found]
    fills = [value for _, value in values if isinstance(value, Fill)]
    assert list(book.fills) == fills[:-6:-1]
    assert len(book.fills) == 5
    day = [value for at, value in values if at > rows[-1][1] - DAY]
    assert book.orders == sum(isinstance(value, Order) for value in day) > 0
    assert book.filled == sum(isinstance(value, Fill) for value in day)
    assert book.refusals == Counter(value.rule for value in day if isinstance(value, Refusal))


def test_of_a_long_journal_only_the_end_is_read(traded: tuple[Path, TradeReport], monkeypatch: pytest.MonkeyPatch):
    home, report = traded
    monkeypatch.setattr(room, "LONGEST_BOOK", 100)
    with JournalReader(home / "runs" / "paper" / "journal.sqlite") as journal:
        book = run_book(journal)
    assert book is not None
    assert report.portfolio is not None
    assert not book.is_whole
    assert all(each.standing is None for each in book.holdings)
    assert book.equity == report.portfolio.equity
    assert any("average costs are left out" in line for line in book.lines("paper"))


def test_the_day_of_live_bars_ends_now_and_may_hold_nothing(traded: tuple[Path, TradeReport]):
    home, _ = traded
    with JournalReader(home / "runs" / "paper" / "journal.sqlite") as journal:
        late = run_book(journal, now=journal.read(len(journal))[0] + 2 * DAY)
    assert late is not None
    assert (late.orders, late.filled, late.refusals) == (0, 0, {})
    assert len(late.fills) == 5


def test_status_says_what_is_held_in_text_and_in_json(
    traded: tuple[Path, TradeReport], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    home, report = traded
    monkeypatch.chdir(home)
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(home))
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert report.portfolio is not None
    assert f"equity {report.portfolio.equity:.2f}, cash {report.portfolio.cash:.2f}, holding" in said
    for name, quantity in report.portfolio.positions:
        assert f"  {name}: {quantity} held for " in said
    assert " orders, " in said
    assert "refusals: " in said
    assert main(["status", "--json"]) == 0
    book = json.loads(capsys.readouterr().out)["result"]["runs"][0]["book"]
    assert book["equity"] == str(report.portfolio.equity)
    assert len(book["last_fills"]) == 5
    assert book["day"]["orders"] > 0
    assert {each["instrument"] for each in book["holdings"]} == set(report.earned)
